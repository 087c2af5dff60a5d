"""Read REST bodies of predict, classify and regress into arrays, by TensorFlow Serving's rules.

The order of checks and every message are those of the contract, sections 3 and 4. Only names and
types of a signature's inputs matter here; declared shapes are never looked at.
"""

import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any, NamedTuple

import numpy as np

from tf_groupvit.server.json_parsing import (
    Json,
    as_stored,
    echo,
    kind,
    parse,
    value_error,
)
from tf_groupvit.server.status import StatusError, invalid
from tf_groupvit.server.tensor_protos import MAX_RANK, NUMBER_OF, check_strings, numpy_type

Types = dict[str, str]  # input name -> TensorFlow's type name
Arrays = dict[str, np.ndarray]

ROW, COLUMNAR = "row", "columnar"
FLOATS = ("float", "double")
# Which integers a type takes. int8, int16 and uint8 take all of int32 and wrap afterwards.
INTEGERS = {
    **dict.fromkeys(("int32", "int16", "int8", "uint8"), (-(2**31), 2**31 - 1)),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}
# What values are held in before they become the input's type.
_WIDEST = {
    **dict.fromkeys(FLOATS, np.float64),
    **dict.fromkeys(INTEGERS, np.int64),
    "uint64": np.uint64,
    "bool": np.bool_,
    "string": np.object_,
}
_BASE64, _BLANKS = re.compile(rb"[A-Za-z0-9+/]*+"), b" \t\n\v\f\r"


class PredictBody(NamedTuple):
    """A predict body: its form, which is that of the answer, the signature it names, its inputs."""

    form: str
    signature_name: str
    inputs: Arrays


@dataclass(frozen=True)
class Signatures:
    """The types of inputs by signature of a model's version, or the error that there is none."""

    types: dict[str, Types]
    default: str
    unknown: tuple[str, str] | None = None  # code and text where there is no version

    def __call__(self, name: str) -> Types:
        """Types of a signature's inputs; "" is the default one. Raises StatusError."""
        if self.unknown is not None:
            raise StatusError(*self.unknown)
        if (name or self.default) not in self.types:
            raise invalid(
                f'Serving signature name: "{name or self.default}" not found in signature def'
            )
        return self.types[name or self.default]


def read_predict(body: bytes, types_of: Callable[[str], Types]) -> PredictBody:
    """Form, signature name and input arrays of a predict body, by name.

    ``types_of`` gives the inputs of a signature, and raises StatusError where the model or the
    signature is unknown: that error follows those of syntax and precedes those of values. Raises
    StatusError.
    """
    document, signature = _document(body)
    types = types_of(signature)
    if not types:
        raise invalid(f"Failed to get input map for signature: {signature or 'DEFAULT'}")
    if "instances" not in document:
        if "inputs" not in document:
            raise invalid("Missing 'inputs' or 'instances' key")
        return PredictBody(COLUMNAR, signature, _columns(document["inputs"], types))
    if "inputs" in document:
        raise value_error(
            document,
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
        )
    instances = document["instances"]
    if not isinstance(instances, list):
        raise value_error(document, "Expecting 'instances' to be an list/array")
    if not instances:
        raise value_error(document, "No values in 'instances' array")
    return PredictBody(ROW, signature, _rows(instances, types))


def read_examples(body: bytes) -> tuple[str, int]:
    """The signature's name and how many examples a classify or regress body holds.

    Their features are not read, since no signature here takes examples. Raises StatusError.
    """
    document, signature = _document(body)
    if "examples" not in document:
        raise value_error(
            document, "When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise value_error(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise value_error(document, "'examples' value is an empty array")
    for example in examples:
        if not isinstance(example, dict):
            raise invalid(f"Example must be JSON object but got JSON {kind(example)}")
    return signature, len(examples)


def _document(body: bytes) -> tuple[dict[str, Json], str]:
    """The members of a body, and the signature that it names, "" where it names none."""
    document = parse(body)
    if not isinstance(document, dict):
        raise value_error(document, "Is not object")
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise value_error(
            document, "not formatted correctly. 'signature_name' key must be a string value."
        )
    return document, name


def _names_inputs(value: Json) -> bool:
    """Whether a value is an object of inputs by name, and not one that stands for bytes."""
    return isinstance(value, dict) and not _is_base64(value)


def _columns(value: Json, types: Types) -> Arrays:
    """`inputs`: an object of names, of which others than the signature's are ignored, or one bare
    value.
    """
    if not _names_inputs(value):
        if len(types) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors"
                " required as per tensorinfo_map"
            )
        value = dict.fromkeys(types, value)
    assert isinstance(value, dict)
    arrays = {}
    for name, type_ in sorted(types.items()):
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        arrays[name] = to_array(value[name], type_, name)
    return arrays


def _rows(instances: list[Any], types: Types) -> Arrays:
    """`instances`: a list of plain values, or of objects that each name every input."""
    named = _names_inputs(instances[0])
    if not isinstance(instances[0], dict) and len(types) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors"
            " required as per tensorinfo_map"
        )
    if not named:  # with several inputs the real server takes whichever its hash map lists first
        types = {name: types[name] for name in [min(types)]}
    alike = not named or all(_names_inputs(one) and one.keys() == types.keys() for one in instances)
    try:
        if not alike:
            raise invalid("The instances do not name the same inputs")
        columns = {name: [one[name] for one in instances] if named else instances for name in types}
        return {name: to_array(column, types[name], name) for name, column in columns.items()}
    except StatusError:
        _refuse_instances(instances, types, named)
        raise


def _refuse_instances(instances: list[Any], types: Types, named: bool) -> None:
    """Raises the StatusError of the first wrong instance, with its place in the list."""
    shapes: dict[str, tuple[int, ...]] = {}
    only = min(types)
    for index, instance in enumerate(instances):
        if _names_inputs(instance) != named:
            wanted = "object but got list" if named else "value/list but got object"
            raise invalid(f"Expecting {wanted} at item {index} of input list")
        for name, value in instance.items() if named else [(only, instance)]:
            try:
                if name not in types:
                    raise invalid(f"JSON object: does not have named input: {name}")
                shape = _shape_of(value, types[name], name)
                _check_shape(shape, shapes.setdefault(name, shape))
            except StatusError as error:
                where = f"{index} key: {name} of" if named else f"{index} of"
                raise invalid(
                    f"Failed to process element: {where} 'instances' list. Error: {error.code}:"
                    f" {error.text}"
                ) from None
        if named and instance.keys() != types.keys():
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. JSON object:"
                f" {echo(instance)} keys must be equal to: {','.join(sorted(types))}"
            )


def _shape_of(value: Json, type_: str, name: str) -> tuple[int, ...]:
    if isinstance(value, list):
        return to_array(value, type_, name).shape
    _leaf(value, type_)
    return ()


def _check_shape(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if prod(shape) != prod(wanted):
        raise invalid(f"Expecting tensor size: {prod(wanted)} but got: {prod(shape)}")
    if shape != wanted:
        got, expected = (f"[{','.join(map(str, one))}]" for one in (shape, wanted))
        raise invalid(f"Expecting shape {expected} but got: {got}")


def to_array(value: Json, type_: str, name: str) -> np.ndarray:
    """A value, or nested lists of values, as an array of an input's type and of the lists' shape.

    Raises StatusError for values of another type, ragged lists, and more than may be worked on.
    """
    shape = _first_shape(value)
    if len(shape) > MAX_RANK:
        raise invalid(f"tensor parsing error: {name}")
    leaves: list[Any] = [value]
    for size in shape:
        if set(map(type, leaves)) != {list} or set(map(len, leaves)) != {size}:
            _refuse_ragged(value, 0, shape, type_)
        leaves = list(chain.from_iterable(leaves))
    kinds = set(map(type, leaves))
    if list in kinds:
        _refuse_ragged(value, 0, shape, type_)
    if type_ == "string":
        check_strings(len(leaves), name)
    return _typed(leaves, kinds, type_).reshape(shape)


def _first_shape(value: Json) -> list[int]:
    """The shape that the first elements of nested lists give."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _refuse_ragged(value: Json, level: int, shape: list[int], type_: str) -> None:
    """Raises the StatusError of nested lists of unequal lengths or depths, at the first fault."""
    if not isinstance(value, list):
        if level != len(shape):
            raise value_error(
                value,
                f"found at incorrect level: {level + 1} in the JSON DOM. Expected at level:"
                f" {len(shape)}",
            )
        _leaf(value, type_)
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size:"
            f" {shape[level]}"
        )
    for element in value:
        _refuse_ragged(element, level + 1, shape, type_)


def _typed(leaves: list[Any], kinds: set[type], type_: str) -> np.ndarray:
    """(N,) values of some kinds as an input's type; numbers are rounded and wrapped as C++ casts
    do, in silence.
    """
    low, high = INTEGERS.get(type_, (-(2**63), 2**64 - 1))
    taken = {int, float} if type_ in FLOATS else {int} if type_ in INTEGERS else set()
    if not kinds <= taken or (int in kinds and not low <= min(leaves) <= max(leaves) <= high):
        leaves = [_leaf(leaf, type_) for leaf in leaves]
    flat: np.ndarray = np.array(leaves, _WIDEST.get(type_, np.float64))
    with np.errstate(over="ignore", invalid="ignore"):
        return flat.astype(numpy_type(NUMBER_OF[type_]), copy=False)


def _leaf(value: Json, type_: str) -> bytes | bool | int | float:
    """A value as its input's type holds it. Raises StatusError for one of another type."""
    if type_ == "string" and isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if type_ == "string" and isinstance(value, dict):
        if not _is_base64(value):
            raise value_error(value, "not formatted correctly for base64 data")
        return decode_base64(value["b64"])
    if type_ == "bool" and isinstance(value, bool):
        return value
    if type_ not in _WIDEST and not isinstance(value, dict):
        raise StatusError(
            "UNIMPLEMENTED", f"Conversion of JSON Value: {echo(value)} to type: {type_}"
        )
    number = as_stored(value) if type(value) is int else value
    if type_ in FLOATS and type(number) in (int, float):
        return float(number)  # type: ignore[arg-type]
    low, high = INTEGERS.get(type_, (0, -1))
    if type(number) is int and low <= number <= high:
        return number
    raise value_error(value, f"Type: {kind(value)} is not of expected type: {type_}")


def _is_base64(value: Json) -> bool:
    """Whether a value is an object with exactly one member, ``b64``, that is a string."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(text: str) -> bytes:
    """The bytes of a ``b64`` member. Raises StatusError.

    As absl's Base64Unescape reads it: standard alphabet only; ASCII blanks are ignored; padding may
    be missing, or be dots; surplus padding and anything after it is refused.
    """
    given = text.encode("utf-8", "surrogateescape").translate(None, _BLANKS)
    digits = given.rstrip(b"=.")
    padding, missing = len(given) - len(digits), -len(digits) % 4
    if missing == 3 or padding not in (0, missing) or not _BASE64.fullmatch(digits):
        raise invalid("Unable to base64 decode")
    return binascii.a2b_base64(digits + b"=" * missing)
