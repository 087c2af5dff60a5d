"""A model in, a short text that tells its weights from others out."""

import hashlib
from typing import Any

import numpy as np


def fingerprint(model: Any) -> str:
    """Sixteen hexadecimal digits over shapes and values of a Keras model's weights, in their order.

    Names are left out, since Keras counts models up in them; so are whole numbers, which are states of chance.
    """
    digest = hashlib.blake2b(digest_size=8)
    for weight in model.weights:
        if "float" in str(weight.dtype):
            digest.update(str(tuple(weight.shape)).encode())
            digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()
