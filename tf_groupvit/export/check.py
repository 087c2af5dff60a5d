"""Check an export: ask it in a process of its own, and compare with the segmenter's answers."""

import io
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tf_groupvit.errors import ExportError, one_line
from tf_groupvit.export import replay as replay_module
from tf_groupvit.export.signatures import row_of
from tf_groupvit.export.version_folder import Request, check_requests

if TYPE_CHECKING:
    from tf_groupvit.segmentation.segmenter import Segmenter

MIN_AGREEMENT = 0.98  # of labels: pixels within 2 gray levels may change a few at the edges
MAX_DIFFERENCE = 0.05  # of numbers, as a part of the largest: likewise

Answer = dict[str, Any]  # as replay.Model.answer gives it
Replay = dict[str, Any]  # as replay.main writes it


@dataclass(frozen=True)
class Difference:
    """How one answer differs from the Python side's.

    Attributes:
        signature, batch: what was asked, and the number of rows.
        agreement: the share of equal labels, None where there are none.
        numbers: the largest difference by output.
        scale: the largest expected number by output.
        names: whether the names of the classes are the segmenter's.
    """

    signature: str
    batch: int
    agreement: float | None
    numbers: dict[str, float]
    scale: dict[str, float]
    names: bool = True

    @property
    def passes(self) -> bool:
        """Whether labels and numbers are near enough."""
        numbers = all(
            value <= MAX_DIFFERENCE * self.scale[name] for name, value in self.numbers.items()
        )
        labels = self.agreement is None or self.agreement >= MIN_AGREEMENT
        return self.names and numbers and labels

    def __str__(self) -> str:
        parts = [] if self.names else ["other class names"]
        if self.agreement is not None:
            parts += [f"{100 * self.agreement:.2f}% of labels agree"]
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
        count = sum(self.operations.values())
        return "\n".join([*lines, f"{count:,} operations of {len(self.operations)} kinds"])


def check_export(folder: str | os.PathLike[str], segmenter: "Segmenter") -> Report:
    """Ask an export as a server would, and compare with the segmenter's own answers.

    Asked are the requests of its warm-up, and an example for whatever that leaves out.

    Raises:
        ExportError: a request that is refused, answers that differ, a signature that is not known
            here, or operations that a stock server does not have.
    """
    path = Path(folder)
    try:
        requests = check_requests(path, segmenter)
    except Exception as error:  # whatever TensorFlow and protobuf raise for a broken file
        raise ExportError(f"{path} cannot be replayed: {one_line(error, 400)}.") from error
    return judge(folder, replay(path, requests), segmenter)


def judge(folder: str | os.PathLike[str], found: Replay, segmenter: "Segmenter") -> Report:
    """As ``check_export``, of a replay that has been made already."""
    if found["faults"]:
        raise ExportError(f"{folder} cannot be served: {'; '.join(found['faults'][:5])}.")
    for answer in found["answers"]:
        if errors := _errors(answer):
            raise ExportError(
                f"{folder} refuses a sound request of {answer['signature']}: {errors[0]}"
            )
    asked = {answer["signature"] for answer in found["answers"]}
    if unasked := [name for name in found["signatures"] if name not in asked]:
        raise ExportError(f"{folder} has been asked nothing of {', '.join(unasked)}.")
    differences = [_compared(folder, answer, segmenter) for answer in found["answers"]]
    for difference in differences:
        if not difference.passes:
            raise ExportError(f"{folder} does not answer as the segmenter does: {difference}.")
    return Report(differences, found["operations"], found["seconds_to_load"])


def replay(folder: Path, requests: Sequence[Request], python: str = sys.executable) -> Replay:
    """Run ``replay.py`` on a version folder in a process that cannot import this package.

    Args:
        requests: [(signature, {input: array of any shape})].
        python: an interpreter with TensorFlow.

    Raises:
        ExportError: the folder cannot be loaded, or the process failed; its last line says why.
    """
    with tempfile.TemporaryDirectory(prefix="tf_groupvit_replay_") as temporary:
        results, asked = Path(temporary, "results"), Path(temporary, "requests")
        asked.write_bytes(pickle.dumps(list(requests)))
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", **os.environ}
        command = [python, "-I", str(replay_module.__file__), str(folder), str(results), str(asked)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode or not results.exists():
            why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ExportError(f"{folder} cannot be replayed in a process of its own: {why[:400]}")
        return pickle.loads(results.read_bytes())


def _errors(answer: Answer) -> list[str]:
    """The errors of an answer: of the whole request or of some of its rows."""
    if answer["error"] is not None:
        return [answer["error"][1].splitlines()[0]]
    return [error.decode() for error in answer["outputs"].get("error", ()) if error]


def _compared(folder: str | os.PathLike[str], answer: Answer, segmenter: "Segmenter") -> Difference:
    """As ``compare``. Raises ExportError where outputs are missing, or of another shape or kind."""
    try:
        return compare(answer, segmenter)
    except (LookupError, OSError, TypeError, ValueError) as error:
        raise ExportError(
            f"{folder} answers a request of {answer['signature']} with other outputs than the"
            f" segmenter's: {type(error).__name__}: {one_line(error, 400)}."
        ) from error


def compare(answer: Answer, segmenter: "Segmenter") -> Difference:
    """One answer of a replay against what the segmenter says to the same request."""
    signature, inputs, outputs = answer["signature"], answer["inputs"], answer["outputs"]
    expected = row_of(signature).expected(segmenter, **inputs)
    labels, names = expected.pop("labels", None), expected.pop("class_names", None)
    same = names is None or outputs["class_names"].tolist() == names
    agreement = None if labels is None else _agreement(_labels_in(outputs), labels)
    numbers = {
        name: _largest(np.asarray(outputs[name], np.float64) - np.asarray(value))
        for name, value in expected.items()
    }
    scale = {name: max(_largest(value), 1e-6) for name, value in expected.items()}
    batch = len(next(iter(inputs.values())))
    return Difference(signature, batch, agreement, numbers, scale, same)


def _largest(values: npt.ArrayLike) -> float:
    return float(np.abs(np.asarray(values)).max(initial=0.0))


def _labels_in(outputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    if "labels" in outputs:
        return list(outputs["labels"])
    return [np.asarray(Image.open(io.BytesIO(mask))) for mask in outputs["mask_bytes"]]


def _agreement(received: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The share of equal labels in the image where it is lowest; 0 where sizes differ."""
    shares = [
        float(np.mean(a == b)) if a.shape == b.shape else 0.0
        for a, b in zip(received, expected, strict=True)
    ]
    return min(shares, default=1.0)
