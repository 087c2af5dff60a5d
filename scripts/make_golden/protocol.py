"""Small transformers checkpoints in, what the published inference makes of them out, rendered anew
in PyTorch.

    python scripts/make_golden/protocol.py tests/golden

Writes ``protocol/NAME.npz`` for each checkpoint of ``models/``, and ``segmenter/``, a complete
small checkpoint folder, with ``protocol/segmenter.npz``: class embeddings, and labels of a drawn
picture in both modes. Needs torch and transformers. Nothing of tf_groupvit is used: the rules stand
in ``published.py`` and ``windows.py`` a second time.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from full_size import centre
from models import build, draw_weights
from PIL import Image
from published import look, normalised, published
from safetensors.torch import load_file
from transformers import CLIPImageProcessor, CLIPTokenizer, GroupViTModel
from windows import averaged

TEXTS = 8  # more than the five of the filter
BACKGROUNDS = (0.3, 0.95)
CLASSES = ("dog", "grass", "sky", "sheep", "boat", "a red car", "water")
SUBSET = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


def texts_near(groups: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Texts (N, D) of length one that lean towards some group, so that groups differ in what they
    fit.
    """
    flat = groups.flatten(0, 1)
    chosen = flat[torch.randint(len(flat), (TEXTS,), generator=generator)]
    return F.normalize(chosen + 0.15 * torch.randn(chosen.shape, generator=generator), dim=-1)


def load(folder: Path) -> GroupViTModel:
    model = build(json.loads((folder / "config.json").read_text()))
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    return model.eval()


def of_checkpoint(folder: Path) -> dict[str, np.ndarray]:
    """Texts, and for each set of pixels and each background the scores of every image."""
    model, generator = load(folder), torch.Generator().manual_seed(5)
    pixels = {"own": torch.from_numpy(np.load(folder / "outputs.npz")["pixel_values"])}
    if folder.name == "three_stages":  # sizes that the patch size does not divide
        pixels["odd"] = torch.randn((2, 3, 43, 61), generator=generator)
    texts = texts_near(look(model, pixels["own"])[1], generator)
    found = {
        "texts": texts.numpy(),
        **{f"{name}.pixel_values": each.numpy() for name, each in pixels.items()},
    }
    for name, each in pixels.items():
        for background in (None, *BACKGROUNDS):
            rows = [published(model, image[None], texts, background) for image in each]
            found[f"{name}.{background}"] = torch.stack(rows).numpy()
    return found


def make_segmenter(folder: Path, vocabulary: Path) -> GroupViTModel:
    """A complete checkpoint: three stages, 8 and 4 groups, images of 32, 24 positions for a
    tokenizer of 77.
    """
    CLIPTokenizer.from_pretrained(vocabulary, model_max_length=77).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    text = dict(
        vocab_size=607,
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=2,
        num_hidden_layers=2,
    )
    text |= dict(max_position_embeddings=24, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    vision = dict(
        hidden_size=24,
        intermediate_size=40,
        num_attention_heads=3,
        depths=[1, 1, 1],
        num_hidden_layers=3,
    )
    vision |= dict(
        num_group_tokens=[8, 4, 0], num_output_groups=[8, 4, 4], image_size=32, patch_size=8
    )
    model = build(
        dict(
            text_config=text, vision_config=vision, projection_dim=8, projection_intermediate_dim=20
        )
    )
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 600, (64, 8), generator=generator)
    ids[:, -1] = 1
    draw_weights(model, seed=3)
    centre(model.text_projection, model.text_model(ids).pooler_output)
    pixels = torch.randn((16, 3, 4, 4), generator=generator)
    groups = model.vision_model(
        F.interpolate(pixels, (32, 32), mode="bilinear"), return_dict=True
    ).last_hidden_state
    centre(model.visual_projection, groups.flatten(0, 1))
    model.save_pretrained(folder)
    return model


def class_embeddings(
    model: GroupViTModel, tokenizer: CLIPTokenizer, templates: tuple[str, ...]
) -> torch.Tensor:
    """Mean over templates of the projections as they are, then of length one: (K, D)."""
    rows = []
    for name in CLASSES:
        tokens = tokenizer(
            [template.format(name) for template in templates],
            padding=True,
            max_length=24,
            truncation=True,
            return_tensors="pt",
        )
        pooled = model.text_model(tokens["input_ids"], tokens["attention_mask"]).pooler_output
        rows.append(F.normalize(model.text_projection(pooled).mean(0), dim=-1))
    return torch.stack(rows)


def picture(seed: int) -> np.ndarray:
    """Soft coloured patches, 64 x 150, which window mode does not resize: uint8 (H, W, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((150, 64), Image.Resampling.BICUBIC))


def windows(
    model: GroupViTModel, pixels: np.ndarray, texts: torch.Tensor, background: float | None
) -> torch.Tensor:
    """Scores (K, h, w) of a picture that window mode does not resize."""
    return averaged(model, pixels, texts, background)[2]


def whole(
    model: GroupViTModel, pixels: np.ndarray, texts: torch.Tensor, background: float | None
) -> torch.Tensor:
    small = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC))
    return published(model, normalised(small), texts, background)


def of_segmenter(folder: Path, model: GroupViTModel) -> dict[str, np.ndarray]:
    """Labels of the picture in both modes, without background and with a threshold that parts the
    groups.
    """
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    texts = class_embeddings(model, tokenizer, SUBSET)
    for seed in range(100):
        pixels = picture(seed)
        if all(
            len(mode(model, pixels, texts, None).argmax(0).unique()) > 1
            for mode in (windows, whole)
        ):
            break
    else:
        raise SystemExit("No picture shows more than one class in both modes.")
    found = {"classes": np.array(CLASSES), "subset": texts.numpy(), "picture": pixels}
    for mode in (windows, whole):
        best = mode(model, pixels, texts, None).amax(0)
        threshold = round(float(best.min() + best.max()) / 2, 3)
        found[f"{mode.__name__}.threshold"] = np.array(threshold)
        for name, background in (("plain", None), ("background", threshold)):
            scores = mode(model, pixels, texts, background)[None]
            scores = F.interpolate(scores, pixels.shape[:2], mode="bilinear", align_corners=False)
            found[f"{mode.__name__}.{name}"] = scores.softmax(1).argmax(1)[0].byte().numpy()
    return found


def labelling(seed: int) -> dict[str, np.ndarray]:
    """Random scores (h, w, K), and what interpolate and arg max make of them at other sizes."""
    generator, found = torch.Generator().manual_seed(seed), {}
    for number, (small, large) in enumerate(
        [((7, 5), (31, 44)), ((12, 16), (5, 9)), ((1, 3), (8, 8)), ((6, 6), (6, 6))]
    ):
        scores = torch.randn((1, 6, *small), generator=generator)
        bigger = F.interpolate(scores, large, mode="bilinear", align_corners=False)
        found[f"{number}.scores"] = scores[0].permute(1, 2, 0).numpy()
        found[f"{number}.labels"] = bigger.argmax(1)[0].byte().numpy()
        found[f"{number}.highest"] = bigger.amax((0, 2, 3)).numpy()
    return found


def main(golden: Path) -> None:
    (golden / "protocol").mkdir(exist_ok=True)
    for folder in sorted((golden / "models").iterdir()):
        np.savez_compressed(golden / "protocol" / f"{folder.name}.npz", **of_checkpoint(folder))  # type: ignore[arg-type]
    model = make_segmenter(golden / "segmenter", golden / "tokenizer" / "vocabularies" / "listed")
    answers = of_segmenter(golden / "segmenter", model)
    np.savez_compressed(golden / "protocol" / "segmenter.npz", **answers)  # type: ignore[arg-type]
    np.savez_compressed(golden / "protocol" / "labelling.npz", **labelling(seed=0))  # type: ignore[arg-type]


if __name__ == "__main__":
    torch.manual_seed(0)
    with torch.no_grad():
        main(Path(sys.argv[1]))
