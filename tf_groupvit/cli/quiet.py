"""TensorFlow, not imported yet, in; imported, or at work, without its C++ libraries' words on standard error."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LEVEL = "TF_CPP_MIN_LOG_LEVEL"


def import_tensorflow() -> None:
    """Import TensorFlow for a command, whose standard error is for its own words.

    Whoever sets TF_CPP_MIN_LOG_LEVEL gets what TensorFlow says at that level, and all of it while it is imported,
    when the level does not count yet. An import that fails says everything.
    """
    if "tensorflow" in sys.modules or LEVEL in os.environ:
        return
    os.environ[LEVEL] = "3"
    with held_back():
        import keras
        import tensorflow  # noqa: F401

        keras.ops.zeros(1)  # the search for devices has its words too


@contextmanager
def held_back() -> Iterator[None]:
    """Keep what is written to file descriptor 2, by C++ too, and show it only if something is raised."""
    with suppress(OSError, ValueError, AttributeError):  # a process may have no standard error
        sys.stderr.flush()
    try:
        before = os.dup(2)
    except OSError:
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:  # not an interrupt, which is no reason to read what TensorFlow had to say
            os.dup2(before, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)
