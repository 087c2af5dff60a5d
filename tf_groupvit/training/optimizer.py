"""What of a model learns and how: AdamW with its schedule, drop path, and parts or LoRA's factors
that learn alone.

Freezing goes by variables, so that a single one in a layer can learn. Batch normalisation of a
frozen part neither learns nor moves its statistics: in training it works as in inference.
"""

import math
from typing import Any

import keras

from tf_groupvit.errors import InputError
from tf_groupvit.models.groupvit import TFGroupViTModel

# What of a path in the model makes a variable part of it. "all" is every one that learned from
# scratch, too.
PARTS: dict[str, tuple[str, ...]] = {
    "all": ("",),
    "group tokens": ("/group_token",),
    "projections": ("visual_projection.", "text_projection."),
    "vision": ("vision_model.", "visual_projection."),
}
LORA_LAYERS = ("q_proj", "v_proj")  # as in the paper of LoRA


def warm_up_then_cosine(
    peak: float, warm_up: int, steps: int, start: float = 0.0, floor: float = 0.0
) -> Any:
    """The learning rate of a step: a line from ``start`` to ``peak``, then half a cosine to
    ``floor``.

    Args:
        warm_up: steps of the line; 0 for none.
        steps: batches of the whole training, the warm-up included, also where gradients are
            accumulated over several; beyond them the rate is ``floor``.
    """
    if not 0 <= warm_up < steps:
        raise InputError(
            f"A warm-up of {warm_up} steps does not fit a training of {steps}: make it shorter."
        )
    if not (0 < peak < math.inf and 0 <= start <= peak and 0 <= floor <= peak):
        raise InputError(
            f"Learning rates should be 0 <= start, floor <= peak, got {start}, {floor} and {peak}."
        )
    line = dict(warmup_target=peak, warmup_steps=warm_up) if warm_up else {}
    first = start if warm_up else peak
    return keras.optimizers.schedules.CosineDecay(
        first, steps - warm_up, alpha=floor / peak, **line
    )


def adamw(
    model: keras.Model,
    rate: Any,
    weight_decay: float = 0.05,
    clip: float | None = 5.0,
    accumulation: int = 1,
    epsilon: float = 1e-8,
) -> keras.optimizers.AdamW:
    """AdamW for a model's trainable variables; biases, norms and scales, which have one axis or
    none, do not decay.

    Args:
        clip: the largest norm of all gradients together; None for any.
        accumulation: batches whose gradients are averaged before a step.
    """
    if accumulation < 1:
        raise InputError(f"Accumulation over {accumulation} batches came: expected 1 or more.")
    optimizer = keras.optimizers.AdamW(
        rate,
        weight_decay=weight_decay,
        epsilon=epsilon,
        global_clipnorm=clip,
        gradient_accumulation_steps=accumulation if accumulation > 1 else None,
    )
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in model.trainable_variables if not decays(v)]
    )
    return optimizer


def decays(variable: Any) -> bool:
    """Whether a variable is a matrix, or what stands for one."""
    return len(variable.shape) > 1


def set_drop_path(model: TFGroupViTModel, rate: float) -> None:
    """Leave residual branches of the vision blocks out in training, for one image in so many, more
    often with depth.

    The rate grows in a line from 0 in the first block to ``rate`` in the last, as published (0.1);
    what stays is scaled, so that its mean does not change. Set it before the model is compiled.
    """
    if not 0 <= rate < 1:
        raise InputError(f"The rate of drop path is {rate!r}: expected 0 or more, and less than 1.")
    stages = model.vision_model.stages
    depth = sum(len(stage.blocks) for stage in stages)
    first = 0
    for stage in stages:
        places = range(first, first + len(stage.blocks))
        stage.drop_rates = tuple(rate * place / max(depth - 1, 1) for place in places)
        first += len(stage.blocks)


def rematerialise(model: TFGroupViTModel, on: bool = True) -> None:
    """Keep no activations of the vision blocks, and compute them again: less memory for a third
    more work.

    Gradients are the same. Set it before the model is compiled.
    """
    for stage in model.vision_model.stages:
        stage.rematerialise = on


def train_only(model: TFGroupViTModel, part: str) -> list[str]:
    """Freeze all but one of ``PARTS``, and return the paths of the variables that learn from now
    on.

    Call it before ``compile``. Raises InputError for a part that is none, or that the model does
    not have.
    """
    if part not in PARTS:
        raise InputError(
            f"There is no part {part!r} to train: expected one of {', '.join(map(repr, PARTS))}."
        )
    _freeze(model, lambda path: any(mark in f"/{path}" for mark in PARTS[part]))
    learning = [variable.path for variable in model.trainable_variables]
    if not learning:
        raise InputError(f"This model has no {part}: there would be nothing to train.")
    return learning


def train_lora(
    model: TFGroupViTModel, rank: int = 8, layers: tuple[str, ...] = LORA_LAYERS
) -> list[str]:
    """Freeze all and add LoRA's factors, which alone learn, to the named dense layers; return their
    paths.

    ``save_pretrained`` writes the sum of a layer's weights and the product of its factors. Call it
    before ``compile``.

    Raises:
        InputError: a rank below 1, no layers of these names, or a model that has such factors
            already.
    """
    if rank < 1:
        raise InputError(f"The rank of LoRA should be 1 or more, {rank} came.")
    _freeze(model, lambda path: False)
    chosen = [layer for layer in _layers(model, keras.layers.Dense) if _last(layer.name) in layers]
    if not chosen:
        raise InputError(
            f"No layers of this model are named {', '.join(layers)}: try {', '.join(LORA_LAYERS)}."
        )
    for layer in chosen:
        if layer.lora_enabled:
            raise InputError(
                f"Layer {layer.name} has LoRA's factors already: save the model, and load it again."
            )
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
