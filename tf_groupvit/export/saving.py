"""A segmenter and a base path in, the path of a whole new version folder out, or nothing changed."""

import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tf_groupvit.errors import ExportError

MOST = 2**63 - 1  # versions are int64

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What one request may hold, after a server merged others with it; in the card of an export."""

    max_images: int = 256  # rows of images, and of arrays
    max_texts: int = (
        4096  # rows of texts, and the names of classes, synonyms included, of all images together
    )
    max_pixels: int = 2**27  # of arrays of pixels, all rows together: 400 MB as bytes

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ExportError(f"{name} is {value!r}: expected a whole number from 1.")


def export_saved_model(
    segmenter: Any,
    base_path: str | os.PathLike[str],
    version: int | None = None,
    check: bool = False,
    say: Callable[[str], None] | None = None,
    max_images: int = Limits.max_images,
    max_texts: int = Limits.max_texts,
    max_pixels: int = Limits.max_pixels,
    verbose: bool = False,
) -> Path:
    """Write a segmenter as a SavedModel that TensorFlow Serving runs as it is; returns
    ``base_path/<version>/``.

    Images, text and masks are handled in the graph: clients send files and get PNGs. The folder is
    written beside, under a name that is no number, and renamed when it is whole, so that a polling
    server never sees half of one.

    An export is a snapshot of the weights as they are now, and of the class embeddings as the
    segmenter has them: after training, call ``segmenter.refresh()`` and export again.

    Args:
        segmenter: its classes, templates, protocol, mode and background become part of the model.
        version: a number from 1; the next free one unless given.
        check: replay the warm-up in a process of its own and compare (``check_export``), before the
            folder is renamed.
        say: is told what is being done; ``logging`` is unless given.
        max_images: rows of images that a request may hold, after a server merged others with it.
            The graph refuses more before it does anything for each.
        max_texts: likewise texts, and the names of all classes of all rows, synonyms included.
        max_pixels: likewise pixels of arrays, all rows together, and numbers of
            ``segmentation_logits``.
        verbose: tell ``say`` the names of the operations that the check has found, too.

    Raises:
        ExportError: a limit below 1, more than 256 labels, a model that LiteRT runs, a version that
            is there already, a folder that cannot be written, or a check that fails.

    Warns with UserWarning where the segmenter has no tokenizer: ``segment_open`` and
    ``encode_text`` are left out.
    """
    import keras

    from tf_groupvit.export.signatures import check_servable

    if keras.backend.backend() != "tensorflow":
        raise ExportError(
            f"Keras runs on {keras.backend.backend()}: export with KERAS_BACKEND=tensorflow."
        )
    limits = Limits(max_images, max_texts, max_pixels)
    check_servable(segmenter)
    base = Path(base_path)
    check_place(base, version)
    say, began = say or _log.info, time.monotonic()
    try:
        base.mkdir(parents=True, exist_ok=True)
        staging = base / f"exporting-{os.getpid()}"
        try:
            _write(segmenter, staging, say, limits)
            if check:
                _check(segmenter, staging, say, verbose)
            path = _publish(staging, base, version)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise ExportError(f"{base} cannot be written: {error.strerror or error}.") from error
    say(f"Wrote {path}: {_size(path)} in {time.monotonic() - began:.0f} s")
    return path


def _write(segmenter: Any, folder: Path, say: Callable[[str], None], limits: Limits) -> None:
    import tensorflow as tf

    from tf_groupvit.export.extras import requests_of, write_extras
    from tf_groupvit.export.signatures import DEFAULT, ITS_NAME, Signatures

    _warn_without_tokenizer(segmenter)
    say("Preparing the towers ...")
    signatures = Signatures(segmenter, limits)
    functions = signatures.traced(say)
    functions = {DEFAULT: functions.pop(ITS_NAME), **functions}
    say("Writing the graph and its weights ...")
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        tf.saved_model.save(signatures, str(folder), signatures=functions, options=options)
    except tf.errors.OpError as error:  # a full disk, for one
        raise ExportError(
            f"{folder} cannot be written: {error.message.splitlines()[0]}."
        ) from error
    _rewrite(folder / "saved_model.pb")
    functions = {DEFAULT: functions[DEFAULT], ITS_NAME: functions[DEFAULT], **functions}
    write_extras(
        folder, segmenter, functions, list(requests_of(segmenter, list(functions))), limits
    )
    say(f"Signatures: {', '.join(functions)}")


def _rewrite(file: Path) -> None:
    """Make the graph slim, and give the default signature its own name, for the same tensors.

    TensorFlow would write a call of its own for each name, and a server take its seconds to
    optimise both.
    """
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    from tf_groupvit.export.signatures import DEFAULT, ITS_NAME
    from tf_groupvit.export.slimming import slim

    saved = SavedModel.FromString(file.read_bytes())
    for meta_graph in saved.meta_graphs:
        slim(meta_graph)
        meta_graph.signature_def[ITS_NAME].CopyFrom(meta_graph.signature_def[DEFAULT])
    file.write_bytes(saved.SerializeToString(deterministic=True))


def _warn_without_tokenizer(segmenter: Any) -> None:
    import warnings

    if segmenter.tokenizer is None:
        warnings.warn(
            "The segmenter has no tokenizer: segment_open and encode_text are left out of the"
            " export.",
            UserWarning,
            stacklevel=4,
        )


def versions_in(base: Path) -> dict[int, Path]:
    """The versions at a base path, by number: folders whose whole name is one, as the server reads
    them.
    """
    if not base.is_dir():
        return {}
    found = {
        int(child.name): child
        for child in sorted(base.iterdir())
        if child.name.isascii() and child.name.isdigit()
    }
    return {number: child for number, child in found.items() if number <= MOST}


def _size(folder: Path) -> str:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return f"{size / 1e6:,.1f} MB"


def _check(segmenter: Any, folder: Path, say: Callable[[str], None], verbose: bool) -> None:
    from tf_groupvit.export.check import check_export

    say("Checking: replaying the warm-up in a process without this package ...")
    report = check_export(folder, segmenter)
    say(str(report))
    if verbose:
        say(f"Operations: {', '.join(report.operations)}")


def check_place(base: Path, version: int | None) -> None:
    """Refuse a version that cannot be written at a base path, before anything is loaded."""
    if base.exists() and not base.is_dir():
        raise ExportError(f"{base} is a file: give the folder that holds the versions of a model.")
    if (base / "saved_model.pb").exists():
        raise ExportError(f"{base} is a version itself: give its parent, {base.absolute().parent}.")
    if version is None:
        return
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= MOST:
        raise ExportError(f"The version is {version!r}: expected a whole number from 1.")
    if version in versions_in(base):
        raise ExportError(
            f"Version {version} is at {base} already: give another, or none for the next."
        )


def _publish(staging: Path, base: Path, version: int | None) -> Path:
    """Rename a whole folder to its number. Another export may take a number meanwhile; then the
    next one is tried.
    """
    while True:
        number = max(versions_in(base), default=0) + 1 if version is None else version
        path = base / str(number)
        try:
            return staging.rename(path)
        except OSError:
            if not path.exists():
                raise
            if version is not None:
                raise ExportError(
                    f"Version {version} has appeared at {base} meanwhile: give another."
                ) from None
