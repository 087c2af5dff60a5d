"""Floats as text: float arrays in; the decimal strings that TensorFlow Serving writes out.

The rule (contract, section 5): six significant digits where they round-trip, else nine (float32) or seventeen
(float64); ".0" where neither a point nor an exponent occurs; NaN, Infinity, -Infinity bare.
"""

import numpy as np

_NOT_FINITE = {"nan": "NaN", "-nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def decimals(values: np.ndarray) -> list[str]:
    """One string per element of a flat float32 or float64 array."""
    if not values.size:
        return []
    numbers = values.tolist()
    texts = (("%g," * len(numbers)) % tuple(numbers)).split(",")[:-1]
    finite = np.isfinite(values)
    with np.errstate(over="ignore"):
        read_back = np.array([float(text) for text in texts]).astype(values.dtype)
    full = "%.9g" if values.dtype == np.float32 else "%.17g"
    for index in np.flatnonzero(finite & (read_back != values)):
        texts[index] = full % numbers[index]
    for index in np.flatnonzero(~finite):
        texts[index] = _NOT_FINITE[texts[index]]
    for index in np.flatnonzero(finite & (values == np.trunc(values))):
        if "e" not in texts[index] and "." not in texts[index]:
            texts[index] += ".0"
    return texts


def decimal(value: float, single: bool) -> str:
    """One number; with ``single`` it is rounded to float32 first."""
    return decimals(np.array([value], np.float32 if single else np.float64))[0]
