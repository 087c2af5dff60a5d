"""Vision tower of GroupViT: patches to group features, with one assignment for each stage."""

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from tf_groupvit.checkpoints.matching import UNUSED_BY_VISION
from tf_groupvit.config import GroupViTVisionConfig
from tf_groupvit.errors import InputError
from tf_groupvit.models.grouping import Stage
from tf_groupvit.models.inputs import image_input, refuse_tuple
from tf_groupvit.models.layers import (
    LayerNorm,
    Part,
    Policy,
    dropout,
    layer_name,
    refuse_what_is_folded,
)
from tf_groupvit.models.operations import resize_grid
from tf_groupvit.models.outputs import TowerOutput
from tf_groupvit.models.pretrained import PretrainedModel
from tf_groupvit.models.weights import constant, normal, truncated_normal
from tf_groupvit.types import Tensor


class PatchEmbedding(Part):
    """Segment tokens of the first stage: each patch projected, normalized, its position added."""

    def __init__(self, config: GroupViTVisionConfig, name: str, dtype: Policy) -> None:
        super().__init__(name, dtype)
        self.config = config
        width, policy = config.hidden_size, self.dtype_policy
        patch, path = config.patch_height_width, f"{name}.patch_embeddings.projection"
        self.projection = keras.layers.Conv2D(
            width,
            patch,
            strides=patch,
            data_format="channels_last",
            kernel_initializer=normal(f"{path}/kernel", config.initializer_range),
            bias_initializer=constant(f"{path}/bias", 0.0),
            name=layer_name(path),
            dtype=policy,
        )
        self.projection.build((None, None, None, config.num_channels))
        self.layernorm = LayerNorm(f"{name}.layernorm", width, config.layer_norm_eps, policy)
        rows, columns = config.grid
        self.position_embeddings = self.add_weight(
            name="position_embeddings",
            shape=(1, rows * columns, width),
            initializer=truncated_normal(f"{name}/position_embeddings", 0.02),
        )
        self.dropout = dropout(config.dropout, f"{name}.dropout", policy)

    def call(self, pixel_values: Tensor, training: bool | None = None) -> Tensor:
        """Pixels (B, 3, H, W) -> tokens (B, P, C), one a patch."""
        (tall, wide), channels = self.config.patch_height_width, self.config.num_channels
        height, width = ops.shape(pixel_values)[2:]
        rows, columns = height // tall, width // wide
        x = ops.reshape(pixel_values, (-1, channels, rows, tall, columns, wide))
        x = ops.transpose(x, (0, 2, 4, 3, 5, 1))  # (B, rows, columns, tall, wide, 3)
        x = self._project(ops.reshape(x, (-1, tall * wide * channels)))
        x = ops.reshape(self.layernorm(x), (-1, rows * columns, self.config.hidden_size))
        x = x + ops.cast(self._positions(rows, columns), self.compute_dtype)
        return self.dropout(x, training=training)

    def _project(self, patches: Tensor) -> Tensor:
        """Patches (M, tall * wide * 3) -> (M, C): a convolution whose steps are as wide as itself
        is one product.
        """
        kernel = ops.cast(self.projection.kernel, self.compute_dtype)  # (tall, wide, 3, C)
        kernel = ops.reshape(kernel, (-1, self.config.hidden_size))
        return ops.matmul(patches, kernel) + ops.cast(self.projection.bias, self.compute_dtype)

    def _positions(self, rows: int | Tensor, columns: int | Tensor) -> Tensor:
        """Position embeddings (1, P, C), resized where the grid is not the one of training."""
        table, grid = self.position_embeddings, self.config.grid
        if isinstance(rows, int) and isinstance(columns, int):
            known = (rows, columns) == grid
            return table if known else resize_grid(table, grid, rows, columns)
        same = ops.logical_and(ops.equal(rows, grid[0]), ops.equal(columns, grid[1]))
        table = ops.cast(table, "float32")
        return ops.cond(same, lambda: table, lambda: resize_grid(table, grid, rows, columns))


class VisionTower(Part):
    """Patches, stages that group them, a final norm, and the mean over groups (eq. 4, before its
    MLP).
    """

    def __init__(
        self,
        config: GroupViTVisionConfig,
        name: str = "vision_model",
        dtype: Policy = None,
        folded: bool = False,
    ) -> None:
        super().__init__(name, dtype)
        self.config, self.folded = config, folded
        policy, norm = self.dtype_policy, f"{name}.layernorm"
        self.embeddings = PatchEmbedding(config, f"{name}.embeddings", policy)
        self.stages = [
            Stage(config, i, f"{name}.encoder.stages.{i}", policy, folded)
            for i in range(len(config.depths))
        ]
        self.layernorm = LayerNorm(norm, config.hidden_size, config.layer_norm_eps, policy)

    def call(
        self,
        pixel_values: Tensor,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        training: bool | None = None,
    ) -> TowerOutput:
        """Pixels (B, 3, H, W) -> group features (B, G, C), their mean (B, C), and what is asked
        for: each stage's soft assignment (B, G, P) as ``attentions``, and its output.
        """
        refuse_what_is_folded(self.folded, output_hidden_states, training)
        x = self.embeddings(self.checked(pixel_values), training=training)
        states, assignments, group_tokens = [x], [], None
        for stage in self.stages:
            x, group_tokens, assignment = stage(x, group_tokens, training=training)
            states.append(x)
            if assignment is not None:
                assignments.append(assignment)
        x = self.layernorm(x)
        return TowerOutput.of(
            last_hidden_state=x,
            pooler_output=ops.mean(x, axis=1),
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(assignments) if output_attentions else None,
        )

    def checked(self, pixel_values: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in the compute type. Raises ``InputError`` where static shapes show
        that they cannot fit.
        """
        pixel_values = ops.cast(ops.convert_to_tensor(pixel_values), self.compute_dtype)
        shape, channels = tuple(pixel_values.shape), self.config.num_channels
        if len(shape) != 4 or shape[1] not in (channels, None):
            raise InputError(
                f"pixel_values have shape {shape}: expected (B, {channels}, H, W), channels first."
            )
        patches = self.config.patch_height_width
        for size, patch, name in zip(shape[2:], patches, ("height", "width"), strict=True):
            if isinstance(size, int) and (size == 0 or size % patch):
                raise InputError(
                    f"pixel_values have {name} {size}: expected a multiple of the patch size"
                    f" {patch}."
                )
        return pixel_values


@keras.saving.register_keras_serializable("tf_groupvit")
class TFGroupViTVisionModel(PretrainedModel):
    """GroupViT's vision tower: pixels (B, 3, H, W), any H and W that the patch size divides ->
    ``TowerOutput``.

    Errors: InputError for pixels that are not channels first, or whose size the patch size does not
        divide.
    """

    config_class = GroupViTVisionConfig
    may_ignore = UNUSED_BY_VISION

    def __init__(self, config: GroupViTVisionConfig, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        self.vision_model = VisionTower(config, dtype=self.dtype_policy)
        self.built = True

    def call(
        self,
        pixel_values: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool | None = None,
    ) -> TowerOutput:
        """Shapes: pixel_values (B, 3, H, W), normalized floats; or a dict with them."""
        refuse_tuple(return_dict)
        return self.vision_model(
            image_input(pixel_values),
            training=training,
            **self.flags(output_attentions, output_hidden_states),
        )

    if TYPE_CHECKING:
        config: GroupViTVisionConfig

        def __call__(self, *arguments: Any, **keywords: Any) -> TowerOutput: ...

    def default_signature(self) -> dict[str, keras.InputSpec]:
        """Pixels (B, 3, H, W)."""
        shape = (None, self.config.num_channels, None, None)
        return {"pixel_values": keras.InputSpec(shape=shape, dtype="float32", name="pixel_values")}
