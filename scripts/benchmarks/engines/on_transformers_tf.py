"""transformers' TensorFlow class, as its version 4.57 still has it: in a graph, or compiled by XLA.

Its import starts TensorFlow, so that threads are set by the environment alone (process.py).
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import transformers
from PIL import Image
from safetensors.numpy import load_file
from transformers import AutoTokenizer, CLIPImageProcessor, GroupViTConfig, TFGroupViTModel
from transformers.modeling_tf_pytorch_utils import load_pytorch_state_dict_in_tf2_model

VERSION = f"transformers {transformers.__version__}, TensorFlow {tf.__version__}"


def make(name: str, folder: Path, threads: int) -> Any:
    return Traced(loaded(folder), folder, "XLA" in name)


def loaded(folder: Path) -> Any:
    """As ``from_pretrained`` does it, which iterates over a safetensors file; newer ones cannot be
    iterated over.
    """
    model = TFGroupViTModel(GroupViTConfig.from_pretrained(folder))
    model.build_in_name_scope()
    return load_pytorch_state_dict_in_tf2_model(
        model, load_file(folder / "model.safetensors"), tf_inputs=False
    )


class Traced:
    def __init__(self, model: Any, folder: Path, xla: bool) -> None:
        self.model, self.folder = model, folder
        self.words: dict[tuple[str, ...], Any] = {}
        side = model.config.vision_config.image_size
        square = dict(size={"height": side, "width": side}, do_center_crop=False)
        self.processor = CLIPImageProcessor.from_pretrained(folder, **square)
        settings: dict[str, Any] = dict(jit_compile=xla, autograph=False)
        self.look = tf.function(self._look, **settings)
        self.read = tf.function(lambda ids: {"texts": model.get_text_features(ids)}, **settings)
        self.whole = tf.function(self._whole, **settings)

    def _look(self, pixels: Any) -> dict[str, Any]:
        asked = dict(output_attentions=True, output_hidden_states=False, return_dict=True)
        found = self.model.groupvit.vision_model(pixel_values=pixels, **asked)
        return {"groups": found.last_hidden_state, "assignment": found.attentions[0]}

    def _whole(self, words: dict[str, Any], pixels: Any) -> Any:
        return self.model(
            **words, pixel_values=pixels, output_segmentation=True
        ).segmentation_logits

    def tower(self, pixels: np.ndarray) -> dict[str, Any]:
        return {name: value.numpy() for name, value in self.look(tf.constant(pixels)).items()}

    def text(self, ids: np.ndarray) -> dict[str, Any]:
        return {
            name: value.numpy()
            for name, value in self.read(tf.constant(ids.astype("int32"))).items()
        }

    def photo(self, jpeg: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
        """As transformers documents it: prompts and picture through the model, every time."""
        key = tuple(classes.tolist())
        if key not in self.words:
            prompts = [f"a photo of a {name}." for name in classes]
            tokenizer = AutoTokenizer.from_pretrained(self.folder)
            self.words[key] = dict(tokenizer(prompts, padding=True, return_tensors="tf"))
        image = Image.open(io.BytesIO(jpeg.tobytes())).convert("RGB")
        pixels = self.processor(image, return_tensors="tf")["pixel_values"]
        scores = tf.transpose(self.whole(self.words[key], pixels), (0, 2, 3, 1))
        labels = tf.argmax(tf.image.resize(scores, image.size[::-1], "bilinear")[0], axis=-1)
        return {"labels": labels.numpy()}
