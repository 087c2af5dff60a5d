"""The three configs: frozen dataclasses that read and write a config.json without losing a key.

Defaults are those of ``nvidia/groupvit-gcc-yfcc``. A key of a file that has no field is kept
in ``extra``, written back, and warned about unless it is one that transformers writes into every
config.
"""

import functools
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from tf_groupvit.errors import ConfigError, did_you_mean
from tf_groupvit.files import atomic_write, make_folder, read_json
from tf_groupvit.hub import resolve

# Written by transformers into configs of every model: kept and written back without a warning.
TRANSFORMERS_KEYS = frozenset(
    """
    _attn_implementation _commit_hash _name_or_path add_cross_attention architectures
    bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward
    cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype
    early_stopping encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty
    finetuning_task forced_bos_token_id forced_eos_token_id id2label is_decoder
    is_encoder_decoder label2id length_penalty max_length min_length model_type
    no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores
    pad_token_id prefix problem_type pruned_heads remove_invalid_values repetition_penalty
    return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params
    temperature text_config_dict tf_legacy_loss tie_encoder_decoder tie_word_embeddings
    tokenizer_class top_k top_p torch_dtype torchscript transformers_version typical_p
    use_bfloat16 use_return_dict vision_config_dict
    """.split()
)


ACTIVATIONS = ("gelu", "gelu_new", "quick_gelu", "relu", "selu")


# ---- What the value of each field must be ----

Rule = tuple[Callable[[Any], bool], str]  # whether a value is right, and what is expected


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object, at_least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least


def _is_token(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _tuple_of(value: object, check: Callable[[object], bool]) -> bool:
    return isinstance(value, tuple) and len(value) > 0 and all(map(check, value))


def _number(at_least: float, below: float = float("inf")) -> Rule:
    words = f"a number of at least {at_least}" + f" and below {below}" * (below < float("inf"))
    return lambda value: _is_number(value) and at_least <= value < below, words


def _rules(rules: dict[str, Rule]) -> dict[str, Rule]:
    """Names of fields, several in one text -> their rule; each by itself."""
    return {name: rule for names, rule in rules.items() for name in names.split()}


RULES = _rules(
    {
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads"
        " max_position_embeddings num_channels projection_dim projection_intermediate_dim": (
            _is_count,
            "a whole number of at least 1",
        ),
        "layer_norm_eps initializer_range initializer_factor assign_eps": _number(0.0),
        "dropout attention_dropout": _number(0.0, below=1.0),
        "logit_scale_init_value": _number(-100.0, below=100.0),
        "hidden_act": (
            lambda value: isinstance(value, str) and value in ACTIVATIONS,
            f"one of {', '.join(ACTIVATIONS)}",
        ),
        "output_attentions output_hidden_states output_segmentation": (
            lambda value: isinstance(value, bool),
            "true or false",
        ),
        "pad_token_id bos_token_id": (_is_token, "a token id or null"),
        "eos_token_id": (
            lambda value: _is_token(value) or _tuple_of(value, _is_token),
            "a token id, a list of them, or null",
        ),
        "depths num_group_tokens num_output_groups": (
            lambda value: _tuple_of(value, lambda count: _is_count(count, at_least=0)),
            "a list of whole numbers, one for each stage",
        ),
        "image_size patch_size": (
            lambda value: _is_count(value) or (_tuple_of(value, _is_count) and len(value) == 2),
            "a whole number of pixels, or a pair of height and width",
        ),
        "assign_mlp_ratio": (
            lambda value: _tuple_of(value, _is_number) and len(value) == 2,
            "one or two numbers that leave a width of at least 1",
        ),
    }
)
Class = TypeVar("Class", bound=type)


def _strict_keywords(cls: Class) -> Class:
    """Let an unknown keyword of a dataclass name the nearest known one."""
    plain = cls.__init__  # type: ignore[misc]
    known = [f.name for f in fields(cls)]

    @functools.wraps(plain)
    def init(self: object, *args: Any, **values: Any) -> None:
        for name in values:
            if name not in known:
                raise ConfigError(
                    f"{cls.__name__} has no field {name!r}: {did_you_mean(name, known)}"
                )
        plain(self, *args, **values)

    cls.__init__ = init  # type: ignore[misc]
    return cls


# ---- The configs ----


@dataclass(frozen=True, kw_only=True)
class _Config:
    """Reading, writing and checking that the three configs share."""

    model_type: ClassVar[str]
    section: ClassVar[str | None] = None  # the key of this config in a joint config.json

    initializer_range: float = 0.02
    initializer_factor: float = 1.0
    output_attentions: bool = False
    output_hidden_states: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.name != "extra"):
            value = self._normalized(name, getattr(self, name))
            object.__setattr__(self, name, value)
            if name in RULES:
                self._check(RULES[name][0](value), name, RULES[name][1])
        for holds, name, expected in self._relations():
            self._check(holds, name, expected)

    def _normalized(self, name: str, value: object) -> object:
        """What a field holds for a value that was given: tuples for lists."""
        return tuple(value) if isinstance(value, list) else value

    def _relations(self) -> Iterator[tuple[bool, str, str]]:
        """What fields must be to each other: (whether it holds, field, what is expected)."""
        yield from ()

    def _check(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise ConfigError(
                f"{type(self).__name__}.{name} is {getattr(self, name)!r:.80}: expected {expected}."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build the config from the content of a config.json; for a tower, a joint config will do.

        Raises:
            ConfigError: not a mapping, another model's ``model_type``, or an impossible value.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"A config must be a JSON object, got {type(values).__name__}.")
        if not all(isinstance(key, str) for key in values):
            raise ConfigError(f"A config's keys must be text, as in JSON, got {list(values)[:10]}.")
        values = deepcopy(cls._own_section(values))
        known = {f.name for f in fields(cls)} - {"extra"}
        extra = {k: v for k, v in values.items() if k not in known and k != "model_type"}
        unknown = sorted(set(extra) - TRANSFORMERS_KEYS)
        if unknown:
            warnings.warn(
                f"{cls.__name__} does not know {unknown}: kept and written back, but without"
                " effect.",
                stacklevel=2,
            )
        return cls(**{k: v for k, v in values.items() if k in known}, extra=extra)

    @classmethod
    def _own_section(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        found = values.get("model_type", cls.model_type)
        if cls.section and found == GroupViTConfig.model_type:
            values = joint_section(values, cls.section)
            found = values.get("model_type", cls.model_type)
        if found != cls.model_type:
            raise ConfigError(
                f"model_type is {found!r:.80}: expected {cls.model_type!r}, a GroupViT checkpoint."
            )
        return values

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: str | os.PathLike[str], **hub_options: Any) -> Self:
        """Read ``config.json`` from a folder, or from a hub id by way of the local cache.

        Args:
            folder_or_hub_id: a folder that holds config.json, the file itself, or
                ``"organization/name"``.
            hub_options: ``revision``, ``token``, ``cache_dir``, ``local_files_only``, as for a
                model.
        """
        path = resolve(folder_or_hub_id, weights=False, **hub_options)
        if path.is_dir():
            path = config_file_of(path)
        return cls.from_dict(read_json(path, ConfigError))

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json: every field, every kept key, and ``model_type``."""
        own = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name != "extra"}
        return {**deepcopy(dict(self.extra)), **own, "model_type": self.model_type}

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json``, whole or not at all, into a folder, which is made if need be.

        Raises:
            ConfigError: the folder cannot be written, or a kept key holds what JSON cannot.
        """
        try:
            text = json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"The config cannot be written as JSON ({error}): check the keys in extra."
            ) from error
        atomic_write(make_folder(folder, ConfigError) / "config.json", text, ConfigError)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return replace(self, **changes)


@_strict_keywords
@dataclass(frozen=True, kw_only=True)
class GroupViTTextConfig(_Config):
    """The text tower: a causal transformer over byte-pair tokens."""

    model_type: ClassVar[str] = "groupvit_text_model"
    section: ClassVar[str | None] = "text_config"

    vocab_size: int = 49408
    hidden_size: int = 256
    intermediate_size: int = 1024
    num_hidden_layers: int = 12
    num_attention_heads: int = 4
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    dropout: float = 0.0
    attention_dropout: float = 0.0
    pad_token_id: int | None = 1
    bos_token_id: int | None = 49406
    # 2 marks a config from before the end-of-text token was named: the highest id of a row is then
    # its end.
    eos_token_id: int | tuple[int, ...] | None = 49407

    def _relations(self) -> Iterator[tuple[bool, str, str]]:
        divides = self.hidden_size % self.num_attention_heads == 0
        yield divides, "num_attention_heads", f"a divisor of hidden_size {self.hidden_size}"


@_strict_keywords
@dataclass(frozen=True, kw_only=True)
class GroupViTVisionConfig(_Config):
    """The vision tower: stages of transformer blocks, each but the last ending in a grouping."""

    model_type: ClassVar[str] = "groupvit_vision_model"
    section: ClassVar[str | None] = "vision_config"

    hidden_size: int = 384
    intermediate_size: int = 1536
    num_hidden_layers: int = 12  # scales the initial weights, no more: depths count the layers
    depths: tuple[int, ...] = (6, 3, 3)
    num_group_tokens: tuple[int, ...] = (64, 8, 0)
    num_output_groups: tuple[int, ...] = (64, 8, 8)
    num_attention_heads: int = 6
    image_size: int | tuple[int, int] = 224
    patch_size: int | tuple[int, int] = 16
    num_channels: int = 3
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    dropout: float = 0.0
    attention_dropout: float = 0.0
    assign_eps: float = 1.0  # keeps the mean over an empty group finite
    # Widths of the mixing over tokens and over channels.
    assign_mlp_ratio: tuple[float, float] = (0.5, 4)

    def _normalized(self, name: str, value: object) -> object:
        one_ratio = name == "assign_mlp_ratio" and _is_number(value)
        return (value, value) if one_ratio else super()._normalized(name, value)

    def _relations(self) -> Iterator[tuple[bool, str, str]]:
        divides = self.hidden_size % self.num_attention_heads == 0
        yield divides, "num_attention_heads", f"a divisor of hidden_size {self.hidden_size}"
        wide = all(int(ratio * self.hidden_size) >= 1 for ratio in self.assign_mlp_ratio)
        yield wide, "assign_mlp_ratio", RULES["assign_mlp_ratio"][1]
        for name in ("num_group_tokens", "num_output_groups"):
            as_long = len(getattr(self, name)) == len(self.depths)
            yield as_long, name, f"a list as long as depths, {len(self.depths)}"
        pairs = zip(self.num_group_tokens, self.num_output_groups, strict=True)
        grouped = all(groups >= 1 for tokens, groups in pairs if tokens)
        yield grouped, "num_output_groups", "at least 1 wherever num_group_tokens is not 0"
        sides = zip(self.image_height_width, self.patch_height_width, strict=True)
        whole = all(size % patch == 0 for size, patch in sides)
        yield whole, "image_size", f"a multiple of patch_size {self.patch_size!r}"

    @property
    def image_height_width(self) -> tuple[int, int]:
        """(H, W) in pixels of the images that the position embeddings were made for."""
        return _pair(self.image_size)

    @property
    def patch_height_width(self) -> tuple[int, int]:
        """(H, W) of one patch in pixels."""
        return _pair(self.patch_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in an image of ``image_size``."""
        (height, width), (rows, columns) = self.image_height_width, self.patch_height_width
        return height // rows, width // columns


@_strict_keywords
@dataclass(frozen=True)
class GroupViTConfig(_Config):
    """Both towers, as configs or dicts, and what joins them."""

    model_type: ClassVar[str] = "groupvit"

    text_config: GroupViTTextConfig = field(default_factory=GroupViTTextConfig, kw_only=False)
    vision_config: GroupViTVisionConfig = field(default_factory=GroupViTVisionConfig, kw_only=False)
    projection_dim: int = field(default=256, kw_only=True)
    projection_intermediate_dim: int = field(default=4096, kw_only=True)
    logit_scale_init_value: float = field(default=2.6592, kw_only=True)  # ln(1 / 0.07)
    output_segmentation: bool = field(default=False, kw_only=True)

    def _normalized(self, name: str, value: object) -> object:
        if name in TOWERS and (value is None or isinstance(value, Mapping)):
            return TOWERS[name].from_dict(value or {})
        return super()._normalized(name, value)

    def _relations(self) -> Iterator[tuple[bool, str, str]]:
        for name, tower in TOWERS.items():
            yield isinstance(getattr(self, name), tower), name, f"a {tower.__name__} or its dict"

    @classmethod
    def _own_section(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        values = super()._own_section(values)
        return {**values, **{name: joint_section(values, name) for name in TOWERS}}

    def to_dict(self) -> dict[str, Any]:
        """As for a tower; a 2022 file's ``*_config_dict`` follow sections that changed since."""
        values = super().to_dict()
        for section in TOWERS:
            older = f"{section}_dict"  # counts more than the section when it is read again
            if values.get(older) is not None and joint_section(values, section) != values[section]:
                values[older] = values[section]
        return values

    @classmethod
    def from_text_vision_configs(
        cls, text: GroupViTTextConfig, vision: GroupViTVisionConfig, **others: Any
    ) -> "GroupViTConfig":
        """Join the configs of two towers; ``others`` are fields of the joint config."""
        return cls(text_config=text, vision_config=vision, **others)


TOWERS: dict[str, type[GroupViTTextConfig | GroupViTVisionConfig]] = {
    "text_config": GroupViTTextConfig,
    "vision_config": GroupViTVisionConfig,
}


def joint_section(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The tower ``section`` of a joint config.json, old form or new.

    Configs of 2022 may hold ``text_config_dict`` and ``vision_config_dict``, too.
    Where they do, they are the ones that count, defaults included, which is what transformers makes
    of them.
    """
    tower = TOWERS[section]
    plain, older = values.get(section), values.get(f"{section}_dict")
    plain = plain.to_dict() if isinstance(plain, _Config) else plain
    for name, value in ((section, plain), (f"{section}_dict", older)):
        if value is not None and not isinstance(value, Mapping):
            raise ConfigError(f"{name} is {value!r:.80}: expected a JSON object.")
    return {**(plain or {}), **(tower.from_dict(older).to_dict() if older is not None else {})}


NO_CONFIG = "{} comes without a config: the published sizes are assumed."


def config_file_of(weights: Path) -> Path:
    """The config.json in a folder, or in that of a file of weights.

    Raises:
        ConfigError: there is none.
    """
    folder = weights.is_dir()
    file = weights / "config.json" if folder else weights.with_name("config.json")
    if folder and not file.exists():
        raise ConfigError(
            f"{file} cannot be read: there is no such file: give the folder of a checkpoint."
        )
    if not folder and not file.is_file():
        raise ConfigError(
            f"{file} is not there: put the model's config.json in the folder of {weights.name}."
        )
    return file


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _plain(value: object) -> Any:
    if isinstance(value, _Config):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value
