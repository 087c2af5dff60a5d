"""transformers' PyTorch class: eager, or through torch.compile."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessor, GroupViTModel


def make(name: str, folder: Path, threads: int) -> Any:
    torch.set_num_threads(threads)
    model = GroupViTModel.from_pretrained(folder).eval()
    return Eager(model, folder, "compile" in name)


class Eager:
    def __init__(self, model: Any, folder: Path, compiled: bool) -> None:
        self.model, self.folder = model, folder
        self.look = torch.compile(model.vision_model) if compiled else model.vision_model
        self.texts: dict[tuple[str, ...], Any] = {}

    @torch.inference_mode()
    def gemm(self, a: np.ndarray) -> dict[str, Any]:
        return {"product": (torch.from_numpy(a) @ torch.from_numpy(a)).numpy()}

    @torch.inference_mode()
    def tower(self, pixels: np.ndarray) -> dict[str, Any]:
        found = self.look(torch.from_numpy(pixels), output_attentions=True, return_dict=True)
        return {"groups": found.last_hidden_state.numpy(), "assignment": found.attentions[0].numpy()}

    @torch.inference_mode()
    def text(self, ids: np.ndarray) -> dict[str, Any]:
        pooled = self.model.text_model(torch.from_numpy(ids.astype("int64"))).pooler_output
        return {"texts": self.model.text_projection(pooled).numpy()}

    def _read(self, classes: np.ndarray) -> Any:
        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        return tokenizer([f"a photo of a {name}." for name in classes], padding=True, return_tensors="pt")

    @torch.inference_mode()
    def photo(self, jpeg: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
        """As transformers documents it: prompts and picture through the model, every time."""
        key = tuple(classes.tolist())
        if key not in self.texts:
            self.texts[key] = self._read(classes)
        found = self.model(**self.texts[key], pixel_values=self._square(jpeg), output_segmentation=True)
        return {"labels": _enlarged(found.segmentation_logits, jpeg)}

    @torch.inference_mode()
    def photo_cached(self, jpeg: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
        """The best rewrite: prompts encoded once, assignments multiplied small, only the classes' scores enlarged."""
        key = ("cached", *classes.tolist())
        model = self.model
        if key not in self.texts:
            pooled = model.text_projection(model.text_model(**self._read(classes)).pooler_output)
            self.texts[key] = pooled / pooled.norm(dim=-1, keepdim=True)
        vision = model.vision_model(self._square(jpeg), output_attentions=True, return_dict=True)
        groups = model.visual_projection(vision.last_hidden_state.flatten(0, 1))
        groups = groups / groups.norm(dim=-1, keepdim=True)  # (G, D)
        maps = vision.attentions[1][0] @ vision.attentions[0][0]  # (G, P)
        scores = (self.texts[key] @ groups.T) @ maps  # (N, P)
        side = int(scores.shape[1] ** 0.5)
        small = torch.nn.functional.interpolate(scores.reshape(1, -1, side, side), (224, 224), mode="bilinear")
        return {"labels": _enlarged(small, jpeg)}

    def _square(self, jpeg: np.ndarray) -> Any:
        settings = dict(size={"height": 224, "width": 224}, do_center_crop=False)
        processor = CLIPImageProcessor.from_pretrained(self.folder, **settings)
        return processor(Image.open(io.BytesIO(jpeg.tobytes())).convert("RGB"), return_tensors="pt")["pixel_values"]


def _enlarged(scores: Any, jpeg: np.ndarray) -> np.ndarray:
    width, height = Image.open(io.BytesIO(jpeg.tobytes())).size
    return torch.nn.functional.interpolate(scores, (height, width), mode="bilinear")[0].argmax(0).numpy()
