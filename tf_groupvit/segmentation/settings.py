"""How to segment, in one value: protocol, mode, sizes, statistics; checked once, shared by Python
and exports.

Without Keras: a command refuses a wrong choice before that is loaded.
"""

from dataclasses import dataclass

from tf_groupvit.config import GroupViTVisionConfig
from tf_groupvit.errors import InputError
from tf_groupvit.preprocessing.image_arrays import statistics
from tf_groupvit.runtimes import GRAPH, WITH_AUTO, check_runtime

PROTOCOLS = ("paper", "hf")
MODES = ("whole", "window")


@dataclass(frozen=True)
class Refinement:
    """How scores are refined.

    Attributes:
        dilations: distances in cells of the neighbors that PAMR looks at; none leaves it out.
        rounds: how many times PAMR spreads scores.
        side: the shorter side of the grid of cells on which scores are refined.
        radius: of the guided filter's square windows, in cells.
        epsilon: how much variance of colors, each from 0 to 1, counts as even.
    """

    dilations: tuple[int, ...]
    rounds: int = 10
    side: int = 40
    radius: int = 4
    epsilon: float = 1e-3


REFINEMENTS = {
    # Each cell is small next to a thing in a photo, or the thing is lost.
    "pamr": Refinement((1, 2, 4, 8), rounds=5, side=80),
    "pamr-published": Refinement((1, 2, 4, 8, 12, 24)),
    "guided": Refinement((), side=32, radius=6),
}


def whole_size(
    image_size: tuple[int, int], patch: tuple[int, int], size: int | None
) -> tuple[int, int]:
    """(H, W) that mode whole resizes every image to: the model's image size, or a square of
    ``size``.
    """
    if size is None:
        return image_size
    if (
        isinstance(size, bool)
        or not isinstance(size, int)
        or size < 1
        or size % patch[0]
        or size % patch[1]
    ):
        raise InputError(f"size is {size!r}: expected a multiple of the patch size {patch}.")
    return size, size


@dataclass(frozen=True)
class Settings:
    """``size`` (H, W): what mode whole resizes to. Windows are twice ``image_size``, their stride
    is ``image_size``.
    """

    protocol: str
    mode: str
    background: float | None
    size: tuple[int, int]
    image_size: int
    patch: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    refine: str | None = None

    @property
    def window(self) -> int:
        """Side of a window in pixels; the stride is half of it."""
        return 2 * self.image_size


def check_choices(
    protocol: str = "paper",
    mode: str = "whole",
    background: float | None = None,
    runtime: str = GRAPH,
    refine: str | None = None,
) -> None:
    """Refuse what no model can do. Raises ``InputError``."""
    check_runtime(runtime, WITH_AUTO)
    check_protocol(protocol, background)
    check_refinement(refine)
    if mode not in MODES:
        raise InputError(f"There is no mode {mode!r}: expected one of {', '.join(MODES)}.")


def check_protocol(protocol: str, background: float | None) -> None:
    """Refuse an unknown protocol, and a background that it cannot have."""
    if protocol not in PROTOCOLS:
        raise InputError(
            f"There is no protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}."
        )
    if background is None:
        return
    if protocol == "hf":
        raise InputError(
            "protocol='hf' gives logits, not probabilities: a background threshold needs"
            " protocol='paper'."
        )
    if (
        isinstance(background, bool)
        or not isinstance(background, int | float)
        or not 0 <= background <= 1
    ):
        raise InputError(
            f"background is {background!r}: expected a threshold from 0 to 1, or None."
        )


def check_refinement(name: str | None) -> None:
    """Refuse a refinement that there is not. Raises ``InputError``."""
    if name is not None and not (isinstance(name, str) and name in REFINEMENTS):
        choices = ", ".join(REFINEMENTS)
        raise InputError(f"There is no refinement {name!r}: expected one of {choices}, or None.")


def make_settings(
    vision: GroupViTVisionConfig,
    processor: object,
    protocol: str = "paper",
    mode: str = "whole",
    background: float | None = None,
    size: int | None = None,
    normalize: str | None = None,
    refine: str | None = None,
) -> Settings:
    """Check the choices against the model and each other.

    Raises:
        InputError: a choice that there is not, or that does not go with another.
    """
    check_choices(protocol, mode, background, refine=refine)
    if mode == "window" and size is not None:
        raise InputError(
            "size= belongs to mode 'whole': windows take theirs from the model's image size."
        )
    if not any(vision.num_group_tokens):
        raise InputError(
            "This model has no grouping stage (num_group_tokens are all 0): it cannot segment."
        )
    mean, std = (processor.mean, processor.std) if normalize is None else statistics(normalize)  # type: ignore[attr-defined]
    patch = vision.patch_height_width
    return Settings(
        protocol=protocol,
        mode=mode,
        background=background,
        size=whole_size(vision.image_height_width, patch, size),
        image_size=min(vision.image_height_width),
        patch=patch,
        mean=tuple(mean),
        std=tuple(std),
        refine=refine,
    )
