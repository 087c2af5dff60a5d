"""A model in, the same model with drop path, or with its vision blocks computed again in the backward pass, out."""

from tf_groupvit.errors import InputError
from tf_groupvit.models.groupvit import TFGroupViTModel


def set_drop_path(model: TFGroupViTModel, rate: float) -> None:
    """Leave residual branches of the vision blocks out in training, for one image in so many, more often with depth.

    The rate grows in a line from 0 in the first block to ``rate`` in the last, as published (0.1); what stays is
    scaled, so that its mean does not change. Set it before the model is compiled.
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
    """Keep no activations of the vision blocks, and compute them again: less memory for a third more work.

    Gradients are the same. Set it before the model is compiled.
    """
    for stage in model.vision_model.stages:
        stage.rematerialise = on
