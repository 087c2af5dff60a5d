"""A new model in, the same model with first weights from which groups of a small one emerge, out.

A new model starts as published: dense kernels N(0, 0.02) or scaled by width and depth as CLIP's are, biases 0, norms 1
and 0, position embeddings truncated N(0, 0.02), group tokens N(0, 0.02), or 0 where a projector makes them from those
of the stage before. transformers leaves position embeddings and group tokens at 0, where all groups are alike and stay
so. Those choices are the layers' own; here is what departs from them.
"""

import keras
import numpy as np

from tf_groupvit.models.groupvit import TFGroupViTModel


def spread_groups(model: TFGroupViTModel, token_std: float, assign_gain: float, seed: int) -> None:
    """Group tokens from N(0, token_std), query and key kernels of each assignment from N(0, assign_gain / sqrt(C)).

    As published, assignment logits start with a spread near 0.1, against Gumbel noise whose spread is 1.3: patches are
    dealt to groups at random, groups all see the same picture, and in a small and short training nothing tells them
    apart. With 1.0 and 1.5 the logits start wider than the noise. Stages without group tokens of their own are left.
    """
    rng = np.random.default_rng(seed)
    for stage in model.vision_model.stages:
        if not stage.tokens:
            continue
        if stage.group_projector is None:
            _draw(stage.group_token, token_std, rng)
        assign = stage.downsample.assign
        for layer in (assign.q_proj, assign.k_proj):
            _draw(layer.kernel, assign_gain / np.sqrt(layer.kernel.shape[0]), rng)


def _draw(variable: keras.Variable, std: float, rng: np.random.Generator) -> None:
    variable.assign(rng.normal(0, std, variable.shape).astype("float32"))
