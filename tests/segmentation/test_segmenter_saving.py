"""A segmenter saved with its classes and settings, and loaded: what comes back, and what is
refused.
"""

import copy
import json
import multiprocessing
import pickle
import shutil
import sys

import numpy as np
import pytest
from pictures import noise
from travel import by_cloudpickle, by_dask, by_pickle, by_ray

from tf_groupvit.errors import GroupViTError, InputError
from tf_groupvit.models import base_model
from tf_groupvit.runtimes import RUNTIMES
from tf_groupvit.segmentation.pipeline import untraced
from tf_groupvit.segmentation.segmenter import Segmenter


@pytest.mark.slow
def test_a_saved_segmenter_comes_back_with_its_classes_and_settings(make, tmp_path):
    saved = make(background=0.3, mode="window", protocol="paper")
    saved.save_pretrained(tmp_path / "saved")
    found = Segmenter.from_pretrained(tmp_path / "saved")
    assert found.class_names == saved.class_names
    assert found.settings == saved.settings
    pixels = noise(40, 70)
    assert (found(pixels).labels == saved(pixels).labels).all()
    assert found.with_classes("cat").class_names == ["background", "cat"]
    whole = Segmenter.from_pretrained(tmp_path / "saved", mode="whole", background=None)
    assert (whole.settings.mode, whole.settings.background) == ("whole", None)
    other = Segmenter.from_pretrained(tmp_path / "saved", classes=["cat"])
    assert other.settings.mode == "whole"  # classes of one's own: settings of one's own


def test_a_saved_segmenter_without_tokenizer_comes_back(segmenter, tmp_path):
    Segmenter(segmenter.model, None, segmenter.processor, segmenter.classes).save_pretrained(
        tmp_path / "saved"
    )
    found = Segmenter.from_pretrained(tmp_path / "saved")
    assert found.tokenizer is None
    assert found.class_names == segmenter.class_names


def test_a_folder_without_classes_asks_for_them(folder):
    with pytest.raises(InputError, match="Class names are missing"):
        Segmenter.from_pretrained(folder)


@pytest.fixture
def saved(folder, segmenter, tmp_path):
    """A folder as save_pretrained leaves it."""
    shutil.copytree(folder, tmp_path / "saved")
    segmenter.classes.save(tmp_path / "saved" / "classes.npz")
    settings = {"classes": "classes.npz", "protocol": "paper", "mode": "whole"}
    settings |= {"background": None, "size": None, "normalize": None}
    (tmp_path / "saved" / "segmenter.json").write_text(json.dumps(settings))
    return tmp_path / "saved"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"null",
        b'{"classes": 3}',
        b'{"classes": "classes.npz"}',
        (
            b'{"classes": "../../other.npz", "protocol": "paper", "mode": "whole", "background":'
            b' null, "size": null, "normalize": null}'
        ),
        (
            b'{"classes": "classes.npz", "protocol": "paper", "mode": "whole", "background": null,'
            b' "size": null, "normalize": null, "crop": 3}'
        ),
        (
            b'{"classes": "classes.npz", "protocol": 3, "mode": [], "background": null, "size":'
            b' null, "normalize": null}'
        ),
    ],
)
def test_damaged_settings_are_refused_in_one_line(saved, content):
    (saved / "segmenter.json").write_bytes(content)
    with pytest.raises(InputError) as caught:
        Segmenter.from_pretrained(saved)
    assert "\n" not in str(caught.value)


def test_templates_do_not_go_with_the_folders_classes(saved):
    assert Segmenter.from_pretrained(saved).class_names[0] == "dog"
    with pytest.raises(InputError, match="templates= needs classes="):
        Segmenter.from_pretrained(saved, templates="{}")


def test_a_folder_without_weights_and_a_file_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    with pytest.raises(GroupViTError, match="bare"):
        Segmenter.from_pretrained(tmp_path / "bare", ["dog"])
    with pytest.raises(InputError, match="is a file"):
        Segmenter.from_pretrained(folder / "config.json", ["dog"])


# Pickled, copied, and sent to other processes

OTHER_WAYS = (by_cloudpickle, by_ray, by_dask, copy.deepcopy)


@pytest.mark.parametrize(
    "again", [by_pickle, *(pytest.param(way, marks=pytest.mark.slow) for way in OTHER_WAYS)]
)
def test_a_used_segmenter_is_pickled_and_copied_and_answers_alike(make, again):
    used = make(["dog|puppy", "sky"], background=0.3)
    image = noise(40, 70)
    result = used(image)
    other = again(used)
    assert other.model is not used.model and other.settings == used.settings
    assert (other.class_names, other.runtime, other._words) == (
        used.class_names,
        used.runtime,
        used._words,
    )
    with untraced():
        answer = other(image)
    for mine, theirs in ((answer, result), (again(result), result)):
        np.testing.assert_array_equal(mine.labels, theirs.labels)
        np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-5)
        np.testing.assert_allclose(mine.group_scores, theirs.group_scores, atol=1e-5)
        np.testing.assert_array_equal(mine.final_group, theirs.final_group)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_segmenter_of_each_runtime_travels_through_ray(make, runtime):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    used = make(runtime=runtime, refine="guided")
    image = noise(40, 70)
    result, probabilities = used(image), used.classify(image)
    used.predict(image[None], verbose=0)
    other = by_ray(used)
    assert (other.runtime, other.settings) == (runtime, used.settings)
    np.testing.assert_array_equal(other(image).labels, result.labels)
    np.testing.assert_allclose(other.classify(image), probabilities, atol=1e-5)


def test_a_function_that_holds_a_segmenter_travels(segmenter):
    cloudpickle = pytest.importorskip("cloudpickle")
    image = noise(40, 70)
    ask = cloudpickle.loads(cloudpickle.dumps(lambda: segmenter(image).labels))
    with untraced():
        np.testing.assert_array_equal(ask(), segmenter(image).labels)


def test_a_segmentation_of_windows_takes_its_groups_along(make):
    result = make(mode="window")(noise(40, 70))
    again = by_pickle(result)
    np.testing.assert_array_equal(again.final_group, result.final_group)
    np.testing.assert_array_equal(again.group_embeds, result.group_embeds)


def _labels(segmenter, image):
    return segmenter(image).labels


def _failure(call):
    """What a call raises, as text."""
    try:
        return str(call())
    except InputError as error:
        return f"InputError: {error}"


@pytest.mark.slow
def test_a_process_that_is_spawned_answers_alike(segmenter):
    image = noise(40, 70)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(_labels, (segmenter, image))
    np.testing.assert_array_equal(found, segmenter(image).labels)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_is_told_to_spawn_and_does_not_hang(segmenter):
    """Whether the segmenter was there before, or is sent to it."""
    image = noise(40, 70)
    held = [
        lambda: segmenter(image),
        lambda: segmenter.classify(image),
        lambda: segmenter.predict(image[None]),
    ]
    sent = pickle.dumps(segmenter)
    model, ids = segmenter.model, np.full((1, 4), 1, "int32")
    held += [
        lambda: model.get_text_features(ids),
        lambda: model.get_image_features(np.zeros((1, 3, 8, 8), "float32")),
    ]
    asks = [*held, lambda: pickle.loads(sent)(image), lambda: segmenter.with_classes(["dog"])]
    receiver, sender = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("fork")
    child = context.Process(
        target=lambda: sender.send([_failure(ask) for ask in asks]), daemon=True
    )
    child.start()
    try:
        assert receiver.poll(60), "it hangs"
        for said in receiver.recv():
            assert said.startswith("InputError: This process was forked") and "spawn" in said
    finally:
        child.kill()
        child.join()


def test_a_process_that_was_forked_before_any_model_may_load_one(monkeypatch):
    monkeypatch.setattr(base_model, "_first_process", [])
    assert not base_model.is_forked()
    base_model.check_process()
    assert base_model._first_process and not base_model.is_forked()
