"""A TOML file in, everything that a training run needs to know out: ``--recipe demo``, or the path of one's own."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tf_groupvit.errors import ConfigError
from tf_groupvit.evaluation.scenes import CLASSES
from tf_groupvit.training.recipe_sections import (
    SCENES,
    Data,
    Initialisation,
    Optimizer,
    Start,
    Vocabulary,
    made,
    one_of,
    whole,
)

RECIPES = Path(__file__).resolve().parents[1] / "assets" / "recipes"
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
TRAINS = ("all", "group tokens", "projections", "vision", "lora")
KEEPS = ("last", "best")
OF_WORDS = ("vocabulary", "group_word")  # losses over a fixed vocabulary


@dataclass(frozen=True)
class Recipe:
    """One training run. ``model`` holds fields of the configs, by section: vision, text, joint.

    Attributes:
        epochs: in place of ``steps``, times that the captions are gone through; 0: the steps count.
        save_every: steps between two states from which a run that was stopped goes on.
        validate_every: steps between two measurements, of mIoU on held-out scenes or of the loss of held-out captions.
        keep: whether the checkpoint is the ``last`` one, or the ``best`` that was measured.
        patience: measurements in a row without a better one, after which training stops; 0: it does not.
        trains: what learns, see ``training.freezing``; ``lora`` takes ``lora_rank``.
        drop_path, rematerialise: see ``training.regularisation``.
    """

    name: str = "recipe"
    steps: int = 1000
    epochs: int = 0
    batch_size: int = 64
    save_every: int = 50
    validate_every: int = 250
    validation_scenes: int = 100
    keep: str = "last"
    patience: int = 0
    precision: str = "float32"
    trains: str = "all"
    lora_rank: int = 8
    drop_path: float = 0.0
    rematerialise: bool = False
    data: Data = Data()  # noqa: RUF009 - frozen
    start: Start = Start()  # noqa: RUF009 - frozen
    losses: Mapping[str, float] = field(default_factory=lambda: {"caption": 1.0})
    model: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    vocabulary: Vocabulary = Vocabulary()  # noqa: RUF009 - frozen
    initialisation: Initialisation = Initialisation()  # noqa: RUF009 - frozen
    optimizer: Optimizer = Optimizer()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        where = f"in recipe '{self.name}'"
        for name in ("steps", "batch_size", "save_every", "validate_every", "validation_scenes", "lora_rank"):
            whole(f"{name} {where}", getattr(self, name))
        for name in ("epochs", "patience"):
            whole(f"{name} {where}", getattr(self, name), least=0)
        for name, choices in (("keep", KEEPS), ("precision", PRECISIONS), ("trains", TRAINS)):
            one_of(f"{name} {where}", getattr(self, name), choices)
        self._check_losses()
        self._check_start()

    def _check_losses(self) -> None:
        """What each loss reads must be there."""
        for name, weight in self.losses.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise ConfigError(f"[losses] {name} is {weight!r:.40}: expected a number, its weight.")
        wanted = {name for name, weight in self.losses.items() if weight}
        if self.data.source == SCENES and "multi_label" in wanted:
            raise ConfigError("Scenes have no words for the loss multi_label: take vocabulary.")
        if (fixed := sorted(wanted & {*OF_WORDS})) and not self.words:
            raise ConfigError(f"The loss {fixed[0]} needs [vocabulary] words: those to be looked for in captions.")
        if ("multi_label" in wanted) != bool(self.data.words):
            raise ConfigError("The loss multi_label and [data] words go together: give both, or none.")

    def _check_start(self) -> None:
        if self.start.checkpoint and self.model:
            raise ConfigError(
                f"The recipe '{self.name}' has sizes in [model], and a checkpoint is given: "
                "keep one of them, e.g. --recipe finetune with a checkpoint."
            )
        if self.epochs and self.data.source == SCENES:
            raise ConfigError("Scenes have no end: give steps in place of epochs.")
        if (self.keep == "best" or self.patience) and not (self.data.source == SCENES or self.data.held_out):
            raise ConfigError(
                'keep = "best" and patience need held-out captions: [data] validation, or validation_share.'
            )

    @property
    def words(self) -> tuple[str, ...]:
        """The vocabulary of losses that have one, and the class names of the checkpoint; the scenes have theirs."""
        return self.vocabulary.words or (CLASSES if self.data.source == SCENES else ())

    @property
    def sought_words(self) -> tuple[str, ...]:
        """Those of ``words`` that a loss reads: all, or none."""
        return self.words if any(self.losses.get(name) for name in OF_WORDS) else ()

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a file, every default written out."""
        return asdict(self)


SECTIONS = {
    "data": Data,
    "start": Start,
    "vocabulary": Vocabulary,
    "initialisation": Initialisation,
    "optimizer": Optimizer,
}


def read_recipe(name_or_path: str | Path, **changes: Any) -> Recipe:
    """The recipe of a name that comes with the package, or of a TOML file; ``changes`` replace its top-level fields.

    A change that is a dict replaces keys of a table; ``steps`` take the place of epochs.

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
    return recipe_of(_changed({"name": path.stem, **content}, changes))


def recipe_of(content: Mapping[str, Any]) -> Recipe:
    """The recipe that a parsed file holds."""
    if content.get("epochs") and "steps" in content:
        raise ConfigError(f"The recipe has {content['steps']} steps and {content['epochs']} epochs: give one of them.")
    values = dict(content)
    for section, kind in SECTIONS.items():
        if section in values:
            values[section] = made(kind, values[section], f"[{section}]")
    return made(Recipe, values, "the recipe")


def _changed(content: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    if "steps" in changes:
        content.pop("epochs", None)
    for key, value in changes.items():
        table = content.get(key)
        content[key] = {**table, **value} if isinstance(table, Mapping) and isinstance(value, Mapping) else value
    return content
