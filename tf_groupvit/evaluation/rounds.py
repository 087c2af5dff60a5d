"""Pictures by name and a way to measure one in; how many were counted, and which failed, out."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from tf_groupvit.evaluation.progress_file import ProgressFile, Running, Tally
from tf_groupvit.segmentation.writing import check_place

SAVE_SECONDS = 10.0  # what a killed run loses at most, besides the picture it was at
HOPELESS = 20  # so many failures before the first success: it is not the pictures


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

    A picture that fails, for whatever reason, is named on standard error, and the rest are measured.

    Args:
        names: the pictures; ``measure(index)`` adds one of them to ``tally``.
        progress: show a bar with the running score on standard error.

    Returns:
        (pictures counted, those of earlier runs included; {name: error} of those that failed).

    Raises:
        The error of the first picture, where none could be measured: then it is not the pictures that are at fault.
    """
    counted, failures = list(done), dict[str, str]()
    pending = [index for index, name in enumerate(names) if name not in set(done)]
    first: Exception | None = None
    saved = time.monotonic()
    bar = tqdm(total=len(names), initial=len(counted), unit="image", desc=title, disable=not progress)
    try:
        for index in pending:
            try:
                measure(index)
                counted.append(names[index])
            except Exception as error:  # whatever it is, it is counted and named, and the others are not lost
                first = first or error
                failures[names[index]] = _one_line(error)
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


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    from_us = type(error).__module__.startswith("tf_groupvit")
    return text if from_us and text else f"{type(error).__name__}: {text}".rstrip(": ")
