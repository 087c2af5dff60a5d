"""Counting the pictures of a dataset: failures are named, and a state file lets a run go on."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy.typing as npt
from tqdm import tqdm

from tf_groupvit.errors import GroupViTError, InputError, one_line
from tf_groupvit.files import atomic_write, check_place

VERSION = 1
SAVE_SECONDS = 10.0  # what a killed run loses at most, besides the batch under way
HOPELESS = 20  # failures before the first success, after which pictures cannot be the cause

Answer = TypeVar("Answer")


class Running(Protocol):
    """Something that has a score to show while pictures are counted."""

    def headline(self) -> str:
        """The running score, for a progress bar."""


class Tally(Running, Protocol):
    """What is counted: a ``ConfusionMatrix`` or a ``TopK``."""

    def results(self) -> dict[str, Any]:
        """The scores by name."""

    def state(self) -> Any:
        """The counts, as JSON takes them."""

    def restore(self, state: npt.ArrayLike) -> None:
        """Continue from such counts. Raises ``ValueError`` where they do not match."""


class ProgressFile:
    """The state of an evaluation on disk: which pictures are counted, and their counts.

    The file holds the settings that the scores depend on; a file of other settings is refused.

    Raises:
        InputError: the file is of another kind, is damaged, belongs to another evaluation, or
            cannot be written.
    """

    def __init__(self, path: Path, settings: Mapping[str, object], tally: Tally) -> None:
        self.path, self.tally = path, tally
        # They are compared as JSON gives them back: tuples become lists.
        self.settings = json.loads(json.dumps(dict(settings)))

    def load(self, names: Iterable[str]) -> list[str]:
        """Fill the tally and return the names that are counted already, none without a file."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path}: the state cannot be read: {error}.") from error
        content = self._checked(text)
        unknown = set(content["done"]) - set(names)
        if unknown:
            raise InputError(
                f"{self.path}: '{min(unknown)}' is counted there and not among the pictures to"
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
        """Write the state; a run that is killed leaves the last whole one."""
        content = {"version": VERSION, "settings": self.settings, "done": list(done)}
        content["counts"] = self.tally.state()
        atomic_write(self.path, json.dumps(content, ensure_ascii=False))

    def _checked(self, text: str) -> dict[str, Any]:
        try:
            content = json.loads(text)
            settings, done = content["settings"], content["done"]
            fits = content["version"] == VERSION and isinstance(settings, dict)
            fits = fits and all(isinstance(name, str) for name in done)
            fits = fits and len(set(done)) == len(done) and "counts" in content
        except (ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            raise InputError(
                f"{self.path}: expected the state of an evaluation: delete it or name another file."
            )
        difference = first_difference(settings, self.settings)
        if difference is not None:
            raise InputError(
                f"{self.path}: belongs to another evaluation: {difference}: use the same settings,"
                " or name another file."
            )
        return content


def first_difference(before: Mapping[str, object], now: Mapping[str, object]) -> str | None:
    """The first setting by name that differs, ``x was 1 and is 2 now``; None where none does."""
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            return f"{key} was {_short(before.get(key))} and is {_short(now.get(key))} now"
    return None


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def count_pictures(
    names: Sequence[str],
    answers: Callable[[list[int]], Iterator[tuple[int, Answer | Exception]]],
    count: Callable[[int, Answer], None],
    tally: Running,
    *,
    file: ProgressFile | None = None,
    done: Sequence[str] = (),
    progress: bool = False,
    title: str | None = None,
) -> tuple[int, dict[str, str]]:
    """Count every picture that is not ``done`` yet, and keep the state in ``file``.

    A picture that fails, for whatever reason, is named on standard error; the others are counted.

    Args:
        names: the pictures.
        answers: from the indices of pictures to each index with the answer to it, or its error
            (``in_batches``).
        count: adds an index and its answer to ``tally``.
        progress: show a bar with the running score on standard error.

    Returns:
        (pictures counted, those of earlier runs included; {name: error} of those that failed).

    Raises:
        The error of the first picture, where none could be counted: then pictures are not the
        cause.
    """
    counted, failures, known = list(done), dict[str, str](), set(done)
    pending = [index for index, name in enumerate(names) if name not in known]
    first: Exception | None = None
    saved = time.monotonic()
    bar = tqdm(
        total=len(names), initial=len(counted), unit="image", desc=title, disable=not progress
    )
    try:
        for index, answer in answers(pending):
            try:
                if isinstance(answer, Exception):
                    raise answer
                count(index, answer)
                counted.append(names[index])
            except Exception as error:  # whatever it is, the other pictures are not lost
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
    path: str | PathLike[str] | None,
    settings: Mapping[str, object],
    tally: Tally,
    names: Sequence[str],
) -> tuple[ProgressFile | None, list[str]]:
    """The state file of an evaluation, and the pictures that it has; (None, []) without a path."""
    if path is None:
        return None, []
    check_place(Path(path))
    file = ProgressFile(Path(path), settings, tally)
    return file, file.load(names)


def _reason(error: Exception) -> str:
    ours = isinstance(error, GroupViTError) and str(error)
    return str(error) if ours else one_line(f"{type(error).__name__}: {error}").rstrip(": ")
