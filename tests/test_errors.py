"""Errors travel to other processes whole: their class, their words and what they hold."""

import pytest
from travel import WAYS

from tf_groupvit import errors

CLASSES = [
    found
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, errors.GroupViTError)
]


def example(kind):
    if kind is errors.RequestError:
        error = kind("NOT_FOUND", "there is no model 'a': name another.")
        error.results = [1, None]
        return error
    error = kind("a.jpg: expected an image: choose another.")
    if kind is errors.ImageError:
        error.index, error.results = 3, [1, error.__class__("b")]
    return error


@pytest.mark.parametrize("again", WAYS)
@pytest.mark.parametrize("kind", CLASSES)
def test_errors_travel_whole(kind, again):
    error = example(kind)
    other = again(error)
    assert type(other) is kind
    assert (str(other), other.args) == (str(error), error.args)
    assert repr(vars(other)) == repr(vars(error))


@pytest.mark.parametrize("kind", CLASSES)
def test_what_ray_makes_of_an_error_is_caught_as_ours(kind):
    """Ray raises a class of its own, made on the fly, which is also the error's class."""
    ray_task_error = pytest.importorskip("ray.exceptions").RayTaskError
    error = example(kind)
    raised = ray_task_error("segment", f"Traceback\n{error}", error).as_instanceof_cause()
    assert isinstance(raised, kind) and isinstance(raised, ray_task_error)
    assert (type(raised.cause), str(raised.cause)) == (kind, str(error))
