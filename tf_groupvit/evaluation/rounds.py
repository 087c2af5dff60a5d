"""Going through the pictures of a dataset: what fails is named, and what is counted goes into a
file to go on from.

The file is written whole or not at all.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from tf_groupvit.errors import GroupViTError, InputError, one_line
from tf_groupvit.files import atomic_write, check_place

VERSION = 1
SAVE_SECONDS = 10.0  # what a killed run loses at most, besides the picture it was at
HOPELESS = 20  # so many failures before the first success: it is not the pictures


class Running(Protocol):
    """What has a score to show while pictures are counted."""

    def headline(self) -> str:
        """The running score, for a progress bar."""


class Tally(Running, Protocol):
    """What is counted: a ``ConfusionMatrix`` or a ``TopK``."""

    def results(self) -> dict[str, Any]:
        """The scores by name."""

    def state(self) -> Any:
        """The counts, as JSON takes them."""

    def restore(self, state: Any) -> None:
        """Take up such counts. Raises ``ValueError`` where they do not fit."""


class ProgressFile:
    """The state of an evaluation on disk: which pictures are counted, and their counts.

    The settings that the scores depend on stand in the file; one that was written under others is
    refused.

    Raises:
        InputError: the file is none of ours, is damaged, or belongs to another evaluation; or
            cannot be written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], tally: Tally) -> None:
        self.path, self.tally = path, tally
        # What JSON makes of them is what will be compared: tuples become lists.
        self.settings = json.loads(json.dumps(dict(settings)))

    def load(self, names: Iterable[str]) -> list[str]:
        """Fill the tally and return the names that are counted already; none where there is no file
        yet.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.path}: the state of an evaluation cannot be read: {error}."
            ) from error
        content = self._checked(text)
        strangers = set(content["done"]) - set(names)
        if strangers:
            raise InputError(
                f"{self.path}: '{min(strangers)}' is counted there and not among the pictures to"
                " evaluate: take the same dataset and no smaller limit, or name another file."
            )
        try:
            self.tally.restore(content["counts"])
        except ValueError as error:
            raise InputError(
                f"{self.path}: the counts are damaged: {error}: delete it to start anew."
            ) from error
        return list(content["done"])

    def save(self, done: Iterable[str]) -> None:
        """Write beside and rename: a run that is killed leaves the last whole state."""
        content = {
            "version": VERSION,
            "settings": self.settings,
            "done": list(done),
            "counts": self.tally.state(),
        }
        atomic_write(self.path, json.dumps(content, ensure_ascii=False).encode())

    def _checked(self, text: str) -> dict[str, Any]:
        try:
            content = json.loads(text)
            settings, done, version = content["settings"], content["done"], content["version"]
            fits = (
                version == VERSION
                and isinstance(settings, dict)
                and all(isinstance(name, str) for name in done)
            )
            fits = fits and len(set(done)) == len(done) and "counts" in content
        except (ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            raise InputError(
                f"{self.path}: expected the state of an evaluation: delete it or name another file."
            )
        other = [
            key
            for key in sorted({*settings, *self.settings})
            if settings.get(key) != self.settings.get(key)
        ]
        if other:
            was, now = (_short(held.get(other[0])) for held in (settings, self.settings))
            raise InputError(
                f"{self.path}: belongs to another evaluation: {other[0]} was {was} and is {now}"
                " now: use the same settings, or name another file."
            )
        return content


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def fingerprint(model: Any) -> str:
    """Sixteen hexadecimal digits over shapes and values of a Keras model's weights, in their order.

    Names are left out, since Keras counts models up in them; so are whole numbers, which are states
    of chance.
    """
    digest = hashlib.blake2b(digest_size=8)
    for weight in model.weights:
        if "float" in str(weight.dtype):
            digest.update(str(tuple(weight.shape)).encode())
            digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()


def go_through(
    names: Sequence[str],
    measure: Callable[[int], None],
    tally: Running,
    *,
    file: ProgressFile | None = None,
    done: Sequence[str] = (),
    progress: bool = False,
    title: str | None = None,
) -> tuple[int, dict[str, str]]:
    """Measure every picture that is not ``done`` yet, and keep the state in ``file``.

    A picture that fails, for whatever reason, is named on standard error, and the rest are
    measured.

    Args:
        names: the pictures; ``measure(index)`` adds one of them to ``tally``.
        progress: show a bar with the running score on standard error.

    Returns:
        (pictures counted, those of earlier runs included; {name: error} of those that failed).

    Raises:
        The error of the first picture, where none could be measured: then it is not the pictures
        that are at fault.
    """
    counted, failures = list(done), dict[str, str]()
    pending = [index for index, name in enumerate(names) if name not in set(done)]
    first: Exception | None = None
    saved = time.monotonic()
    bar = tqdm(
        total=len(names), initial=len(counted), unit="image", desc=title, disable=not progress
    )
    try:
        for index in pending:
            try:
                measure(index)
                counted.append(names[index])
            except (
                Exception
            ) as error:  # whatever it is, it is counted and named, and the others are not lost
                first = first or error
                failures[names[index]] = _reason(error)
                tqdm.write(f"{names[index]}: {failures[names[index]]}", file=sys.stderr)
                if not counted and len(failures) == HOPELESS:
                    break
            bar.update()
            bar.set_postfix_str(tally.headline())
            if file and time.monotonic() - saved > SAVE_SECONDS:
                file.save(counted)
                saved = time.monotonic()
    finally:
        bar.close()
        if file and counted:
            file.save(counted)
    if first and not counted:
        raise first
    return len(counted), failures


def open_file(
    path: Path | None, settings: dict, tally: Tally, names: Sequence[str]
) -> tuple[ProgressFile | None, list[str]]:
    """The state file of an evaluation, and the pictures that it holds; (None, []) without a path."""
    if path is None:
        return None, []
    check_place(path)
    file = ProgressFile(path, settings, tally)
    return file, file.load(names)


def _reason(error: Exception) -> str:
    ours = isinstance(error, GroupViTError) and str(error)
    return str(error) if ours else one_line(f"{type(error).__name__}: {error}").rstrip(": ")
