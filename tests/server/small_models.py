"""Small SavedModels for the server's tests: a base path and a version in; a folder that any server
loads out.
"""

from pathlib import Path

import tensorflow as tf

FLOATS = tf.TensorSpec([None], tf.float32, name="x")
STRINGS = tf.TensorSpec([None], tf.string)


class HalfPlusTwo(tf.Module):
    """The fixture that the conformance cases assume; ``plus`` tells versions apart."""

    def __init__(self, plus: float = 2.0) -> None:
        super().__init__()
        self.plus = tf.Variable(plus)

    @tf.function(input_signature=[FLOATS])
    def half(self, x):
        return {"y": x / 2 + self.plus}

    @tf.function(input_signature=[FLOATS])
    def total(self, x):
        return {"total": tf.reduce_sum(x)}

    @tf.function(input_signature=[FLOATS])
    def mask(self, x):
        return {"mask_bytes": tf.fill(tf.shape(x), tf.constant(b"\x00\xff"))}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="image_bytes"),
            tf.TensorSpec([None], tf.string, name="class_names"),
        ]
    )
    def segment(self, image_bytes, class_names):
        return {
            "length": tf.cast(tf.strings.length(image_bytes), tf.int64),
            "class_names": tf.identity(class_names),
        }


def half_plus_two(base_path: Path, version: int = 123, plus: float = 2.0) -> Path:
    """Write a version of the fixture model; its parent appears at once, under its number."""
    model = HalfPlusTwo(plus)
    signatures = {name: getattr(model, name) for name in ("segment", "total", "mask")}
    return publish(model, base_path, version, {"serving_default": model.half, **signatures})


def publish(model: tf.Module, base_path: Path, version: int, signatures: dict) -> Path:
    """Save beside the versions and rename, as a version should be published."""
    staging = base_path / f"staging-{version}"
    tf.saved_model.save(model, str(staging), signatures=signatures)
    return staging.rename(base_path / str(version))


class Echo(tf.Module):
    """Gives back one input of any element type, and does nothing to it."""

    def __init__(self, dtype: tf.DType) -> None:
        super().__init__()
        spec = tf.TensorSpec(None, dtype, name="x")
        self.echo = tf.function(lambda x: {"y": tf.identity(x)}, input_signature=[spec])


def echo(base_path: Path, dtype: tf.DType, version: int = 1) -> Path:
    model = Echo(dtype)
    return publish(model, base_path, version, {"serving_default": model.echo})


class Slow(tf.Module):
    """Multiplies matrices for a while: ``work`` rounds, then x + 1."""

    @tf.function(input_signature=[FLOATS, tf.TensorSpec([], tf.int32, name="work")])
    def slow(self, x, work):
        start = tf.eye(200)
        done = tf.while_loop(
            lambda i, m: i < work, lambda i, m: (i + 1, tf.linalg.matmul(m, start)), [0, start]
        )
        return {"y": x + done[1][0, 0]}


def slow(base_path: Path, version: int = 1) -> Path:
    model = Slow()
    return publish(model, base_path, version, {"serving_default": model.slow})


# Every element type a signature may have, as TensorFlow names it; `every_type` has a signature of
# each name.
TYPES = (
    "float", "double", "int32", "int16", "int8", "uint8", "int64", "uint32", "uint64", "bool", "string",
    "half", "bfloat16", "uint16", "complex64", "complex128",
)  # fmt: skip


class EveryType(tf.Module):
    """A signature per element type that gives x back as y, and others whose inputs or outputs are
    odd.
    """

    @tf.function(input_signature=[])
    def constant(self):
        return {"y": tf.constant([1.0])}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.float32, name="a"),
            tf.TensorSpec([None], tf.string, name="b"),
        ]
    )
    def pair(self, a, b):
        return {"a": tf.identity(a), "b": tf.identity(b), "b_bytes": tf.strings.join([b])}

    @tf.function(input_signature=[FLOATS])
    def uneven(self, x):
        return {"a": x + 1.0, "b": x[:1]}

    @tf.function(input_signature=[FLOATS])
    def fails(self, x):
        with tf.control_dependencies([tf.debugging.assert_less(x, 10.0, message="x is too large")]):
            return {"y": tf.identity(x)}


def every_type(base_path: Path, version: int = 1) -> Path:
    model = EveryType()
    signatures = {name: getattr(model, name) for name in ("pair", "uneven", "fails")}
    echoes = [
        Echo(tf.as_dtype({"float": "float32", "double": "float64"}.get(name, name)))
        for name in TYPES
    ]
    signatures |= {name: one.echo for name, one in zip(TYPES, echoes, strict=True)}
    return publish(model, base_path, version, {"serving_default": model.constant, **signatures})


class Rows(tf.Module):
    """Says how many rows ran at once: a number for each row, beside the sum of the row's own
    values.
    """

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="x")])
    def rows(self, x):
        return {"rows": tf.fill(tf.shape(x)[:1], tf.shape(x)[0]), "sum": tf.reduce_sum(x, axis=1)}


def rows(base_path: Path, version: int = 1) -> Path:
    model = Rows()
    return publish(model, base_path, version, {"serving_default": model.rows})
