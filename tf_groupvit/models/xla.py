"""Whether what is built or traced now is for XLA, which has other operations than TensorFlow, and fuses more."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_asked = ContextVar("for_xla", default=False)


@contextmanager
def for_xla(asked: bool = True) -> Iterator[None]:
    """Inside, ``is_for_xla()`` answers ``asked``."""
    token = _asked.set(asked)
    try:
        yield
    finally:
        _asked.reset(token)


def is_for_xla() -> bool:
    return _asked.get()
