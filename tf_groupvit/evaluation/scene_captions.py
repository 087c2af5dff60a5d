"""The things and grounds of a scene in, a sentence about them out."""

from collections.abc import Sequence

import numpy as np

# How a thing stands on each ground.
ON = {
    "grass": "on the grass",
    "sky": "in the sky",
    "sand": "on the sand",
    "water": "in the water",
    "brick": "on the brick",
}

# {t} the things with their articles, {on} the ground with its preposition, {g} and {h} the grounds.
FORMS = {
    "things on one ground": (
        "a photo of {t} {on}.",
        "a picture of {t} {on}.",
        "there is {t} {on}.",
        "{t} {on}.",
        "a photo of the {g} with {t}.",
        "{g} with {t}.",
    ),
    "things on two grounds": (
        "a photo of {t} with {g} {beside} {h}.",
        "{t}, {g} {beside} {h}.",
        "a picture of {g} {beside} {h} with {t}.",
        "there is {t} between the {g} and the {h}.",
    ),
    "close-up": (
        "a close-up of {t}.",
        "a photo of {t} up close.",
        "a picture of {t}.",
        "nothing but {t}.",
    ),
    "one ground": (
        "a photo of {g}.",
        "a picture of the {g}.",
        "nothing but {g}.",
        "just the {g}.",
    ),
    "two grounds": (
        "a photo of {g} {beside} {h}.",
        "{g} {beside} {h}.",
        "a picture of the {g} and the {h}.",
    ),
}


def caption(kind: str, things: Sequence[str], grounds: Sequence[str], above: bool, rng: np.random.Generator) -> str:
    """One of the forms of this kind of scene. ``above``: the first of two grounds lies above the second."""
    form = FORMS[kind][rng.integers(len(FORMS[kind]))]
    first = grounds[0] if grounds else ""
    return form.format(
        t=_listed([f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in things]),
        on=ON.get(first, ""),
        g=first,
        h=grounds[-1] if grounds else "",
        beside="above" if above else "beside",
    )


def _listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
