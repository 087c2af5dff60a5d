"""Pictures of other sizes than a window in, every stage of the published window mode out, rendered
in PyTorch.

    python scripts/make_golden/windows.py tests/golden

Reads the small checkpoint ``segmenter/`` and its class embeddings, and writes
``protocol/windows.npz``: for each picture the resized pixels (and OpenCV's, which the published
evaluation used), the corners of the windows, the scores of each window, their average and the
labels at the picture's own size. Needs torch, transformers and opencv-python-headless. Nothing of
tf_groupvit is used.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from PIL import Image
from published import normalised, published
from transformers import GroupViTModel

IMAGE_SIZE = 32  # of the checkpoint: windows of 64 at a stride of 32, long side at most 292.57
WINDOW, STRIDE, LONGEST = 2 * IMAGE_SIZE, IMAGE_SIZE, IMAGE_SIZE * 2048 / 224
# (H, W): shrunk, enlarged, upright, and one whose long side decides, less than a window high.
SIZES = {"shrunk": (90, 140), "enlarged": (31, 57), "upright": (160, 70), "long": (15, 330)}


def resized_size(height: int, width: int) -> tuple[int, int]:
    """Ratio kept: the short side to a window or the long side to its limit, whichever is smaller;
    halves go up.
    """
    scale = min(LONGEST / max(height, width), WINDOW / min(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def resized(pixels: np.ndarray) -> np.ndarray:
    """Bilinear, half-pixel centres, no antialiasing, in float64, then rounded to bytes: uint8 (h,
    w, 3).
    """
    planes = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].double()
    small = F.interpolate(
        planes, resized_size(*pixels.shape[:2]), mode="bilinear", align_corners=False
    )
    return small.add(0.5).floor().byte()[0].permute(1, 2, 0).numpy()


def corners(height: int, width: int) -> list[tuple[int, int]]:
    """(top, left) of the windows, row by row: a grid of strides, of which the last ones are moved
    in.
    """
    rows, columns = (max(side - WINDOW + STRIDE - 1, 0) // STRIDE + 1 for side in (height, width))
    grid = [(row * STRIDE, column * STRIDE) for row in range(rows) for column in range(columns)]
    return [(max(min(top + WINDOW, height) - WINDOW, 0), max(min(left + WINDOW, width) - WINDOW, 0))
            for top, left in grid]  # fmt: skip


def averaged(
    model: GroupViTModel, small: np.ndarray, texts: torch.Tensor, background: float | None
) -> tuple[list[tuple[int, int]], list[torch.Tensor], torch.Tensor]:
    """Corners, scores of each window (K, tall, wide), and their average (K, h, w)."""
    height, width = small.shape[:2]
    places, scores = corners(height, width), []
    total: Any = 0
    count = torch.zeros((height, width))
    for top, left in places:
        cut = small[top : top + WINDOW, left : left + WINDOW]
        scores.append(published(model, normalised(cut), texts, background))
        tall, wide = cut.shape[:2]
        total = total + F.pad(scores[-1], (left, width - left - wide, top, height - top - tall))
        count[top : top + tall, left : left + wide] += 1
    return places, scores, total / count


def labels(average: torch.Tensor, height: int, width: int) -> np.ndarray:
    """Resized to the picture's own size, bilinear, then the best class: uint8 (H, W)."""
    scores = F.interpolate(average[None], (height, width), mode="bilinear", align_corners=False)
    return scores.softmax(1).argmax(1)[0].byte().numpy()


def drawn(height: int, width: int, seed: int) -> np.ndarray:
    """Soft coloured patches: uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def opencv(pixels: np.ndarray) -> np.ndarray:
    """What the published evaluation resized with; its weights have 11 bits, so it is up to one
    level off.
    """
    import cv2  # for this alone

    height, width = resized_size(*pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)


def of_picture(
    model: GroupViTModel, texts: torch.Tensor, height: int, width: int
) -> dict[str, np.ndarray]:
    """Every stage for the first picture on which one grey level does not decide what the model
    sees.

    A random model may give half a picture to another group for the sake of one level. With OpenCV's
    pixels and with exactly rounded ones the labels of this picture agree on 99.9%, and there is
    more than one class.
    """
    for seed in range(300):
        pixels = drawn(height, width, seed)
        small, theirs = resized(pixels), opencv(pixels)
        places, scores, average = averaged(model, small, texts, None)
        found = labels(average, height, width)
        same = found == labels(averaged(model, theirs, texts, None)[2], height, width)
        if len(np.unique(found)) > 1 and same.mean() >= 0.999:
            break
    else:
        raise SystemExit(f"No picture of {height}x{width} is steady.")
    stages = {"picture": pixels, "resized": small, "opencv": theirs, "corners": np.array(places)}
    stages |= {"windows": torch.stack(scores).numpy(), "average": average.numpy(), "labels": found}
    threshold = round(float(average.amax(0).min() + average.amax(0).max()) / 2, 3)
    stages["threshold"] = np.array(threshold)
    stages["background"] = labels(averaged(model, small, texts, threshold)[2], height, width)
    return stages


def main(golden: Path) -> None:
    model = GroupViTModel.from_pretrained(golden / "segmenter").eval()
    texts = torch.from_numpy(np.load(golden / "protocol" / "segmenter.npz")["subset"])
    found: dict[str, np.ndarray] = {}
    for name, size in SIZES.items():
        stages = of_picture(model, texts, *size)
        found |= {f"{name}.{stage}": array for stage, array in stages.items()}
    np.savez_compressed(golden / "protocol" / "windows.npz", **found)  # type: ignore[arg-type]


if __name__ == "__main__":
    with torch.no_grad():
        main(Path(sys.argv[1]))
