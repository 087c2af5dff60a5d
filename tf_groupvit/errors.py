"""The errors that a user can meet, as one tree.

    GroupViTError
    ├── InputError          a value that the caller gave: class names, arguments, shapes
    │   └── ImageError      an image that cannot be read or used
    ├── ConfigError         a config.json, or an argument of a config class
    ├── CheckpointError     a file of weights, or the folder around it
    ├── HubError            a hub id that cannot be resolved or fetched
    ├── DatasetError        a dataset on disk
    ├── TrainingError       a training that cannot go on
    ├── ExportError         a SavedModel that cannot be written or does not check out
    ├── ServerError         the embedded server cannot start or load a model
    └── RequestError        a server's refusal, as the client sees it

Every message is one line: what was expected, what was given, what to do.
"""

import re
from collections.abc import Iterable
from typing import Any


class GroupViTError(Exception):
    """Base of every error that this package raises on purpose."""

    # Keras appends the arguments of a call to whatever is raised in it, unless it finds this mark:
    # our messages say what was given, and stay one line.
    _keras_call_info_injected = True


class InputError(GroupViTError, ValueError):
    """A value that the caller gave is not usable."""


class ImageError(InputError):
    """An image cannot be read, decoded or used.

    The client sets ``index``, the image's place in the list that it was given, and, on the error
    that it raises, ``results``: what ``errors="return"`` would have given, a result or an error for
    each.
    """

    index: int | None = None
    results: list[Any] | None = None


class ConfigError(GroupViTError, ValueError):
    """A configuration is impossible, broken or of another model."""


class CheckpointError(GroupViTError):
    """A checkpoint file or folder is missing, damaged, unsafe or does not fit the model."""


class HubError(GroupViTError):
    """A hub id cannot be resolved: unknown, forbidden, or no network."""


class DatasetError(GroupViTError):
    """A dataset on disk is incomplete or inconsistent."""


class TrainingError(GroupViTError):
    """A training cannot go on: its loss is not a number, or its folder holds something else."""


class ExportError(GroupViTError):
    """A SavedModel cannot be written, or does not answer as it should."""


class ServerError(GroupViTError):
    """The embedded server cannot start, or a model cannot be loaded."""


class RequestError(GroupViTError):
    """A server refused a request. ``code`` is the canonical status name, e.g. ``"NOT_FOUND"``.

    Where several images were asked about, ``results`` holds what earlier requests gave: a result or
    an ``ImageError`` for each image, None where there was no answer yet.
    """

    results: list[Any] | None = None

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``did you mean 'nearest'?``, for a message about a name that is not among ``known``."""
    import difflib

    (nearest,) = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0)
    return f"did you mean {nearest!r}?"


def one_line(words: object, most: int = 200) -> str:
    """Words from elsewhere, or an error's, as one short line for a message.

    Control characters are escaped, and at most ``most`` letters are shown.

    Of an error without words it is the name of its type; an error's full stop is left off.
    """
    text = " ".join(str(words)[: 10 * most].split())
    if isinstance(words, BaseException):
        text = text.rstrip(".") or type(words).__name__
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: most + 1]
    )
    return shown if len(shown) <= most else f"{shown[:most]}..."


_ASSERTED = re.compile(r"(?s).*?assertion failed: \[((?:(?!\] \[).)*?)\]\s*(?:\[\[.*)?")
LONGEST_ASSERTION = 10_000  # letters; no words of ours are as long


def asserted(words: str) -> str:
    """What a graph says of a failed check, without TensorFlow's words around it.

    Other texts stay as they are.
    """
    found = _ASSERTED.fullmatch(words) if len(words) < LONGEST_ASSERTION else None
    return re.sub(r"\\(.)", r"\1", found[1]) if found else words
