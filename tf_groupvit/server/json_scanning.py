"""Request bodies: the bytes of a JSON document in; Python values, or RapidJSON's own error text,
out.

Well-formed documents take the C parser of the standard library. What it refuses, and what it reads
differently (surrogate escapes, byte order marks, bytes that are not UTF-8), takes the scanner
below, which follows RapidJSON 1.1.0's iterative parser state by state: `Inf` and `-NaN` are
numbers, text after the document is ignored, and errors carry its texts and offsets (contract,
section 3).

An object is a dict, or `Pairs` where a name is repeated; strings that are not UTF-8 carry surrogate
escapes.
"""

import json
import re
from typing import Any

from tf_groupvit.server.json_numbers import TOKEN, TOO_BIG, TooBig, number
from tf_groupvit.server.status import StatusError, invalid


class Pairs(tuple):
    """The members of an object that repeats a name, in order."""

    __slots__ = ()


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Pairs:
    members = dict(pairs)
    return members if len(members) == len(pairs) else Pairs(pairs)


# No tensor has more than 254 dimensions; a body of brackets alone should not keep a thread busy for
# long.
DEEPEST = 10_000
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_fast = json.JSONDecoder(object_pairs_hook=unique).decode


UNREAD = object()


def parse(body: bytes) -> Any:
    """The value of a document, or UNREAD where the scanner is needed. Raises StatusError where there is
    nothing.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    if not body.startswith(b"\xef") and not (b"\\u" in body and _SURROGATE.search(body)):
        try:
            return _fast(body.decode("utf-8"))
        except (
            ValueError,
            RecursionError,
        ):  # the scanner says what is wrong, or reads it after all
            pass
    return UNREAD


# What the scanner expects next, and what RapidJSON says when something else comes.
START, FIRST_NAME, COLON, VALUE, AFTER_MEMBER, NAME, FIRST_ELEMENT, AFTER_ELEMENT, ELEMENT = range(
    9
)
COMPLAINT = {
    START: "The document is empty.",
    FIRST_NAME: "Missing a name for object member.",
    NAME: "Missing a name for object member.",
    COLON: "Missing a colon after a name of object member.",
    VALUE: "Invalid value.",
    AFTER_MEMBER: "Missing a comma or '}' after an object member.",
    FIRST_ELEMENT: "Invalid value.",
    ELEMENT: "Invalid value.",
    AFTER_ELEMENT: "Missing a comma or ']' after an array element.",
}
_TAKES_VALUE = {START, VALUE, FIRST_ELEMENT, ELEMENT}
_LITERALS = {b"t": (b"true", True), b"f": (b"false", False), b"n": (b"null", None)}
_BLANK = re.compile(rb"[ \t\n\r]*")
_RUN = re.compile(rb'[^"\\\x00-\x1f]*')
_HEX4 = re.compile(rb"[0-9a-fA-F]{4}")
_ESCAPES = {
    b'"': b'"', b"\\": b"\\", b"/": b"/", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t",
}  # fmt: skip


def failure(text: str, offset: int) -> StatusError:
    return invalid(f"JSON Parse error: {text} at offset: {offset}")


def scan(body: bytes) -> Any:
    """The first value of the document, read as RapidJSON's iterative parser reads it."""
    at = _byte_order_mark(body)
    open_values: list[list[Any]] = []  # elements of arrays, alternating names and values of objects
    kinds: list[bool] = []  # True for an object
    state = START
    while True:
        match = _BLANK.match(body, at)
        at = match.end() if match else at
        char = body[at : at + 1]
        if state in _TAKES_VALUE and char in (b"[", b"{"):
            if len(kinds) == DEEPEST:
                raise failure(f"Nested deeper than {DEEPEST} levels.", at)
            open_values.append([])
            kinds.append(char == b"{")
            state, at = (FIRST_NAME if char == b"{" else FIRST_ELEMENT), at + 1
            continue
        if state in _TAKES_VALUE and char and char not in b",:]}\0":
            value, at = _scalar(body, at)
        elif char == b'"' and state in (FIRST_NAME, NAME):
            name, at = _string(body, at)
            open_values[-1].append(name)
            state = COLON
            continue
        elif char == b":" and state == COLON:
            state, at = VALUE, at + 1
            continue
        elif char == b"," and state in (AFTER_MEMBER, AFTER_ELEMENT):
            state, at = (NAME if state == AFTER_MEMBER else ELEMENT), at + 1
            continue
        elif (char == b"}" and state in (FIRST_NAME, AFTER_MEMBER)) or (
            char == b"]" and state in (FIRST_ELEMENT, AFTER_ELEMENT)
        ):
            value, at = _closed(open_values.pop(), kinds.pop()), at + 1
        else:
            raise failure(COMPLAINT[state], at)
        if not open_values:
            return value
        open_values[-1].append(value)
        state = AFTER_MEMBER if kinds[-1] else AFTER_ELEMENT


def _byte_order_mark(body: bytes) -> int:
    at = 0
    for mark in b"\xef\xbb\xbf":
        at += at < len(body) and body[at] == mark
    return at


def _closed(items: list[Any], is_object: bool) -> Any:
    return unique(list(zip(items[::2], items[1::2], strict=True))) if is_object else items


def _scalar(body: bytes, at: int) -> tuple[Any, int]:
    char = body[at : at + 1]
    if char == b'"':
        return _string(body, at)
    if char in _LITERALS:
        word, value = _LITERALS[char]
        return value, _follow(body, at, word)
    return _number(body, at)


def _follow(body: bytes, at: int, word: bytes) -> int:
    """The offset after a word; where a letter differs, that is where RapidJSON stops."""
    for letter in word:
        if body[at : at + 1] != bytes([letter]):
            raise failure("Invalid value.", at)
        at += 1
    return at


def _number(body: bytes, at: int) -> tuple[int | float, int]:
    token = TOKEN.match(body, at)
    if token is None:
        return _not_finite(body, at)
    end = token.end()
    after = body[end : end + 1]
    if after == b"." and token[3] is None and token[5] is None:
        raise failure("Miss fraction part in number.", end + 1)
    if after in (b"e", b"E") and token[5] is None:
        sign = body[end + 1 : end + 2] in (b"+", b"-")
        raise failure("Miss exponent in number.", end + 1 + sign)
    try:
        return number(token), end
    except TooBig:
        raise failure(TOO_BIG, at) from None


def _not_finite(body: bytes, at: int) -> tuple[float, int]:
    minus = body[at : at + 1] == b"-"
    at += minus
    if body[at : at + 1] == b"N":
        return float("nan"), _follow(body, at, b"NaN")
    at = _follow(body, at, b"Inf")
    if body[at : at + 1] == b"i":
        at = _follow(body, at, b"inity")
    return float("-inf" if minus else "inf"), at


def _string(body: bytes, at: int) -> tuple[str, int]:
    at += 1
    parts: list[bytes] = []
    while True:
        run = _RUN.match(body, at)
        assert run is not None  # the pattern matches the empty string too
        parts.append(run[0])
        at = run.end()
        char = body[at : at + 1]
        if char == b'"':
            return b"".join(parts).decode("utf-8", "surrogateescape"), at + 1
        if char in (b"", b"\0"):
            raise failure("Missing a closing quotation mark in string.", at)
        if char != b"\\":
            raise failure("Invalid escape character in string.", at)
        part, at = _escape(body, at)
        parts.append(part)


def _escape(body: bytes, at: int) -> tuple[bytes, int]:
    letter = body[at + 1 : at + 2]
    if letter in _ESCAPES:
        return _ESCAPES[letter], at + 2
    if letter != b"u":
        raise failure("Invalid escape character in string.", at)
    code = _hex(body, at + 2, at)
    if not 0xD800 <= code <= 0xDBFF:
        return chr(code).encode("utf-8", "surrogatepass"), at + 6
    if body[at + 6 : at + 8] != b"\\u":
        raise failure("The surrogate pair in string is invalid.", at)
    low = _hex(body, at + 8, at)
    if not 0xDC00 <= low <= 0xDFFF:
        raise failure("The surrogate pair in string is invalid.", at)
    return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)).encode(), at + 12


def _hex(body: bytes, at: int, escape: int) -> int:
    digits = _HEX4.match(body, at)
    if digits is None:
        raise failure("Incorrect hex digit after \\u escape in string.", escape)
    return int(digits[0], 16)
