"""Vision tower: pixels (B, 3, H, W) -> group features (B, G, C) and one assignment per stage (B, G,
P).
"""

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from tf_groupvit.checkpoints.matching import UNUSED_BY_VISION
from tf_groupvit.config import GroupViTVisionConfig
from tf_groupvit.errors import InputError
from tf_groupvit.models.grouping import Stage
from tf_groupvit.models.inputs import image_input, refuse_tuple
from tf_groupvit.models.layers import dropout, layer_name, layer_norm
from tf_groupvit.models.operations import resize_grid
from tf_groupvit.models.outputs import TowerOutput
from tf_groupvit.models.pretrained import PretrainedModel
from tf_groupvit.models.weights import constant, normal, truncated_normal


class PatchEmbedding(keras.layers.Layer):
    """Pixels (B, 3, H, W) -> one normalised token a patch, positions added (B, P, C)."""

    def __init__(self, config: GroupViTVisionConfig, name: str, dtype: Any) -> None:
        super().__init__(name=layer_name(name), dtype=dtype)
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
        self.layernorm = layer_norm(f"{name}.layernorm", width, config.layer_norm_eps, policy)
        rows, columns = config.grid
        self.position_embeddings = self.add_weight(
            name="position_embeddings",
            shape=(1, rows * columns, width),
            initializer=truncated_normal(f"{name}/position_embeddings", 0.02),
        )
        self.dropout = dropout(config.dropout, f"{name}.dropout", policy)

    def call(self, pixel_values: Any, training: Any = None) -> Any:
        x = self.projection(ops.transpose(pixel_values, (0, 2, 3, 1)))  # (B, rows, columns, C)
        rows, columns = ops.shape(x)[1:3]
        x = self.layernorm(ops.reshape(x, (-1, rows * columns, self.config.hidden_size)))
        x = x + ops.cast(self._positions(rows, columns), self.compute_dtype)
        return self.dropout(x, training=training)

    def _positions(self, rows: Any, columns: Any) -> Any:
        """Position embeddings (1, P, C); resized where the grid is not the one that they were
        learned on.
        """
        known = isinstance(rows, int) and isinstance(columns, int)
        if known and (rows, columns) == self.config.grid:
            return self.position_embeddings
        return resize_grid(self.position_embeddings, self.config.grid, rows, columns)


class VisionTower(keras.layers.Layer):
    """Patches, stages that group them, a final norm, and the mean over groups."""

    def __init__(
        self, config: GroupViTVisionConfig, name: str = "vision_model", dtype: Any = None
    ) -> None:
        super().__init__(name=layer_name(name), dtype=dtype)
        self.config = config
        policy = self.dtype_policy
        self.embeddings = PatchEmbedding(config, f"{name}.embeddings", policy)
        stages = range(len(config.depths))
        self.stages = [Stage(config, i, f"{name}.encoder.stages.{i}", policy) for i in stages]
        self.layernorm = layer_norm(
            f"{name}.layernorm", config.hidden_size, config.layer_norm_eps, policy
        )
        self.built = True

    def call(
        self,
        pixel_values: Any,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        training: Any = None,
    ) -> TowerOutput:
        x = self.embeddings(self._checked(pixel_values), training=training)
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

    def _checked(self, pixel_values: Any) -> Any:
        """Pixels in the compute type; refused where static shapes show that they cannot fit."""
        pixel_values = ops.cast(ops.convert_to_tensor(pixel_values), self.compute_dtype)
        shape, channels = tuple(pixel_values.shape), self.config.num_channels
        if len(shape) != 4 or shape[1] not in (channels, None):
            raise InputError(
                f"pixel_values have shape {shape}: expected (B, {channels}, H, W), channels first."
            )
        for size, patch, name in zip(
            shape[2:], self.config.patch_height_width, ("height", "width"), strict=True
        ):
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
        pixel_values: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: Any = None,
    ) -> TowerOutput:
        """Shapes: pixel_values (B, 3, H, W), normalised floats; or a dict with them."""
        refuse_tuple(return_dict)
        config = self.config
        return self.vision_model(
            image_input(pixel_values),
            output_attentions=(
                config.output_attentions if output_attentions is None else output_attentions
            ),
            output_hidden_states=(
                config.output_hidden_states
                if output_hidden_states is None
                else output_hidden_states
            ),
            training=training,
        )

    if TYPE_CHECKING:
        config: GroupViTVisionConfig

        def __call__(self, *arguments: Any, **keywords: Any) -> TowerOutput: ...

    def default_signature(self) -> dict[str, keras.InputSpec]:
        shape = (None, self.config.num_channels, None, None)
        return {"pixel_values": keras.InputSpec(shape=shape, dtype="float32", name="pixel_values")}
