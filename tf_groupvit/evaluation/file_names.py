"""Names of files in; which of them are data, and where their order is in doubt, out."""

import re
from collections.abc import Iterable

# What systems and programs leave among files, beside names that begin with a dot (``._x``,
# ``.DS_Store``).
JUNK = ("__macosx", "@eadir", "$recycle.bin", "thumbs.db", "desktop.ini")


def is_junk(path: str) -> bool:
    """Whether a path, from the root of the data on, is hidden or one of ``JUNK``, or lies in a
    folder that is.
    """
    parts = path.replace("\\", "/").split("/")
    return any(
        (part.startswith(".") and part.strip(".") != "") or part.lower() in JUNK for part in parts
    )


def first_in_doubt(names: Iterable[str]) -> tuple[int, str, str] | None:
    """Where the order of names as strings and the order that a person sees differ for the first
    time.

    Returns the place, counted from 0, the name there as strings are sorted (``10.jpg`` before
    ``2.jpg``), and the one there as file managers sort (numbers by their value, capitals like small
    letters); None where both agree.
    """
    by_letter = sorted(names)
    seen = sorted(by_letter, key=_as_a_person)
    pairs = enumerate(zip(by_letter, seen, strict=True))
    return next(((place, one, other) for place, (one, other) in pairs if one != other), None)


def _as_a_person(name: str) -> list[tuple[int, int]]:
    """Characters by their code, a run of digits as one of them, by its value."""
    parts = re.findall(r"\d+|\D", name.casefold())
    return [(ord("0"), int(part)) if part.isdecimal() else (ord(part), 0) for part in parts]
