"""Rates and steps in, AdamW with its schedule out, as published."""

import math
from typing import Any

import keras

from tf_groupvit.errors import InputError


def warm_up_then_cosine(peak: float, warm_up: int, steps: int, start: float = 0.0, floor: float = 0.0) -> Any:
    """The learning rate of a step: a line from ``start`` to ``peak``, then half a cosine to ``floor``.

    Args:
        warm_up: steps of the line; 0 for none.
        steps: batches of the whole training, the warm-up included, also where gradients are accumulated over several;
            beyond them the rate is ``floor``.
    """
    if not 0 <= warm_up < steps:
        raise InputError(f"A warm-up of {warm_up} steps does not fit a training of {steps}: make it shorter.")
    if not (0 < peak < math.inf and 0 <= start <= peak and 0 <= floor <= peak):
        raise InputError(f"Learning rates should be 0 <= start, floor <= peak, got {start}, {floor} and {peak}.")
    line = dict(warmup_target=peak, warmup_steps=warm_up) if warm_up else {}
    first = start if warm_up else peak
    return keras.optimizers.schedules.CosineDecay(first, steps - warm_up, alpha=floor / peak, **line)


def adamw(
    model: keras.Model,
    rate: Any,
    weight_decay: float = 0.05,
    clip: float | None = 5.0,
    accumulation: int = 1,
    epsilon: float = 1e-8,
) -> keras.optimizers.AdamW:
    """AdamW for a model's trainable variables; biases, norms and scales, which have one axis or none, do not decay.

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
    optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if not decays(v)])
    return optimizer


def decays(variable: Any) -> bool:
    """Whether a variable is a matrix, or what stands for one."""
    return len(variable.shape) > 1
