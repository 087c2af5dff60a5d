"""Images as encoded bytes: what is sent to a server, PNG, and the size after EXIF rotation."""

import io
import warnings
from os import PathLike, fspath
from pathlib import Path

from PIL import Image

from tf_groupvit.errors import ImageError
from tf_groupvit.files import EXIF_ORIENTATION
from tf_groupvit.preprocessing.image_reading import (
    MAX_PIXELS,
    ImageLike,
    OpenFile,
    read_file,
    read_image,
)

SERVED = ("JPEG", "PNG", "GIF", "BMP")  # formats that TensorFlow decodes since 2.19


def encode_image(source: ImageLike) -> bytes:
    """Bytes of an image for a server; arrays are (H, W, 3), as ``read_image`` takes them.

    Files are sent as they are where TensorFlow reads their format; everything else is sent as PNG,
    without loss. Raises ``ImageError``, from the header, for what is no image.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        content, name = bytes(source), "image"
    elif isinstance(source, (str, PathLike)):
        content, name = _content(fspath(source)), str(source)
    elif isinstance(source, OpenFile):
        name = str(getattr(source, "name", "image"))
        content = read_file(source, name)
    else:
        return png(Image.fromarray(read_image(source)))
    picture = open_picture(content, name)
    # TensorFlow does not know EXIF, and the exported graph reads it from JPEG alone.
    as_it_is = picture.format == "JPEG" or (picture.format in SERVED and _orientation(picture) == 1)
    return content if as_it_is else png(Image.fromarray(read_image(content, name=name)))


def open_picture(content: bytes, name: str) -> Image.Image:
    """Read the header of an image. Raises ``ImageError`` without one, or for too many pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(content))
    except Exception as error:  # Pillow's readers raise whatever a broken header makes them raise
        bomb = isinstance(error, Image.DecompressionBombError)
        reason = " ".join(str(error).split()) if bomb else "no image is in it"
        raise ImageError(
            f"{name}: expected an image, received {len(content):,} bytes: {reason}."
        ) from error
    if picture.width * picture.height > MAX_PIXELS:
        raise ImageError(
            f"{name}: {picture.width}x{picture.height} is over {MAX_PIXELS:,} pixels: shrink it."
        )
    return picture


def seen_size(picture: Image.Image) -> tuple[int, int]:
    """(width, height) of an image after EXIF rotation."""
    width, height = picture.size
    return (height, width) if _orientation(picture) >= 5 else (width, height)


def png(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _orientation(picture: Image.Image) -> int:
    try:
        orientation = picture.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about how the picture lies
        return 1
    return orientation if orientation in range(1, 9) else 1


def _content(path: str | bytes) -> bytes:
    try:
        return Path(path if isinstance(path, str) else path.decode()).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path!s}: cannot be read: {reason}: name an image file.") from error
