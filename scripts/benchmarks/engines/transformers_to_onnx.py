"""transformers' GroupViT as ONNX files that stand in for an export's: it has no masks of its own
there, so they are made as its ``segmentation_logits`` are, for texts that were encoded before.

Run with an interpreter that has torch and transformers: CHECKPOINT FOLDER, which holds texts.npy
(N, D), of length one, and statistics.npy, the mean and the standard deviation of pixels (2, 3).
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GroupViTModel


class Vision(torch.nn.Module):
    """Squares uint8 (B, S, S, 3) -> labels uint8 (B, S, S)."""

    def __init__(self, checkpoint: str, folder: Path) -> None:
        super().__init__()
        self.model = GroupViTModel.from_pretrained(checkpoint).eval()
        self.texts = torch.from_numpy(np.load(folder / "texts.npy"))
        statistics = torch.from_numpy(np.load(folder / "statistics.npy"))
        self.mean, self.std = statistics[:, None, :, None, None]

    def maps(self, pixels: Any) -> tuple[Any, Any]:
        """Features of groups (B, G, C), and how much of each patch is theirs (B, G, P)."""
        values = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        found = self.model.vision_model(values, output_attentions=True, return_dict=True)
        maps = found.attentions[0]
        for assignment in found.attentions[1:]:
            maps = assignment @ maps
        return found.last_hidden_state, maps

    def forward(self, pixels: Any) -> Any:
        features, maps = self.maps(pixels)
        width = features.shape[-1]
        groups = self.model.visual_projection(features.reshape(-1, width))
        groups = groups / groups.norm(dim=-1, keepdim=True)
        groups = groups.reshape(-1, maps.shape[1], groups.shape[-1])
        scores = (self.texts @ groups.transpose(1, 2)) @ maps  # (B, N, P)
        side = int(scores.shape[2] ** 0.5)
        grid = scores.reshape(-1, scores.shape[1], side, side)
        large = torch.nn.functional.interpolate(grid, pixels.shape[1:3], mode="bilinear")
        return large.argmax(1).to(torch.uint8)


class Owners(Vision):
    """Squares uint8 (B, S, S, 3) -> the group of each patch (B, P)."""

    def forward(self, pixels: Any) -> Any:
        return self.maps(pixels)[1].argmax(1).int()


def main() -> None:
    checkpoint, folder = sys.argv[1], Path(sys.argv[2])
    files = {}
    for name, output, kind in (("vision", "labels", Vision), ("owners", "owners", Owners)):
        module = kind(checkpoint, folder)
        side = module.model.config.vision_config.image_size
        files[name] = {"file": f"{name}.onnx"}
        with torch.no_grad():
            torch.onnx.export(
                module,
                (torch.zeros((1, side, side, 3), dtype=torch.uint8),),
                str(folder / files[name]["file"]),
                dynamo=False,
                opset_version=17,
                input_names=["pixels"],
                output_names=[output],
            )
    (folder / "settings.json").write_text(json.dumps({"format": "onnx", "files": files}))


if __name__ == "__main__":
    main()
