"""REST routes: a method and a raw path with its query in; what is asked of which model out.

The server matches its two regular expressions on the raw text, query included, so `?x=1` is part of a model's name
(contract, section 2).
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from tf_groupvit.server.refusal import invalid

API = re.compile(r"/v1/.*", re.IGNORECASE | re.ASCII | re.DOTALL)
_VERSION = r"(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?"
_FLAGS = re.IGNORECASE | re.ASCII
_POST = re.compile(rf"/v1/models/([^/:]+){_VERSION}:(classify|regress|predict)", _FLAGS)
_GET = re.compile(rf"/v1/models(?:/([^/:]+))?{_VERSION}(?:/(metadata))?", _FLAGS)


@dataclass(frozen=True)
class Route:
    """What a path asks for. ``action`` is predict, classify, regress, status or metadata."""

    action: str
    model: str
    version: int | None = None
    label: str | None = None


class VersionTooLarge(Exception):  # noqa: N818 - an answer of its own: 400 with an empty body
    """The version does not fit 64 bits."""


def route_of(method: str, target: str) -> Route:
    """The route of a target below /v1/. Raises Refusal, or VersionTooLarge."""
    pattern = {"POST": _POST, "GET": _GET}.get(method)
    match = pattern.fullmatch(target) if pattern else None
    if match is None:
        raise invalid(f"Malformed request: {method} {target}")
    model, version, label, last = match.groups()
    number = (version or "").lstrip("0")
    if len(number) > 19 or int(number or 0) >= 2**63:
        raise VersionTooLarge
    action = last if method == "POST" else ("metadata" if last == "metadata" else "status")
    if method == "POST" and action not in ("predict", "classify", "regress"):
        raise invalid(f"Malformed request: {method} {target}")  # the pattern takes :PREDICT, the server does not
    if not model:
        raise invalid("Missing model name in request.")
    return Route(action, decoded(model), int(number or 0) if version else None, decoded(label) if label else None)


def decoded(text: str) -> str:
    """Percent-decoded, as bytes."""
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
