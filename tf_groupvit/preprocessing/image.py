"""Images in; pixel values (B, 3, H, W) as CLIP's image processor makes them out."""

import os
from typing import Any

import numpy as np
from PIL import Image

from tf_groupvit.errors import ConfigError, ImageError
from tf_groupvit.hub import resolve
from tf_groupvit.preprocessing.image_arrays import gray_levels, look_up
from tf_groupvit.preprocessing.image_reading import MAX_PIXELS, read_image, several
from tf_groupvit.preprocessing.image_settings import (
    check_settings,
    read_file,
    split_file,
    write_file,
)


class ImageProcessor:
    """Resize, center crop, rescale and normalize, as transformers' ``CLIPImageProcessor`` on Pillow
    does.

    The settings are those of ``preprocessor_config.json`` and have the same names; each of them is
    an attribute, ``size`` and ``crop_size`` always as a dict, and ``mean`` and ``std`` are short
    for ``image_mean`` and ``image_std``. The defaults are CLIP's. ConfigError names a setting that
    makes no sense.

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
        """Read the ``preprocessor_config.json`` of a folder (or that file) or hub id, in any
        spelling since 2022.

        ``processor_config.json``, where transformers 5 nests the same settings, comes first where
        there is one. Unknown keys are kept and logged. ConfigError for a missing or broken file or
        a nonsense value.
        """
        content = read_file(resolve(folder, weights=False))
        try:
            return cls.from_dict(content)
        except ConfigError as error:
            raise ConfigError(f"{os.fspath(folder)}: {error}") from None

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "ImageProcessor":
        """Make a processor from what such a file holds."""
        settings, extra = split_file(content)
        processor = cls(**settings)
        processor._extra = extra
        return processor

    def to_dict(self) -> dict[str, Any]:
        """Give what ``save_pretrained`` writes: the settings, and the keys of the file that they
        came from.
        """
        settings = {name: getattr(self, name) for name in self._names}
        return {**self._extra, "image_processor_type": "CLIPImageProcessor", **settings}

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``preprocessor_config.json``, which transformers reads too; the folder is made if
        need be.
        """
        write_file(folder, self.to_dict())

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of red, green and blue, on the scale that rescaling gives (0 to 1)."""
        return self.image_mean

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of red, green and blue, on the same scale."""
        return self.image_std

    def __repr__(self) -> str:
        return f"ImageProcessor({', '.join(f'{name}={getattr(self, name)!r}' for name in self._names)})"

    def __call__(self, images: Any) -> dict[str, np.ndarray]:
        """Prepare one image or a list of them: ``{"pixel_values": float32 (B, 3, H, W)}``.

        An image is whatever image_reading.read_image reads. ImageError for what cannot be read, for
        no image at all, and for images that do not end up at one size.
        """
        listed = several(images)
        images = [images] if listed is None else list(listed)
        if not images:
            raise ImageError("Expected at least one image, got an empty list.")
        prepared = [self._prepare(image, i, len(images)) for i, image in enumerate(images)]
        if len({pixels.shape for pixels in prepared}) > 1:
            sizes = ", ".join(
                sorted({f"{pixels.shape[1]} x {pixels.shape[0]}" for pixels in prepared})
            )
            raise ImageError(
                f"Expected images of one size after resizing, got {sizes}: set do_center_crop."
            )
        levels = gray_levels(
            self.rescale_factor if self.do_rescale else None,
            self.image_mean if self.do_normalize else None,
            self.image_std if self.do_normalize else None,
        )
        return {"pixel_values": look_up(np.stack(prepared), levels)}

    def _prepare(self, image: Any, i: int, count: int) -> np.ndarray:
        """Read, resize and crop one image: uint8 (H, W, 3)."""
        loose = not isinstance(image, (str, os.PathLike)) and count > 1
        pixels = read_image(image, name=f"image {i + 1} of {count}" if loose else None)
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
    """Say to what (height, width) an image of H x W is resized. Parity: the long side is rounded
    down.
    """
    if "height" in size:
        return size["height"], size["width"]
    short: float = size["shortest_edge"]
    exact = short
    if "longest_edge" in size and max(H, W) / min(H, W) * short > size["longest_edge"]:
        exact = size["longest_edge"] * min(H, W) / max(H, W)
        short = round(exact)
    if (
        min(H, W) == short
    ):  # Parity: an image that fits already stays, whatever the rounding would say
        return H, W
    long = int(exact * max(H, W) / min(H, W))
    sides = (max(int(short), 1), max(long, 1))
    return sides if H <= W else (sides[1], sides[0])


def center_crop(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cut (height, width) out of the middle of (H, W, 3); where the image is smaller, black fills
    up.

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
