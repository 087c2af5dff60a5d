"""A transformers checkpoint, pixels and texts in, the published inference of one window out,
rendered in PyTorch.

Nothing of tf_groupvit is used: the rules are written out a second time, from the paper's
evaluation.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from transformers import GroupViTModel

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def normalised(pixels: np.ndarray) -> torch.Tensor:
    mean, std = (torch.tensor(each)[:, None, None] for each in IMAGENET)
    return ((torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std)[None]


def look(
    model: GroupViTModel, pixels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Group maps (B, G, h, w) as soft products, group embeddings (B, G, D), image embeddings (B,
    D).
    """
    vision = model.vision_model
    patch = vision.config.patch_size
    rows, columns = pixels.shape[2] // patch, pixels.shape[3] // patch
    pixels = pixels[
        :, :, : rows * patch, : columns * patch
    ]  # what a convolution without padding sees
    size = vision.config.image_size
    trained = (size, size) if isinstance(size, int) else tuple(size)
    x = vision.embeddings(pixels, interpolate_pos_encoding=tuple(pixels.shape[2:]) != trained)
    out = vision.encoder(x, output_attentions=True, return_dict=True)
    last = vision.layernorm(out.last_hidden_state)
    maps: Any = None
    for soft in out.attentions:  # (B, G, P)
        maps = soft if maps is None else soft @ maps
    groups = F.normalize(
        model.visual_projection(last.flatten(0, 1)).unflatten(0, last.shape[:2]), dim=-1
    )
    return (
        maps.unflatten(2, (rows, columns)),
        groups,
        F.normalize(model.visual_projection(last.mean(1)), dim=-1),
    )


def published(
    model: GroupViTModel, pixels: torch.Tensor, texts: torch.Tensor, background: float | None
) -> torch.Tensor:
    """One window (1, 3, H, W), as the original asserts, and texts (N, D) -> scores (N or N + 1, H,
    W).
    """
    maps, groups, image = look(model, pixels)
    owner = F.interpolate(maps, pixels.shape[2:], mode="bilinear", align_corners=False).argmax(1)[
        0
    ]  # (H, W)
    belongs = F.one_hot(owner, maps.shape[1]).float()  # (H, W, G)
    logits = groups[0] @ texts.T * model.logit_scale.exp().clamp(max=100)  # (G, N)
    kept = torch.full_like(logits, -torch.inf)
    top = (image[0] @ texts.T).topk(min(5, len(texts))).indices
    kept[:, top] = logits[:, top]
    affinity = kept.softmax(-1) * logits.softmax(-1)
    scores = belongs @ affinity  # (H, W, N)
    if background is not None:
        threshold = min(background, affinity.max().item())
        nothing = (scores.max(-1).values < threshold).float()
        scores = torch.cat([nothing[..., None], scores], -1)
    return scores.permute(2, 0, 1)
