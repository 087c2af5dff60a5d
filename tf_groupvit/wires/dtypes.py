"""TensorFlow's names of dtypes in, their numbers, numpy types and places in a TensorProto out."""

import numpy as np

# tensorflow/core/framework/types.proto: number, name, numpy type, field of TensorProto.
DTYPES = [line.split() for line in """1 DT_FLOAT <f4 float_val; 2 DT_DOUBLE <f8 double_val; 3 DT_INT32 <i4 int_val;
    4 DT_UINT8 u1 int_val; 5 DT_INT16 <i2 int_val; 6 DT_INT8 i1 int_val; 7 DT_STRING O string_val;
    9 DT_INT64 <i8 int64_val; 10 DT_BOOL ? bool_val; 17 DT_UINT16 <u2 int_val; 19 DT_HALF <f2 half_val;
    22 DT_UINT32 <u4 uint32_val; 23 DT_UINT64 <u8 uint64_val""".split(";")]  # fmt: skip
NUMPY_OF = {name: np.dtype(kind) for _, name, kind, _ in DTYPES}
NUMBER_OF = {name: int(number) for number, name, _, _ in DTYPES}
NAME_OF = {number: name for name, number in NUMBER_OF.items()}
FIELD_OF = {name: values for _, name, _, values in DTYPES}
