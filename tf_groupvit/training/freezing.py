"""A model in; the same model, in which a named part alone learns, out: fine-tuning of a checkpoint.

Freezing goes by variables, so that a single one in a layer can learn. Batch normalisation of a frozen part neither
learns nor moves its statistics: in training it works as in inference.
"""

import keras

from tf_groupvit.errors import InputError
from tf_groupvit.models.groupvit import TFGroupViTModel

# What of a path in the model makes a variable part of it. "all" is every one that learned from scratch, too.
PARTS: dict[str, tuple[str, ...]] = {
    "all": ("",),
    "group tokens": ("/group_token",),
    "projections": ("visual_projection.", "text_projection."),
    "vision": ("vision_model.", "visual_projection."),
}
LORA_LAYERS = ("q_proj", "v_proj")  # as in the paper of LoRA


def train_only(model: TFGroupViTModel, part: str) -> list[str]:
    """Freeze all but one of ``PARTS``, and return the paths of the variables that learn from now on.

    Call it before ``compile``. Raises InputError for a part that is none, or that the model does not have.
    """
    if part not in PARTS:
        raise InputError(f"There is no part {part!r} to train: expected one of {', '.join(map(repr, PARTS))}.")
    _freeze(model, lambda path: any(mark in f"/{path}" for mark in PARTS[part]))
    learning = [variable.path for variable in model.trainable_variables]
    if not learning:
        raise InputError(f"This model has no {part}: there would be nothing to train.")
    return learning


def train_lora(model: TFGroupViTModel, rank: int = 8, layers: tuple[str, ...] = LORA_LAYERS) -> list[str]:
    """Freeze all and add LoRA's factors, which alone learn, to the named dense layers; return their paths.

    ``save_pretrained`` writes the sum of a layer's weights and the product of its factors. Call it before ``compile``.

    Raises:
        InputError: a rank below 1, no layers of these names, or a model that has such factors already.
    """
    if rank < 1:
        raise InputError(f"The rank of LoRA should be 1 or more, {rank} came.")
    _freeze(model, lambda path: False)
    chosen = [layer for layer in _layers(model, keras.layers.Dense) if _last(layer.name) in layers]
    if not chosen:
        raise InputError(f"No layers of this model are named {', '.join(layers)}: try {', '.join(LORA_LAYERS)}.")
    for layer in chosen:
        if layer.lora_enabled:
            raise InputError(f"Layer {layer.name} has LoRA's factors already: save the model, and load it again.")
        layer.enable_lora(rank)
    return [variable.path for variable in model.trainable_variables]


def _freeze(model: TFGroupViTModel, learns) -> None:
    model.trainable = True  # the layers; what follows decides for each variable
    norms = _layers(model, keras.layers.BatchNormalization)
    statistics = {id(v) for norm in norms for v in (norm.moving_mean, norm.moving_variance)}
    for variable in model.weights:
        variable.trainable = id(variable) not in statistics and learns(variable.path)
    for norm in norms:
        norm.trainable = learns(norm.gamma.path)


def _layers(model: TFGroupViTModel, kind: type) -> list:
    return [layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, kind)]


def _last(name: str) -> str:
    return name.replace("-", ".").rpartition(".")[2]  # under PyTorch names have no dots
