"""Class names as a person gives them in, for each class its names out: (first, synonyms...). No TensorFlow."""

from collections.abc import Iterable, Sequence

from tf_groupvit.errors import InputError


def parse_classes(classes: str | Iterable[str]) -> list[tuple[str, ...]]:
    """Class names, as a list or separated by commas -> for each class its names, synonyms behind the first.

    Blanks around a name are dropped, and so are those inside beyond one.

    Raises:
        InputError: no class, an empty one, or one that is there twice.
    """
    listed = classes.split(",") if isinstance(classes, str) else _listed(classes)
    if not listed or (isinstance(classes, str) and not classes.strip()):
        raise InputError("Class names are empty: give at least one, e.g. --classes 'cat,dog'.")
    for number, entry in enumerate(listed, 1):
        if not isinstance(entry, str):
            raise InputError(f"Class {number} is {entry!r}: expected a name, a string.")
    parsed = [tuple(" ".join(name.split()) for name in entry.split("|")) for entry in listed]
    for number, (entry, names) in enumerate(zip(listed, parsed, strict=True), 1):
        if not all(names):
            raise InputError(
                f"Class {number} of {len(parsed)} is {entry!r}, an empty name: give it one, or leave it out."
            )
    refuse_twice([names[0] for names in parsed])
    return parsed


def refuse_twice(names: Sequence[str]) -> None:
    """Raise ``InputError`` for names that are there more than once."""
    seen: set[str] = set()
    twice = sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
    if twice:
        raise InputError(f"Classes are there twice: {', '.join(map(repr, twice))}: name each of them once.")


def _listed(classes: Iterable[str]) -> list[str]:
    if isinstance(classes, bytes) or not isinstance(classes, Iterable):
        raise InputError(f"Class names are {classes!r}: expected a list of names, or one text with commas.")
    return list(classes)
