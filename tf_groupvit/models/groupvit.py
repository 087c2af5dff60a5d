"""Joint model: token ids (N, T) and pixels (B, 3, H, W) -> similarities (B, N) and segmentation
logits (B, N, H, W).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from tf_groupvit.config import GroupViTConfig
from tf_groupvit.errors import InputError
from tf_groupvit.models.base_model import check_process
from tf_groupvit.models.inputs import (
    accept,
    check_pairs_of_rows,
    image_input,
    refuse_flags,
    refuse_tuple,
    text_inputs,
    unpack,
)
from tf_groupvit.models.layers import dense, layer_name
from tf_groupvit.models.operations import (
    contrastive_loss,
    group_maps,
    normalize,
    segmentation_logits,
)
from tf_groupvit.models.outputs import GroupViTOutput, TowerOutput, without
from tf_groupvit.models.pretrained import PretrainedModel
from tf_groupvit.models.text import TextTower
from tf_groupvit.models.vision import VisionTower
from tf_groupvit.models.weights import constant
from tf_groupvit.models.zero_shot import FixedTextModel

PAIRWISE = ("loss", "logits_per_image", "logits_per_text", "segmentation_logits")


class Projection(keras.layers.Layer):
    """A tower's features (..., C) -> the shared space (..., D), not normalised."""

    def __init__(self, config: GroupViTConfig, inputs: int, name: str, dtype: Any) -> None:
        super().__init__(name=layer_name(name), dtype=dtype)
        hidden, policy, std = (
            config.projection_intermediate_dim,
            self.dtype_policy,
            config.initializer_range,
        )
        self.inner = dense(f"{name}.0", inputs, hidden, std, policy)
        starts = {"gamma": 1.0, "beta": 0.0, "moving_mean": 0.0, "moving_variance": 1.0}
        # momentum 0.9 is PyTorch's 0.1
        self.norm = keras.layers.BatchNormalization(
            momentum=0.9,
            epsilon=1e-5,
            name=layer_name(f"{name}.1"),
            dtype=policy,
            **{
                f"{part}_initializer": constant(f"{name}.1/{part}", value)
                for part, value in starts.items()
            },
        )
        self.norm.build((None, hidden))
        self.outer = dense(f"{name}.3", hidden, config.projection_dim, std, policy)

    def call(self, x: Any, training: Any = None) -> Any:
        flat = ops.reshape(x, (-1, x.shape[-1]))
        flat = self.outer(ops.relu(self.norm(self.inner(flat), training=training)))
        return ops.reshape(flat, (*ops.shape(x)[:-1], flat.shape[-1]))


@keras.saving.register_keras_serializable("tf_groupvit")
class TFGroupViTModel(PretrainedModel):
    """GroupViT: which text goes with which image, and with which part of it.

    Arguments of the call are those of transformers' class, in its order, and ``text_embeds``. The
    first may be a dict of the tensor inputs. ``predict`` batches by rows, so what pairs every text
    with every image is left out of its
    result: see ``predict`` and ``with_text_embeds``.
    """

    config_class = GroupViTConfig

    def __init__(self, config: GroupViTConfig, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        policy = self.dtype_policy
        self.text_model = TextTower(config.text_config, dtype=policy)
        self.vision_model = VisionTower(config.vision_config, dtype=policy)
        self.visual_projection = Projection(
            config, config.vision_config.hidden_size, "visual_projection", policy
        )
        self.text_projection = Projection(
            config, config.text_config.hidden_size, "text_projection", policy
        )
        start = constant("logit_scale", config.logit_scale_init_value)
        self.logit_scale = self.add_weight(name="logit_scale", shape=(), initializer=start)
        self.built = True

    def call(
        self,
        input_ids: Any = None,
        pixel_values: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        return_loss: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_segmentation: bool | None = None,
        return_dict: bool | None = None,
        training: Any = None,
        text_embeds: Any = None,
    ) -> GroupViTOutput:
        """Shapes: input_ids, attention_mask, position_ids (N, T); pixel_values (B, 3, H, W);
        text_embeds (N, D).

        Args:
            return_loss: add the contrastive loss; text i belongs to image i, so N must be B.
            output_segmentation: add segmentation logits at the size of the pixels, as transformers
                defines them.
            text_embeds: normalised embeddings that take the place of input_ids.

        Raises:
            InputError: missing, misshapen or contradictory inputs, each said by name.
        """
        refuse_tuple(return_dict)
        given = {
            "input_ids": input_ids,
            "pixel_values": pixel_values,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "text_embeds": text_embeds,
        }
        given = unpack(input_ids, given) if isinstance(input_ids, Mapping) else given
        flags = {
            "output_attentions": self._flag("output_attentions", output_attentions),
            "output_hidden_states": self._flag("output_hidden_states", output_hidden_states),
        }
        segment = self._flag("output_segmentation", output_segmentation)
        vision = self._look(given, segment, flags, training)
        text, embeds = self._read(given, flags, training)
        return self._compare(
            vision, text, embeds, given["pixel_values"], segment, bool(return_loss), flags, training
        )

    if TYPE_CHECKING:
        config: GroupViTConfig

        def __call__(self, *arguments: Any, **keywords: Any) -> GroupViTOutput: ...

    def _flag(self, name: str, value: bool | None) -> bool:
        return getattr(self.config, name) if value is None else bool(value)

    def _look(
        self, given: dict[str, Any], segment: bool, flags: dict[str, bool], training: Any
    ) -> TowerOutput:
        if given["pixel_values"] is None:
            raise InputError("pixel_values are missing: give normalised pixels (B, 3, H, W).")
        flags = {**flags, "output_attentions": flags["output_attentions"] or segment}
        return self.vision_model(given["pixel_values"], training=training, **flags)

    def _read(
        self, given: dict[str, Any], flags: dict[str, bool], training: Any
    ) -> tuple[TowerOutput | None, Any]:
        """The text tower's output, if it ran, and normalised embeddings (N, D)."""
        ids, embeds = given["input_ids"], given["text_embeds"]
        if (ids is None) == (embeds is None):
            raise InputError(
                "Give either input_ids (N, T) or text_embeds (N, D): one of them, and not both."
            )
        if embeds is not None:
            if lonely := [
                name for name in ("attention_mask", "position_ids") if given[name] is not None
            ]:
                raise InputError(
                    f"{lonely[0]} came with text_embeds: it goes with input_ids, leave it out."
                )
            return None, self._checked_embeds(embeds)
        masks = {name: given[name] for name in ("attention_mask", "position_ids")}
        text = self.text_model(ids, training=training, **masks, **flags)
        return text, normalize(self.text_projection(text["pooler_output"], training=training))

    def _checked_embeds(self, embeds: Any) -> Any:
        embeds = ops.cast(ops.convert_to_tensor(embeds), "float32")
        shape, width = tuple(embeds.shape), self.config.projection_dim
        if len(shape) != 2 or shape[1] not in (width, None):
            raise InputError(
                f"text_embeds have shape {shape}: expected (N, {width}), one normalised row a text."
            )
        return embeds

    def _compare(
        self,
        vision: TowerOutput,
        text: TowerOutput | None,
        text_embeds: Any,
        pixel_values: Any,
        segment: bool,
        return_loss: bool,
        flags: dict[str, bool],
        training: Any,
    ) -> GroupViTOutput:
        image_embeds = normalize(self.visual_projection(vision["pooler_output"], training=training))
        scale = ops.exp(ops.cast(self.logit_scale, "float32"))
        logits_per_text = ops.matmul(text_embeds, ops.transpose(image_embeds)) * scale  # (N, B)
        if return_loss:
            _check_pairs(logits_per_text)
        logits = None
        if segment:
            logits = self._segmentation_logits(vision, text_embeds, pixel_values, scale, training)
        return GroupViTOutput.of(
            loss=contrastive_loss(logits_per_text) if return_loss else None,
            logits_per_image=ops.transpose(logits_per_text),
            logits_per_text=logits_per_text,
            segmentation_logits=logits,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            text_model_output=text,
            vision_model_output=(
                vision if flags["output_attentions"] else without(vision, "attentions")
            ),
        )

    def _segmentation_logits(
        self, vision: TowerOutput, text_embeds: Any, pixel_values: Any, scale: Any, training: Any
    ) -> Any:
        """(B, N, H, W): each group's similarity to each text, spread over the group's pixels."""
        height, width = ops.shape(pixel_values)[2:]
        patch = self.config.vision_config.patch_height_width
        maps = group_maps(vision.attentions or (), height // patch[0], width // patch[1])
        groups = normalize(
            self.visual_projection(vision["last_hidden_state"], training=training)
        )  # (B, G, D)
        return segmentation_logits(
            ops.stop_gradient(maps), groups, text_embeds, scale, height, width
        )

    def get_text_features(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        training: Any = None,
        **flags: Any,
    ) -> Any:
        """Projected text features (N, D), not normalised. Flags about outputs are accepted and
        change nothing.
        """
        check_process()
        refuse_flags(flags)
        given = {"attention_mask": attention_mask, "position_ids": position_ids}
        given = {name: accept(name, value) for name, value in given.items()}
        given = text_inputs(accept("input_ids", input_ids), **given)
        return self.text_projection(self._pooled_texts(given, training), training=training)

    def _pooled_texts(self, given: Mapping[str, Any], training: Any) -> Any:
        """Of the text tower what its projection reads: (N, C)."""
        masks = {name: value for name, value in given.items() if name != "input_ids"}
        return self.text_model(given["input_ids"], training=training, **masks)["pooler_output"]

    def get_image_features(
        self, pixel_values: Any = None, training: Any = None, **flags: Any
    ) -> Any:
        """Projected image features (B, D), not normalised. Flags about outputs are accepted and
        change nothing.
        """
        check_process()
        refuse_flags(flags)
        pixel_values = image_input(accept("pixel_values", pixel_values))
        pooled = self.vision_model(pixel_values, training=training)["pooler_output"]
        return self.visual_projection(pooled, training=training)

    def with_text_embeds(
        self, text_embeds: Any, output_segmentation: bool = True
    ) -> "FixedTextModel":
        """A model of images alone, against fixed texts (N, D): what ``predict`` can batch without
        harm.
        """
        return FixedTextModel(self, text_embeds, output_segmentation)

    def optimized(self, runtime: str = "graph") -> "TFGroupViTModel":
        """A snapshot of the model folded for inference: the same answers within 1e-4, faster.
        TensorFlow, float32.

        It holds the weights as they are now: after they have changed, make another. It cannot be
        trained or saved. Each export makes one of its own. With ``runtime="lite"`` LiteRT's
        interpreter, a part of TensorFlow, runs the vision tower. That is faster still, for some
        seconds and twice the tower's memory with each image size, four times where batches come
        (the last three sizes are kept): for processes that see few sizes often. Such a model cannot
        be exported. "lite_int8" does so with weights in 8 bits, in less than half the time: answers
        are near, and not within 1e-4. "openvino" has OpenVINO in LiteRT's place; the extra
        ``openvino`` brings it.
        """
        from tf_groupvit.models.optimized import optimized

        return optimized(self, runtime)

    def predict(self, x: Any, *arguments: Any, **keywords: Any) -> Any:
        """Keras' ``predict`` on pairs, text i with image i: embeddings and tower outputs of every
        row.

        Logits that pair every text with every image are left out, since Keras splits them by rows:
        compare ``text_embeds`` and ``image_embeds`` yourself, or predict with
        ``model.with_text_embeds(text_embeds)``.
        """
        check_pairs_of_rows(x)
        return super().predict(x, *arguments, **keywords)

    def fit(self, x: Any = None, *arguments: Any, **keywords: Any) -> Any:
        """Keras' ``fit`` on pairs, text i with image i; the loss is the contrastive one unless
        ``compile`` got another.

        Every other row of the batch is a negative, so a batch should hold many pairs.
        """
        check_pairs_of_rows(x)
        return super().fit(x, *arguments, **keywords)

    def evaluate(self, x: Any = None, *arguments: Any, **keywords: Any) -> Any:
        """Keras' ``evaluate`` on pairs; the contrastive loss depends on the batch size."""
        check_pairs_of_rows(x)
        return super().evaluate(x, *arguments, **keywords)

    def predict_step(self, *arguments: Any) -> Any:
        result = super().predict_step(*arguments)
        if isinstance(result, tuple):  # JAX: outputs and state
            return (without(result[0], *PAIRWISE), *result[1:])
        return without(result, *PAIRWISE)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, *arguments: Any, **keywords: Any
    ) -> Any:
        """The contrastive loss, unless ``compile`` was given another."""
        if self._compile_loss is None and isinstance(y_pred, GroupViTOutput):
            _check_pairs(y_pred["logits_per_text"])
            return contrastive_loss(y_pred["logits_per_text"]) + sum(self.losses)
        return super().compute_loss(x, y, y_pred, *arguments, **keywords)

    def default_signature(self) -> dict[str, keras.InputSpec]:
        channels = self.config.vision_config.num_channels
        return {
            "input_ids": keras.InputSpec(shape=(None, None), dtype="int32", name="input_ids"),
            "pixel_values": keras.InputSpec(
                shape=(None, channels, None, None), dtype="float32", name="pixel_values"
            ),
            "attention_mask": keras.InputSpec(
                shape=(None, None), dtype="int32", name="attention_mask"
            ),
        }


def _check_pairs(logits_per_text: Any) -> None:
    texts, images = logits_per_text.shape
    if isinstance(texts, int) and isinstance(images, int) and texts != images:
        raise InputError(
            f"The loss takes pairs, one text an image, but came with {texts} texts and {images}"
            " images."
        )
