"""What a checkpoint is and how large, from headers and config.json alone, without TensorFlow."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from tf_groupvit.checkpoints.names import OPTIONAL
from tf_groupvit.checkpoints.reading import read_checkpoint
from tf_groupvit.config import (
    GroupViTConfig,
    GroupViTTextConfig,
    GroupViTVisionConfig,
    config_file_of,
)
from tf_groupvit.errors import ConfigError
from tf_groupvit.files import read_json

Config = GroupViTConfig | GroupViTTextConfig | GroupViTVisionConfig

CONFIG_CLASSES: dict[str, type[Config]] = {
    config.model_type: config
    for config in (GroupViTConfig, GroupViTTextConfig, GroupViTVisionConfig)
}
PARTS = ("text_model", "vision_model", "text_projection", "visual_projection", "logit_scale")
# Statistics of batch norms: moved by training, but not trained.
STATISTICS = re.compile(r".+\.running_(mean|var)$")
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
PROCESSOR = "preprocessor_config.json"


def config_of(path: Path) -> Config | None:
    """The config next to the weights; None for an original ``.pth`` that has none.

    Raises:
        ConfigError: no config.json, a broken one, or one of another model.
    """
    if path.suffix == ".pth" and path.is_file() and not path.with_name("config.json").exists():
        return None
    file = config_file_of(path)
    values = read_json(file, ConfigError)
    kind = values.get("model_type", GroupViTConfig.model_type)
    if not isinstance(kind, str) or kind not in CONFIG_CLASSES:
        raise ConfigError(
            f"{file}: model_type is {kind!r:.80}: expected 'groupvit', a GroupViT checkpoint."
        )
    return CONFIG_CLASSES[kind].from_dict(values)


def parameters_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """How many trained numbers each part has, and all of them as "total".

    Statistics and counters are not counted.
    """
    counts = Counter[str]()
    for name, shape in shapes.items():
        root = name.split(".")[0]
        counts[root if root in PARTS else "other"] += 0 if _is_state(name) else prod(shape)
    ordered = {part: counts[part] for part in (*PARTS, "other") if counts[part]}
    return {"total": counts.total(), **ordered}


def _is_state(name: str) -> bool:
    return bool(OPTIONAL.match(name) or STATISTICS.match(name))


def tokenizer_files(folder: Path) -> tuple[str, ...]:
    """The files of a tokenizer that are in the folder, none where they do not make one."""
    return next(
        (files for files in TOKENIZERS if all((folder / file).is_file() for file in files)), ()
    )


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What ``tf-groupvit info`` prints, as JSON holds it; only headers and config.json are read.

    Raises:
        CheckpointError: no weights, or a damaged file.
        ConfigError: no config.json, or an impossible one.
    """
    path = Path(path)
    checkpoint, config = read_checkpoint(path), config_of(path)
    folder = path if path.is_dir() else path.parent
    entries = checkpoint.tensors.entries()
    elements = Counter[str]()
    for name, entry in entries.items():
        if not _is_state(name):
            elements[entry.dtype.name] += prod(entry.shape)
    return {
        "source": str(checkpoint.source),
        "format": checkpoint.format,
        "tensors": len(entries),
        "bytes": sum(prod(entry.shape) * entry.dtype.itemsize for entry in entries.values()),
        "dtypes": dict(elements.most_common()),
        "parameters": parameters_of(checkpoint.tensors.shapes()),
        "tokenizer": list(tokenizer_files(folder)),
        "preprocessor": (folder / PROCESSOR).is_file(),
        "notes": list(checkpoint.notes),
        "config": config.to_dict() if config else None,
    }
