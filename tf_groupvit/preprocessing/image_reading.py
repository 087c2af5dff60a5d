"""A path, bytes, a PIL image or an array in; uint8 pixels (H, W, 3) as a person sees them, or class numbers, out."""

import io
import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tf_groupvit.errors import ImageError
from tf_groupvit.hub import is_pointer

# Pillow's own default for Image.MAX_IMAGE_PIXELS: 89 million. Pillow warns there and refuses at twice
# as much; here, and in the exported graph, the first number is the limit.
MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3

# EXIF orientation -> (swap rows and columns, then mirror left-right, then mirror top-bottom).
ORIENTATIONS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
_ORIENTATION_TAG = 0x0112


def read_image(source: Any, max_pixels: int | None = MAX_PIXELS, name: str | None = None) -> np.ndarray:
    """Read one image as uint8 (H, W, 3), red first, turned as its EXIF orientation says.

    ``source`` is a path, bytes, a PIL image, or a uint8 array (H, W, 3), which is returned as it is.
    Alpha is dropped, not blended: the colour under it stays. Sixteen bits become the upper eight, for grey
    and for colour alike (Pillow reads 16-bit colour that way, and so does TensorFlow). An animation gives
    its first frame, CMYK and palettes are converted by Pillow.

    A file, bytes or PIL image of more than ``max_pixels`` pixels is refused from its header, before it is
    decoded (None: no limit but Pillow's). Whatever cannot be read raises ImageError, naming ``name``,
    which is the path where there is one. What Pillow warns about in a file is not repeated.
    """
    name = name or _name_of(source)
    if isinstance(source, Image.Image):
        return _pixels_of(source, max_pixels, name)
    if isinstance(source, (str, os.PathLike)):
        return _decode(_bytes_of(Path(source), name), max_pixels, name)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), max_pixels, name)
    if hasattr(source, "__array__"):
        return _check_array(np.asarray(source), name)
    raise ImageError(
        f"{name}: expected a path, bytes, a PIL image or a uint8 array (H, W, 3), came {type(source).__name__}."
    )


# One number a pixel: bits, bytes, palette entries (the entry's number, not its color), 16 and 32 bits; LA and PA are
# a number and its opacity.
NUMBER_MODES = ("1", "L", "P", "LA", "PA", "I", "I;16", "I;16B", "I;16L", "I;16N")


def read_class_numbers(picture: Image.Image, name: str) -> np.ndarray:
    """The class numbers (H, W) of an open mask, as they are in the file: what Pillow widens to 8 bits is narrowed.

    Raises ``ImageError``, naming ``name``, for colors in place of numbers, and for a damaged file.
    """
    if picture.mode not in NUMBER_MODES:
        raise ImageError(
            f"{name}: expected one class number a pixel (grey, palette or 16-bit), came mode '{picture.mode}': "
            "convert its colors to class numbers."
        )
    if picture.format in ("JPEG", "MPO"):
        raise ImageError(f"{name}: a JPEG does not keep class numbers as they were: save the mask as PNG.")
    widest, narrow = _grey_range(picture)
    try:
        numbers = np.asarray(picture)
    except Exception as error:  # truncated and damaged data make Pillow raise errors of many kinds
        raise ImageError(f"{name}: the mask is damaged or cut short: {_one_line(error)}.") from error
    numbers = numbers[..., 0] if numbers.ndim == 3 else numbers
    numbers = numbers.astype(np.uint8) if numbers.dtype == bool else numbers
    if widest == narrow:
        return numbers
    return np.rint(numbers * (narrow / widest)).astype(numbers.dtype)


def _grey_range(picture: Image.Image) -> tuple[int, int]:
    """The number that Pillow gives for white, and the one that the file has there: 255 and 15 for 4-bit grey."""
    tiles: Any = getattr(picture, "tile", None) or [("", None)]  # what an open file's decoder will be told
    decoder, *_, told = tiles[0]
    arguments: Any = told if isinstance(told, tuple | list) and told else (told,)
    if decoder in ("ppm", "ppm_plain") and picture.mode in ("L", "I"):
        return (255 if picture.mode == "L" else 65535), int(arguments[1])
    bits = re.match(r"L;([24])", str(arguments[0]))
    return (255, 2 ** int(bits[1]) - 1) if bits else (255, 255)


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels (H, W, ...) upright; an orientation that EXIF does not know leaves them as they are."""
    swap, mirror, flip = ORIENTATIONS.get(orientation, ORIENTATIONS[1])
    if swap:
        pixels = pixels.swapaxes(0, 1)
    pixels = pixels[:: -1 if flip else 1, :: -1 if mirror else 1]
    return np.ascontiguousarray(pixels)


def _name_of(source: Any) -> str:
    if isinstance(source, (str, os.PathLike)):
        text = os.fsdecode(source)
        return text if len(text) <= 300 else f"{text[:100]}..."
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "image")
    return "image"


def _bytes_of(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except IsADirectoryError:
        raise ImageError(f"{name}: expected an image file, came a directory: name the files in it.") from None
    except FileNotFoundError:
        raise ImageError(f"{name}: there is no such file: check the path.") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte in it
        raise ImageError(f"{name}: cannot be read: {_one_line(error)}.") from error


def _decode(data: bytes, max_pixels: int | None, name: str) -> np.ndarray:
    if not data:
        raise ImageError(f"{name}: expected an image, came 0 bytes: is the file complete?")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: over the limit of {max_pixels or MAX_PIXELS:,} pixels: {_one_line(error)}"
        ) from error
    except Image.UnidentifiedImageError as error:
        if is_pointer(data):
            raise ImageError(f"{name}: is a pointer of git-lfs, not the image: run 'git lfs pull' first.") from error
        raise ImageError(
            f"{name}: expected an image such as JPEG or PNG, came {len(data):,} bytes that start with {data[:12]!r}."
        ) from error
    except Exception as error:  # Pillow's readers raise whatever a broken header makes them raise
        raise ImageError(f"{name}: the image's header is broken: {_one_line(error)}.") from error
    with image:
        return _pixels_of(image, max_pixels, name)


def _pixels_of(image: Image.Image, max_pixels: int | None, name: str) -> np.ndarray:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: expected at least one pixel, came an image of {width} x {height}.")
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError(
            f"{name}: {width} x {height} is {width * height:,} pixels, over the limit of {max_pixels:,}: shrink it."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image.load()
            pixels = _rgb_of(image, name)
        except ImageError:
            raise
        except Exception as error:  # as above: truncated and damaged data come as many kinds of error
            raise ImageError(f"{name}: the image is damaged or incomplete: {_one_line(error)}.") from error
        return turn(pixels, _orientation_of(image))


def _rgb_of(image: Image.Image, name: str) -> np.ndarray:
    if image.mode == "F":
        raise ImageError(f"{name}: floating-point images have no fixed range: save it with 8 or 16 bits.")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _upper_bits(np.asarray(image), name)
    return np.asarray(image.convert("RGB"))


def _upper_bits(grey: np.ndarray, name: str) -> np.ndarray:
    """Sixteen bits (H, W) -> uint8 (H, W, 3). convert("RGB") would clip everything above 255 to white."""
    if grey.min() < 0 or grey.max() > 65535:
        raise ImageError(f"{name}: expected 16-bit grey from 0 to 65535, came {grey.min()} to {grey.max()}.")
    return np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=-1)


def _orientation_of(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a broken EXIF block says nothing about how the picture lies
        return 1


def _check_array(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or 0 in array.shape:
        raise ImageError(
            f"{name}: expected a uint8 array (H, W, 3) with at least one pixel, came {array.dtype} {array.shape}."
        )
    return array


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
