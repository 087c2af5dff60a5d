"""A model in, a short text that tells its weights from others out."""

import hashlib
from typing import Any

import numpy as np


def fingerprint(model: Any) -> str:
    """Sixteen hexadecimal digits over the names and values of all weights of a Keras model."""
    digest = hashlib.blake2b(digest_size=8)
    for variable in model.weights:
        digest.update(variable.path.encode())
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()
