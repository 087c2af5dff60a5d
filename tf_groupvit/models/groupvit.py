"""The joint model: both towers, their projections, and how alike texts, images and groups are."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

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
from tf_groupvit.models.layers import Part, Policy, dense, layer_name
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
from tf_groupvit.types import Tensor

TEXT_INPUTS = ("input_ids", "attention_mask", "position_ids")
PAIRWISE = ("loss", "logits_per_image", "logits_per_text", "segmentation_logits")


class Projection(Part):
    """A tower's features in the space that both share: the MLP of eq. 4, and of the text's side."""

    def __init__(self, config: GroupViTConfig, inputs: int, name: str, dtype: Policy) -> None:
        super().__init__(name, dtype)
        hidden, std = config.projection_intermediate_dim, config.initializer_range
        policy, norm = self.dtype_policy, f"{name}.1"
        self.inner = dense(f"{name}.0", inputs, hidden, std, policy)
        self.norm = keras.layers.BatchNormalization(
            momentum=0.9,  # PyTorch's 0.1
            epsilon=1e-5,
            gamma_initializer=constant(f"{norm}/gamma", 1.0),
            beta_initializer=constant(f"{norm}/beta", 0.0),
            moving_mean_initializer=constant(f"{norm}/moving_mean", 0.0),
            moving_variance_initializer=constant(f"{norm}/moving_variance", 1.0),
            name=layer_name(norm),
            dtype=policy,
        )
        self.norm.build((None, hidden))
        self.outer = dense(f"{name}.3", hidden, config.projection_dim, std, policy)

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        """(B, C) or (B, G, C) -> (B, D) or (B, G, D), not normalized."""
        rows = ops.reshape(x, (-1, x.shape[-1]))
        rows = self.outer(ops.relu(self.norm(self.inner(rows), training=training)))
        return ops.reshape(rows, (*ops.shape(x)[:-1], rows.shape[-1]))


@keras.saving.register_keras_serializable("tf_groupvit")
class TFGroupViTModel(PretrainedModel):
    """GroupViT: which text goes with which image, and with which part of it.

    Arguments of the call are those of transformers' class, in its order, and ``text_embeds``. The
    first may be a dict of the tensor inputs. ``predict`` batches by rows, so what pairs every text
    with every image is left out of its result: see ``predict`` and ``with_text_embeds``.
    """

    config_class = GroupViTConfig
    folded: ClassVar[bool] = False  # of snapshots: models/optimized.py

    def __init__(self, config: GroupViTConfig, **keywords: Any) -> None:
        super().__init__(config, **keywords)
        policy = self.dtype_policy
        self.text_model = TextTower(config.text_config, dtype=policy, folded=self.folded)
        self.vision_model = VisionTower(config.vision_config, dtype=policy, folded=self.folded)
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
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        return_loss: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_segmentation: bool | None = None,
        return_dict: bool | None = None,
        training: bool | None = None,
        text_embeds: Tensor | None = None,
    ) -> GroupViTOutput:
        """How alike texts and images are, and what the towers made of them.

        Args:
            input_ids, attention_mask, position_ids: (N, T), as the tokenizer gives them.
            pixel_values: (B, 3, H, W), normalized.
            return_loss: add the contrastive loss; text i belongs to image i, so N must be B.
            output_segmentation: add segmentation logits at the size of the pixels, as transformers
                defines them.
            text_embeds: (N, D), normalized, in place of input_ids.

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
        flags, segment = self.flags(output_attentions, output_hidden_states), output_segmentation
        segment = self.config.output_segmentation if segment is None else bool(segment)
        vision = self._encode_images(given, segment, flags, training)
        text, embeds = self._encode_texts(given, flags, training)
        image_embeds = normalize(self.visual_projection(vision["pooler_output"], training=training))
        scale = ops.exp(ops.cast(self.logit_scale, "float32"))  # 1 / temperature
        logits_per_text = ops.matmul(embeds, ops.transpose(image_embeds)) * scale  # (N, B)
        if return_loss:
            _check_pairs(logits_per_text)
        logits = None
        if segment:
            pixels = given["pixel_values"]
            logits = self._segmentation_logits(vision, embeds, pixels, scale, training)
        return GroupViTOutput.of(
            loss=contrastive_loss(logits_per_text) if return_loss else None,
            logits_per_image=ops.transpose(logits_per_text),
            logits_per_text=logits_per_text,
            segmentation_logits=logits,
            text_embeds=embeds,
            image_embeds=image_embeds,
            text_model_output=text,
            vision_model_output=(
                vision if flags["output_attentions"] else without(vision, "attentions")
            ),
        )

    if TYPE_CHECKING:
        config: GroupViTConfig

        def __call__(self, *arguments: Any, **keywords: Any) -> GroupViTOutput: ...

    def _encode_images(
        self, given: dict[str, Any], segment: bool, flags: dict[str, bool], training: bool | None
    ) -> TowerOutput:
        if given["pixel_values"] is None:
            raise InputError("pixel_values are missing: give normalized pixels (B, 3, H, W).")
        flags = {**flags, "output_attentions": flags["output_attentions"] or segment}
        return self.vision_model(given["pixel_values"], training=training, **flags)

    def _encode_texts(
        self, given: dict[str, Any], flags: dict[str, bool], training: bool | None
    ) -> tuple[TowerOutput | None, Tensor]:
        """The text tower's output, if it ran, and normalized embeddings (N, D)."""
        ids, embeds = given["input_ids"], given["text_embeds"]
        if (ids is None) == (embeds is None):
            raise InputError(
                "Give either input_ids (N, T) or text_embeds (N, D): one of them, and not both."
            )
        if embeds is not None:
            lonely = [name for name in TEXT_INPUTS[1:] if given[name] is not None]
            if lonely:
                raise InputError(
                    f"{lonely[0]} was given with text_embeds: it goes with input_ids, leave it out."
                )
            return None, self.checked_text_embeds(embeds)
        masks = {name: given[name] for name in TEXT_INPUTS[1:]}
        text = self.text_model(ids, training=training, **masks, **flags)
        return text, normalize(self.text_projection(text["pooler_output"], training=training))

    def checked_text_embeds(self, embeds: Tensor) -> Tensor:
        """Embeddings (N, D) as float32. Raises ``InputError`` for other shapes."""
        embeds = ops.cast(ops.convert_to_tensor(embeds), "float32")
        shape, width = tuple(embeds.shape), self.config.projection_dim
        if len(shape) != 2 or shape[1] not in (width, None):
            raise InputError(
                f"text_embeds have shape {shape}: expected (N, {width}), one normalized row a text."
            )
        return embeds

    def _segmentation_logits(
        self,
        vision: TowerOutput,
        text_embeds: Tensor,
        pixel_values: Tensor,
        scale: Tensor,
        training: bool | None,
    ) -> Tensor:
        """(B, N, H, W): each group's similarity to each text, spread over the group's pixels."""
        height, width = ops.shape(pixel_values)[2:]
        patch = self.config.vision_config.patch_height_width
        maps = group_maps(vision.attentions or (), height // patch[0], width // patch[1])
        features = vision["last_hidden_state"]
        groups = normalize(self.visual_projection(features, training=training))  # (B, G, D)
        maps = ops.stop_gradient(maps)
        return segmentation_logits(maps, groups, text_embeds, scale, height, width)

    def get_text_features(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        training: bool | None = None,
        **flags: Any,
    ) -> Any:
        """Projected features (N, D) of texts (N, T), unnormalized; flags change nothing."""
        check_process()
        refuse_flags(flags)
        given = text_inputs(*map(accept, TEXT_INPUTS, (input_ids, attention_mask, position_ids)))
        pooled = self.text_model(**given, training=training)["pooler_output"]
        return self.text_projection(pooled, training=training)

    def get_image_features(
        self, pixel_values: Tensor | None = None, training: bool | None = None, **flags: Any
    ) -> Any:
        """Projected features (B, D) of images (B, 3, H, W), unnormalized; flags change nothing."""
        check_process()
        refuse_flags(flags)
        pixel_values = image_input(accept("pixel_values", pixel_values))
        pooled = self.vision_model(pixel_values, training=training)["pooler_output"]
        return self.visual_projection(pooled, training=training)

    def with_text_embeds(
        self, text_embeds: Tensor, output_segmentation: bool = True
    ) -> "FixedTextModel":
        """A model of images alone with fixed texts (N, D), which ``predict`` can batch."""
        return FixedTextModel(self, text_embeds, output_segmentation)

    def optimized(self, runtime: str = "graph") -> "TFGroupViTModel":
        """A snapshot of the model for inference: the same answers within 1e-4, faster. TensorFlow,
        float32.

        It holds the weights as they are now: after they have changed, make another. It cannot be
        trained or saved. Each export makes one of its own.

        Args:
            runtime: what runs the vision tower. "lite" is LiteRT's interpreter, a part of
                TensorFlow; "lite_int8" the same with weights in 8 bits, in less than half the time,
                whose answers are near, and not within 1e-4; "openvino" needs the extra
                ``openvino``, "onnx" the extra ``onnx``. These are faster still, but prepare some
                seconds for each image size, and hold twice the tower's memory for each of the last
                three sizes, four times where batches are run. Such a model cannot be exported.

        Raises:
            InputError: an unknown runtime, one that is not installed, or a model that is not
                float32 on TensorFlow, or is quantized or has LoRA.
        """
        from tf_groupvit.models.optimized import optimized

        return optimized(self, runtime)

    def predict(self, x: Any, *arguments: Any, **keywords: Any) -> Any:
        """Keras' ``predict`` on pairs, text i with image i: embeddings (B, D) and tower outputs.

        Logits that pair every text with every image are left out, since Keras splits them by rows:
        compare ``text_embeds`` and ``image_embeds`` yourself, or predict with
        ``model.with_text_embeds(text_embeds)``.
        """
        check_pairs_of_rows(x)
        return super().predict(x, *arguments, **keywords)

    def fit(self, x: Any = None, *arguments: Any, **keywords: Any) -> Any:
        """Keras' ``fit`` on pairs (B, ...), text i with image i; the loss is the contrastive one
        unless ``compile`` was given another.

        Every other row of the batch is a negative, so a batch should hold many pairs.
        """
        check_pairs_of_rows(x)
        return super().fit(x, *arguments, **keywords)

    def evaluate(self, x: Any = None, *arguments: Any, **keywords: Any) -> Any:
        """Keras' ``evaluate`` on pairs (B, ...); the contrastive loss depends on the batch size."""
        check_pairs_of_rows(x)
        return super().evaluate(x, *arguments, **keywords)

    def predict_step(self, *arguments: Any) -> Any:
        """A step of ``predict``, without the entries that pair every text with every image."""
        result = super().predict_step(*arguments)
        if isinstance(result, tuple):  # JAX: outputs and state
            return (without(result[0], *PAIRWISE), *result[1:])
        return without(result, *PAIRWISE)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, *arguments: Any, **keywords: Any
    ) -> Any:
        """The contrastive loss, a scalar, unless ``compile`` was given another."""
        if self._compile_loss is None and isinstance(y_pred, GroupViTOutput):
            _check_pairs(y_pred["logits_per_text"])
            return contrastive_loss(y_pred["logits_per_text"]) + sum(self.losses)
        return super().compute_loss(x, y, y_pred, *arguments, **keywords)

    def default_signature(self) -> dict[str, keras.InputSpec]:
        """Token ids and mask (N, T), pixels (B, 3, H, W)."""
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


def _check_pairs(logits_per_text: Tensor) -> None:
    texts, images = logits_per_text.shape
    if isinstance(texts, int) and isinstance(images, int) and texts != images:
        raise InputError(
            f"The loss takes pairs, one text an image, but was given {texts} texts and {images}"
            " images."
        )
