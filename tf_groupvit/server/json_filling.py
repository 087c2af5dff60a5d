"""Values into arrays: parsed `instances` or `inputs` in; one numpy array per input out.

The rules for each element type, for ragged lists and for base64 objects are those of the contract,
section 4. Regular number lists are read by numpy in one go; whatever numpy cannot take as it stands
is read value by value, which also words the errors.
"""

import binascii
import re
from typing import Any

import numpy as np

from tf_groupvit.server.dtypes import NUMBER_OF, numpy_type
from tf_groupvit.server.json_numbers import as_stored
from tf_groupvit.server.json_scanning import Pairs
from tf_groupvit.server.json_values import (
    Doubt,
    careful_echo,
    find,
    has,
    is_base64,
    is_object,
    kind,
    members,
)
from tf_groupvit.server.status import StatusError, invalid

Types = dict[str, str]  # input name -> TensorFlow's type name
Arrays = dict[str, np.ndarray]

# Which integer tokens a type takes. int8, int16 and uint8 take all of int32 and wrap afterwards.
INTEGERS = {
    "int32": (-(2**31), 2**31 - 1),
    "int16": (-(2**31), 2**31 - 1),
    "int8": (-(2**31), 2**31 - 1),
    "uint8": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}
FLOATS = {"float", "double"}
_MAX_RANK = 64  # numpy's; TensorFlow's own is 254
_BLANK = dict.fromkeys(b" \t\n\x0b\x0c\r")
_TEXT = re.compile(r"([A-Za-z0-9+/]*)([=.]*)")
_PADDING = {
    0: (0,),
    2: (0, 2),
    3: (0, 1),
}  # characters over a multiple of four: how much padding may follow


def shape_of(value: Any) -> list[int]:
    """The shape that the first elements of nested lists give."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


class Filling:
    """Values into arrays. ``exact`` says that numbers are as RapidJSON reads them, not as Python
    does.
    """

    def __init__(self, exact: bool) -> None:
        self.exact = exact

    def columns(self, value: Any, types: Types) -> Arrays:
        """`inputs`: an object of names, or one bare value."""
        if is_object(value) and not is_base64(value):
            return {name: self._column(value, name, type_) for name, type_ in sorted(types.items())}
        if len(types) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors"
                " required as per tensorinfo_map"
            )
        ((name, type_),) = types.items()
        return {name: self._whole(value, name, type_)}

    def _column(self, value: Any, name: str, type_: str) -> np.ndarray:
        if not has(value, name):
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        return self._whole(find(value, name), name, type_)

    def _whole(self, value: Any, name: str, type_: str) -> np.ndarray:
        array = self._at_once(value, type_)
        if array is not None:
            return array
        shape, flat = checked_shape(value, name), []  # type: list[int], list[Any]
        self._fill(value, 0, shape, type_, flat)
        return packed(flat, shape, type_)

    def rows(self, instances: list[Any], types: Types) -> Arrays:
        """`instances`: a list of plain values, or of objects that each name every input."""
        if not is_object(instances[0]) and len(types) > 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple input tensors"
                " required as per tensorinfo_map"
            )
        if is_object(instances[0]) and not is_base64(instances[0]):
            return self._named_rows(instances, types)
        name = min(types)  # with several inputs the server takes whichever its hash map lists first
        array = self._at_once(instances, types[name])
        if array is not None:
            return {name: array}
        column = Column(name, types[name])
        for index, instance in enumerate(instances):
            if is_object(instance) and not is_base64(instance):
                raise invalid(f"Expecting value/list but got object at item {index} of input list")
            self._add(column, instance, f"{index} of 'instances' list.")
        return {name: column.array(len(instances))}

    def _named_rows(self, instances: list[Any], types: Types) -> Arrays:
        columns = {name: Column(name, type_) for name, type_ in types.items()}
        for index, instance in enumerate(instances):
            if not is_object(instance) or is_base64(instance):
                raise invalid(f"Expecting object but got list at item {index} of input list")
            for name, value in members(instance):
                where = f"{index} key: {name} of 'instances' list."
                if name not in columns:
                    text = f"JSON object: does not have named input: {name}"
                    raise invalid(
                        f"Failed to process element: {where} Error: INVALID_ARGUMENT: {text}"
                    )
                self._add(columns[name], value, where)
            if {name for name, _ in members(instance)} != types.keys():
                raise invalid(
                    f"Failed to process element: {index} of 'instances' list. JSON object:"
                    f" {careful_echo(instance)} keys must be equal to: {','.join(sorted(types))}"
                )
        return {name: column.array(len(instances)) for name, column in columns.items()}

    def _add(self, column: "Column", value: Any, where: str) -> None:
        """One instance's value; its errors say where they are, and all become INVALID_ARGUMENT."""
        shape = checked_shape(value, column.name)
        try:
            array = self._at_once(value, column.type) if isinstance(value, list) else None
            if array is not None:
                column.add([array.reshape(-1)], list(array.shape), array.size)
                return
            flat: list[Any] = []
            self._fill(value, 0, shape, column.type, flat)
            column.add([packed(flat, [len(flat)], column.type)], shape, len(flat))
        except StatusError as refusal:
            text = f"{refusal.code}: {refusal.text}"
            raise invalid(f"Failed to process element: {where} Error: {text}") from None

    def _at_once(self, value: Any, type_: str) -> np.ndarray | None:
        """A regular list of plain numbers as numpy reads it; None where only the slow way knows."""
        if (
            not isinstance(value, list)
            or type_ not in FLOATS | INTEGERS.keys()
            or (type_ == "double" and not self.exact)
        ):
            return None
        if not only_numbers(value):
            return None
        try:
            array = np.array(value)
        except (ValueError, OverflowError):  # ragged, or deeper than numpy goes
            return None
        return self._converted(array, type_)

    def _converted(self, array: np.ndarray, type_: str) -> np.ndarray | None:
        if array.dtype.kind not in "iuf" or (
            array.size and array.dtype.kind == "f" and type_ in INTEGERS
        ):
            return None
        if type_ in INTEGERS and array.size:
            low, high = INTEGERS[type_]
            if int(array.min()) < low or int(array.max()) > high:
                return None
        if array.dtype.kind == "f" and not self.exact and np.isinf(array).any():
            raise Doubt  # "Infinity", or a number too big for a double
        if type_ == "float" and array.dtype.kind != "f":
            array = array.astype(np.float64)  # rounded twice, as RapidJSON's GetFloat does
        return as_type(array, type_)

    def _fill(self, value: Any, level: int, shape: list[int], type_: str, flat: list[Any]) -> None:
        """Append the leaves of a value, depth first, checking each list against the shape."""
        if not isinstance(value, list):
            if level != len(shape):
                raise invalid(
                    f"JSON Value: {careful_echo(value)} found at incorrect level: {level + 1} in"
                    f" the JSON DOM. Expected at level: {len(shape)}"
                )
            flat.append(self._leaf(value, type_))
            return
        if level >= len(shape):
            raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
        if len(value) != shape[level]:
            raise invalid(
                f"Encountered list at unexpected size: {len(value)} at level: {level} expected"
                f" size: {shape[level]}"
            )
        for element in value:
            self._fill(element, level + 1, shape, type_, flat)

    def _leaf(self, value: Any, type_: str) -> Any:
        if is_object(value):
            return base64_bytes(value) if type_ == "string" else self._wrong(value, type_)
        if type_ == "string":
            return (
                value.encode("utf-8", "surrogateescape")
                if isinstance(value, str)
                else self._wrong(value, type_)
            )
        if type_ == "bool":
            return value if isinstance(value, bool) else self._wrong(value, type_)
        if type_ not in FLOATS | INTEGERS.keys():
            raise StatusError(
                "UNIMPLEMENTED", f"Conversion of JSON Value: {careful_echo(value)} to type: {type_}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self._wrong(value, type_)
        return self._number(value, type_)

    def _number(self, value: int | float, type_: str) -> int | float:
        value = as_stored(value) if isinstance(value, int) else value
        if (
            isinstance(value, float)
            and not self.exact
            and (type_ == "double" or value in (np.inf, -np.inf))
        ):
            raise Doubt  # the scanner's arithmetic decides
        if type_ in FLOATS:
            return float(value)
        low, high = INTEGERS[type_]
        return (
            value if isinstance(value, int) and low <= value <= high else self._wrong(value, type_)
        )

    def _wrong(self, value: Any, type_: str) -> Any:
        if isinstance(value, float) and not self.exact:
            raise Doubt
        raise invalid(
            f"JSON Value: {careful_echo(value)} Type: {kind(value)} is not of expected type:"
            f" {type_}"
        )


class Column:
    """One input's values over the instances: all of one shape."""

    def __init__(self, name: str, type_: str) -> None:
        self.name, self.type = name, type_
        self.shape: list[int] | None = None
        self.size = 0
        self.parts: list[np.ndarray] = []

    def add(self, parts: list[np.ndarray], shape: list[int], size: int) -> None:
        if self.shape is None:
            self.shape, self.size = shape, size
        elif size != self.size:
            raise invalid(f"Expecting tensor size: {self.size} but got: {size}")
        elif shape != self.shape:
            raise invalid(f"Expecting shape {bracketed(self.shape)} but got: {bracketed(shape)}")
        self.parts += parts

    def array(self, count: int) -> np.ndarray:
        """(count, *shape); a name repeated within instances leaves values over, which are cut."""
        flat = np.concatenate(self.parts)
        return flat[: count * self.size].reshape([count, *(self.shape or [])])


def bracketed(shape: list[int]) -> str:
    return f"[{','.join(map(str, shape))}]"


def checked_shape(value: Any, name: str) -> list[int]:
    shape = shape_of(value)
    if len(shape) > _MAX_RANK - 1:
        raise invalid(f"tensor parsing error: {name}")
    return shape


def only_numbers(value: list[Any]) -> bool:
    """No true or false among the leaves, which numpy would take for 1 and 0."""
    while value and isinstance(value[0], list):
        if not all(isinstance(element, list) for element in value):
            return False
        value = [element for inner in value for element in inner]
    return not {bool, str, dict, list, Pairs, type(None)} & set(map(type, value))


def base64_bytes(value: Any) -> bytes:
    if not is_base64(value):
        raise invalid(f"JSON Value: {careful_echo(value)} not formatted correctly for base64 data")
    return unescape(value["b64"])


def unescape(text: str) -> bytes:
    """The bytes of a ``b64`` member, by the rules of absl's Base64Unescape. Raises StatusError.

    Standard alphabet only; white space is ignored; padding may be missing, or be dots; surplus
    padding and anything after it is refused.
    """
    if len(text) % 4 == 0 and not text.endswith(
        "==="
    ):  # Python's strict mode takes surplus padding
        try:
            return binascii.a2b_base64(text, strict_mode=True)
        except ValueError:
            pass  # blanks, dots, or truly wrong
    match = _TEXT.fullmatch(text.translate(_BLANK))
    if match is None or len(match[2]) not in _PADDING.get(len(match[1]) % 4, ()):
        raise invalid("Unable to base64 decode")
    return binascii.a2b_base64(match[1] + "=" * (-len(match[1]) % 4))


def packed(flat: list[Any], shape: list[int], type_: str) -> np.ndarray:
    """A flat list of checked leaves as an array of the input's type."""
    if type_ == "string":
        array = np.empty(len(flat), object)
        array[:] = flat
        return array.reshape(shape)
    if type_ in FLOATS:
        return as_type(np.array(flat, np.float64).reshape(shape), type_)
    if type_ == "bool":
        return np.array(flat, np.bool_).reshape(shape)
    wide = np.uint64 if type_ == "uint64" else np.int64
    return as_type(np.array(flat, wide).reshape(shape), type_)


def as_type(array: np.ndarray, type_: str) -> np.ndarray:
    """Rounded and wrapped as C++ casts do, in silence."""
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(numpy_type(NUMBER_OF[type_]), copy=False)
