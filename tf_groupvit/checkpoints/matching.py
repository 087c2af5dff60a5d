"""Whether named arrays fit a model: each name once and in its shape, or a report of what not."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np

from tf_groupvit.checkpoints.names import OPTIONAL
from tf_groupvit.checkpoints.tensors import Tensors
from tf_groupvit.errors import CheckpointError

MOST_SHOWN = 20  # of each kind; the counts are always given
CHECK_CONFIG = "Check that config.json belongs to these weights."

# What a joint checkpoint holds that one tower has no place for.
UNUSED_BY_TEXT = ("vision_model.", "visual_projection.", "text_projection.", "logit_scale")
UNUSED_BY_VISION = ("text_model.", "visual_projection.", "text_projection.", "logit_scale")


@dataclass(frozen=True)
class Match:
    """Tensors that fit.

    ``shapes`` are those that the model expects, by name, in the model's order; ``ignored`` are the
    names that the model has no place for.
    """

    tensors: Tensors
    shapes: dict[str, tuple[int, ...]]
    ignored: tuple[str, ...]

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

    ``allow`` are beginnings of names that may be there without a place (UNUSED_BY_TEXT,
    UNUSED_BY_VISION). Position ids and counts of batches may be there or not. A single number fits
    any shape of one element. Errors: CheckpointError with all missing, unexpected and misshapen
    names, sorted, in one message.
    """
    tensors, allow = Tensors.of(tensors), tuple(allow)
    found = tensors.shapes()
    wanted = {name: tuple(shape) for name, shape in expected.items()}
    common, extra = found.keys() & wanted.keys(), sorted(found.keys() - wanted.keys())
    ignored = [name for name in extra if OPTIONAL.match(name) or name.startswith(allow)]
    problems = {
        "missing": [n for n in sorted(wanted.keys() - found.keys()) if not OPTIONAL.match(n)],
        "unexpected": sorted(set(extra) - set(ignored)),
        "misshapen": [
            f"{name} (expected {wanted[name]}, got {found[name]})"
            for name in sorted(common)
            if not fits(found[name], wanted[name])
        ],
    }
    report = "; ".join(
        f"{len(names)} {kind}: {_listed(names)}" for kind, names in problems.items() if names
    )
    if report:
        advice = (
            CHECK_CONFIG
            if common
            else "No name is the same: check that these are weights of GroupViT, and of this tower."
        )
        raise CheckpointError(f"{source} does not fit the model: {report}. {advice}")
    return Match(tensors, {n: shape for n, shape in wanted.items() if n in found}, tuple(ignored))


def fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether an array of one shape can take the place of another.

    Parity: transformers' TensorFlow class keeps logit_scale as (1,), its PyTorch class as ().
    """
    return found == wanted or (prod(found) == prod(wanted) == 1)


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_SHOWN
    return ", ".join(names[:MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")


def sound(name: str, shape: tuple[int, ...], array: np.ndarray) -> np.ndarray:
    """The array in ``shape``; NaN and infinity are refused, by name. Errors: CheckpointError."""
    if array.dtype.kind not in "iub":
        with np.errstate(all="ignore"):
            total = array.sum(dtype=np.float64 if array.dtype.itemsize > 4 else np.float32)
        # A finite sum proves the same of every element; a sum can overflow, so others are counted.
        if not np.isfinite(total):
            nans, infinities = int(np.isnan(array).sum()), int(np.isinf(array).sum())
            if nans or infinities:
                raise CheckpointError(
                    f"Weight '{name}' holds {nans} NaN and {infinities} infinite values of"
                    f" {array.size}: the file is damaged or the training diverged, use another."
                )
    return array.reshape(shape)
