"""Tokens (B, P, C) and group tokens in, group features (B, G, C) and an assignment (B, G, P) out.

Paper: section 3.2, the grouping block. The attention of the group tokens over the image before the
    assignment is not in the paper; the published models have it.
"""

from functools import partial
from typing import Any

import keras
from keras import ops

from tf_groupvit.config import GroupViTVisionConfig
from tf_groupvit.models.layers import (
    MLP,
    Attention,
    Block,
    dense,
    flat,
    layer_name,
    layer_norm,
    softmax,
)
from tf_groupvit.models.operations import one_hot_max
from tf_groupvit.models.weights import constant, normal


class AssignAttention(keras.layers.Layer):
    """Gives each token to one group, and each group the mean of its tokens.

    The softmax runs over groups. In inference a token goes to its best group; in training Gumbel
    noise decides, at temperature 1. Gradients pass straight through the choice either way.
    """

    def __init__(self, config: GroupViTVisionConfig, name: str, dtype: Any) -> None:
        super().__init__(name=layer_name(name), dtype=dtype)
        width = config.hidden_size
        self.scale = width**-0.5  # of the whole width: there is one head
        for part in ("q_proj", "k_proj", "v_proj", "proj"):
            setattr(
                self,
                part,
                dense(f"{name}.{part}", width, width, config.initializer_range, self.dtype_policy),
            )
        self.assign_eps = config.assign_eps
        self.noise = keras.random.SeedGenerator()
        self.uniform = (
            keras.random.uniform
        )  # training on several replicas puts its own in this place

    def _gumbel(self, shape: Any) -> Any:
        # 1e-20 keeps the logarithms finite: the uniform draw may be exactly 0.
        uniform = self.uniform(shape, minval=1e-20, maxval=1.0, dtype="float32", seed=self.noise)
        return -ops.log(-ops.log(uniform) + 1e-20)

    def call(
        self, groups: Any, tokens: Any, count: int, length: Any, training: Any = None
    ) -> tuple[Any, Any]:
        """groups (B * G, C), tokens (B * P, C) -> means (B * G, C), plain softmax over groups (B,
        G, P) in float32.
        """
        width = groups.shape[-1]
        # float32 before the product: half floats overflow in it, and make ties, which decide
        # assignments
        q = ops.reshape(ops.cast(self.q_proj(groups), "float32"), (-1, count, width))
        k = ops.reshape(ops.cast(self.k_proj(tokens), "float32"), (-1, length, width))
        v = ops.reshape(self.v_proj(tokens), (-1, length, width))
        logits = (
            ops.matmul(q, ops.transpose(k, (0, 2, 1))) * self.scale
        )  # (B, G, P) <- (B, G, C) @ (B, C, P)
        soft = softmax(logits, axis=1)
        chosen = softmax(logits + self._gumbel(ops.shape(logits)), axis=1) if training else soft
        hard = one_hot_max(chosen, axis=1)
        assignment = ops.stop_gradient(hard - chosen) + chosen  # straight through
        share = assignment / (ops.sum(assignment, axis=-1, keepdims=True) + self.assign_eps)
        means = ops.matmul(ops.cast(share, self.compute_dtype), v)
        return self.proj(flat(means)), soft


class CrossAttention(keras.layers.Layer):
    """Group tokens (B * G, C) look at the image (B * P, C) once before they are assigned."""

    def __init__(self, config: GroupViTVisionConfig, name: str, dtype: Any) -> None:
        super().__init__(name=layer_name(name), dtype=dtype)
        norm = (config.hidden_size, config.layer_norm_eps, self.dtype_policy)
        self.attn = Attention(config, f"{name}.attn", self.dtype_policy)
        self.norm2 = layer_norm(f"{name}.norm2", *norm)
        self.mlp = MLP(config, f"{name}.mlp", self.dtype_policy)
        self.norm_post = layer_norm(f"{name}.norm_post", *norm)

    def call(self, groups: Any, tokens: Any, count: int, length: Any, training: Any = None) -> Any:
        """The groups' tokens again; G is ``count`` and P is ``length``."""
        x = (
            groups
            + self.attn(groups, length=count, keys=tokens, key_length=length, training=training)[0]
        )
        return self.norm_post(x + self.mlp(self.norm2(x)))


class TokenMixer(MLP):
    """An MLP over the token axis: (B, inputs, C) -> (B, outputs, C)."""

    def call(self, x: Any) -> Any:
        width = x.shape[-1]
        mixed = super().call(flat(ops.transpose(x, (0, 2, 1))))  # (B * C, outputs)
        return ops.transpose(ops.reshape(mixed, (-1, width, mixed.shape[-1])), (0, 2, 1))


class GroupingBlock(keras.layers.Layer):
    """Tokens (B, P, C), P the ``length``, and group tokens (B, S, C) -> groups (B, G, C), soft
    assignment (B, G, P).
    """

    def __init__(
        self, config: GroupViTVisionConfig, tokens: int, groups: int, name: str, dtype: Any
    ) -> None:
        super().__init__(name=layer_name(name), dtype=dtype)
        width, policy = config.hidden_size, self.dtype_policy
        norm = (width, config.layer_norm_eps, policy)
        self.groups = groups
        mix_tokens, mix_channels = (int(ratio * width) for ratio in config.assign_mlp_ratio)
        self.norm_tokens = layer_norm(f"{name}.norm_tokens", *norm)
        self.norm_x = layer_norm(f"{name}.norm_x", *norm)
        self.mlp_inter = TokenMixer(config, f"{name}.mlp_inter", policy, tokens, mix_tokens, groups)
        self.norm_post_tokens = layer_norm(f"{name}.norm_post_tokens", *norm)
        self.pre_assign_attn = CrossAttention(config, f"{name}.pre_assign_attn", policy)
        self.assign = AssignAttention(config, f"{name}.assign", policy)
        self.norm_new_x = layer_norm(f"{name}.norm_new_x", *norm)
        self.mlp_channels = MLP(config, f"{name}.mlp_channels", policy, hidden=mix_channels)

    def call(self, x: Any, group_tokens: Any, length: Any, training: Any = None) -> tuple[Any, Any]:
        width = x.shape[-1]
        x = self.norm_x(flat(x))
        groups = flat(
            self.norm_post_tokens(self.mlp_inter(self.norm_tokens(group_tokens)))
        )  # (B * G, C)
        groups = self.pre_assign_attn(
            groups, x, count=self.groups, length=length, training=training
        )
        means, assignment = self.assign(
            groups, x, count=self.groups, length=length, training=training
        )
        groups = groups + means
        groups = groups + self.mlp_channels(self.norm_new_x(groups))
        return ops.reshape(groups, (-1, self.groups, width)), assignment


class GroupProjector(keras.layers.Layer):
    """The previous stage's group tokens (B, S, C) -> an offset (B, G, C) to this stage's learned
    ones.
    """

    def __init__(
        self, config: GroupViTVisionConfig, before: int, tokens: int, name: str, dtype: Any
    ) -> None:
        super().__init__(name=layer_name(name), dtype=dtype)
        width, policy = config.hidden_size, self.dtype_policy
        self.norm = layer_norm(f"{name}.0", width, config.layer_norm_eps, policy)
        self.mixer = TokenMixer(config, f"{name}.1", policy, before, width // 2, tokens)

    def call(self, group_tokens: Any) -> Any:
        return self.mixer(self.norm(group_tokens))


class Stage(keras.layers.Layer):
    """Blocks over image and group tokens together, then the grouping; the last stage may have no
    groups of its own.
    """

    def __init__(self, config: GroupViTVisionConfig, index: int, name: str, dtype: Any) -> None:
        super().__init__(name=layer_name(name), dtype=dtype)
        policy = self.dtype_policy
        self.tokens, groups = config.num_group_tokens[index], config.num_output_groups[index]
        # As in the original: what comes in are the previous stage's group tokens, not its output
        # groups.
        before = config.num_group_tokens[index - 1] if index else 0
        self.blocks = [
            Block(config, f"{name}.layers.{i}", policy) for i in range(config.depths[index])
        ]
        # Of training alone, and set by it: the share of images for which each block's branches are
        # left out, and whether activations are computed again in the backward pass instead of being
        # kept.
        self.drop_rates = (0.0,) * len(self.blocks)
        self.rematerialise = False
        self.drops = keras.random.SeedGenerator()
        self.uniform = keras.random.uniform  # as in AssignAttention
        self.group_projector = None
        if self.tokens:
            shape = (1, self.tokens, config.hidden_size)
            # Measured by the authors: the projector alone makes the tokens where there is one, so
            # they start at 0.
            path = f"{name}/group_token"
            self.group_token = self.add_weight(
                name="group_token",
                shape=shape,
                initializer=constant(path, 0.0) if before else normal(path, 0.02),
            )
            self.downsample = GroupingBlock(
                config, self.tokens, groups, f"{name}.downsample", policy
            )
            if before:
                self.group_projector = GroupProjector(
                    config, before, self.tokens, f"{name}.group_projector", policy
                )

    def call(self, x: Any, previous: Any = None, training: Any = None) -> tuple[Any, Any, Any]:
        """x (B, P, C), previous group tokens (B, S, C) or None -> features, group tokens,
        assignment or None.
        """
        length = ops.shape(x)[1]
        if not self.tokens:
            return self._run_blocks(x, length, training), None, None
        group_tokens = ops.cast(self.group_token, self.compute_dtype)
        group_tokens = ops.broadcast_to(group_tokens, (ops.shape(x)[0], *group_tokens.shape[1:]))
        if self.group_projector is not None:
            group_tokens = group_tokens + self.group_projector(previous)
        x = self._run_blocks(
            ops.concatenate([x, group_tokens], axis=1), length + self.tokens, training
        )
        group_tokens = ops.reshape(x[:, -self.tokens :], (-1, *self.group_token.shape[1:]))
        x = x[:, : -self.tokens]
        groups, assignment = self.downsample(x, group_tokens, length=length, training=training)
        return groups, group_tokens, assignment

    def _run_blocks(self, x: Any, length: Any, training: Any) -> Any:
        """Tokens (B, T, C), T the ``length``, through the blocks, one row each."""
        width, rows = x.shape[-1], flat(x)
        for block, rate in zip(self.blocks, self.drop_rates, strict=True):
            # drawn out here: what is computed again must not draw again
            keep = self._draw_kept(rate, ops.shape(x)[0]) if training and rate else None
            run = partial(_run, block, length=length, training=training, keep=keep)
            rows = (keras.remat(run) if training and self.rematerialise else run)(rows)
        return ops.reshape(rows, (-1, length, width))

    def _draw_kept(self, rate: float, images: Any) -> Any:
        """0 for branches that are left out, else what keeps their mean: (2, B)."""
        drawn = self.uniform((2, images), seed=self.drops)
        return ops.cast(drawn >= rate, "float32") / (1 - rate)


def _run(block: Block, rows: Any, **keywords: Any) -> Any:
    return block(rows, **keywords)[0]
