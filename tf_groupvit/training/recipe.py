"""Recipes: TOML files that say what a training run needs to know, read and checked.

Each table of the file is a dataclass; its defaults count where the file says nothing. TensorFlow is
not loaded.
"""

import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tf_groupvit.errors import ConfigError, InputError, did_you_mean
from tf_groupvit.scenes.scene import CLASSES
from tf_groupvit.training.losses import LOSSES, check_weights

SCENES, TAGGER, DEMO = "scenes", "tagger", "demo"
AUGMENTATIONS, STATISTICS = ("none", "published"), ("imagenet", "clip")
RECIPES = Path(__file__).resolve().parents[1] / "assets" / "recipes"
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
TRAINS = ("all", "group tokens", "projections", "vision", "lora")
KEEPS = ("last", "best")
# Keys of 0.1 -> those of today; the old ones are read for one release.
RENAMED = {"initialisation": "initialization", "rematerialise": "rematerialize"}


@dataclass(frozen=True)
class Data:
    """What is trained on.

    Attributes:
        source: ``scenes``, or where pairs are: a folder with captions, shards or TFRecord files,
            wildcards allowed.
        validation: the same for held-out pairs, whose loss is measured; none unless given. Scenes
            need none.
        validation_share: in place of ``validation``, the share of the source's own pairs that is
            held out.
        validation_pairs: how many of the held-out pairs are read.
        augmentation: one of ``AUGMENTATIONS``; scenes have none.
        normalize: the statistics of pixels, one of ``STATISTICS``; the checkpoint's processor gets
            them too.
        words: for the loss ``multi_label``, a file with a word a line, or ``tagger``, NLTK's.
        word_count: how many words of a caption are drawn.
        shuffle: size of the buffer from which records are drawn; 1 keeps the order.
    """

    source: str = SCENES
    validation: str = ""
    validation_share: float = 0.0
    validation_pairs: int = 1000
    augmentation: str = "published"
    normalize: str = "imagenet"
    words: str = ""
    word_count: int = 3
    shuffle: int = 10_000

    def __post_init__(self) -> None:
        require_choice("[data] augmentation", self.augmentation, AUGMENTATIONS)
        require_choice("[data] normalize", self.normalize, STATISTICS)
        for name in ("validation_pairs", "word_count", "shuffle"):
            require_int("[data] " + name, getattr(self, name))
        if not self.source:
            raise ConfigError(
                "[data] source is empty: say what to train on, e.g. --data my-captions."
            )
        if not 0 <= self.validation_share < 1:
            raise ConfigError(
                f"[data] validation_share is {self.validation_share}: expected 0 or more, below 1."
            )
        if self.validation and self.validation_share:
            raise ConfigError(
                "[data] validation and validation_share are two ways to hold out pairs: give one."
            )
        if self.source == SCENES and (self.held_out or self.words):
            raise ConfigError(
                "[data] validation and words are for captions of your own: scenes have theirs."
            )

    @property
    def held_out(self) -> bool:
        """Whether pairs are held out, whose loss is measured."""
        return bool(self.validation or self.validation_share)


@dataclass(frozen=True)
class Start:
    """Where a run begins: at a checkpoint, or at the sizes of ``[model]`` and a tokenizer.

    Attributes:
        checkpoint: a folder, a hub id, or ``demo``, the one in the package; the sizes unless
            given.
        tokenizer: a folder or a hub id; the checkpoint's own unless given, and for sizes one
            learned from the first captions.
    """

    checkpoint: str = ""
    tokenizer: str = ""


@dataclass(frozen=True)
class Vocabulary:
    """A byte-pair vocabulary learned from the first captions, and the words that losses look for.

    ``words`` are those of the losses ``vocabulary`` and ``group_word``, and class names of the
    checkpoint; where scenes are trained on, their classes unless given.
    """

    captions: int = 5000  # from which the merges are learned
    merges: int = 256
    max_length: int = 48  # tokens of a prompt, in the checkpoint
    text_length: int = 24  # tokens of a caption, in training: padding costs time
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if wrong := [word for word in self.words if not isinstance(word, str) or not word.strip()]:
            raise ConfigError(
                f"[vocabulary] words hold {wrong[0]!r}: expected names, none of them empty."
            )


@dataclass(frozen=True)
class Initialization:
    """See ``model_setup.spread_groups``."""

    group_token_std: float = 1.0
    assign_gain: float = 1.5


@dataclass(frozen=True)
class Optimizer:
    """See ``model_setup.adamw`` and ``warm_up_then_cosine``.

    ``warm_up_epochs`` take the place of ``warm_up``, in steps, where the recipe has epochs.
    """

    rate: float = 1e-3
    start: float = 1e-5
    floor: float = 1e-5
    warm_up: int = 100
    warm_up_epochs: int = 0
    weight_decay: float = 0.05
    clip: float = 1.0
    accumulation: int = 1


def parse_section(kind: type, values: object, where: str) -> Any:
    """The dataclass ``kind``, made from a parsed table.

    Raises:
        ConfigError: an unknown key, with the nearest known one, or a value of another type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} is {values!r:.60}: expected a table.")
    known = {field.name: field for field in fields(kind)}
    for key in values:
        if key not in known:
            raise ConfigError(f"{where} has no key '{key}': {did_you_mean(key, known)}")
    typed = {
        key: _typed(f"{where} {key}", value, known[key].default) for key, value in values.items()
    }
    return kind(**typed)


def _typed(where: str, value: object, default: object) -> object:
    """The value as its default's type; what has no plain default is a table."""
    value = tuple(value) if isinstance(value, list) else value
    expected = Mapping if default is MISSING else type(default)
    allowed = (int, float) if expected is float else expected
    if not isinstance(value, allowed) or isinstance(value, bool) is not (expected is bool):
        sample = "a table" if default is MISSING else f"one like {default!r:.60}"
        raise ConfigError(f"{where} is {value!r:.60}: expected {sample}.")
    return value


def require_choice(where: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ConfigError for a value that is none of the choices."""
    if value not in choices:
        raise ConfigError(f"{where} is {value!r}: expected one of {', '.join(choices)}.")


def require_int(where: str, value: object, least: int = 1) -> None:
    """Raise ConfigError for a value that is no whole number from ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{where} is {value!r}: expected a whole number from {least}.")


@dataclass(frozen=True)
class Recipe:
    """One training run. ``model`` holds fields of the configs, by section: vision, text, joint.

    Attributes:
        epochs: in place of ``steps``, how often all captions are seen; 0: the steps count.
        save_every: steps between two states from which a run that was stopped can resume.
        validate_every: steps between two measurements, of mIoU on held-out scenes or of the loss of
            held-out captions.
        keep: whether the checkpoint is the ``last`` one, or the ``best`` that was measured.
        patience: measurements in a row without a better one, after which training stops; 0: never.
        trains: what learns, see ``model_setup.PARTS``; ``lora`` takes ``lora_rank``.
        drop_path, rematerialize: see ``model_setup``.
        losses: name of a loss, see ``losses.LOSSES`` -> its weight.
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
    rematerialize: bool = False
    data: Data = Data()
    start: Start = Start()
    losses: Mapping[str, float] = field(default_factory=lambda: {"caption": 1.0})
    model: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    vocabulary: Vocabulary = Vocabulary()
    initialization: Initialization = Initialization()
    optimizer: Optimizer = Optimizer()

    def __post_init__(self) -> None:
        where = f"in recipe '{self.name}'"
        counts = "steps batch_size save_every validate_every validation_scenes lora_rank".split()
        for name in counts:
            require_int(f"{name} {where}", getattr(self, name))
        for name in ("epochs", "patience"):
            require_int(f"{name} {where}", getattr(self, name), least=0)
        for name, choices in (("keep", KEEPS), ("precision", PRECISIONS), ("trains", TRAINS)):
            require_choice(f"{name} {where}", getattr(self, name), choices)
        self._check_losses()
        self._check_start()

    def _check_losses(self) -> None:
        """What each loss reads must be there."""
        for name, weight in self.losses.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise ConfigError(
                    f"[losses] {name} is {weight!r:.40}: expected a number, its weight."
                )
        try:
            reads = {LOSSES[name].texts: name for name in check_weights(self.losses)}
        except InputError as error:
            raise ConfigError(str(error)) from error
        if self.data.source == SCENES and "label" in reads:
            raise ConfigError("Scenes have no words for the loss multi_label: take vocabulary.")
        if "word" in reads and not self.words:
            raise ConfigError(
                f"The loss {reads['word']} needs [vocabulary] words: those to be looked for in"
                " captions."
            )
        if ("label" in reads) != bool(self.data.words):
            raise ConfigError(
                "The loss multi_label and [data] words go together: give both, or none."
            )

    def _check_start(self) -> None:
        if self.start.checkpoint and self.model:
            raise ConfigError(
                f"The recipe '{self.name}' has sizes in [model], and a checkpoint is given: "
                "keep one of them, e.g. --recipe finetune with a checkpoint."
            )
        if self.epochs and self.data.source == SCENES:
            raise ConfigError("Scenes have no end: give steps in place of epochs.")
        if self.epochs and not 0 <= self.optimizer.warm_up_epochs < self.epochs:
            raise ConfigError(
                f"[optimizer] warm_up_epochs is {self.optimizer.warm_up_epochs}: expected 0 or"
                f" more, below the {self.epochs} epochs of the recipe."
            )
        measured = self.data.source == SCENES or self.data.held_out
        if (self.keep == "best" or self.patience) and not measured:
            raise ConfigError(
                'keep = "best" and patience need held-out captions: [data] validation, or'
                " validation_share."
            )

    @property
    def words(self) -> tuple[str, ...]:
        """The vocabulary of losses that have one, and the class names of the checkpoint."""
        return self.vocabulary.words or (CLASSES if self.data.source == SCENES else ())

    @property
    def vocabulary_words(self) -> tuple[str, ...]:
        """The words, where a loss reads them; else none."""
        read = any(LOSSES[name].texts == "word" for name in check_weights(self.losses))
        return self.words if read else ()

    def to_dict(self) -> dict[str, Any]:
        """The recipe as a file would hold it, every default written out.

        No ``warm_up_epochs`` are left out: a state without the key is of the same recipe.
        """
        content = asdict(self)
        if not self.optimizer.warm_up_epochs:
            del content["optimizer"]["warm_up_epochs"]
        return content


SECTIONS = {
    "data": Data,
    "start": Start,
    "vocabulary": Vocabulary,
    "initialization": Initialization,
    "optimizer": Optimizer,
}


def read_recipe(name_or_path: str | Path, **changes: Any) -> Recipe:
    """The recipe of a name that comes with the package, or of a TOML file.

    Args:
        changes: replace top-level fields; a dict replaces keys of a table, and ``steps`` take the
            place of epochs.

    Raises:
        ConfigError: no such recipe, not TOML, an unknown key, or a value that cannot be.
    """
    path = Path(name_or_path)
    named = RECIPES / f"{name_or_path}.toml"
    if path.suffix != ".toml" and named.exists():
        path = named
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
        raise ConfigError(
            f"There is no recipe '{name_or_path}': expected one of {known}, or the path of a TOML"
            " file."
        )
    try:
        content = {"name": path.stem, **tomllib.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError) as error:
        raise ConfigError(f"The recipe {path} cannot be read: {error}.") from error
    if "steps" in changes:
        content.pop("epochs", None)
    for key, value in changes.items():
        table = content.get(key)
        if isinstance(table, Mapping) and isinstance(value, Mapping):
            value = {**table, **value}
        content[key] = value
    return recipe_of(content)


def recipe_of(content: Mapping[str, object]) -> Recipe:
    """The recipe that a parsed file holds. ConfigError as ``read_recipe``."""
    if content.get("epochs") and "steps" in content:
        raise ConfigError(
            f"The recipe has {content['steps']} steps and {content['epochs']} epochs: give one of"
            " them."
        )
    for old in RENAMED.keys() & content.keys():
        warnings.warn(
            f"The recipe's {old} is now {RENAMED[old]}.", DeprecationWarning, stacklevel=2
        )
    values = with_new_names(content)
    for section, kind in SECTIONS.items():
        if section in values:
            values[section] = parse_section(kind, values[section], f"[{section}]")
    recipe: Recipe = parse_section(Recipe, values, "the recipe")
    return recipe


def with_new_names(content: Mapping[str, object]) -> dict[str, Any]:
    """A recipe's fields, as ``to_dict`` gives them, with keys of 0.1 under the names of today."""
    return {RENAMED.get(key, key): value for key, value in content.items()}
