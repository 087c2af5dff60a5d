"""Named arrays and the shapes that a model expects in, the arrays that fit out, or one report of
what does not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np

from tf_groupvit.checkpoints.names import OPTIONAL
from tf_groupvit.checkpoints.tensors import Tensors
from tf_groupvit.errors import CheckpointError

MOST_SHOWN = 20  # of each kind; the counts are always told

# What a joint checkpoint holds that one tower has no place for.
BESIDE_TEXT = ("vision_model.", "visual_projection.", "text_projection.", "logit_scale")
BESIDE_VISION = ("text_model.", "visual_projection.", "text_projection.", "logit_scale")


@dataclass(frozen=True)
class Match:
    """Tensors that fit: ``names`` in the model's order; ``ignored`` are those that the model has no
    place for.
    """

    tensors: Tensors
    shapes: dict[str, tuple[int, ...]]
    ignored: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.shapes)

    def sound(self) -> Tensors:
        """The tensors in the expected shapes, NaN and infinity refused when they are read."""
        entries = self.tensors.entries()
        return Tensors(
            {name: entries[name].map(s, partial(sound, name, s)) for name, s in self.shapes.items()}
        )


def match(
    tensors: Mapping[str, np.ndarray],
    expected: Mapping[str, Sequence[int]],
    allow: Iterable[str] = (),
    source: object = "The checkpoint",
) -> Match:
    """Which tensors go where: each expected name exactly once, in its shape.

    ``allow`` are beginnings of names that may be there without a place (BESIDE_TEXT,
    BESIDE_VISION). Position ids and counts of batches may be there or not. A single number fits any
    shape of one element. Errors: CheckpointError with all missing, unexpected and misshapen names,
    sorted, in one message.
    """
    tensors, allow = Tensors.of(tensors), tuple(allow)
    found = tensors.shapes()
    wanted = {name: tuple(shape) for name, shape in expected.items()}
    extra = sorted(found.keys() - wanted.keys())
    missing = sorted(name for name in wanted.keys() - found.keys() if not OPTIONAL.match(name))
    ignored = [name for name in extra if OPTIONAL.match(name) or name.startswith(allow)]
    misshapen = sorted(
        name for name in wanted.keys() & found.keys() if not fits(found[name], wanted[name])
    )
    problems = {
        "missing": missing,
        "unexpected": [name for name in extra if name not in set(ignored)],
        "misshapen": [f"{name} (expected {wanted[name]}, got {found[name]})" for name in misshapen],
    }
    if any(problems.values()):
        raise CheckpointError(
            f"{source} does not fit the model: {_report(problems)}."
            f" {_advice(found.keys() & wanted.keys())}"
        )
    return Match(
        tensors, {name: shape for name, shape in wanted.items() if name in found}, tuple(ignored)
    )


def fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Parity: transformers' TensorFlow class keeps logit_scale as (1,), its PyTorch class as ()."""
    return found == wanted or (prod(found) == prod(wanted) == 1)


def _advice(common: Iterable[str]) -> str:
    if any(True for _ in common):
        return "Check that config.json belongs to these weights."
    return "No name is the same: check that these are weights of GroupViT, and of this tower."


def _report(problems: dict[str, list[str]]) -> str:
    return "; ".join(
        f"{len(names)} {kind}: {_listed(names)}" for kind, names in problems.items() if names
    )


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_SHOWN
    return ", ".join(names[:MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")


def sound(name: str, shape: tuple[int, ...], array: np.ndarray) -> np.ndarray:
    """The array in its shape; NaN and infinity are refused, by name. Errors: CheckpointError."""
    if array.dtype.kind not in "iub" and not _sums_up(array):
        _refuse_unsound(name, array)
    return array.reshape(shape)


def _refuse_unsound(name: str, array: np.ndarray) -> None:
    nans, infinities = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    if nans or infinities:
        raise CheckpointError(
            f"Weight '{name}' holds {nans} NaN and {infinities} infinite values of {array.size}: "
            "the file is damaged or the training diverged, use another."
        )


def _sums_up(array: np.ndarray) -> bool:
    """Whether the sum is a number, which proves the same of every element; a sum can overflow, so
    no is no proof.
    """
    with np.errstate(all="ignore"):
        return bool(
            np.isfinite(array.sum(dtype=np.float64 if array.dtype.itemsize > 4 else np.float32))
        )
