"""The tables of a recipe, each a dataclass whose defaults stand where a file says nothing."""

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from tf_groupvit.errors import ConfigError

SCENES, TAGGER, DEMO = "scenes", "tagger", "demo"
AUGMENTATIONS, STATISTICS = ("none", "published"), ("imagenet", "clip")


@dataclass(frozen=True)
class Data:
    """What is trained on.

    Attributes:
        source: ``scenes``, or where pairs are: a folder with captions, shards or TFRecord files, wildcards allowed.
        validation: the same for held-out pairs, whose loss is measured; none unless given. Scenes need none.
        validation_share: in place of ``validation``, the share of the source's own pairs that is held out.
        validation_pairs: of the held-out pairs, so many are read.
        augmentation: one of ``AUGMENTATIONS``; scenes know none.
        normalize: the statistics of pixels, one of ``STATISTICS``; the checkpoint's processor gets them too.
        words: for the loss ``multi_label``, a file with a word a line, or ``tagger``, NLTK's.
        word_count: how many words of a caption are drawn.
        shuffle: of how many records each is drawn; 1 keeps the order.
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
        one_of("[data] augmentation", self.augmentation, AUGMENTATIONS)
        one_of("[data] normalize", self.normalize, STATISTICS)
        for name in ("validation_pairs", "word_count", "shuffle"):
            whole("[data] " + name, getattr(self, name))
        if not self.source:
            raise ConfigError("[data] source is empty: say what to train on, e.g. --data my-captions.")
        if not 0 <= self.validation_share < 1:
            raise ConfigError(f"[data] validation_share is {self.validation_share}: expected 0 or more, below 1.")
        if self.validation and self.validation_share:
            raise ConfigError("[data] validation and validation_share are two ways to hold out pairs: give one.")
        if self.source == SCENES and (self.held_out or self.words):
            raise ConfigError("[data] validation and words are for captions of your own: scenes have theirs.")

    @property
    def held_out(self) -> bool:
        """Whether pairs are held out, whose loss is measured."""
        return bool(self.validation or self.validation_share)


@dataclass(frozen=True)
class Start:
    """Where a run begins: at a checkpoint, or at the sizes of ``[model]`` with a tokenizer.

    Attributes:
        checkpoint: a folder, a hub id, or ``demo``, the one that comes with the package; the sizes unless given.
        tokenizer: a folder; the checkpoint's own unless given, and for sizes one learned from the first captions.
    """

    checkpoint: str = ""
    tokenizer: str = ""


@dataclass(frozen=True)
class Vocabulary:
    """The texts' side: a byte-pair vocabulary learned from the first captions, and the words that losses look for.

    ``words`` are those of the losses ``vocabulary`` and ``group_word``, and class names of the checkpoint; the classes
    of the scenes are there unasked, where scenes are trained on.
    """

    captions: int = 5000  # of so many captions the merges are learned
    merges: int = 256
    max_length: int = 48  # tokens of a prompt, in the checkpoint
    text_length: int = 24  # tokens of a caption, in training: padding costs time
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if wrong := [word for word in self.words if not isinstance(word, str) or not word.strip()]:
            raise ConfigError(f"[vocabulary] words hold {wrong[0]!r}: expected names, none of them empty.")


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


def made(kind: Any, values: Any, where: str) -> Any:
    """A table's dataclass. ConfigError for an unknown key, with the nearest known one, or a value of another type."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} is {values!r:.60}: expected a table.")
    known = {field.name: field for field in fields(kind)}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0)[0]
            raise ConfigError(f"{where} has no key '{key}': did you mean '{near}'?")
    return kind(**{key: _typed(f"{where} {key}", value, known[key].default) for key, value in values.items()})


def _typed(where: str, value: Any, default: Any) -> Any:
    """The value as its default's type; what has no plain default is a table."""
    value = tuple(value) if isinstance(value, list) else value
    expected = Mapping if default is MISSING else type(default)
    allowed = (int, float) if expected is float else expected
    if not isinstance(value, allowed) or isinstance(value, bool) is not (expected is bool):
        sample = "a table" if default is MISSING else f"one like {default!r:.60}"
        raise ConfigError(f"{where} is {value!r:.60}: expected {sample}.")
    return value


def one_of(where: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        raise ConfigError(f"{where} is {value!r}: expected one of {', '.join(choices)}.")


def whole(where: str, value: Any, least: int = 1) -> None:
    """Refuse what is no whole number from ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{where} is {value!r}: expected a whole number from {least}.")
