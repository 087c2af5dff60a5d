"""Export a segmenter as a new version folder that TensorFlow Serving runs."""

import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tf_groupvit.errors import ExportError

if TYPE_CHECKING:
    from tf_groupvit.segmentation.segmenter import Segmenter

MAX_VERSION = 2**63 - 1  # versions are int64
SAVED_MODEL = "savedmodel"  # the format, beside those of export/portable.py
ONLY_DEFAULT, ALL, NONE = WARMUPS = ("default", "all", "none")  # whose requests the warm-up has

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What one request may hold, after a server merged others with it; in the card of an export.

    Attributes:
        max_images: rows of images, and of arrays.
        max_texts: rows of texts, and names of the classes of all images, synonyms included.
        max_pixels: pixels of arrays, all rows together: 400 MB as bytes.
    """

    max_images: int = 256
    max_texts: int = 4096
    max_pixels: int = 2**27

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ExportError(f"{name} is {value!r}: expected a whole number from 1.")


def export_saved_model(
    segmenter: "Segmenter",
    base_path: str | os.PathLike[str],
    version: int | None = None,
    check: bool = False,
    say: Callable[[str], None] | None = None,
    max_images: int = Limits.max_images,
    max_texts: int = Limits.max_texts,
    max_pixels: int = Limits.max_pixels,
    verbose: bool = False,
    warmup: str = ALL,
) -> Path:
    """Write a segmenter as a SavedModel that TensorFlow Serving runs as it is.

    Images, text and masks are handled in the graph: clients send files and get PNGs. The folder is
    written under a name that is no number, and renamed when it is whole, so that a polling server
    never sees half of one.

    An export is a snapshot of the weights as they are now, and of the class embeddings as the
    segmenter has them: after training, call ``segmenter.refresh()`` and export again.

    Args:
        segmenter: its classes, templates, protocol, mode and background become part of the model.
        base_path: the folder that holds the versions of the model; made if it is missing.
        version: a number from 1; the next free one unless given.
        check: ask every signature in a process of its own and compare (``check_export``), before
            the folder is renamed.
        say: called with a line on what is being done; ``logging`` is unless given.
        max_images: rows of images that a request may hold, after a server merged others with it.
            The graph refuses more before it does anything for each.
        max_texts: likewise texts, and the names of all classes of all rows, synonyms included.
        max_pixels: likewise pixels of arrays, all rows together, and numbers of
            ``segmentation_logits``.
        verbose: say the names of the operations that the check has found, too.
        warmup: the signatures of which a server runs a request before it is AVAILABLE. The first
            answer of each takes seconds, at the start or when a client asks: "all"; "default", for
            a server that is asked for masks with the export's own classes alone; or "none".

    Returns:
        ``base_path/<version>``.

    Raises:
        ExportError: a limit below 1, another ``warmup``, more than 256 labels, a model that LiteRT
            runs, a version that is there already, a folder that cannot be written, or a check that
            fails.

    Warns with UserWarning where the segmenter has no tokenizer: ``segment_open`` and
    ``encode_text`` are left out.
    """
    import keras

    from tf_groupvit.export.signatures import check_servable
    from tf_groupvit.export.version_folder import write_version

    if keras.backend.backend() != "tensorflow":
        raise ExportError(
            f"Keras runs on {keras.backend.backend()}: export with KERAS_BACKEND=tensorflow."
        )
    if warmup not in WARMUPS:
        raise ExportError(f"warmup is {warmup!r}: expected one of {', '.join(WARMUPS)}.")
    limits = Limits(max_images, max_texts, max_pixels)
    check_servable(segmenter)
    base = Path(base_path)
    check_place(base, version)
    if segmenter.tokenizer is None:
        left_out = "segment_open and encode_text are left out of the export."
        warnings.warn(f"The segmenter has no tokenizer: {left_out}", UserWarning, stacklevel=2)
    say, began = say or _log.info, time.monotonic()
    try:
        base.mkdir(parents=True, exist_ok=True)
        unfinished = base / f"exporting-{os.getpid()}"
        # An export that was killed may have left one: numbers of processes repeat.
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            write_version(segmenter, unfinished, say, limits, warmup)
            if check:
                _check(segmenter, unfinished, say, verbose)
            path = _publish(unfinished, base, version)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise ExportError(f"{base} cannot be written: {error.strerror or error}.") from error
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    say(f"Wrote {path}: {size / 1e6:,.1f} MB in {time.monotonic() - began:.0f} s")
    return path


def _check(segmenter: "Segmenter", folder: Path, say: Callable[[str], None], verbose: bool) -> None:
    from tf_groupvit.export.check import check_export

    say("Checking: asking every signature in a process without this package ...")
    report = check_export(folder, segmenter)
    say(str(report))
    if verbose:
        say(f"Operations: {', '.join(report.operations)}")


def versions_in(base: Path) -> dict[int, Path]:
    """The versions at a base path, by number.

    They are folders whose whole name is a number, as the server reads them.
    """
    if not base.is_dir():
        return {}
    found = {
        int(child.name): child
        for child in sorted(base.iterdir())
        if child.name.isascii() and child.name.isdigit()
    }
    return {number: child for number, child in found.items() if number <= MAX_VERSION}


def check_place(base: Path, version: int | None) -> None:
    """Refuse a version that cannot be written at a base path, before anything is loaded.

    Raises:
        ExportError: the base path is a file or a version, or the version is none or is there.
    """
    if base.exists() and not base.is_dir():
        raise ExportError(f"{base} is a file: give the folder that holds the versions of a model.")
    if (base / "saved_model.pb").exists():
        raise ExportError(f"{base} is a version itself: give its parent, {base.absolute().parent}.")
    if version is None:
        return
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= MAX_VERSION:
        raise ExportError(f"The version is {version!r}: expected a whole number from 1.")
    if version in versions_in(base):
        raise ExportError(
            f"Version {version} is at {base} already: give another, or none for the next."
        )


def _publish(unfinished: Path, base: Path, version: int | None) -> Path:
    """Rename a whole folder to its number.

    Another export may take a number meanwhile; then the next one is tried.
    """
    while True:
        number = max(versions_in(base), default=0) + 1 if version is None else version
        path = base / str(number)
        try:
            return unfinished.rename(path)
        except OSError:
            if not path.exists():
                raise
            if version is not None:
                raise ExportError(
                    f"Version {version} has appeared at {base} meanwhile: give another."
                ) from None
