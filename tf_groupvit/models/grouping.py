"""Stages of the vision tower, and the grouping block: the heart of the paper.

Equations are those of Xu et al. 2022, section 3. There g are group tokens, s segment tokens (what
is grouped: patches at first, then groups), and a hat marks what the transformer made of them.
Shapes: B images, P segment tokens, S group tokens of a stage, G its groups, C channels.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
from keras import ops

from tf_groupvit.config import GroupViTVisionConfig
from tf_groupvit.models.layers import (
    MLP,
    Attention,
    Block,
    LayerNorm,
    Part,
    Policy,
    RunsBlock,
    dense,
    merge_batch,
    softmax,
    subtract_mean,
    written_once,
)
from tf_groupvit.models.operations import one_hot_max, times_transposed
from tf_groupvit.models.weights import constant, normal
from tf_groupvit.types import Tensor


class AssignAttention(Part):
    """Assigns each segment token to one group: equations 5 to 7 of the paper.

    Eq. 5: A = softmax over groups of (Wq g) . (Wk s), with Gumbel noise in training alone.
    Eq. 6: A^ = one-hot(argmax A), whose gradient is that of A (straight through).
    Eq. 7: Wo Wv of the mean of each group's tokens; ``GroupingBlock`` adds g.
    Folded, the queries' product holds the keys' weights, too: (Wq g) . (Wk s) = (Wk' Wq g) . s, and
    its last output is what the keys' bias adds.
    """

    def __init__(
        self, config: GroupViTVisionConfig, name: str, dtype: Policy, folded: bool = False
    ) -> None:
        super().__init__(name, dtype)
        width, std, policy = config.hidden_size, config.initializer_range, self.dtype_policy
        self.scale, self.folded = width**-0.5, folded  # of the whole width: there is one head
        if folded:
            self.qk_proj = dense(f"{name}.qk_proj", width, width + 1, std, policy)
        else:
            self.q_proj = dense(f"{name}.q_proj", width, width, std, policy)
            self.k_proj = dense(f"{name}.k_proj", width, width, std, policy)
        self.v_proj = dense(f"{name}.v_proj", width, width, std, policy)
        self.proj = dense(f"{name}.proj", width, width, std, policy)
        self.assign_eps = config.assign_eps
        self.noise = keras.random.SeedGenerator()
        self.uniform = keras.random.uniform  # training on several replicas replaces it

    def call(
        self,
        groups: Tensor,
        tokens: Tensor,
        num_groups: int,
        num_tokens: int | Tensor,
        training: bool | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Group tokens (B * G, C), segment tokens (B * P, C) -> what each group gets of its tokens
        (B * G, C), and the soft assignment without noise (B, G, P), float32.
        """
        tokens = ops.reshape(tokens, (-1, num_tokens, tokens.shape[-1]))  # (B, P, C)
        logits = self._compare(groups, tokens, num_groups)
        soft = softmax(logits, axis=1)
        # Eq. 5
        chosen = softmax(logits + self._gumbel(ops.shape(logits)), axis=1) if training else soft
        # Eq. 6
        assignment = ops.stop_gradient(one_hot_max(chosen, axis=1) - chosen) + chosen
        # Eq. 7: Wv of the mean is the mean of Wv, in fewer products; its bias counts once per token
        # The published code adds ``assign_eps`` = 1 to the number of tokens; the paper does not.
        share = assignment / (ops.sum(assignment, axis=-1, keepdims=True) + self.assign_eps)
        share = ops.cast(share, self.compute_dtype)
        means = self.v_proj(ops.matmul(share, tokens))  # (B, G, C)
        bias = ops.cast(self.v_proj.bias, self.compute_dtype)
        means = means - (1.0 - ops.sum(share, axis=-1, keepdims=True)) * bias
        return self.proj(merge_batch(means)), soft

    def _compare(self, groups: Tensor, tokens: Tensor, num_groups: int) -> Tensor:
        """(Wq g) . (Wk s) / sqrt(C) of (B * G, C) and (B, P, C) -> (B, G, P)."""
        width = groups.shape[-1]
        if self.folded:
            q = ops.reshape(self.qk_proj(groups), (-1, num_groups, width + 1))
            return times_transposed(q[:, :, :width], tokens) + q[:, :, width:]
        # float32 before the product: half floats overflow in it, and their ties would decide
        q = ops.reshape(ops.cast(self.q_proj(groups), "float32"), (-1, num_groups, width))
        k = ops.cast(self.k_proj(tokens), "float32")
        return times_transposed(q, k) * self.scale

    def _gumbel(self, shape: tuple[int | Tensor, ...]) -> Tensor:
        # 1e-20 keeps the logarithms finite: the uniform draw may be exactly 0.
        uniform = self.uniform(shape, minval=1e-20, maxval=1.0, dtype="float32", seed=self.noise)
        return -ops.log(-ops.log(uniform) + 1e-20)


class CrossAttention(Part):
    """Group tokens look at the image once before the assignment: not in the paper, but in the
    published models.
    """

    def __init__(self, config: GroupViTVisionConfig, name: str, dtype: Policy) -> None:
        super().__init__(name, dtype)
        norm = (config.hidden_size, config.layer_norm_eps, self.dtype_policy)
        self.attn = Attention(config, f"{name}.attn", self.dtype_policy)
        self.norm2 = LayerNorm(f"{name}.norm2", *norm)
        self.mlp = MLP(config, f"{name}.mlp", self.dtype_policy)
        self.norm_post = LayerNorm(f"{name}.norm_post", *norm)

    def call(
        self,
        groups: Tensor,
        tokens: Tensor,
        num_groups: int,
        num_tokens: int | Tensor,
        training: bool | None = None,
    ) -> Tensor:
        """Group tokens (B * G, C), segment tokens (B * P, C) -> group tokens (B * G, C)."""
        seen, _ = self.attn(
            groups, num_queries=num_groups, keys=tokens, num_keys=num_tokens, training=training
        )
        x = groups + seen
        return self.norm_post(x + self.mlp(self.norm2(x)))


class TokenMixer(MLP):
    """An MLP over the token axis, which mixes the tokens into as many as there are groups."""

    def call(self, x: Tensor) -> Tensor:
        """(B, inputs, C) -> (B, outputs, C)."""
        width = x.shape[-1]
        mixed = super().call(merge_batch(ops.transpose(x, (0, 2, 1))))  # (B * C, outputs)
        return ops.transpose(ops.reshape(mixed, (-1, width, mixed.shape[-1])), (0, 2, 1))


class GroupingBlock(Part):
    """Merges segment tokens into groups, equation 2: s' = GroupingBlock(g^, s^).

    ``num_tokens`` and ``num_groups`` are S and G; an MLP over the token axis turns S into G.
    """

    def __init__(
        self,
        config: GroupViTVisionConfig,
        num_tokens: int,
        num_groups: int,
        name: str,
        dtype: Policy,
        folded: bool = False,
    ) -> None:
        super().__init__(name, dtype)
        width, policy = config.hidden_size, self.dtype_policy
        norm = (width, config.layer_norm_eps, policy)
        self.num_groups = num_groups
        between, channels = (int(ratio * width) for ratio in config.assign_mlp_ratio)
        self.norm_tokens = LayerNorm(f"{name}.norm_tokens", *norm)
        self.norm_x = LayerNorm(f"{name}.norm_x", *norm)
        self.mlp_inter = TokenMixer(
            config, f"{name}.mlp_inter", policy, num_tokens, between, num_groups
        )
        self.norm_post_tokens = LayerNorm(f"{name}.norm_post_tokens", *norm)
        self.pre_assign_attn = CrossAttention(config, f"{name}.pre_assign_attn", policy)
        self.assign = AssignAttention(config, f"{name}.assign", policy, folded)
        self.norm_new_x = LayerNorm(f"{name}.norm_new_x", *norm)
        self.mlp_channels = MLP(config, f"{name}.mlp_channels", policy, hidden=channels)

    def call(
        self,
        x: Tensor,
        group_tokens: Tensor,
        num_tokens: int | Tensor,
        training: bool | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Segment tokens (B, P, C), P ``num_tokens``, group tokens (B, S, C) -> groups (B, G, C),
        soft assignment (B, G, P).
        """
        width = x.shape[-1]
        x = self.norm_x(merge_batch(x))
        groups = self.norm_post_tokens(self.mlp_inter(self.norm_tokens(group_tokens)))
        shape = {"num_groups": self.num_groups, "num_tokens": num_tokens, "training": training}
        groups = self.pre_assign_attn(merge_batch(groups), x, **shape)  # (B * G, C)
        means, assignment = self.assign(groups, x, **shape)
        groups = groups + means
        groups = groups + self.mlp_channels(self.norm_new_x(groups))
        return ops.reshape(groups, (-1, self.num_groups, width)), assignment


class GroupProjector(Part):
    """An offset to a stage's learned group tokens, made of the previous stage's."""

    def __init__(
        self, config: GroupViTVisionConfig, before: int, tokens: int, name: str, dtype: Policy
    ) -> None:
        super().__init__(name, dtype)
        width, policy = config.hidden_size, self.dtype_policy
        self.norm = LayerNorm(f"{name}.0", width, config.layer_norm_eps, policy)
        self.mixer = TokenMixer(config, f"{name}.1", policy, before, width // 2, tokens)

    def call(self, group_tokens: Tensor) -> Tensor:
        """The previous stage's group tokens (B, before, C) -> (B, tokens, C)."""
        return self.mixer(self.norm(group_tokens))


class Stage(Part):
    """Transformer blocks over segment and group tokens together, then their grouping.

    Eq. 1: g^, s^ = Transformer([g; s]), and eq. 2. A stage without group tokens is eq. 3, blocks
    alone.
    """

    def __init__(
        self,
        config: GroupViTVisionConfig,
        index: int,
        name: str,
        dtype: Policy,
        folded: bool = False,
    ) -> None:
        super().__init__(name, dtype)
        policy, self.folded = self.dtype_policy, folded
        self.num_group_tokens = config.num_group_tokens[index]
        # As in the original: what comes in are the previous stage's group tokens, not its output
        # groups.
        before = config.num_group_tokens[index - 1] if index else 0
        self.blocks = [
            Block(config, f"{name}.layers.{i}", policy, folded) for i in range(config.depths[index])
        ]
        # Of training alone, and set by it: the share of images for which each block's branches are
        # left out, and whether activations are computed again in the backward pass instead of being
        # kept.
        self.drop_rates = (0.0,) * len(self.blocks)
        self.rematerialize = False
        self.drops = keras.random.SeedGenerator()
        self.uniform = keras.random.uniform  # as in AssignAttention
        self.group_projector: GroupProjector | None = None
        if self.num_group_tokens:
            self._make_grouping(config, before, config.num_output_groups[index], name)

    def _make_grouping(
        self, config: GroupViTVisionConfig, before: int, num_groups: int, name: str
    ) -> None:
        tokens, policy, path = self.num_group_tokens, self.dtype_policy, f"{name}/group_token"
        # As published, the projector alone makes the tokens at first where there is one.
        start = constant(path, 0.0) if before else normal(path, 0.02)
        shape = (1, tokens, config.hidden_size)
        self.group_token = self.add_weight(name="group_token", shape=shape, initializer=start)
        self.downsample = GroupingBlock(
            config, tokens, num_groups, f"{name}.downsample", policy, self.folded
        )
        if before:
            projector = f"{name}.group_projector"
            self.group_projector = GroupProjector(config, before, tokens, projector, policy)

    def call(
        self, x: Tensor, previous: Tensor | None = None, training: bool | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Segment tokens (B, P, C), the previous stage's group tokens (B, S', C) or None -> groups
        (B, G, C), group tokens (B, S, C), soft assignment (B, G, P); the last two None where the
        stage does not group.
        """
        num_tokens, count = ops.shape(x)[1], self.num_group_tokens
        if not count:
            return self._run_blocks(x, num_tokens, training), None, None
        group_tokens = ops.cast(self.group_token, self.compute_dtype)
        group_tokens = ops.broadcast_to(group_tokens, (ops.shape(x)[0], *group_tokens.shape[1:]))
        if self.group_projector is not None:
            group_tokens = group_tokens + self.group_projector(previous)
        x = ops.concatenate([x, group_tokens], axis=1)
        x = self._run_blocks(x, num_tokens + count, training)
        group_tokens = ops.reshape(x[:, -count:], (-1, *self.group_token.shape[1:]))
        x = x[:, :-count]
        groups, assignment = self.downsample(
            x, group_tokens, num_tokens=num_tokens, training=training
        )
        return groups, group_tokens, assignment

    def _run_blocks(self, x: Tensor, num_tokens: int | Tensor, training: bool | None) -> Tensor:
        """Tokens (B, T, C) through the blocks, one row each."""
        width, tokens = x.shape[-1], merge_batch(x)
        # Whatever reads the folded blocks' tokens takes their mean out, too: a layer norm.
        tokens = subtract_mean(tokens) if self.folded else tokens
        blocks: Sequence[RunsBlock] = self.blocks if training else written_once(self.blocks)
        for block, rate in zip(blocks, self.drop_rates, strict=True):
            # drawn out here: what is computed again must not draw again
            kept = self._draw_kept(rate, ops.shape(x)[0]) if training and rate else None
            run = partial(_run, block, num_tokens=num_tokens, training=training, kept=kept)
            tokens = (keras.remat(run) if training and self.rematerialize else run)(tokens)
        return ops.reshape(tokens, (-1, num_tokens, width))

    def _draw_kept(self, rate: float, images: int | Tensor) -> Tensor:
        """0 for branches that are left out, else what keeps their mean: (2, B)."""
        drawn = self.uniform((2, images), seed=self.drops)
        return ops.cast(drawn >= rate, "float32") / (1 - rate)


def _run(block: RunsBlock, tokens: Tensor, **keywords: Any) -> Tensor:
    return block(tokens, **keywords)[0]
