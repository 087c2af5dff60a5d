"""Read images of any kind as people see them, uint8 (H, W, 3), and the class numbers of masks."""

import io
import os
import re
import warnings
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from tf_groupvit.errors import ImageError, one_line
from tf_groupvit.files import EXIF_ORIENTATION, is_pointer

# Pillow's own default for Image.MAX_IMAGE_PIXELS: 89 million. Pillow warns there and refuses at
# twice as much; here, and in the exported graph, the first number is the limit.
MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3
MAX_SIDE = 1_000_000  # libpng's limit too; resizing a longer row takes some 250 bytes a pixel

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
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"


@runtime_checkable
class OpenFile(Protocol):
    """What can be read as bytes: a file of mode "rb", BytesIO, an upload."""

    def read(self, size: int = ..., /) -> bytes:
        """Give so many bytes, all unless given."""


@runtime_checkable
class ArrayLike(Protocol):
    """What NumPy reads as an array: its own, and tensors."""

    def __array__(self) -> np.ndarray: ...


ImageLike = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | OpenFile | ArrayLike
)


def read_image(
    source: ImageLike, max_pixels: int | None = MAX_PIXELS, name: str | None = None
) -> np.ndarray:
    """Read one image as uint8 (H, W, 3), red first, turned as its EXIF orientation says.

    Alpha is dropped, not blended: the color under it stays. Sixteen bits become the upper eight,
    for gray and for color alike (Pillow reads 16-bit color that way, and so does TensorFlow). An
    animation gives its first frame, CMYK and palettes are converted by Pillow. Of a PNG that is
    given as a file or bytes, the checksums of all parts that make the picture must be right, as in
    the exported graph; only its end mark may be missing. What Pillow warns about is not repeated.

    Args:
        source: a path, a file opened with mode "rb", bytes, a PIL image, or an array or tensor
            (H, W, 3) from 0 to 255; arrays may be gray, (H, W) or (H, W, 1), or have alpha,
            (H, W, 4). A uint8 array (H, W, 3) is returned as it is. Floats are rounded; where their
            range leaves open what is meant, they are refused (``eight_bits``).
        max_pixels: a file, bytes or PIL image of more pixels is refused from its header, before it
            is decoded (None: no limit but Pillow's).
        name: what errors call the image; its path unless given.

    Raises:
        ImageError: it cannot be read.
    """
    name = name or _name_of(source)
    if isinstance(source, Image.Image):
        return _pixels_of(source, max_pixels, name)
    if isinstance(source, (str, os.PathLike)):
        return _decode(_bytes_of(Path(source), name), max_pixels, name)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), max_pixels, name)
    if isinstance(source, OpenFile):
        return _decode(read_file(source, name), max_pixels, name)
    if isinstance(source, ArrayLike):
        try:
            array = np.asarray(source)
        except Exception as error:  # tensors of a graph and of other devices raise what they like
            kind = type(source).__name__
            raise ImageError(
                f"{name}: {kind} cannot be read as an array: {one_line(error)}."
            ) from error
        if array.ndim == 0 and isinstance(array.item(), bytes):  # what tf.io.read_file returns
            return _decode(array.item(), max_pixels, name)
        return _rgb_of_array(array, name)
    raise ImageError(
        f"{name}: expected a path, an open file, bytes, a PIL image or an array (H, W, 3) of"
        f" numbers from 0 to 255, got {type(source).__name__}."
    )


ONE_IMAGE = (
    *(str, bytes, bytearray, memoryview, os.PathLike, Image.Image),
    *(set, frozenset, Mapping),  # no images in any order, and refused as one
)


def several(images: object) -> Iterable[Any] | None:
    """The images to go through, in order, of a list, a generator or the like; None for one image.

    Arrays of any shape, and what is no image at all, count as one.
    """
    if isinstance(images, ONE_IMAGE) or not hasattr(images, "__iter__"):
        return None
    return None if isinstance(images, (OpenFile, ArrayLike)) else images


def read_file(file: OpenFile, name: str) -> bytes:
    """The bytes of an open file from its start, or of a stream from where it is.

    Raises:
        ImageError: naming ``name``; it cannot be read, or gives no bytes.
    """
    try:
        if getattr(file, "seekable", lambda: False)():
            file.seek(0)  # type: ignore[attr-defined]
        content = file.read()
    except (OSError, ValueError) as error:  # ValueError: it is closed, or text of another encoding
        raise ImageError(
            f"{name}: cannot be read: {one_line(error)}: open it with mode 'rb'."
        ) from error
    if not isinstance(content, bytes):
        kind = type(content).__name__
        raise ImageError(f"{name}: expected a file of bytes, got {kind}: open it with mode 'rb'.")
    return content


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels (H, W, ...) upright; an orientation that EXIF does not know changes nothing."""
    swap, mirror, flip = ORIENTATIONS.get(orientation, ORIENTATIONS[1])
    if swap:
        pixels = pixels.swapaxes(0, 1)
    pixels = pixels[:: -1 if flip else 1, :: -1 if mirror else 1]
    return np.ascontiguousarray(pixels)


def _name_of(source: object) -> str:
    """The path or the name of any source."""
    if isinstance(source, (str, os.PathLike)):
        text = os.fsdecode(source)
        return text if len(text) <= 300 else f"{text[:100]}..."
    name = getattr(source, "filename" if isinstance(source, Image.Image) else "name", None)
    return name if isinstance(name, str) and name and not hasattr(source, "__array__") else "image"


# ---- files ----


def _bytes_of(path: Path, name: str) -> bytes:
    try:
        is_device = path.is_char_device() or path.is_block_device()
        content = b"" if is_device else path.read_bytes()  # /dev/zero has no end
    except IsADirectoryError:
        raise ImageError(
            f"{name}: expected an image file, got a directory: name the files in it."
        ) from None
    except FileNotFoundError:
        raise ImageError(f"{name}: there is no such file: check the path.") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte in it
        raise ImageError(f"{name}: cannot be read: {one_line(error)}.") from error
    if is_device:
        raise ImageError(f"{name}: expected an image file, got a device: name a file.")
    return content


def _decode(data: bytes, max_pixels: int | None, name: str) -> np.ndarray:
    if not data:
        raise ImageError(f"{name}: expected an image, got 0 bytes: is the file complete?")
    if data.startswith(_PNG):
        data = _sound_png(data, name)
    try:
        with warnings.catch_warnings(action="ignore"):
            image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        limit = max_pixels or MAX_PIXELS
        raise ImageError(
            f"{name}: over the limit of {limit:,} pixels: {one_line(error)}"
        ) from error
    except Image.UnidentifiedImageError as error:
        if is_pointer(data):
            raise ImageError(
                f"{name}: is a pointer of git-lfs, not the image: run 'git lfs pull' first."
            ) from error
        raise ImageError(
            f"{name}: expected an image such as JPEG or PNG, got {len(data):,} bytes that start"
            f" with {data[:12]!r}."
        ) from error
    except Exception as error:  # Pillow's readers raise whatever a broken header makes them raise
        raise ImageError(f"{name}: the image's header is broken: {one_line(error)}.") from error
    with image:
        return _pixels_of(image, max_pixels, name)


def _sound_png(data: bytes, name: str) -> bytes:
    """A PNG without the parts that libpng, which the exported graph decodes with, leaves out too.

    Pillow does not look at the checksums of the picture, and libpng does. Both can do without the
    end mark.
    """
    kept: list[bytes | memoryview] = [_PNG]
    at = len(_PNG)
    while at < len(data) and data[at + 4 : at + 8] != b"IEND":
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            raise ImageError(
                f"{name}: expected a whole PNG, got a truncated one of {len(data):,} bytes."
            )
        part = memoryview(data)[at:end]
        right = zlib.crc32(part[4:-4]) == int.from_bytes(part[-4:], "big")
        # The case of the first letter tells whether a reader can do without the part.
        if not kind.isalpha() or (kind[:1].isupper() and not right):
            raise ImageError(
                f"{name}: expected a sound PNG, got one whose part {kind!r} is damaged."
            )
        if right:
            kept.append(part)
        at = end
    if at < len(data) and data[at : at + 12] != _PNG_END:
        raise ImageError(f"{name}: expected a whole PNG, got one whose end is damaged.")
    return b"".join([*kept, data[at:]])


# ---- pixels ----


def _pixels_of(image: Image.Image, max_pixels: int | None, name: str) -> np.ndarray:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(
            f"{name}: expected at least one pixel, got an image of {width} x {height}."
        )
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError(
            f"{name}: {width} x {height} is {width * height:,} pixels, over the limit of"
            f" {max_pixels:,}: shrink it."
        )
    if max_pixels is not None and max(width, height) > MAX_SIDE:
        raise ImageError(
            f"{name}: {width} x {height} is over the limit of {MAX_SIDE:,} pixels a side:"
            " shrink it."
        )
    with warnings.catch_warnings(action="ignore"):
        try:
            image.load()
            pixels = _rgb_of(image, name)
        except ImageError:
            raise
        except Exception as error:  # truncated and damaged data raise errors of many kinds
            raise ImageError(
                f"{name}: the image is damaged or incomplete: {one_line(error)}."
            ) from error
        try:
            orientation = int(image.getexif().get(EXIF_ORIENTATION, 1))
        except Exception:  # a broken EXIF block says nothing about how the picture lies
            orientation = 1
    return turn(pixels, orientation)


def _rgb_of(image: Image.Image, name: str) -> np.ndarray:
    if image.mode == "F":
        raise ImageError(
            f"{name}: floating-point images have no fixed range: save it with 8 or 16 bits."
        )
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return np.asarray(image.convert("RGB"))
    gray = np.asarray(image)  # convert("RGB") would clip everything above 255 to white
    low, high = gray.min(), gray.max()
    if image.format is None and 0 < high < 256:  # a file has 16 bits; a picture made here may not
        raise ImageError(
            f"{name}: mode {image.mode} is read as 16 bits, and this picture's values end at"
            f" {high}: where they are 8 bits, give image.convert('L')."
        )
    if low < 0 or high > 65535:
        raise ImageError(f"{name}: expected 16-bit gray from 0 to 65535, got {low} to {high}.")
    return np.repeat((gray >> 8).astype(np.uint8)[..., None], 3, axis=-1)


def _rgb_of_array(array: np.ndarray, name: str) -> np.ndarray:
    """An array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) as uint8 (H, W, 3)."""
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or 0 in pixels.shape:
        hint = ""
        if array.ndim == 4:
            hint = ": for several images give list(images), or call predict"
        elif array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = ": put channels last with np.moveaxis(image, 0, -1)"
        raise ImageError(
            f"{name}: expected an array (H, W, 3) with at least one pixel, got {array.dtype}"
            f" {array.shape}{hint}."
        )
    return three_channels(eight_bits(pixels, name))


def three_channels(pixels: np.ndarray) -> np.ndarray:
    """(..., C) of 1, 3 or 4 channels -> (..., 3): gray is repeated, alpha dropped."""
    if pixels.shape[-1] == 3:
        return pixels
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels[..., :3]


def eight_bits(array: np.ndarray, name: str) -> np.ndarray:
    """Numbers from 0 to 255 of any shape and type as uint8; floats are rounded.

    Raises:
        ImageError: naming ``name`` and saying how to convert, where the range is another or can be
            read in two ways: floats that stay below 2 may be a picture from 0 to 1, 16-bit integers
            one from 0 to 65535, and booleans are a mask.
    """
    if array.dtype == np.uint8 or not array.size:
        return array.astype(np.uint8, copy=False)
    kind, low, high = array.dtype.kind, 0, 255
    if kind in "iuf":
        low, high = array.min(), array.max()
        readable = array.dtype != np.uint16 and (kind != "f" or not 0 < high < 2)
        if readable and low >= 0 and high <= 255:  # not a number is no bound either
            return np.rint(array).astype(np.uint8)
    if kind == "b":
        how = "give mask.astype('uint8') * 255, if this is an image"
    elif kind in "iu" and low >= 0:
        how = "give (image >> 8).astype('uint8'), if these are 16 bits"
    elif kind == "f" and 0 <= low <= high <= 1:
        how = "give np.rint(255 * image).astype('uint8'), if 1 is white"
    else:
        how = "give the image as uint8, as it was before it was scaled or normalized"
    extent = f" from {low:g} to {high:g}" if kind in "iuf" else ""
    raise ImageError(
        f"{name}: expected numbers from 0 to 255, got {array.dtype} {array.shape}{extent}: {how}."
    )


# ---- masks ----

# One number a pixel: bits, bytes, palette entries (the entry's number, not its color), 16 and 32
# bits; LA and PA are a number and its opacity.
NUMBER_MODES = ("1", "L", "P", "LA", "PA", "I", "I;16", "I;16B", "I;16L", "I;16N")


def read_class_numbers(picture: Image.Image, name: str) -> np.ndarray:
    """The class numbers (H, W) of an open mask, as they are in the file.

    What Pillow widens to 8 bits is narrowed.

    Raises:
        ImageError: naming ``name``, for colors in place of numbers, and for a damaged file.
    """
    if picture.mode not in NUMBER_MODES:
        raise ImageError(
            f"{name}: expected one class number a pixel (gray, palette or 16-bit), got mode"
            f" '{picture.mode}': convert its colors to class numbers."
        )
    if picture.format in ("JPEG", "MPO"):
        raise ImageError(
            f"{name}: a JPEG does not keep class numbers as they were: save the mask as PNG."
        )
    white, white_in_file = _gray_range(picture)
    try:
        numbers = np.asarray(picture)
    except Exception as error:  # truncated and damaged data raise errors of many kinds
        raise ImageError(f"{name}: the mask is damaged or cut short: {one_line(error)}.") from error
    numbers = numbers[..., 0] if numbers.ndim == 3 else numbers
    numbers = numbers.astype(np.uint8) if numbers.dtype == bool else numbers
    if white == white_in_file:
        return numbers
    return np.rint(numbers * (white_in_file / white)).astype(numbers.dtype)


def _gray_range(picture: Image.Image) -> tuple[int, int]:
    """Pillow's number for white, and the one in the file: 255 and 15 for 4-bit gray."""
    tiles: Any = getattr(picture, "tile", None) or [("", None)]  # arguments of Pillow's decoder
    decoder, *_, arguments = tiles[0]
    arguments = arguments if isinstance(arguments, tuple | list) and arguments else (arguments,)
    if decoder in ("ppm", "ppm_plain") and picture.mode in ("L", "I"):
        return (255 if picture.mode == "L" else 65535), int(arguments[1])
    bits = re.match(r"L;([24])", str(arguments[0]))
    return (255, 2 ** int(bits[1]) - 1) if bits else (255, 255)
