"""For each signature an example of a request, and the segmenter's own answer to any request.

The examples are the warm-up of an export; the answers are what its check compares with. A warm-up
has to be valid with batching on as well, so all inputs of a request have the same leading
dimension.
"""

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tf_groupvit.preprocessing.image_arrays import normalize
from tf_groupvit.preprocessing.image_reading import read_image
from tf_groupvit.segmentation.prompts import embed_classes, encode_prompts

if TYPE_CHECKING:
    from tf_groupvit.segmentation.segmenter import Segmenter

Inputs = dict[str, np.ndarray | list[str] | list[bytes]]
Answer = dict[str, Any]  # arrays by output; "labels" are a list, since each has its own size

# Sizes (H, W) and formats of pictures; every format takes its own way through the decoder.
PICTURES = ((48, 64, "JPEG"), (64, 48, "PNG"), (40, 40, "JPEG"), (33, 70, "GIF"))

# ---- requests ----


def picture(number: int) -> np.ndarray:
    """A small picture, uint8 (H, W, 3): two gradients, a disc and a bar to tell apart."""
    H, W, _ = PICTURES[number % len(PICTURES)]
    y, x = np.mgrid[:H, :W]
    pixels = np.stack([x * 255 // W, y * 255 // H, 255 - x * 255 // W], axis=-1)
    pixels[(y - H / 2) ** 2 + (x - W / 3) ** 2 < (H / 4) ** 2] = (230, 40 * (number % 6), 20)
    pixels[:, -W // 5 :] = (10, 60, 200 - 20 * (number % 8))
    return pixels.astype(np.uint8)


def pictures(*numbers: int) -> list[bytes]:
    """Pictures as image files of several formats."""
    files = []
    for number in numbers:
        content = io.BytesIO()
        Image.fromarray(picture(number)).save(content, PICTURES[number % len(PICTURES)][2])
        files.append(content.getvalue())
    return files


def class_lists(segmenter: "Segmenter") -> list[str]:
    """Two lists of classes for ``segment_open``, of the segmenter's own."""
    names = segmenter.classes.names
    return [",".join(names[:2]), ", ".join(names[:1])]


def token_ids_and_pixels(segmenter: "Segmenter") -> Inputs:
    """A request of ``logits``: one text of two tokens, and one image of two by two patches."""
    config = segmenter.model.config
    patch, end = config.vision_config.patch_height_width, config.text_config.eos_token_id
    ids = np.array([[0, (end[0] if isinstance(end, tuple) else end) or 0]], np.int32)
    shape = (1, config.vision_config.num_channels, 2 * patch[0], 2 * patch[1])
    pixels = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "pixel_values": pixels}


# ---- answers of the Python side ----


def segment(segmenter: "Segmenter", image_bytes: Sequence[bytes]) -> Answer:
    """Labels of encoded images (B) with the classes of the segmenter, scores and areas (B, K)."""
    asked = [(read_image(one), segmenter.text_embeds) for one in image_bytes]
    names = _for_each(segmenter.class_names, image_bytes)
    return _segmented(segmenter, asked) | {"class_names": names}


def segment_open(
    segmenter: "Segmenter", image_bytes: Sequence[bytes], class_names: Sequence[bytes]
) -> Answer:
    """As ``segment``, each of the images (B) with the classes of its list, (B)."""
    asked = []
    for contents, names in zip(image_bytes, class_names, strict=True):
        with warnings.catch_warnings(action="ignore"):  # the graph cuts long prompts silently
            texts = embed_classes(
                segmenter.model, segmenter.tokenizer, names.decode(), segmenter.classes.templates
            ).embeds
        asked.append((read_image(contents), texts))
    return _segmented(segmenter, asked)


def segment_pixels(segmenter: "Segmenter", pixels: np.ndarray) -> Answer:
    """Labels of uint8 (B, H, W, 3)."""
    found = _segmented(segmenter, [(image, segmenter.text_embeds) for image in pixels])
    return {"labels": found["labels"]}


def segment_embeds(
    segmenter: "Segmenter", image_bytes: Sequence[bytes], text_embeds: np.ndarray
) -> Answer:
    """As ``segment``, with class embeddings (B, K, D)."""
    images = [read_image(one) for one in image_bytes]
    return _segmented(segmenter, list(zip(images, text_embeds, strict=True)))


def _segmented(segmenter: "Segmenter", asked: list[tuple[np.ndarray, np.ndarray]]) -> Answer:
    """Labels, scores and areas of images (H, W, 3), each with its classes (N, D); padded with 0."""
    labels, scores, areas = [], [], []
    for image, texts in asked:
        small = segmenter.pipeline.find([image], texts)[0].scores
        found = small.labels(*image.shape[:2])
        labels.append(found)
        scores.append(small.highest(*image.shape[:2]))
        areas.append(np.bincount(found.ravel(), minlength=small.rows.shape[-1]) / found.size)
    longest = max(map(len, scores), default=0)
    padded = [[np.pad(row, (0, longest - len(row))) for row in rows] for rows in (scores, areas)]
    return {
        "labels": labels,
        "class_scores": np.array(padded[0]),
        "class_areas": np.array(padded[1]),
    }


def classify(segmenter: "Segmenter", image_bytes: Sequence[bytes]) -> Answer:
    """Probabilities (B, N) of encoded images (B)."""
    return {
        "probabilities": segmenter.classify(list(image_bytes)),
        "class_names": _for_each(segmenter.classes.names, image_bytes),
    }


def _for_each(names: Sequence[str], images: Sequence[bytes]) -> list[list[bytes]]:
    """The names of the classes for each of the images (B), as the graph writes them."""
    return [[name.encode() for name in names] for _ in images]


def encode_image(segmenter: "Segmenter", image_bytes: Sequence[bytes]) -> Answer:
    """Embeddings (B, D) of encoded images (B)."""
    settings = segmenter.settings
    squares = np.stack([segmenter.pipeline.square(read_image(one)) for one in image_bytes])
    found = segmenter.model.get_image_features(normalize(squares, settings.mean, settings.std))
    return {"image_embeds": _of_length_one(np.asarray(found))}


def encode_text(segmenter: "Segmenter", text: Sequence[bytes]) -> Answer:
    """Embeddings (B, D) of texts (B)."""
    with warnings.catch_warnings(action="ignore"):
        found = encode_prompts(segmenter.model, segmenter.tokenizer, [one.decode() for one in text])
    return {"text_embeds": _of_length_one(found)}


def _of_length_one(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def logits(segmenter: "Segmenter", **inputs: np.ndarray) -> Answer:
    """The model's outputs for token ids and mask (N, T) and ``pixel_values`` (B, C, H, W)."""
    result = segmenter.model(
        **inputs, output_segmentation=True, output_attentions=False, output_hidden_states=False
    )
    similarities = ("logits_per_image", "logits_per_text", "segmentation_logits")
    names = (*similarities, "text_embeds", "image_embeds")
    return {name: np.asarray(result[name]) for name in names}
