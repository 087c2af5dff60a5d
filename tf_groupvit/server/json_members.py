"""Members of parsed JSON objects: a value of the parser in; its members, its kind or its echo out."""

from typing import Any

from tf_groupvit.server.json_echo import echo
from tf_groupvit.server.json_numbers import TooBig
from tf_groupvit.server.json_scanning import Pairs


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


def careful_echo(value: Any) -> str:
    """The value as a message shows it. Raises Doubt where a number is too wide for the fast parser's word."""
    try:
        return echo(value)
    except TooBig:
        raise Doubt from None
