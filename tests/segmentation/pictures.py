"""A size and a seed in, a picture in which a random model sees several groups out."""

import numpy as np
from PIL import Image


def noise(height, width, seed=0):
    """Soft coloured patches, in which a random model sees several groups."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
