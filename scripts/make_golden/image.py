"""Small images and processor files in; what transformers' CLIPImageProcessor on Pillow makes of
them out.

Run with a Python that has transformers: python scripts/make_golden/image.py. It writes
tests/golden/image/: cases.json (a processor file and an image name per case), images.npz (uint8 (H,
W, 3)) and pixel_values.npz.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from transformers import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

OUTPUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "image"

SIZES = {  # name -> (H, W)
    "landscape": (37, 53),
    "portrait": (61, 40),
    "square": (24, 24),
    "pixel": (1, 1),
    "wide": (4, 80),
    "tall": (80, 4),
    "small": (9, 14),
}
OLD = {
    "feature_extractor_type": "CLIPFeatureExtractor",
    "do_resize": True,
    "do_center_crop": True,
    "resample": 3,
}
NEW = {"image_processor_type": "CLIPImageProcessor"}
FILES: dict[str, dict[str, Any]] = {
    "2022": {**OLD, "size": 24, "crop_size": 24, "do_normalize": True},
    "2023": {
        **NEW,
        "size": {"shortest_edge": 24},
        "crop_size": {"height": 24, "width": 24},
        "rescale_factor": 1 / 255,
    },
    "odd_crop": {**NEW, "size": {"shortest_edge": 23}, "crop_size": {"height": 20, "width": 26}},
    "padded_crop": {**NEW, "size": {"shortest_edge": 15}, "crop_size": 24},
    "stretched": {**NEW, "size": {"height": 20, "width": 31}, "do_center_crop": False},
    "square_number": {**NEW, "size": 20, "default_to_square": True, "do_center_crop": False},
    "listed": {**NEW, "size": [18, 22], "crop_size": [16, 16]},
    "longest": {**NEW, "size": {"shortest_edge": 20, "longest_edge": 30}, "crop_size": 24},
    "bilinear": {**NEW, "size": 24, "crop_size": 24, "resample": 2},
    "imagenet": {
        **NEW,
        "size": 24,
        "crop_size": 24,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
    "one_mean": {**NEW, "size": 24, "crop_size": 24, "image_mean": 0.5, "image_std": 0.25},
    "not_normalised": {**NEW, "size": 24, "crop_size": 24, "do_normalize": False},
    "not_rescaled": {**NEW, "size": 24, "crop_size": 24, "do_rescale": False},
    "grey_levels": {**NEW, "size": 24, "crop_size": 24, "do_rescale": False, "do_normalize": False},
    "halved": {**NEW, "size": 24, "crop_size": 24, "rescale_factor": 1 / 127.5},
    "not_resized": {**NEW, "do_resize": False, "crop_size": 24},
    "nulls": {**NEW, "size": 24, "crop_size": 24, "do_rescale": None},
}


def draw(H: int, W: int, seed: int) -> np.ndarray:
    """Slopes, a hard edge and some noise: uint8 (H, W, 3)."""
    rows, columns = np.mgrid[0:H, 0:W]
    slopes = np.stack(
        [columns * 255 / W, rows * 255 / H, (rows + columns) * 255 / (H + W)], axis=-1
    )
    slopes[:, W // 2 :, 1] = 255 - slopes[:, W // 2 :, 1]
    noise = np.random.default_rng(seed).integers(-30, 30, slopes.shape)
    return np.clip(slopes + noise, 0, 255).astype(np.uint8)


def main() -> None:
    images: dict[str, Any] = {
        name: draw(H, W, seed) for seed, (name, (H, W)) in enumerate(SIZES.items())
    }
    cases = []
    values: dict[str, Any] = {}
    for label, content in FILES.items():
        for name in (
            SIZES if label in ("2022", "padded_crop", "longest") else ("landscape", "portrait")
        ):
            key = f"{label}-{name}"
            result = CLIPImageProcessorPil(**content)(
                images[name], input_data_format="channels_last"
            )
            values[key] = np.asarray(result["pixel_values"][0], np.float32)
            cases.append({"key": key, "image": name, "file": content})
    OUTPUT.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(OUTPUT / "images.npz", **images)
    np.savez_compressed(OUTPUT / "pixel_values.npz", **values)
    (OUTPUT / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
    CLIPImageProcessor(**FILES["2023"]).save_pretrained(OUTPUT / "saved_by_transformers")
    print(f"{len(cases)} cases in {OUTPUT}")


if __name__ == "__main__":
    main()
