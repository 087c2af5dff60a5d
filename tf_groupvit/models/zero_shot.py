"""The joint model with fixed texts: a model of images alone, which ``predict`` can batch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from tf_groupvit.models.base_model import BaseModel
from tf_groupvit.models.inputs import accept, image_input
from tf_groupvit.models.outputs import GroupViTOutput, without
from tf_groupvit.types import Tensor

if TYPE_CHECKING:
    from tf_groupvit.models.groupvit import TFGroupViTModel


@keras.saving.register_keras_serializable("tf_groupvit", name="ImagesAgainstTexts")  # of old files
class FixedTextModel(BaseModel):
    """The joint model of pixels (B, 3, H, W) with fixed texts: each entry of its result has B rows.

    ``logits_per_image`` (B, N), ``image_embeds`` (B, D) and, if asked for, ``segmentation_logits``
    (B, N, H, W).
    """

    def __init__(
        self,
        model: "TFGroupViTModel",
        text_embeds: Tensor,
        output_segmentation: bool = True,
        **keywords: Any,
    ):
        super().__init__(dtype=model.dtype_policy, **keywords)
        self.model = model
        embeds = model.checked_text_embeds(accept("text_embeds", text_embeds))
        self.text_embeds = self.add_weight(
            name="text_embeds",
            shape=embeds.shape,
            dtype="float32",
            trainable=False,
            initializer="zeros",
        )
        self.text_embeds.assign(embeds)
        self.output_segmentation = output_segmentation
        self.built = True

    def call(self, pixel_values: Tensor, training: bool | None = None) -> GroupViTOutput:
        """Pixels (B, 3, H, W) -> the entries of the class, B rows each."""
        result = self.model(
            pixel_values=image_input(pixel_values),
            text_embeds=self.text_embeds,
            output_segmentation=self.output_segmentation,
            output_attentions=False,
            output_hidden_states=False,
            training=training,
        )
        return without(result, "logits_per_text", "text_embeds", "vision_model_output")

    if TYPE_CHECKING:

        def __call__(self, *arguments: Any, **keywords: Any) -> GroupViTOutput: ...

    def default_signature(self) -> dict[str, keras.InputSpec]:
        """Pixels (B, 3, H, W)."""
        return {"pixel_values": self.model.default_signature()["pixel_values"]}

    def get_config(self) -> dict[str, Any]:
        """What Keras saves beside the weights."""
        shape = list(self.text_embeds.shape)
        return {
            "model": keras.saving.serialize_keras_object(self.model),
            "text_embeds_shape": shape,
            "output_segmentation": self.output_segmentation,
            "name": self.name,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Mapping[str, type] | None = None
    ) -> "FixedTextModel":
        """A model as ``get_config`` described it, whose weights are loaded later."""
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        embeds = ops.zeros(config["text_embeds_shape"])  # the values come with the weights
        return cls(model, embeds, config["output_segmentation"], name=config["name"])
