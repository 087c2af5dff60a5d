"""Pictures of colored fields, as files."""

import io

import numpy as np
from PIL import Image


def picture(seed=0, size=(32, 32), kind="png"):
    """The bytes of a small picture of colored fields."""
    fields = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(fields).resize(size, Image.Resampling.NEAREST).save(content, kind)
    return content.getvalue()
