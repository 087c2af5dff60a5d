"""The vision tower folded for inference: pixels (B, 3, H, W) -> group features (B, G, C),
assignments (B, G, P).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from tf_groupvit.models.grouping import GroupingBlock, GroupProjector, Stage, TokenMixer
from tf_groupvit.models.operations import one_hot_max, resize_grid
from tf_groupvit.models.optimized_layers import (
    Dense,
    Folded,
    FoldedBlock,
    FoldedMLP,
    after_norm,
    attend,
    centre,
    chained,
    compared,
    dense_of,
    heads_of,
    refuse_what_is_folded,
    scaled,
    scaled_queries,
    side_by_side,
    unit,
    values,
)
from tf_groupvit.models.outputs import TowerOutput
from tf_groupvit.models.vision import PatchEmbedding, VisionTower
from tf_groupvit.runtimes import GRAPH, LITE, LITE_INT8, OPENVINO, building_for, built_for
from tf_groupvit.runtimes.compiled import CompiledFunction, Program
from tf_groupvit.runtimes.lite import LiteProgram
from tf_groupvit.runtimes.openvino import OpenVinoProgram

PROGRAMS: dict[str, Callable[..., Program]] = {
    LITE: LiteProgram,
    LITE_INT8: partial(LiteProgram, int8=True),
    OPENVINO: OpenVinoProgram,
}


class FoldedEmbedding(Folded):
    """Pixels (B, 3, H, W) -> tokens (B, P, C): the convolution, whose steps are as wide as itself,
    is one product.
    """

    def __init__(self, embedding: PatchEmbedding, name: str) -> None:
        super().__init__(name)
        self.patch, self.grid = embedding.config.patch_height_width, embedding.config.grid
        kernel = values(embedding.projection.kernel).transpose(2, 0, 1, 3)  # (3, height, width, C)
        self.width, self.channels = kernel.shape[-1], kernel.shape[0]
        bias = values(embedding.projection.bias)
        self.projection = self.product("projection", Dense(kernel.reshape(-1, self.width), bias))
        norm = embedding.layernorm
        self.gamma, self.epsilon = self.keep("gamma", values(norm.gamma)), norm.epsilon
        # Weights of an interpolation sum to 1, so the norm's offset may be added before it.
        self.positions = self.keep(
            "positions", values(embedding.position_embeddings) + values(norm.beta)
        )

    def call(self, pixel_values: Any) -> Any:
        (tall, wide), shape = (
            self.patch,
            pixel_values.shape if built_for() != GRAPH else tf.shape(pixel_values),
        )
        rows, columns = shape[2] // tall, shape[3] // wide
        x = tf.reshape(pixel_values, (-1, self.channels, rows, tall, columns, wide))
        x = tf.transpose(x, (0, 2, 4, 1, 3, 5))  # (B, rows, columns, 3, tall, wide)
        x = centre(self.projection(tf.reshape(x, (-1, self.channels * tall * wide))))
        x = tf.reshape(unit(x, self.epsilon) * self.gamma.value, (-1, rows * columns, self.width))
        return x + self._positions(rows, columns)

    def _positions(self, rows: Any, columns: Any) -> Any:
        """(1, P, C), resized only where the grid is not the one that they were learned on."""
        table, (known_rows, known_columns) = self.positions.value, self.grid
        if (
            built_for() != GRAPH
        ):  # a program has one size: what it adds is worked out while it is made
            with tf.init_scope():
                resized = resize_grid(table, self.grid, rows, columns).numpy()
            return tf.constant(resized)
        same = tf.logical_and(tf.equal(rows, known_rows), tf.equal(columns, known_columns))
        return tf.cond(
            same, lambda: tf.identity(table), lambda: resize_grid(table, self.grid, rows, columns)
        )


class FoldedMixer(Folded):
    """An MLP over the token axis after a norm: (B, inputs, C) -> (B, outputs, C)."""

    def __init__(self, norm: Any, mixer: TokenMixer, activation: str, name: str) -> None:
        super().__init__(name)
        self.before = self.norm("norm", norm)
        self.mlp = FoldedMLP(mixer, activation, f"{name}_mlp")
        self.inputs, self.outputs = mixer.fc1.kernel.shape[0], mixer.fc2.kernel.shape[1]

    def call(self, x: Any) -> Any:
        width = x.shape[-1]
        mixed = self.mlp(tf.reshape(tf.transpose(self.before(x), (0, 2, 1)), (-1, self.inputs)))
        return tf.transpose(tf.reshape(mixed, (-1, width, self.outputs)), (0, 2, 1))


class FoldedGrouping(Folded):
    """Centred tokens (B * P, C), group tokens (B, S, C) -> groups (B * G, C), soft assignment (B,
    G, P).
    """

    def __init__(self, block: GroupingBlock, activation: str, name: str) -> None:
        super().__init__(name)
        self.count, self.epsilon = block.groups, block.norm_x.epsilon
        self.mixer = FoldedMixer(block.norm_tokens, block.mlp_inter, activation, f"{name}_mixer")
        self.norm_mixed = self.norm("norm_mixed", block.norm_post_tokens)
        self._keep_look(block, activation, name)
        self._keep_assign(block)
        self.norm_new = block.norm_new_x.epsilon
        self.channels = FoldedMLP(
            block.mlp_channels, activation, f"{name}_channels", block.norm_new_x
        )

    def _keep_look(self, block: GroupingBlock, activation: str, name: str) -> None:
        """Group tokens look at the image: its norm is folded into keys and values."""
        look = block.pre_assign_attn
        self.heads = look.attn.heads
        seen = side_by_side(dense_of(look.attn.k_proj), dense_of(look.attn.v_proj))
        self.queries = self.product("queries", scaled_queries(look.attn))
        self.seen = self.product("seen", after_norm(seen, block.norm_x))
        self.outward = self.product("outward", dense_of(look.attn.out_proj))
        self.look_mlp = FoldedMLP(look.mlp, activation, f"{name}_look_mlp", look.norm2)
        self.norm_looked = self.norm("norm_looked", look.norm_post)

    def _keep_assign(self, block: GroupingBlock) -> None:
        """One head: keys go to the few queries' side, values are projected when they are means of
        groups.
        """
        assign = block.assign
        self.eps = assign.assign_eps
        keys = after_norm(dense_of(assign.k_proj), block.norm_x)
        self.compare = self.product(
            "compare", compared(scaled(dense_of(assign.q_proj), assign.scale), keys)
        )
        values_ = after_norm(dense_of(assign.v_proj), block.norm_x)
        inner = Dense(values_.kernel, values_.bias * 0.0)
        offset, last = values_.bias @ values(assign.proj.kernel), values(assign.proj.bias)
        self.means = self.product(
            "means", Dense(chained(inner, dense_of(assign.proj)).kernel, last)
        )
        self.member = self.keep("member", offset)

    def call(self, x: Any, group_tokens: Any, length: Any) -> tuple[Any, Any]:
        width = x.shape[-1]
        x = unit(x, self.epsilon)
        groups = tf.reshape(self.norm_mixed(self.mixer(group_tokens)), (-1, width))
        groups = self._look(groups, x, length)
        means, soft = self._assign(groups, x, length)
        groups = groups + means
        return groups + self.channels(unit(centre(groups), self.norm_new)), soft

    def _look(self, groups: Any, x: Any, length: Any) -> Any:
        q = heads_of(self.queries(groups), self.count, 1, self.heads)[0]
        k, v = heads_of(self.seen(x), length, 2, self.heads)
        groups = groups + self.outward(attend(q, k, v))
        return self.norm_looked(groups + self.look_mlp(unit(centre(groups), self.epsilon)))

    def _assign(self, groups: Any, x: Any, length: Any) -> tuple[Any, Any]:
        """groups (B * G, C), normalised tokens (B * P, C) -> what each gets (B * G, C), soft
        assignment (B, G, P).
        """
        width = x.shape[-1]
        x = tf.reshape(x, (-1, length, width))
        wanted = tf.reshape(self.compare(groups), (-1, self.count, width + 1))
        logits = (
            tf.matmul(x, wanted[:, :, :width], transpose_b=True) + wanted[:, None, :, width]
        )  # (B, P, G)
        soft = tf.nn.softmax(logits)
        hard = one_hot_max(soft, axis=2)
        number = tf.reduce_sum(hard, axis=1)[:, :, None]  # of tokens in each group, (B, G, 1)
        share = 1.0 / (number + self.eps)
        means = tf.reshape(tf.matmul(hard, x, transpose_a=True) * share, (-1, width))
        offset = tf.reshape(number * share, (-1, 1)) * self.member.value
        return self.means(means) + offset, tf.transpose(soft, (0, 2, 1))


class FoldedStage(Folded):
    """Features (B, P, C), and the group tokens before -> features, group tokens, soft assignment or
    None.
    """

    def __init__(self, stage: Stage, activation: str, name: str) -> None:
        super().__init__(name)
        self.blocks = [
            FoldedBlock(block, activation, f"{name}_{i}") for i, block in enumerate(stage.blocks)
        ]
        self.tokens, self.projector = stage.tokens, None
        if self.tokens:
            self.group_token = self.keep("group_token", values(stage.group_token))
            self.grouping = FoldedGrouping(stage.downsample, activation, f"{name}_grouping")
            if stage.group_projector is not None:
                self.projector = self._project(stage.group_projector, activation, name)

    def _project(self, projector: GroupProjector, activation: str, name: str) -> FoldedMixer:
        return FoldedMixer(projector.norm, projector.mixer, activation, f"{name}_projector")

    def call(self, x: Any, previous: Any = None) -> tuple[Any, Any, Any]:
        length, width = tf.shape(x)[1], x.shape[-1]
        if not self.tokens:
            return self._run(x, length), None, None
        start = self.group_token.value
        if self.projector is None:
            start = tf.broadcast_to(start, (tf.shape(x)[0], *start.shape[1:]))
        else:
            start = start + self.projector(previous)
        x = self._run(tf.concat([x, start], axis=1), length + self.tokens)
        x, group_tokens = x[:, :length], x[:, length:]
        group_tokens = tf.reshape(group_tokens, (-1, self.tokens, width))  # says how many there are
        groups, soft = self.grouping(tf.reshape(x, (-1, width)), group_tokens, length=length)
        return tf.reshape(groups, (-1, self.grouping.count, width)), group_tokens, soft

    def _run(self, x: Any, length: Any) -> Any:
        """Tokens (B, T, C) through the blocks, one centred row each."""
        width = x.shape[-1]
        rows = centre(tf.reshape(x, (-1, width)))
        for block in self.blocks:
            rows = block(rows, length=length)
        return tf.reshape(rows, (-1, length, width))


class FoldedVisionTower(Folded, VisionTower):
    """Takes the place of a ``VisionTower`` in inference; hidden states are not there to be had.

    ``runtime``: of ``runtimes.RUNTIMES``; those other than "graph" have a program for each size of
        images.
    """

    def __init__(
        self, tower: VisionTower, name: str = "vision_model", runtime: str = GRAPH
    ) -> None:
        Folded.__init__(self, name)
        self.config, activation = tower.config, tower.config.hidden_act
        with building_for(runtime):
            self.embeddings = FoldedEmbedding(tower.embeddings, "embeddings")
            self.stages = [
                FoldedStage(stage, activation, f"stage_{i}") for i, stage in enumerate(tower.stages)
            ]
            self.last_norm = self.norm("layernorm", tower.layernorm)
        self.look = self._look if runtime == GRAPH else self._in_programs(PROGRAMS[runtime])

    def _in_programs(self, make: Callable[..., Program]) -> CompiledFunction:
        counts = [stage.grouping.count for stage in self.stages if stage.tokens]
        tokens = counts[-1:] or [None]
        shapes = [(*tokens, self.config.hidden_size), *((count, None) for count in counts)]
        return CompiledFunction(self._look, shapes, make)

    def call(
        self,
        pixel_values: Any,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        training: Any = None,
    ) -> TowerOutput:
        refuse_what_is_folded(output_hidden_states, training)
        x, *assignments = self.look(self._checked(pixel_values))
        return TowerOutput.of(
            last_hidden_state=x,
            pooler_output=tf.reduce_mean(x, axis=1),
            attentions=tuple(assignments) if output_attentions else None,
        )

    def _look(self, pixel_values: Any) -> list[Any]:
        """Pixels -> group features, and the soft assignment of each stage that groups."""
        x, group_tokens, assignments = self.embeddings(pixel_values), None, []
        for stage in self.stages:
            x, group_tokens, soft = stage(x, group_tokens)
            if soft is not None:
                assignments.append(soft)
        return [self.last_norm(x), *assignments]
