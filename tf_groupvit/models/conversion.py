"""Converting a checkpoint of any format to config.json and model.safetensors."""

import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_groupvit.checkpoints.description import (
    PROCESSOR,
    TOKENIZERS,
    config_of,
    parameters_of,
    tokenizer_files,
)
from tf_groupvit.checkpoints.matching import Match, match
from tf_groupvit.checkpoints.reading import Checkpoint, read_checkpoint
from tf_groupvit.checkpoints.safetensors_file import write_checkpoint
from tf_groupvit.config import NO_CONFIG, GroupViTConfig, GroupViTTextConfig, GroupViTVisionConfig
from tf_groupvit.errors import CheckpointError, InputError
from tf_groupvit.hub import COMPANIONS, resolve

if TYPE_CHECKING:
    from tf_groupvit.models.pretrained import AnyConfig

BESIDE_TOKENIZER = tuple(file for file in COMPANIONS if file not in ("config.json", PROCESSOR))


@dataclass(frozen=True)
class Conversion:
    """What was read, what was written, and remarks for the user, one line each."""

    source: Path
    format: str
    tensors: int
    parameters: int
    folder: Path
    files: tuple[str, ...]
    notes: tuple[str, ...]


def convert(
    source: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    tokenizer: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Write ``source``, a folder, a file or a hub id, to ``folder`` as transformers' PyTorch class
    loads it.

    The weights must fit the config, and keep the precision that they have in the file. Tokenizer
    and preprocessor files go along where the source has them, or ``tokenizer``, another folder,
    which comes first. A new folder appears when it is complete; in one that holds something,
    ``overwrite`` has the files of a checkpoint replaced, the config last, and the rest left.

    Raises:
        InputError: ``folder`` is the source, or a file, or holds something and ``overwrite`` is not
            set; ``tokenizer`` holds no tokenizer.
        CheckpointError, ConfigError, HubError: as ``from_pretrained``; CheckpointError too where
            writing fails.
    """
    if not os.fspath(folder).strip():
        raise InputError("The name of the folder to write into is empty: give one.")
    target = Path(folder).expanduser()
    _check_target(Path(str(source)).expanduser(), target, overwrite)  # before anything is fetched
    path = resolve(source)
    _check_target(path, target, overwrite)
    extras = _extras(path, resolve(tokenizer, weights=False) if tokenizer is not None else None)
    checkpoint = read_checkpoint(path)
    config = config_of(path)
    if config is None:
        warnings.warn(NO_CONFIG.format(path.name), stacklevel=2)
        config = GroupViTConfig()
    matched = _matched(config, checkpoint)
    try:
        files = _write(target, matched, extras, config)
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written: {error.strerror or error}.") from error
    parameters = parameters_of(matched.shapes)["total"]
    origin, notes = checkpoint.source, checkpoint.notes
    return Conversion(
        origin, checkpoint.format, len(checkpoint.tensors), parameters, target, files, notes
    )


def _check_target(path: Path, target: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise InputError(f"'{target}' is no folder: name one to write the checkpoint into.")
    beside = path if path.is_dir() else path.parent
    if path.exists() and target.resolve() == beside.resolve():
        raise InputError(
            f"'{target}' holds the source itself: name another folder, nothing was written."
        )
    if not overwrite and target.exists() and any(target.iterdir()):
        raise InputError(
            f"'{target}' is there already and not empty: name another folder, or give --overwrite."
        )


def _extras(path: Path, tokenizer: Path | None) -> dict[str, Path]:
    """Name -> file, of the tokenizer and of the image processor."""
    own = path if path.is_dir() else path.parent
    if tokenizer is not None and not tokenizer_files(tokenizer):
        wanted = ", or ".join(" + ".join(files) for files in TOKENIZERS)
        raise InputError(f"'{tokenizer}' holds no tokenizer: expected {wanted}.")
    chosen = tokenizer or own
    extras: dict[str, Path] = {}
    if tokenizer_files(chosen):
        _read_tokenizer(chosen)
        extras = {name: chosen / name for name in BESIDE_TOKENIZER if (chosen / name).is_file()}
    processors = [folder / PROCESSOR for folder in (own, chosen) if (folder / PROCESSOR).is_file()]
    return {**extras, **({PROCESSOR: processors[0]} if processors else {})}


def _read_tokenizer(folder: Path) -> None:
    """A damaged tokenizer is told now, and not when the copy is used."""
    from tf_groupvit.preprocessing.tokenizer_files import read_folder

    read_folder(folder)


def _matched(config: "AnyConfig", checkpoint: Checkpoint) -> Match:
    """The checkpoint's tensors, fitted to the model that the config describes."""
    from tf_groupvit.models.groupvit import TFGroupViTModel
    from tf_groupvit.models.text import TFGroupViTTextModel
    from tf_groupvit.models.vision import TFGroupViTVisionModel
    from tf_groupvit.models.weights import expected_shapes, first_values, starting_from

    classes: Mapping[type, Any] = {
        GroupViTConfig: TFGroupViTModel,
        GroupViTTextConfig: TFGroupViTTextModel,
        GroupViTVisionConfig: TFGroupViTVisionModel,
    }
    model_class = classes[type(config)]
    zeros = first_values(checkpoint.tensors, checkpoint.source, with_values=False)
    with starting_from(zeros):
        shapes = expected_shapes(model_class(config))
    return match(checkpoint.tensors, shapes, model_class.may_ignore, checkpoint.source)


def _write(
    target: Path, matched: Match, extras: Mapping[str, Path], config: "AnyConfig"
) -> tuple[str, ...]:
    """Everything into a folder beside the target, which then takes its place; the names that were
    written.
    """
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name[:100]}.{os.getpid()}.tmp")
    try:
        beside.mkdir()
        write_checkpoint(beside, matched.sound())
        for name, file in extras.items():
            shutil.copyfile(file, beside / name)
        config.save_pretrained(beside)
        files = (
            *sorted(path.name for path in beside.iterdir() if path.name != "config.json"),
            "config.json",
        )
        _install(beside, target, files)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return files


def _install(beside: Path, target: Path, files: tuple[str, ...]) -> None:
    if not target.exists():
        beside.rename(target)
        return
    for name in files:
        (beside / name).replace(target / name)
