"""Names and layouts of weights, to and from transformers' PyTorch names.

Others are Keras', those of transformers' TensorFlow class, and those of the original code.
PyTorch's layout is Linear (out, in) and Conv (out, in, H, W); Keras' is Dense (in, out) and Conv
(H, W, in, out). Everything else is laid out alike.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from tf_groupvit.checkpoints.tensors import Entry, Tensors, collect
from tf_groupvit.errors import CheckpointError

# Keras' last word -> PyTorch's. Words that are not here (bias, weight, group_token, ...) are the
# same in both.
LEAVES = {
    "kernel": "weight",
    "gamma": "weight",
    "embeddings": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}

# What a checkpoint name can begin with; anything before it in a path is the name of a wrapper.
ROOTS = re.compile(r"(text_model|vision_model|text_projection|visual_projection|logit_scale)(\.|$)")

# In every checkpoint or in none, and nothing that a model needs: positions 0, 1, 2 and PyTorch's
# count of batches.
OPTIONAL = re.compile(r"(.+\.)?(position_ids|num_batches_tracked)$")

# HWIO to OIHW and back; the kernel of a Dense is transposed in both directions.
_TO_CHECKPOINT = {2: (1, 0), 4: (3, 2, 0, 1)}
_TO_KERAS = {2: (1, 0), 4: (2, 3, 1, 0)}


def checkpoint_name(variable_path: str) -> str:
    """Keras variable path -> checkpoint name.

    ``model/text_model.final_layer_norm/gamma`` -> ``text_model.final_layer_norm.weight``.

    The layer that holds the variable is named after its whole checkpoint prefix; a variable of the
    model itself, whose name is the user's choice, stands alone (``my_model/logit_scale`` ->
    ``logit_scale``).
    """
    # On PyTorch the dots of a prefix are "-".
    *layers, leaf = variable_path.replace("-", ".").split("/")
    leaf = LEAVES.get(leaf, leaf)
    prefixed = layers and ROOTS.match(layers[-1]) and leaf != "logit_scale"
    return f"{layers[-1]}.{leaf}" if prefixed else leaf


def _leaf(name: str) -> str:
    return re.sub(r":\d+$", "", name).rpartition("/")[2]


def _axes(name_or_leaf: str, rank: int, orders: dict[int, tuple[int, ...]]) -> tuple[int, ...]:
    kernel = _leaf(name_or_leaf) == "kernel"
    return orders.get(rank, tuple(range(rank))) if kernel else tuple(range(rank))


def checkpoint_shape(shape: tuple[int, ...], name_or_leaf: str) -> tuple[int, ...]:
    """A Keras variable's shape as the checkpoint has it."""
    return tuple(shape[axis] for axis in _axes(name_or_leaf, len(shape), _TO_CHECKPOINT))


def to_checkpoint_layout(array: np.ndarray, name_or_leaf: str) -> np.ndarray:
    """Keras' layout, (in, out) or (H, W, in, out), -> the checkpoint's shape, as a view.

    ``name_or_leaf`` is Keras': a variable path or its last word; only kernels are laid out
    otherwise.
    """
    return array.transpose(_axes(name_or_leaf, array.ndim, _TO_CHECKPOINT))


def to_keras_layout(array: np.ndarray, name_or_leaf: str) -> np.ndarray:
    """The checkpoint's layout, (out, in) or (out, in, H, W), -> Keras' shape, as a view.

    ``name_or_leaf`` as for ``to_checkpoint_layout``.
    """
    return array.transpose(_axes(name_or_leaf, array.ndim, _TO_KERAS))


def batch_counters(names: Iterable[str]) -> list[str]:
    """The ``num_batches_tracked`` that PyTorch's state dict has next to each ``running_mean``."""
    ends = [name.removesuffix("running_mean") for name in names if name.endswith("running_mean")]
    return [f"{name}num_batches_tracked" for name in ends]


# ---- transformers' TensorFlow class ----


def tensorflow_name(weight_name: str) -> str:
    """transformers' TensorFlow name -> PyTorch's.

    ``groupvit/text_model/.../layers_._0/.../kernel:0`` -> ``text_model...layers.0...weight``.

    Source: the names in files that TFGroupViTModel.save_pretrained (transformers 4.57.6) writes.
    """
    parts = re.sub(r":\d+$", "", weight_name).split("/")
    start = next((i for i, part in enumerate(parts) if ROOTS.match(part)), 0)
    *layers, leaf = parts[start:]
    return ".".join([*layers, LEAVES.get(leaf, leaf)]).replace("_._", ".")


def from_tensorflow(tensors: Tensors) -> Tensors:
    """Names and layouts of transformers' TensorFlow class -> PyTorch's.

    They are known by their slashes; others stay as they are.
    """

    def renamed(name: str, entry: Entry) -> tuple[str, Entry]:
        if "/" not in name and ":" not in name:
            return name, entry
        shape = checkpoint_shape(entry.shape, name)
        changed = entry.map(shape, lambda array: to_checkpoint_layout(array, name))
        return tensorflow_name(name), changed

    return Tensors(collect(renamed(name, entry) for name, entry in tensors.entries().items()))


# ---- The original repository ----
# It fuses q, k and v of its blocks and makes its projections of 1x1 convolutions. Source: the key
# map of transformers' conversion script.

# Any of these distinguishes the original's names from transformers'.
TELLTALE = re.compile(r"(module\.)?(img_encoder|text_encoder|img_projector|text_projector)\.")


@dataclass(frozen=True)
class Rule:
    """Original name -> ours: # is a number, ? one of q, k, v, and * the rest, in the same order.

    ``change`` turns the array into those of our names; a name with QKV stands for three.
    """

    theirs: str
    ours: str
    change: Callable[[Entry], list[Entry]] = lambda entry: [entry]

    def names(self, name: str) -> list[str] | None:
        """Our names for an original name, none for one to leave out; None for others' names."""
        pattern = re.escape(self.theirs)
        for sign, meaning in {"\\#": r"(\d+)", "\\?": "([qkv])", "\\*": "(.+)"}.items():
            pattern = pattern.replace(sign, meaning)
        found = re.fullmatch(pattern, name)
        if found is None:
            return None
        parts = iter(found.groups())
        ours = re.sub("[#?*]", lambda _: next(parts), self.ours)
        if "QKV" in ours:
            return [ours.replace("QKV", letter) for letter in "qkv"]
        return [ours] if ours else []


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


_STAGE, _BLOCK = "img_encoder.layers.#.", "img_encoder.layers.#.blocks.#."
_OUR_STAGE, _OUR_BLOCK = "vision_model.encoder.stages.#.", "vision_model.encoder.stages.#.layers.#."
_TEXT, _OUR_TEXT = "text_encoder.transformer.resblocks.#.", "text_model.encoder.layers.#."
_IMAGE_INPUTS, _TEXT_INPUTS = "vision_model.embeddings.", "text_model.embeddings."
RULES = [  # the first that fits counts
    Rule("logit_scale", "logit_scale"),
    Rule("multi_label_logit_scale", ""),
    Rule("img_encoder.pos_embed", _IMAGE_INPUTS + "position_embeddings"),
    Rule("img_encoder.patch_embed.proj.*", _IMAGE_INPUTS + "patch_embeddings.projection.*"),
    Rule("img_encoder.patch_embed.norm.*", _IMAGE_INPUTS + "layernorm.*"),
    Rule("img_encoder.norm.*", "vision_model.layernorm.*"),
    Rule(_BLOCK + "norm#.*", _OUR_BLOCK + "layer_norm#.*"),
    Rule(_BLOCK + "mlp.*", _OUR_BLOCK + "mlp.*"),
    Rule(_BLOCK + "attn.qkv.*", _OUR_BLOCK + "self_attn.QKV_proj.*", _split),
    Rule(_BLOCK + "attn.?_proj.*", _OUR_BLOCK + "self_attn.?_proj.*"),
    Rule(_BLOCK + "attn.proj.*", _OUR_BLOCK + "self_attn.out_proj.*"),
    Rule(
        _STAGE + "downsample.pre_assign_attn.attn.proj.*",
        _OUR_STAGE + "downsample.pre_assign_attn.attn.out_proj.*",
    ),
    Rule(_STAGE + "group_token", _OUR_STAGE + "group_token"),
    Rule(_STAGE + "downsample.*", _OUR_STAGE + "downsample.*"),
    Rule(_STAGE + "group_projector.*", _OUR_STAGE + "group_projector.*"),
    Rule("text_encoder.token_embedding.weight", _TEXT_INPUTS + "token_embedding.weight"),
    Rule("text_encoder.positional_embedding", _TEXT_INPUTS + "position_embedding.weight"),
    Rule("text_encoder.ln_final.*", "text_model.final_layer_norm.*"),
    Rule(_TEXT + "ln_#.*", _OUR_TEXT + "layer_norm#.*"),
    Rule(_TEXT + "mlp.c_fc.*", _OUR_TEXT + "mlp.fc1.*"),
    Rule(_TEXT + "mlp.c_proj.*", _OUR_TEXT + "mlp.fc2.*"),
    Rule(_TEXT + "attn.in_proj_*", _OUR_TEXT + "self_attn.QKV_proj.*", _split),
    Rule(_TEXT + "attn.out_proj.*", _OUR_TEXT + "self_attn.out_proj.*"),
]
for _theirs, _ours in (
    ("img_projector", "visual_projection"),
    ("text_projector", "text_projection"),
):
    RULES += [
        Rule(f"{_theirs}.linear_hidden.0.weight", f"{_ours}.0.weight", _squeezed),
        Rule(f"{_theirs}.linear_hidden.#.*", f"{_ours}.#.*"),
        Rule(f"{_theirs}.linear_out.weight", f"{_ours}.3.weight", _squeezed),
        Rule(f"{_theirs}.linear_out.bias", f"{_ours}.3.bias"),
    ]


def is_original(names: Iterable[str]) -> bool:
    """Whether the names are the original repository's."""
    return any(TELLTALE.match(name) for name in names)


def from_original(tensors: Tensors) -> tuple[Tensors, tuple[str, ...]]:
    """The tensors under transformers' names, and a remark for each one that was left out.

    A name that no rule knows is kept, and reported as unexpected when the tensors are matched with
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
        names = rule.names(name)
        if names is None:
            continue
        try:
            return list(zip(names, rule.change(entry), strict=True)) if names else []
        except CheckpointError as error:
            raise CheckpointError(f"Tensor '{name}': {error}.") from error
    return [(name, entry)]
