"""CLIP's image processor, and its settings: preprocessor_config.json in all its spellings."""

import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tf_groupvit.errors import ConfigError, ImageError, did_you_mean
from tf_groupvit.files import atomic_write, make_folder, read_json
from tf_groupvit.hub import resolve
from tf_groupvit.preprocessing.image_arrays import STATISTICS, gray_levels, look_up
from tf_groupvit.preprocessing.image_reading import MAX_PIXELS, ImageLike, read_image, several

FILE_NAME = "preprocessor_config.json"
NESTED_FILE_NAME = "processor_config.json"  # transformers 5 puts the settings in it, under a key
NESTED_KEY = "image_processor"
MAX_SIZE = 16384  # nothing here wants more; a slip of the pen would fill the memory

_log = logging.getLogger(__name__)


class ImageProcessor:
    """Resize, center crop, rescale and normalize, as transformers' ``CLIPImageProcessor`` does.

    Parity is with the slow processor, on Pillow. The settings are those of
    ``preprocessor_config.json`` and have the same names; each of them is an attribute, ``size`` and
    ``crop_size`` always as a dict, and ``mean`` and ``std`` are short for ``image_mean`` and
    ``image_std``. The defaults are CLIP's. ConfigError names a setting that makes no sense.

    Unlike transformers, images are turned as their EXIF orientation says and are always RGB,
    whatever ``do_convert_rgb`` is; alpha is dropped (transformers 5 blends it onto white, 4 dropped
    it too).
    """

    def __init__(self, **settings: Any) -> None:
        checked = check_settings(settings)
        self.do_convert_rgb: bool = checked["do_convert_rgb"]
        self.do_resize: bool = checked["do_resize"]
        self.size: dict[str, int] = checked["size"]
        self.resample: int = checked["resample"]
        self.do_center_crop: bool = checked["do_center_crop"]
        self.crop_size: dict[str, int] = checked["crop_size"]
        self.do_rescale: bool = checked["do_rescale"]
        self.rescale_factor: float = checked["rescale_factor"]
        self.do_normalize: bool = checked["do_normalize"]
        self.image_mean: tuple[float, ...] = checked["image_mean"]
        self.image_std: tuple[float, ...] = checked["image_std"]
        self._names = tuple(checked)
        self._extra: dict[str, Any] = {}

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> "ImageProcessor":
        """Read the ``preprocessor_config.json`` of a folder (or that file) or hub id.

        ``processor_config.json``, where transformers 5 nests the same settings, comes first where
        there is one. Unknown keys are kept and logged. ConfigError for a missing or broken file or
        a nonsense value.
        """
        content = read_settings(resolve(folder, weights=False))
        try:
            return cls.from_dict(content)
        except ConfigError as error:
            raise ConfigError(f"{os.fspath(folder)}: {error}") from None

    @classmethod
    def from_dict(cls, content: Mapping[str, object]) -> "ImageProcessor":
        """Make a processor from what such a file holds; errors as ``from_pretrained``."""
        settings, extra = split_settings(content)
        processor = cls(**settings)
        processor._extra = extra
        return processor

    def to_dict(self) -> dict[str, Any]:
        """What ``save_pretrained`` writes: the settings, and the other keys of the file read."""
        settings = {name: getattr(self, name) for name in self._names}
        return {**self._extra, "image_processor_type": "CLIPImageProcessor", **settings}

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``preprocessor_config.json``, which transformers reads too, to a folder.

        The folder is made if it is missing, and a nested file that would hide the new one is
        brought in line. ConfigError where it cannot be written.
        """
        path, content = make_folder(folder, ConfigError), self.to_dict()
        _write_json(path / FILE_NAME, content)
        nested = path / NESTED_FILE_NAME
        if nested.is_file() and _nested_settings(nested):
            _write_json(nested, {**read_json(nested, ConfigError), NESTED_KEY: content})

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of red, green and blue, on the scale that rescaling gives (0 to 1)."""
        return self.image_mean

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of red, green and blue, on the same scale."""
        return self.image_std

    def __repr__(self) -> str:
        settings = (f"{name}={getattr(self, name)!r}" for name in self._names)
        return f"ImageProcessor({', '.join(settings)})"

    def __call__(self, images: ImageLike | Iterable[ImageLike]) -> dict[str, np.ndarray]:
        """Prepare one image or several: ``{"pixel_values": float32 (B, 3, H, W)}``.

        An image is whatever ``image_reading.read_image`` reads. ImageError for what cannot be read,
        for no image at all, and for images that do not end up at one size.
        """
        listed = several(images)
        given: list[Any] = [images] if listed is None else list(listed)
        if not given:
            raise ImageError("Expected at least one image, got an empty list.")
        prepared = [self._prepare(image, i, len(given)) for i, image in enumerate(given)]
        if len({pixels.shape for pixels in prepared}) > 1:
            sizes = sorted({f"{pixels.shape[1]} x {pixels.shape[0]}" for pixels in prepared})
            raise ImageError(
                f"Expected images of one size after resizing, got {', '.join(sizes)}:"
                " set do_center_crop."
            )
        levels = gray_levels(
            self.rescale_factor if self.do_rescale else None,
            self.image_mean if self.do_normalize else None,
            self.image_std if self.do_normalize else None,
        )
        return {"pixel_values": look_up(np.stack(prepared), levels)}

    def _prepare(self, image: ImageLike, i: int, count: int) -> np.ndarray:
        """Read, resize and crop one image of ``count``: uint8 (H, W, 3)."""
        nameless = not isinstance(image, (str, os.PathLike)) and count > 1
        pixels = read_image(image, name=f"image {i + 1} of {count}" if nameless else None)
        if self.do_resize:
            pixels = self._resize(pixels)
        if self.do_center_crop:
            pixels = center_crop(pixels, self.crop_size["height"], self.crop_size["width"])
        return pixels

    def _resize(self, pixels: np.ndarray) -> np.ndarray:
        H, W, _ = pixels.shape
        height, width = resized_sides(H, W, self.size)
        if height * width > MAX_PIXELS:
            raise ImageError(
                f"An image of {W} x {H} would become {width} x {height}: over {MAX_PIXELS:,}"
                " pixels; crop it."
            )
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling(self.resample))
        return np.asarray(image)


def resized_sides(H: int, W: int, size: dict[str, int]) -> tuple[int, int]:
    """Height and width that an image of H x W is resized to, in pixels.

    Parity: the long side is rounded down.
    """
    if "height" in size:
        return size["height"], size["width"]
    short: float = size["shortest_edge"]
    exact = short
    if "longest_edge" in size and max(H, W) / min(H, W) * short > size["longest_edge"]:
        exact = size["longest_edge"] * min(H, W) / max(H, W)
        short = round(exact)
    if min(H, W) == short:  # Parity: an image that fits stays, whatever the rounding would say
        return H, W
    long = int(exact * max(H, W) / min(H, W))
    sides = (max(int(short), 1), max(long, 1))
    return sides if H <= W else (sides[1], sides[0])


def center_crop(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cut (height, width, 3) out of the middle of (H, W, 3), filled with black where it is smaller.

    Parity: of an odd remainder, the bottom and right edge lose one more when cutting, and get one
        less when padding.
    """
    result = np.zeros((height, width, 3), pixels.dtype)
    (top, y, rows), (left, x, columns) = (
        (max((old - new) // 2, 0), max((new - old + 1) // 2, 0), min(old, new))
        for old, new in zip(pixels.shape, (height, width), strict=False)
    )
    result[y : y + rows, x : x + columns] = pixels[top : top + rows, left : left + columns]
    return result


# ---- settings ----
# A check takes the name of a setting and any value, gives the value in its one spelling, and raises
# ConfigError.


def _flag(name: str, value: object) -> bool:
    if value is None:
        return False  # Parity: transformers leaves a step out whose flag is null
    if not isinstance(value, bool):
        raise ConfigError(f"{name}: expected true or false, got {value!r}.")
    return value


def _side(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIZE:
        raise ConfigError(
            f"{name}: expected a whole number of pixels from 1 to {MAX_SIZE}, got {value!r}."
        )
    return value


def _sides(name: str, value: object, *forms: set[str]) -> dict[str, int]:
    """Check a size; ``[height, width]`` is one of its older forms, a dict the current one."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        value = {"height": value[0], "width": value[1]}
    if not isinstance(value, Mapping) or set(value) not in forms:
        wanted = " or ".join(str(sorted(form)) for form in forms)
        raise ConfigError(f"{name}: expected a number of pixels or {wanted}, got {value!r}.")
    return {key: _side(f"{name}.{key}", side) for key, side in value.items()}


def _size(name: str, value: object) -> dict[str, int]:
    # Parity: a bare number has always been the shortest edge in CLIP's files.
    value = {"shortest_edge": value} if isinstance(value, int) else value
    forms = ({"shortest_edge"}, {"height", "width"}, {"shortest_edge", "longest_edge"})
    return _sides(name, value, *forms)


def _crop(name: str, value: object) -> dict[str, int]:
    return _sides(name, (value, value) if isinstance(value, int) else value, {"height", "width"})


def _filter(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 5:
        raise ConfigError(
            f"{name}: expected one of Pillow's filters from 0 to 5 (3 is bicubic), got {value!r}."
        )
    return value


def _number(name: str, value: object, above: float = -math.inf) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or value <= above
    ):
        bound = "" if above == -math.inf else f" above {above:g}"
        raise ConfigError(f"{name}: expected a finite number{bound}, got {value!r}.")
    return float(value)


def _triple(name: str, value: object, above: float = -math.inf) -> tuple[float, ...]:
    """Check a number for each of red, green and blue; one number stands for all three."""
    numbers = value if isinstance(value, (list, tuple)) else (value,) * 3
    if len(numbers) != 3:
        raise ConfigError(
            f"{name}: expected 3 numbers, one each for red, green and blue, got {len(numbers)}."
        )
    return tuple(_number(f"{name}[{i}]", number, above) for i, number in enumerate(numbers))


# setting -> (its default, which is CLIP's, and what checks it)
SETTINGS: dict[str, tuple[object, Callable[[str, object], object]]] = {
    "do_convert_rgb": (True, _flag),
    "do_resize": (True, _flag),
    "size": ({"shortest_edge": 224}, _size),
    "resample": (3, _filter),
    "do_center_crop": (True, _flag),
    "crop_size": ({"height": 224, "width": 224}, _crop),
    "do_rescale": (True, _flag),
    "rescale_factor": (1 / 255, lambda name, value: _number(name, value, above=0.0)),
    "do_normalize": (True, _flag),
    "image_mean": (STATISTICS["clip"][0], _triple),
    "image_std": (STATISTICS["clip"][1], lambda name, value: _triple(name, value, above=0.0)),
}
# Keys that transformers writes and that do not change what comes out here.
_PASSIVE = frozenset(
    "feature_extractor_type image_processor_type processor_class auto_map default_to_square"
    " use_fast device disable_grouping input_data_format data_format return_tensors do_pad pad_size"
    " image_seq_length _valid_processor_keys _valid_kwargs_names".split()
)


def check_settings(given: Mapping[str, object]) -> dict[str, Any]:
    """Check settings by name, in any spelling.

    A missing one is CLIP's default; null is, too, but for a flag. ConfigError for an unknown name,
    with the nearest known one, and for a value that makes no sense.
    """
    for name in given:
        if name not in SETTINGS:
            raise ConfigError(f"{name}: there is no such setting: {did_you_mean(name, SETTINGS)}")
    checked = {}
    for name, (default, check) in SETTINGS.items():
        missing = name not in given or (given[name] is None and check is not _flag)
        checked[name] = check(name, default if missing else given[name])
    return checked


def split_settings(content: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a file's content into settings and everything else, which is kept to be written back.

    Files of other image processors, and steps that no CLIP file has, are a ConfigError: the pixels
    would be wrong. Unknown keys are logged as a warning.
    """
    kinds = (content.get(key) for key in ("image_processor_type", "feature_extractor_type"))
    kind = next(filter(None, kinds), "CLIPImageProcessor")
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
    if unknown := sorted(extra.keys() - _PASSIVE):
        _log.warning(
            "Keys of an image processor's file that are kept but have no effect: %s.",
            ", ".join(unknown),
        )
    if content.get("default_to_square") and isinstance(settings.get("size"), int):
        settings["size"] = (settings["size"],) * 2
    return settings, extra


def read_settings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a folder, or a JSON file, says of its image processor.

    Parity: transformers 5 looks in the same order, the nested file first if it has one.
    ConfigError when there is no such file or it is broken.
    """
    path = Path(folder)
    if path.is_file():
        return _nested_settings(path) or read_json(path, ConfigError)
    nested = path / NESTED_FILE_NAME
    if nested.is_file() and (settings := _nested_settings(nested)):
        return settings
    if not (path / FILE_NAME).is_file():
        raise ConfigError(
            f"{path}: expected a folder with {FILE_NAME}, and there is none: check the path."
        )
    return read_json(path / FILE_NAME, ConfigError)


def _nested_settings(path: Path) -> dict[str, Any] | None:
    nested = read_json(path, ConfigError).get(NESTED_KEY)
    return nested if isinstance(nested, dict) else None


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    atomic_write(path, json.dumps(content, indent=2, sort_keys=True) + "\n", ConfigError)
