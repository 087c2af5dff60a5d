"""Parse JSON request bodies as TensorFlow Serving does, with Python's parser, and show values in
its messages.

RapidJSON, which the real server uses, differs from Python's `json` in a few points that clients can
see: of repeated names the first counts, text after the document is ignored, bytes that are not
UTF-8 pass through strings, integers beyond 64 bits become doubles, and syntax errors have its words
(contract, section 3). Strings that are not UTF-8 carry surrogate escapes.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from tf_groupvit.server.status import StatusError, invalid

Json = dict[str, Any] | list[Any] | str | int | float | bool | None

ECHO_BYTES = 256  # of a value in a message; no token begins behind them
TOO_BIG = "JSON Parse error: Number too big to be stored in double."
_KINDS = {dict: "Object", list: "Array", str: "String", int: "Number", float: "Number"}
_LITERALS = {None: "Null", True: "True", False: "False"}
_BLANK = re.compile(r"[ \t\n\r]*")
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|([][{}])', re.DOTALL)
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F])|.)", re.DOTALL
)
# What Python's parser says of a fault, and what RapidJSON does.
_FAULTS = {
    "Expecting property name": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Unterminated string": "Missing a closing quotation mark in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid control character": "Invalid escape character in string.",
}


def parse(body: bytes) -> Json:
    """The first value of a document. Raises StatusError for its syntax, in RapidJSON's words."""
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    text = body.decode("utf-8", "surrogateescape").removeprefix("\ufeff")

    def failure(words: str, at: int) -> StatusError:
        offset = len(body) - len(text[at:].encode("utf-8", "surrogateescape"))
        return invalid(f"JSON Parse error: {words} at offset: {offset}")

    start = _BLANK.match(text).end()  # type: ignore[union-attr]
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise failure(*_fault(text, start, error.msg, error.pos)) from None
    except RecursionError:
        raise invalid("JSON Parse error: Nested too deeply: send fewer levels") from None
    except ValueError:  # an integer of thousands of digits
        raise invalid(TOO_BIG) from None
    if "\\ud" in text or "\\uD" in text:
        for escape in _ESCAPE.finditer(text, start, end):
            if escape[1]:
                raise failure("The surrogate pair in string is invalid.", escape.start())
    return value


def _fault(text: str, start: int, message: str, at: int) -> tuple[str, int]:
    """RapidJSON's words and place for an error of Python's parser."""
    if message.startswith("Illegal trailing comma"):  # since Python 3.13, which names the comma
        at = _BLANK.match(text, at + 1).end()  # type: ignore[union-attr]
    if message.startswith("Unterminated string"):
        at = len(text)
    elif message.startswith("Invalid \\u"):
        at -= 1
    for beginning, words in _FAULTS.items():
        if message.startswith(beginning):
            return words, at
    if message.startswith("Expecting ',' delimiter"):
        where = (
            "'}' after an object member" if _in_object(text, at) else "']' after an array element"
        )
        return f"Missing a comma or {where}.", at
    if at == start and text[at : at + 1] in ",:]}":  # also at the end
        return "The document is empty.", at
    return "Invalid value.", at


def _in_object(text: str, at: int) -> bool:
    """Whether the innermost bracket that is open at a place is that of an object."""
    open_brackets = []
    for found in _STRING_OR_BRACKET.finditer(text, 0, at):
        if found[1] in ("[", "{"):
            open_brackets.append(found[1])
        elif found[1]:
            open_brackets.pop()
    return open_brackets[-1] == "{"


def _first_of_each(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    return members if len(members) == len(pairs) else members | dict(reversed(pairs))


def _double(text: str) -> float:
    """A Python function, so that others may run between the numbers of a long list."""
    value = float(text)
    if math.isinf(value):
        raise invalid(TOO_BIG)
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_first_of_each, parse_float=_double)


def as_stored(number: int) -> int | float:
    """An integer as RapidJSON stores it: itself within 64 bits, else a double that is rounded at
    every digit. Raises StatusError where it does not fit one.
    """
    if -(2**63) <= number < 2**64:
        return number
    digits = str(abs(number))
    exact = 20 if int(digits[:20]) <= (2**63 if number < 0 else 2**64 - 1) else 19
    value = float(digits[:exact])
    for digit in digits[exact:]:
        value = value * 10.0 + int(digit)
    if math.isinf(value):
        raise invalid(TOO_BIG)
    return -value if number < 0 else value


def kind(value: Json) -> str:
    """The type's name in messages: Null, False, True, Object, Array, String or Number."""
    return _LITERALS[value] if value is None or isinstance(value, bool) else _KINDS[type(value)]


def quoted(text: str) -> str:
    """A JSON string; nothing but quotes, backslashes and control characters is escaped."""
    return json.dumps(text, ensure_ascii=False)


def value_error(value: Json, words: str) -> StatusError:
    """INVALID_ARGUMENT for a value, which the message shows."""
    return invalid(f"JSON Value: {echo(value)} {words}")


def echo(value: Json) -> str:
    """The value as a message shows it: objects over several lines, lists on one, until the first
    token after 256 bytes.
    """
    tokens, size = [], 0
    for token in _tokens(value, "", "\n"):
        if size >= ECHO_BYTES:
            break
        tokens.append(token)
        size += len(token.encode("utf-8", "surrogateescape"))
    return "".join(tokens)


def _tokens(value: Json, before: str, line: str) -> Iterator[str]:
    """The tokens of a value, the first behind ``before``; ``line`` begins a line at its level."""
    if isinstance(value, dict):
        yield before + "{"
        for index, (name, member) in enumerate(value.items()):
            yield f"{',' if index else ''}{line}    {quoted(name)}"
            yield from _tokens(member, ": ", line + "    ")
        yield line + "}" if value else "}"
    elif isinstance(value, list):
        yield before + "["
        for index, element in enumerate(value):
            yield from _tokens(element, ", " if index else "", line + "    ")
        yield "]"
    else:
        if isinstance(value, int) and not isinstance(value, bool):
            value = as_stored(value)
        yield before + json.dumps(value, ensure_ascii=False)
