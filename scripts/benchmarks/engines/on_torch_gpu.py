"""transformers' PyTorch class on a GPU: eager, compiled, or compiled and replayed as CUDA graphs.

Pixels and results stay on the device while a call is timed. In bfloat16 what is compiled runs under
autocast: without it, torch 2.11 compiled products of float32 with bfloat16 on a GPU, and failed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import GroupViTModel

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
VERSION = f"transformers {transformers.__version__}, torch {torch.__version__}, " + (
    torch.cuda.get_device_name() if GPU else "the CPU"
)


def make(name: str, folder: Path, threads: int) -> Any:
    kind = name.split()[-1]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = kind == "tf32"
    type_ = torch.bfloat16 if kind == "bfloat16" else torch.float32
    tower = GroupViTModel.from_pretrained(folder, dtype=type_).eval().to(DEVICE).vision_model
    compiled = "compile" in name
    if compiled:
        tower = torch.compile(
            tower, dynamic=False, mode="reduce-overhead" if "graphs" in name else "default"
        )
    return OnDevice(tower, type_, cast=compiled and kind == "bfloat16")


class Kept:
    """A tensor on the device, fetched when numpy reads it."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.tensor.float().cpu().numpy()


class OnDevice:
    def __init__(self, look: Any, type_: Any, cast: bool) -> None:
        self.look, self.type, self.cast = look, type_, cast
        self.given, self.pixels = (
            np.zeros(0),
            None,
        )  # the last ones that came, and where they lie on the device

    @torch.inference_mode()
    def tower(self, pixels: np.ndarray) -> dict[str, Any]:
        if pixels is not self.given:
            self.given, self.pixels = pixels, torch.from_numpy(pixels).to(DEVICE, self.type)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.cast):
            found = self.look(self.pixels, output_attentions=True, return_dict=True)
        if GPU:
            torch.cuda.synchronize()
        return {"groups": Kept(found.last_hidden_state), "assignment": Kept(found.attentions[0])}
