"""A version folder and the segmenter that it was made from in; how far their answers differ, line
by line, out.
"""

import io
import os
import pickle
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tf_groupvit.errors import ExportError
from tf_groupvit.export import replay as replay_module
from tf_groupvit.preprocessing.image_arrays import normalize
from tf_groupvit.preprocessing.image_reading import read_image
from tf_groupvit.segmentation.prompts import embed_classes, encode_prompts

LEAST_AGREEMENT = 0.98  # of labels: pixels within 2 grey levels may change a few at the edges
MOST_DIFFERENCE = 0.05  # of numbers, as a part of the largest: likewise

Answer = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """How one answer differs from the Python side's: share of equal labels, and by output the
    largest difference.
    """

    signature: str
    batch: int
    agreement: float | None
    numbers: dict[str, float]
    scale: dict[str, float]

    @property
    def passes(self) -> bool:
        numbers = all(
            value <= MOST_DIFFERENCE * self.scale[name] for name, value in self.numbers.items()
        )
        return numbers and (self.agreement is None or self.agreement >= LEAST_AGREEMENT)

    def __str__(self) -> str:
        parts = [] if self.agreement is None else [f"{100 * self.agreement:.2f}% of labels agree"]
        parts += [f"{name} within {value:.1e}" for name, value in self.numbers.items()]
        return f"{self.signature}, batch {self.batch}: {', '.join(parts)}"


@dataclass(frozen=True)
class Report:
    """What ``check_export`` found."""

    differences: list[Difference]
    operations: dict[str, int]
    seconds_to_load: float

    def __str__(self) -> str:
        lines = [str(difference) for difference in self.differences]
        lines.append(
            f"{sum(self.operations.values()):,} operations of {len(self.operations)} kinds"
        )
        return "\n".join(lines)


def replay(
    folder: Path, requests: list[Any] | None = None, python: str = sys.executable
) -> dict[str, Any]:
    """Run ``replay.py`` on a version folder in a process that cannot import this package.

    Args:
        requests: [(signature, {input: array})]; the folder's warm-up requests unless given.
        python: an interpreter with TensorFlow.

    Raises:
        ExportError: the folder cannot be loaded, or the process failed; its last line says why.
    """
    with tempfile.TemporaryDirectory(prefix="tf_groupvit_replay_") as temporary:
        results, asked = Path(temporary, "results"), Path(temporary, "requests")
        arguments = [str(folder), str(results)]
        if requests is not None:
            asked.write_bytes(pickle.dumps(requests))
            arguments.append(str(asked))
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", **os.environ}
        command = [python, "-I", str(replay_module.__file__), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode or not results.exists():
            why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ExportError(f"{folder} cannot be replayed in a process of its own: {why[:400]}")
        return pickle.loads(results.read_bytes())


def check_export(folder: str | os.PathLike[str], segmenter: Any) -> Report:
    """Replay an export's warm-up as a server would, and compare each answer with the segmenter's
    own.

    Raises:
        ExportError: a request that is refused, answers that differ, or operations that a stock
            server does not have.
    """
    found = replay(Path(folder))
    if found["faults"]:
        raise ExportError(f"{folder} cannot be served: {'; '.join(found['faults'][:5])}.")
    for answer in found["answers"]:
        if said := _refusals(answer):
            raise ExportError(
                f"{folder} refuses its own warm-up request of {answer['signature']}: {said[0]}"
            )
    differences = [compare(answer, segmenter) for answer in found["answers"]]
    for difference in differences:
        if not difference.passes:
            raise ExportError(f"{folder} does not answer as the segmenter does: {difference}.")
    return Report(differences, found["operations"], found["seconds_to_load"])


def _refusals(answer: Answer) -> list[str]:
    """What an answer says is wrong, with the whole request or with some of its rows."""
    if answer["error"] is not None:
        return [answer["error"][1].splitlines()[0]]
    return [words.decode() for words in answer["outputs"].get("error", ()) if words]


def compare(answer: Answer, segmenter: Any) -> Difference:
    """One answer of a replay against what the segmenter says to the same request."""
    signature = answer["signature"]
    expected = EXPECTED[signature](segmenter, **answer["inputs"])
    labels = expected.pop("labels", None)
    agreement = None if labels is None else _agreement(_labels_in(answer["outputs"]), labels)
    outputs = {name: np.asarray(answer["outputs"][name], np.float64) for name in expected}
    numbers = {
        name: _largest(outputs[name] - np.asarray(value)) for name, value in expected.items()
    }
    scale = {name: max(_largest(value), 1e-6) for name, value in expected.items()}
    return Difference(
        signature, len(next(iter(answer["inputs"].values()))), agreement, numbers, scale
    )


def _largest(values: Any) -> float:
    return float(np.abs(np.asarray(values)).max(initial=0.0))


def _labels_in(outputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    if "labels" in outputs:
        return list(outputs["labels"])
    return [np.asarray(Image.open(io.BytesIO(mask))) for mask in outputs["mask_bytes"]]


def _agreement(came: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The share of equal labels in the image where it is lowest; 0 where sizes differ."""
    shares = [
        float(np.mean(a == b)) if a.shape == b.shape else 0.0
        for a, b in zip(came, expected, strict=True)
    ]
    return min(shares, default=1.0)


# What the Python side says to each signature's inputs


def _segment(segmenter: Any, image_bytes: Any) -> dict[str, Any]:
    return _told(segmenter, [(read_image(one), segmenter.text_embeds) for one in image_bytes])


def _told(segmenter: Any, asked: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Labels, scores and areas of images (H, W, 3), each with classes (N, D) of its own; rows
    padded with 0.
    """
    labels, scores, areas = [], [], []
    for image, texts in asked:
        small = segmenter.inference.scores([image], texts)[0]
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


def _open(segmenter: Any, image_bytes: Any, class_names: Any) -> dict[str, Any]:
    templates, asked = segmenter.classes.templates, []
    for contents, names in zip(image_bytes, class_names, strict=True):
        with warnings.catch_warnings(
            action="ignore"
        ):  # prompts that are cut, which the graph does without a word
            texts = embed_classes(
                segmenter.model, segmenter.tokenizer, names.decode(), templates
            ).embeds
        asked.append((read_image(contents), texts))
    return _told(segmenter, asked)


def _embeds(segmenter: Any, image_bytes: Any, text_embeds: Any) -> dict[str, Any]:
    return _told(
        segmenter,
        [(read_image(one), texts) for one, texts in zip(image_bytes, text_embeds, strict=True)],
    )


def _pixels(segmenter: Any, pixels: Any) -> dict[str, Any]:
    return {
        "labels": _told(segmenter, [(image, segmenter.text_embeds) for image in pixels])["labels"]
    }


def _encode_image(segmenter: Any, image_bytes: Any) -> dict[str, Any]:
    settings, squares = (
        segmenter.settings,
        [segmenter.inference.square(read_image(one)) for one in image_bytes],
    )
    found = segmenter.model.get_image_features(
        normalize(np.stack(squares), settings.mean, settings.std)
    )
    return {"image_embeds": _of_length_one(np.asarray(found))}


def _encode_text(segmenter: Any, text: Any) -> dict[str, Any]:
    with warnings.catch_warnings(action="ignore"):
        found = encode_prompts(segmenter.model, segmenter.tokenizer, [one.decode() for one in text])
    return {"text_embeds": _of_length_one(found)}


def _of_length_one(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _logits(segmenter: Any, **inputs: Any) -> dict[str, Any]:
    result = segmenter.model(
        **inputs, output_segmentation=True, output_attentions=False, output_hidden_states=False
    )
    names = (
        "logits_per_image",
        "logits_per_text",
        "text_embeds",
        "image_embeds",
        "segmentation_logits",
    )
    return {name: np.asarray(result[name]) for name in names}


def _classify(segmenter: Any, image_bytes: Any) -> dict[str, Any]:
    return {"probabilities": segmenter.classify(list(image_bytes))}


EXPECTED: dict[str, Callable[..., dict[str, Any]]] = {
    "serving_default": _segment,
    "segment": _segment,
    "segment_open": _open,
    "segment_pixels": _pixels,
    "segment_embeds": _embeds,
    "classify": _classify,
    "encode_image": _encode_image,
    "encode_text": _encode_text,
    "logits": _logits,
}
