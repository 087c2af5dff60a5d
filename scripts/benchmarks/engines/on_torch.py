"""transformers' PyTorch class: eager, or torch.compile with the weights as constants."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessor, GroupViTModel

VERSION = f"transformers {transformers.__version__}, torch {torch.__version__}"

SQUARE = torch.from_numpy(np.random.default_rng(0).normal(size=(2048, 2048)).astype("float32"))


def make(name: str, folder: Path, threads: int) -> Any:
    torch.set_num_threads(threads)
    if "compile" in name:
        from torch._inductor import config

        config.freezing = True  # weights become constants, packed for the products once
    model = GroupViTModel.from_pretrained(folder).eval()
    return Eager(model, folder, "compile" in name)


class Eager:
    def __init__(self, model: Any, folder: Path, compiled: bool) -> None:
        self.model, self.folder = model, folder
        # A program for each batch and size: what it compiles for any of them is slower.
        self.look = (
            torch.compile(model.vision_model, dynamic=False) if compiled else model.vision_model
        )
        self.words: dict[tuple[str, ...], Any] = {}
        self.embeds: dict[tuple[str, ...], Any] = {}
        side = model.config.vision_config.image_size
        square = dict(size={"height": side, "width": side}, do_center_crop=False)
        self.processor = CLIPImageProcessor.from_pretrained(folder, **square)

    @torch.inference_mode()
    def gemm(self) -> dict[str, Any]:
        return {"product": (SQUARE @ SQUARE)[:8].numpy()}

    @torch.inference_mode()
    def tower(self, pixels: np.ndarray) -> dict[str, Any]:
        found = self.look(torch.from_numpy(pixels), output_attentions=True, return_dict=True)
        return {
            "groups": found.last_hidden_state.numpy(),
            "assignment": found.attentions[0].numpy(),
        }

    @torch.inference_mode()
    def text(self, ids: np.ndarray) -> dict[str, Any]:
        pooled = self.model.text_model(torch.from_numpy(ids.astype("int64"))).pooler_output
        return {"texts": self.model.text_projection(pooled).numpy()}

    def _read(self, classes: np.ndarray) -> Any:
        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        return tokenizer(
            [f"a photo of a {name}." for name in classes], padding=True, return_tensors="pt"
        )

    @torch.inference_mode()
    def photo(self, jpeg: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
        """As transformers documents it: prompts and picture through the model, every time."""
        key = tuple(classes.tolist())
        if key not in self.words:
            self.words[key] = self._read(classes)
        image, pixels = self._square(jpeg)
        found = self.model(**self.words[key], pixel_values=pixels, output_segmentation=True)
        return {"labels": _enlarged(found.segmentation_logits, image)}

    @torch.inference_mode()
    def photo_cached(self, jpeg: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
        """The best rewrite: prompts encoded once, assignments multiplied small, only the classes'
        scores enlarged.
        """
        key, model = tuple(classes.tolist()), self.model
        if key not in self.embeds:
            pooled = model.text_projection(model.text_model(**self._read(classes)).pooler_output)
            self.embeds[key] = pooled / pooled.norm(dim=-1, keepdim=True)
        image, pixels = self._square(jpeg)
        vision = self.look(pixels, output_attentions=True, return_dict=True)
        groups = model.visual_projection(vision.last_hidden_state.flatten(0, 1))
        groups = groups / groups.norm(dim=-1, keepdim=True)  # (G, D)
        maps = vision.attentions[1][0] @ vision.attentions[0][0]  # (G, P)
        scores = (self.embeds[key] @ groups.T) @ maps  # (N, P)
        side = int(scores.shape[1] ** 0.5)
        small = torch.nn.functional.interpolate(
            scores.reshape(1, -1, side, side), pixels.shape[2:], mode="bilinear"
        )
        return {"labels": _enlarged(small, image)}

    def _square(self, jpeg: np.ndarray) -> tuple[Image.Image, Any]:
        image = Image.open(io.BytesIO(jpeg.tobytes())).convert("RGB")
        return image, self.processor(image, return_tensors="pt")["pixel_values"]


def _enlarged(scores: Any, image: Image.Image) -> np.ndarray:
    return (
        torch.nn.functional.interpolate(scores, image.size[::-1], mode="bilinear")[0]
        .argmax(0)
        .numpy()
    )
