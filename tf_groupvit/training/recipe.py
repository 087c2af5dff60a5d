"""A TOML file in, everything that a training run needs to know out: ``--recipe demo``, or the path of one's own."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tf_groupvit.errors import ConfigError
from tf_groupvit.evaluation.scenes import CLASSES

RECIPES = Path(__file__).resolve().parents[1] / "assets" / "recipes"


@dataclass(frozen=True)
class Vocabulary:
    """The texts' side: a byte-pair vocabulary learned from the first captions, and the words that losses look for."""

    captions: int = 5000  # of so many captions the merges are learned
    merges: int = 256
    max_length: int = 48  # tokens of a prompt, in the checkpoint
    text_length: int = 24  # tokens of a caption, in training: padding costs time
    words: tuple[str, ...] = CLASSES


@dataclass(frozen=True)
class Initialisation:
    """See ``training.initialisation``."""

    group_token_std: float = 1.0
    assign_gain: float = 1.5


@dataclass(frozen=True)
class Optimizer:
    """See ``training.optimizer``."""

    rate: float = 1e-3
    start: float = 1e-5
    floor: float = 1e-5
    warm_up: int = 100
    weight_decay: float = 0.05
    clip: float = 1.0
    accumulation: int = 1


@dataclass(frozen=True)
class Recipe:
    """One training run on scenes. ``model`` holds fields of the configs, by section: vision, text, joint.

    Attributes:
        save_every: steps between two states from which a run that was stopped goes on.
        validate_every: steps between two measurements of mIoU on held-out scenes; it decides nothing.
    """

    name: str = "recipe"
    steps: int = 1000
    batch_size: int = 64
    save_every: int = 50
    validate_every: int = 250
    validation_scenes: int = 100
    precision: str = "float32"
    losses: Mapping[str, float] = field(default_factory=lambda: {"caption": 1.0})
    model: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    vocabulary: Vocabulary = Vocabulary()
    initialisation: Initialisation = Initialisation()
    optimizer: Optimizer = Optimizer()

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "save_every", "validate_every", "validation_scenes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} is {value!r} in recipe '{self.name}': expected a whole number from 1.")

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a file, every default written out."""
        return asdict(self)


SECTIONS = {"vocabulary": Vocabulary, "initialisation": Initialisation, "optimizer": Optimizer}


def read_recipe(name_or_path: str | Path, **changes: Any) -> Recipe:
    """The recipe of a name that comes with the package, or of a TOML file; ``changes`` replace its top-level fields.

    Raises:
        ConfigError: no such recipe, not TOML, an unknown key, or a value that cannot be.
    """
    path = Path(name_or_path)
    named = RECIPES / f"{name_or_path}.toml"
    if path.suffix != ".toml" and named.exists():
        path = named
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
        raise ConfigError(f"There is no recipe '{name_or_path}': expected one of {known}, or the path of a TOML file.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"The recipe {path} cannot be read: {error}.") from error
    return recipe_of({"name": path.stem, **content, **changes})


def recipe_of(content: Mapping[str, Any]) -> Recipe:
    """The recipe that a parsed file holds."""
    values = dict(content)
    for section, kind in SECTIONS.items():
        if section in values:
            values[section] = _made(kind, values[section], f"[{section}]")
    return _made(Recipe, values, "the recipe")


def _made(kind: Any, values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} is {values!r:.60}: expected a table.")
    known = {f.name: f for f in fields(kind)}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0)[0]
            raise ConfigError(f"{where} has no key '{key}': did you mean '{near}'?")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
