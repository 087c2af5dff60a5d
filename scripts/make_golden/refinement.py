"""Drawn scores and colors in, scores after pixel-adaptive mask refinement out, rendered in PyTorch.

    python scripts/make_golden/refinement.py tests/golden

Writes ``protocol/refinement.npz``: scores (B, h, w, C), pixels (B, h, w, 3), and for each setting
the refined scores. Needs torch. The algorithm is Araslanov and Roth's (CVPR 2020, section 3.3),
with the constants of its published code. Nothing of tf_groupvit is used.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

SETTINGS = {"short": ((1, 2, 4, 8), 3), "published": ((1, 2, 4, 8, 12, 24), 10)}


def neighbors(planes: torch.Tensor, dilation: int) -> torch.Tensor:
    """The 3 x 3 places around each, borders repeated: (B, C, h, w) -> (B, C, 9, h, w)."""
    padded = F.pad(planes, [dilation] * 4, mode="replicate")
    columns = F.unfold(padded, kernel_size=3, dilation=dilation)
    return columns.view(*planes.shape[:2], 9, *planes.shape[2:])


def without_center(places: torch.Tensor) -> torch.Tensor:
    return torch.cat([places[:, :, :4], places[:, :, 5:]], dim=2)


def refined(
    scores: torch.Tensor, pixels: torch.Tensor, dilations: tuple[int, ...], rounds: int
) -> torch.Tensor:
    every = torch.cat([neighbors(pixels, d) for d in dilations], dim=2)
    sigma = every.std(dim=2, keepdim=True)  # unbiased, the center once for each dilation
    around = torch.cat([without_center(neighbors(pixels, d)) for d in dilations], dim=2)
    away = (around - pixels[:, :, None]).abs()
    weights = (-away / (1e-8 + 0.1 * sigma)).mean(dim=1, keepdim=True).softmax(dim=2)
    for _ in range(rounds):
        around = torch.cat([without_center(neighbors(scores, d)) for d in dilations], dim=2)
        scores = (weights * around).sum(dim=2)
    return scores


def main(folder: Path) -> None:
    generator = torch.Generator().manual_seed(11)
    scores = torch.rand((2, 4, 30, 37), generator=generator)
    blocks = torch.randint(0, 256, (2, 3, 6, 8), generator=generator)
    pixels = blocks.repeat_interleave(5, dim=2).repeat_interleave(5, dim=3)[..., :37].clone()
    noise = torch.randint(0, 30, pixels.shape, generator=generator)
    noise[0, :, :15, :15] = 0  # a part of one color
    pixels = (pixels + noise).clamp(max=255)
    found = {name: refined(scores.double(), pixels.double(), *how).float().permute(0, 2, 3, 1)
             for name, how in SETTINGS.items()}  # fmt: skip
    np.savez_compressed(
        folder / "protocol" / "refinement.npz",
        scores=scores.permute(0, 2, 3, 1).numpy(),
        pixels=pixels.byte().permute(0, 2, 3, 1).numpy(),
        **{name: values.numpy() for name, values in found.items()},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
