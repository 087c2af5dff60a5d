"""An encoded image in, RGB pixels (H, W, 3) as a person sees them out: turned by EXIF, first frame, no alpha."""

import io
import struct
import warnings

import numpy as np
from PIL import Image, ImageOps

from tf_groupvit.errors import ImageError

ORIENTATION = 0x0112  # EXIF 2.32, table 4; values from 5 on swap the sides
UNREADABLE = (OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, EOFError, struct.error)


def open_picture(content: bytes, name: str) -> Image.Image:
    """Read the header of an image. Raises ``ImageError`` if there is none, or it is over Pillow's pixel limit."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(content))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = Image.MAX_IMAGE_PIXELS
        raise ImageError(f"{name} has more than {limit} pixels: give a smaller image.") from error
    except UNREADABLE as error:
        raise ImageError(
            f"{name} is not an image that can be read ({len(content)} bytes): give a JPEG or PNG."
        ) from error


def seen_size(picture: Image.Image) -> tuple[int, int]:
    """(width, height) of the image after EXIF rotation."""
    width, height = picture.size
    return (height, width) if turns(picture) >= 5 else (width, height)


def turns(picture: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none or it makes no sense."""
    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
    except UNREADABLE:
        return 1
    return orientation if orientation in range(1, 9) else 1


def seen(picture: Image.Image, name: str) -> Image.Image:
    """Decode an image, turn it by EXIF and make it RGB. Raises ``ImageError`` if its data is damaged."""
    try:
        picture.load()
        return _rgb(ImageOps.exif_transpose(picture) if turns(picture) > 1 else picture)
    except UNREADABLE as error:
        raise ImageError(f"{name} is damaged or cut short ({error}): get a whole copy.") from error


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips instead of scaling
        grey = np.clip(np.asarray(picture), 0, 65535).astype(np.uint16) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    return picture.convert("RGB")
