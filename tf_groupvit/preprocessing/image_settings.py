"""preprocessor_config.json of the CLIP kind in, in any spelling since 2022; checked settings in one
spelling out.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tf_groupvit.errors import ConfigError, did_you_mean
from tf_groupvit.files import atomic_write, make_folder, read_json
from tf_groupvit.preprocessing.image_arrays import STATISTICS

FILE_NAME = "preprocessor_config.json"
NESTED_FILE_NAME = (  # transformers 5 puts the settings under "image_processor" in it
    "processor_config.json"
)
NESTED_KEY = "image_processor"
MAX_SIDE = (
    16384  # nothing that this package runs wants more; a slip of the pen would fill the memory
)

_log = logging.getLogger(__name__)

# Keys that transformers writes and that do not change what comes out here.
_PASSIVE = (
    "feature_extractor_type image_processor_type processor_class auto_map default_to_square"
    " use_fast device disable_grouping input_data_format data_format return_tensors do_pad pad_size"
    " image_seq_length _valid_processor_keys _valid_kwargs_names"
).split()


def _flag(name: str, value: Any) -> bool:
    if value is None:
        return False  # Parity: transformers leaves a step out whose flag is null
    if not isinstance(value, bool):
        raise ConfigError(f"{name}: expected true or false, got {value!r}.")
    return value


def _side(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIDE:
        raise ConfigError(
            f"{name}: expected a whole number of pixels from 1 to {MAX_SIDE}, got {value!r}."
        )
    return value


def _sides(name: str, value: Any, forms: tuple[set[str], ...]) -> dict[str, int]:
    """Check a size; ``[height, width]`` is one of its older forms, a dict the current one."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        value = {"height": value[0], "width": value[1]}
    if not isinstance(value, Mapping) or set(value) not in forms:
        wanted = " or ".join(str(sorted(form)) for form in forms)
        raise ConfigError(f"{name}: expected a number of pixels or {wanted}, got {value!r}.")
    return {key: _side(f"{name}.{key}", side) for key, side in value.items()}


def _size(name: str, value: Any) -> dict[str, int]:
    """Parity: a bare number has always been the shortest edge in CLIP's files."""
    forms = ({"shortest_edge"}, {"height", "width"}, {"shortest_edge", "longest_edge"})
    return _sides(name, value if not isinstance(value, int) else {"shortest_edge": value}, forms)


def _crop(name: str, value: Any) -> dict[str, int]:
    return _sides(
        name, value if not isinstance(value, int) else (value, value), ({"height", "width"},)
    )


def _filter(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 5:
        raise ConfigError(
            f"{name}: expected one of Pillow's filters from 0 to 5 (3 is bicubic), got {value!r}."
        )
    return int(value)


def _number(name: str, value: Any, least: float = -math.inf) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= least:
        above = "" if least == -math.inf else f" above {least:g}"
        raise ConfigError(f"{name}: expected a finite number{above}, got {value!r}.")
    return float(value)


def _triple(name: str, value: Any, least: float = -math.inf) -> tuple[float, ...]:
    """Check a number for each of red, green and blue; one number stands for all three."""
    if not isinstance(value, (list, tuple)):
        value = (value,) * 3
    if len(value) != 3:
        raise ConfigError(
            f"{name}: expected 3 numbers, one each for red, green and blue, got {len(value)}."
        )
    return tuple(_number(f"{name}[{i}]", number, least) for i, number in enumerate(value))


# setting -> (its default, which is CLIP's, and what checks it)
SETTINGS: dict[str, tuple[Any, Callable[[str, Any], Any]]] = {
    "do_convert_rgb": (True, _flag),
    "do_resize": (True, _flag),
    "size": ({"shortest_edge": 224}, _size),
    "resample": (3, _filter),
    "do_center_crop": (True, _flag),
    "crop_size": ({"height": 224, "width": 224}, _crop),
    "do_rescale": (True, _flag),
    "rescale_factor": (1 / 255, lambda name, value: _number(name, value, least=0.0)),
    "do_normalize": (True, _flag),
    "image_mean": (STATISTICS["clip"][0], _triple),
    "image_std": (STATISTICS["clip"][1], lambda name, value: _triple(name, value, least=0.0)),
}


def check_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check settings by name, in any spelling. A missing one is CLIP's default; null is, too, but
    for a flag.

    An unknown name is a ConfigError with the nearest known one, a value that makes no sense one
    with the name.
    """
    for name in given:
        if name not in SETTINGS:
            raise ConfigError(f"{name}: there is no such setting: {did_you_mean(name, SETTINGS)}")
    return {
        name: check(
            name,
            (
                default
                if name not in given or (given[name] is None and check is not _flag)
                else given[name]
            ),
        )
        for name, (default, check) in SETTINGS.items()
    }


def split_file(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a file's content into settings and everything else, which is kept to be written back.

    Files of other image processors, and steps that no CLIP file has, are refused: the pixels would
    be wrong. Keys that nobody knows are logged as a warning.
    """
    kind = (
        content.get("image_processor_type")
        or content.get("feature_extractor_type")
        or "CLIPImageProcessor"
    )
    if not str(kind).startswith("CLIP"):
        raise ConfigError(f"image_processor_type: expected a CLIPImageProcessor, got {kind!r}.")
    if content.get("do_pad"):
        raise ConfigError(
            "do_pad: expected false, got true: CLIP's images are cropped to one size, not padded."
        )
    if content.get("data_format") not in (None, "channels_first"):
        raise ConfigError(
            f"data_format: expected 'channels_first', got {content['data_format']!r}."
        )
    settings = {name: value for name, value in content.items() if name in SETTINGS}
    extra = {name: value for name, value in content.items() if name not in SETTINGS}
    if unknown := sorted(set(extra) - set(_PASSIVE)):
        _log.warning(
            "Keys of an image processor's file that are kept but have no effect: %s.",
            ", ".join(unknown),
        )
    if content.get("default_to_square") and isinstance(settings.get("size"), int):
        settings["size"] = (settings["size"],) * 2
    return settings, extra


def read_file(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a folder, or a JSON file, says of its image processor; the nested file comes first
    if it has one.

    Parity: transformers 5 looks in the same order. ConfigError when there is no such file or it is
        broken.
    """
    path = Path(folder)
    if path.is_file():
        return _settings_in(path) or read_json(path, ConfigError)
    if (path / NESTED_FILE_NAME).is_file() and (nested := _settings_in(path / NESTED_FILE_NAME)):
        return nested
    if not (path / FILE_NAME).is_file():
        raise ConfigError(
            f"{path}: expected a folder with {FILE_NAME}, and there is none: check the path."
        )
    return read_json(path / FILE_NAME, ConfigError)


def _settings_in(path: Path) -> dict[str, Any] | None:
    nested = read_json(path, ConfigError).get(NESTED_KEY)
    return nested if isinstance(nested, dict) else None


def write_file(folder: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write preprocessor_config.json, beside and then renamed; a nested file that would hide it is
    brought in line.

    Raises ``ConfigError`` where it cannot be written.
    """
    path = make_folder(folder, ConfigError)
    _write_json(path / FILE_NAME, content)
    nested = path / NESTED_FILE_NAME
    if nested.is_file() and _settings_in(nested):
        _write_json(nested, {**read_json(nested, ConfigError), NESTED_KEY: content})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    atomic_write(path, json.dumps(content, indent=2, sort_keys=True) + "\n", ConfigError)
