"""Weights under the original repository's names in, transformers' names and layouts out, by one
table.

The original fuses q, k and v of its blocks and makes its projections of 1x1 convolutions. Source:
the key map of transformers' conversion script, as facts.md (2.6) has it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from tf_groupvit.checkpoints.tensors import Entry, Tensors, collect
from tf_groupvit.errors import CheckpointError

# Any of these tells the original's names from transformers'.
TELLTALE = re.compile(r"(module\.)?(img_encoder|text_encoder|img_projector|text_projector)\.")

_BLOCK = "vision_model.encoder.stages.{0}.layers.{1}"
_TEXT_BLOCK = "text_model.encoder.layers.{0}"
_STAGE = r"img_encoder\.layers\.(\d+)"
_RESBLOCK = r"text_encoder\.transformer\.resblocks\.(\d+)"


def _kept(entry: Entry) -> list[Entry]:
    return [entry]


def _squeezed(entry: Entry) -> list[Entry]:
    """(out, in, 1), the kernel of a 1x1 convolution -> (out, in)."""
    if len(entry.shape) != 3 or entry.shape[2] != 1:
        raise CheckpointError(
            f"expected a 1x1 convolution's kernel (out, in, 1), got {entry.shape}"
        )
    return [entry.map(entry.shape[:2], lambda array: array[:, :, 0])]


def _split(entry: Entry) -> list[Entry]:
    """(3 * C, ...) -> q, k and v, each (C, ...)."""
    if not entry.shape or entry.shape[0] % 3:
        raise CheckpointError(f"expected q, k and v in three equal parts, got {entry.shape}")
    size = entry.shape[0] // 3

    def part(start: int) -> Entry:
        return entry.map((size, *entry.shape[1:]), lambda array: array[start : start + size])

    return [part(0), part(size), part(2 * size)]


@dataclass(frozen=True)
class Rule:
    """Original name (a pattern) -> our names, one for each array that ``change`` makes of it."""

    pattern: str
    names: tuple[str, ...]
    change: Callable[[Entry], list[Entry]] = _kept


def _qkv(prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{letter}_proj.{{leaf}}" for letter in "qkv")


# {0}, {1}, ... are the pattern's groups; {leaf} is its group of that name.
_LEAF = r"(?P<leaf>weight|bias)"
RULES: tuple[Rule, ...] = (
    Rule(r"logit_scale", ("logit_scale",)),
    Rule(r"multi_label_logit_scale", ()),
    Rule(r"img_encoder\.pos_embed", ("vision_model.embeddings.position_embeddings",)),
    Rule(
        r"img_encoder\.patch_embed\.proj\.(.+)",
        ("vision_model.embeddings.patch_embeddings.projection.{0}",),
    ),
    Rule(r"img_encoder\.patch_embed\.norm\.(.+)", ("vision_model.embeddings.layernorm.{0}",)),
    Rule(r"img_encoder\.norm\.(.+)", ("vision_model.layernorm.{0}",)),
    Rule(_STAGE + r"\.blocks\.(\d+)\.norm([12])\.(.+)", (_BLOCK + ".layer_norm{2}.{3}",)),
    Rule(_STAGE + r"\.blocks\.(\d+)\.mlp\.(.+)", (_BLOCK + ".mlp.{2}",)),
    Rule(_STAGE + rf"\.blocks\.(\d+)\.attn\.qkv\.{_LEAF}", _qkv(_BLOCK + ".self_attn"), _split),
    Rule(_STAGE + r"\.blocks\.(\d+)\.attn\.([qkv]_proj)\.(.+)", (_BLOCK + ".self_attn.{2}.{3}",)),
    Rule(_STAGE + r"\.blocks\.(\d+)\.attn\.proj\.(.+)", (_BLOCK + ".self_attn.out_proj.{2}",)),
    Rule(
        _STAGE + r"\.downsample\.pre_assign_attn\.attn\.proj\.(.+)",
        ("vision_model.encoder.stages.{0}.downsample.pre_assign_attn.attn.out_proj.{1}",),
    ),
    Rule(
        _STAGE + r"\.(group_token|(?:downsample|group_projector)\..+)",
        ("vision_model.encoder.stages.{0}.{1}",),
    ),
    Rule(
        r"text_encoder\.token_embedding\.weight", ("text_model.embeddings.token_embedding.weight",)
    ),
    Rule(
        r"text_encoder\.positional_embedding", ("text_model.embeddings.position_embedding.weight",)
    ),
    Rule(r"text_encoder\.ln_final\.(.+)", ("text_model.final_layer_norm.{0}",)),
    Rule(_RESBLOCK + r"\.ln_([12])\.(.+)", (_TEXT_BLOCK + ".layer_norm{1}.{2}",)),
    Rule(_RESBLOCK + r"\.mlp\.c_fc\.(.+)", (_TEXT_BLOCK + ".mlp.fc1.{1}",)),
    Rule(_RESBLOCK + r"\.mlp\.c_proj\.(.+)", (_TEXT_BLOCK + ".mlp.fc2.{1}",)),
    Rule(_RESBLOCK + rf"\.attn\.in_proj_{_LEAF}", _qkv(_TEXT_BLOCK + ".self_attn"), _split),
    Rule(_RESBLOCK + r"\.attn\.out_proj\.(.+)", (_TEXT_BLOCK + ".self_attn.out_proj.{1}",)),
)
for _theirs, _ours in (
    ("img_projector", "visual_projection"),
    ("text_projector", "text_projection"),
):
    RULES += (
        Rule(rf"{_theirs}\.linear_hidden\.0\.weight", (f"{_ours}.0.weight",), _squeezed),
        Rule(rf"{_theirs}\.linear_hidden\.([01])\.(.+)", (_ours + ".{0}.{1}",)),
        Rule(rf"{_theirs}\.linear_out\.weight", (f"{_ours}.3.weight",), _squeezed),
        Rule(rf"{_theirs}\.linear_out\.bias", (f"{_ours}.3.bias",)),
    )


def is_original(names) -> bool:
    """Whether the names are the original repository's."""
    return any(TELLTALE.match(name) for name in names)


def from_original(tensors: Tensors) -> tuple[Tensors, tuple[str, ...]]:
    """The tensors under transformers' names, and a remark for each one that was left out.

    A name that no rule knows is kept, to be reported as unexpected by whoever fits the tensors into
    a model. Errors: CheckpointError for a tensor that cannot be split or squeezed as its rule says.
    """
    renamed: list[tuple[str, Entry]] = []
    notes: list[str] = []
    for name, entry in tensors.entries().items():
        plain = name.removeprefix("module.")  # of a model wrapped for training on several GPUs
        found = _renamed(plain, entry)
        if not found:
            notes.append(f"{plain} was dropped: only resuming the original training needs it.")
        renamed += found
    return Tensors(collect(renamed)), tuple(notes)


def _renamed(name: str, entry: Entry) -> list[tuple[str, Entry]]:
    for rule in RULES:
        if found := re.fullmatch(rule.pattern, name):
            names = [target.format(*found.groups(), **found.groupdict()) for target in rule.names]
            try:
                return list(zip(names, rule.change(entry), strict=True)) if names else []
            except CheckpointError as error:
                raise CheckpointError(f"Tensor '{name}': {error}.") from error
    return [(name, entry)]
