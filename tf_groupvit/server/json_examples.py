"""Classify and regress bodies: JSON bytes in; the signature's name and the number of examples out.

The server answers these two methods for signatures made for them; GroupViT's are not, and the refusal must come in
the right order: first the body, then the model, then the signature (contract, section 14).
"""

from typing import Any

from tf_groupvit.server.base64_text import unescape
from tf_groupvit.server.json_echo import kind
from tf_groupvit.server.json_filling import Filling
from tf_groupvit.server.json_members import careful_echo, find, has, is_base64, is_object, members
from tf_groupvit.server.json_numbers import as_stored
from tf_groupvit.server.json_reading import read, signature_of, top_level
from tf_groupvit.server.refusal import invalid


def read_examples(body: bytes, scans: bool = True) -> tuple[str, int]:
    """The signature's name and how many examples the body holds. Raises Refusal, and Slow as `read`."""
    return read(body, _examples, scans)


def _examples(value: Any, filling: Filling) -> tuple[str, int]:
    signature = signature_of(top_level(value))
    if has(value, "context"):
        _check_example(find(value, "context"))
    if not has(value, "examples"):
        raise invalid(
            f"JSON Value: {careful_echo(value)} When method is classify, key 'examples' is expected and was not found"
        )
    examples = find(value, "examples")
    if not isinstance(examples, list):
        raise invalid(f"JSON Value: {careful_echo(value)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid(f"JSON Value: {careful_echo(value)} 'examples' value is an empty array")
    for example in examples:
        _check_example(example)
    return signature, len(examples)


def _check_example(example: Any) -> None:
    if not is_object(example):
        raise invalid(f"Example must be JSON object but got JSON {kind(example)}")
    for name, content in members(example):
        held = ""
        for value in content if isinstance(content, list) else [content]:
            found = _feature_kind(name, value)
            if held not in ("", found):
                raise invalid(f"Unexpected element type in feature: {name} expecting type: {held}")
            held = found


def _feature_kind(name: str, value: Any) -> str:
    """What an element makes its feature a list of."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = as_stored(value)
    if value is None or isinstance(value, list) or (is_object(value) and not is_base64(value)):
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {kind(value)}")
    if is_object(value):
        unescape(value["b64"])
    if not isinstance(value, int | float):
        return "bytes"
    if isinstance(value, int) and value >= 2**63:
        raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
    return "float" if isinstance(value, float) else "int64"
