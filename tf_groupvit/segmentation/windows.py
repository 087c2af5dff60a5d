"""Image sizes in, what the model is shown out: the whole image as a square, or windows over it.

Window mode is how the published numbers were made: short side to 448, long side at most 2048, windows of 448 at a
stride of 224, for a model of 224; the last window of a row or column is moved in. Source: the published evaluation.
"""

from tf_groupvit.errors import InputError

MODES = ("whole", "window")
LONGEST = 2048 / 224  # the longest side, in units of the model's image size


def whole_size(image_size: tuple[int, int], patch: tuple[int, int], size: int | None) -> tuple[int, int]:
    """(H, W) that mode whole resizes every image to: the model's image size, or a square of ``size``."""
    if size is None:
        return image_size
    if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size % patch[0] or size % patch[1]:
        raise InputError(f"size is {size!r}: expected a multiple of the patch size {patch}.")
    return size, size


def window_scale(height: int, width: int, image_size: int) -> float:
    """The factor by which window mode resizes an image of ``height`` x ``width``."""
    short, long = min(height, width), max(height, width)
    return min(2 * image_size / short, LONGEST * image_size / long)


def resized(height: int, width: int, image_size: int, patch: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of the image that windows are cut from: ratio kept, rounded, and at least one patch."""
    scale = window_scale(height, width, image_size)
    return max(int(height * scale + 0.5), patch[0]), max(int(width * scale + 0.5), patch[1])


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along one side; the last one ends at the border. One window if the side is no longer."""
    if length <= window:
        return [0]
    return [*range(0, length - window, stride), length - window]


def boxes(height: int, width: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Top left corners (y, x) of the windows over an image, row by row."""
    return [(y, x) for y in starts(height, window, stride) for x in starts(width, window, stride)]
