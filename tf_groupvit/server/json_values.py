"""Values of parsed JSON: their members and kinds, and the text that messages and answers show of
them.

Floats (contract, section 5): six significant digits where they round-trip, else nine (float32) or
seventeen (float64); ".0" where neither a point nor an exponent occurs; NaN, Infinity, -Infinity
bare.

Echoes in error messages (contract, section 3): a four-space pretty print with arrays on one line,
stopped at the first token after 256 bytes. A lone number is written as the server writes tensor
values; numbers inside others as RapidJSON writes doubles.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from tf_groupvit.server.json_numbers import TooBig, as_stored
from tf_groupvit.server.json_scanning import Pairs

RAPIDJSON_FLOAT_MAX = (
    3.4028234e38  # what its IsFloat compares with, a little less than the largest float
)
LIMIT = 256  # bytes after which no further token is written

_KINDS = {
    type(None): "Null",
    str: "String",
    int: "Number",
    float: "Number",
    list: "Array",
    dict: "Object",
}
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPED = {chr(code): f"\\u{code:04X}" for code in range(0x20)} | _SHORT
_ODD = re.compile(r'["\\\x00-\x1f]')
_NOT_FINITE = {"nan": "NaN", "-nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


class Doubt(Exception):  # noqa: N818 - caught where the body is read
    """The fast parser's values do not tell what the server would have made of the text."""


def is_object(value: Any) -> bool:
    return isinstance(value, dict | Pairs)


def members(value: Any) -> Any:
    return value.items() if isinstance(value, dict) else value


def find(value: Any, name: str) -> Any:
    """The first member of that name; KeyError when there is none."""
    if isinstance(value, dict):
        return value[name]
    for other, member in value:
        if other == name:
            return member
    raise KeyError(name)


def has(value: Any, name: str) -> bool:
    return name in value if isinstance(value, dict) else any(other == name for other, _ in value)


def is_base64(value: Any) -> bool:
    """An object with exactly one member, ``b64``, that is a string."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def kind(value: Any) -> str:
    """The type's name in messages: Null, False, True, Object, Array, String or Number."""
    if isinstance(value, bool):
        return "True" if value else "False"
    return "Object" if isinstance(value, Pairs) else _KINDS[type(value)]


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


def quoted(text: str) -> str:
    """A JSON string as RapidJSON's writer escapes it: nothing but quotes, backslashes and control
    characters.
    """
    return f'"{_ODD.sub(lambda odd: _ESCAPED[odd[0]], text)}"'


def echo(value: Any) -> str:
    """The value as a message shows it; may stop in the middle, as the server's does."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = as_stored(value)
    if isinstance(value, float):
        return decimal(value, single=abs(value) <= RAPIDJSON_FLOAT_MAX)
    text, size = [], 0
    for token in _tokens(value, 0):
        if token is None or size >= LIMIT:
            break
        text.append(token)
        size += len(token.encode("utf-8", "surrogateescape"))
    return "".join(text)


def careful_echo(value: Any) -> str:
    """The value as a message shows it. Raises Doubt where a number is too wide for the fast
    parser's word.
    """
    try:
        return echo(value)
    except TooBig:
        raise Doubt from None


def _tokens(value: Any, depth: int) -> Iterator[str | None]:
    """The tokens of a value, each with what goes before it; None where RapidJSON's writer gives up."""
    if isinstance(value, dict | Pairs):
        yield from _object(value, depth)
    elif isinstance(value, list):
        yield from _array(value, depth)
    else:
        yield _scalar(value)
        if isinstance(value, float) and not math.isfinite(value):
            yield None


def _object(value: Any, depth: int) -> Iterator[str | None]:
    yield "{"
    before, pad = "\n", "    " * (depth + 1)
    for name, member in value.items() if isinstance(value, dict) else value:
        yield f"{before}{pad}{quoted(name)}"
        yield from _led_by(": ", _tokens(member, depth + 1))
        before = ",\n"
    yield ("\n" + "    " * depth if value else "") + "}"


def _array(value: list[Any], depth: int) -> Iterator[str | None]:
    yield "["
    before = ""
    for element in value:
        yield from _led_by(before, _tokens(element, depth + 1))
        before = ", "
    yield "]"


def _led_by(before: str, tokens: Iterator[str | None]) -> Iterator[str | None]:
    yield before + (next(tokens) or "")
    yield from tokens


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    value = as_stored(value) if isinstance(value, int) else value
    if isinstance(value, int):
        return str(value)
    return shortest(value) if math.isfinite(value) else ""


def shortest(value: float) -> str:
    """A double in the fewest digits that round-trip, laid out as RapidJSON lays it out."""
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    if value == 0:
        return sign + "0.0"
    mantissa, exponent = f"{abs(value)!r}e0".split("e")[:2]
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    return sign + _laid_out(digits, point)


def _laid_out(digits: str, point: int) -> str:
    """Digits with the decimal point after the first `point` of them."""
    if len(digits) <= point <= 21:
        return digits.ljust(point, "0") + ".0"
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    return digits[0] + ("." + digits[1:] if digits[1:] else "") + f"e{point - 1}"
