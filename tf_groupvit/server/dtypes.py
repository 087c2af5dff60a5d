"""Element types: TensorFlow's number for a type in; its C++ name and its numpy type out, one table.

The names are those of TensorFlow's `DataTypeString`, which every message of the server uses
("float", not "float32").
"""

from functools import cache

import ml_dtypes  # noqa: F401 - comes with TensorFlow, and tells numpy of bfloat16
import numpy as np

# number in types.proto: (name, numpy type)
TYPES: dict[int, tuple[str, str]] = {
    1: ("float", "float32"),
    2: ("double", "float64"),
    3: ("int32", "int32"),
    4: ("uint8", "uint8"),
    5: ("int16", "int16"),
    6: ("int8", "int8"),
    7: ("string", "object"),
    8: ("complex64", "complex64"),
    9: ("int64", "int64"),
    10: ("bool", "bool"),
    14: ("bfloat16", "bfloat16"),
    17: ("uint16", "uint16"),
    18: ("complex128", "complex128"),
    19: ("half", "float16"),
    22: ("uint32", "uint32"),
    23: ("uint64", "uint64"),
}
NUMBER_OF = {name: number for number, (name, _) in TYPES.items()}
_NAME_OF_NUMPY = {numpy_name: name for name, numpy_name in TYPES.values()}


@cache
def numpy_type(number: int) -> np.dtype | None:
    """The numpy type of a type number, or None where there is none."""
    return np.dtype(TYPES[number][1]) if number in TYPES else None


def type_of(array: np.ndarray) -> str:
    """TensorFlow's name of an array's element type."""
    return _name_of(array.dtype)


@cache
def _name_of(type_: np.dtype) -> str:
    return _NAME_OF_NUMPY.get(type_.name, type_.name)
