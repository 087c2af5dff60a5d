"""Works and engines in; how long each took in every round, and how far outputs lie apart, out.

All engines answer once before anything is timed, and their outputs are compared. Rounds are
interleaved, every second one backwards, so that a machine that is busy with something else is so
for all.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engines.process import Engine, MissingError
from engines.starting import alone

ROUND = 0.5  # seconds of a short work in a round, repeated
SHORT = 1.5  # seconds, up to which a work has a call before, in every round


class Job(NamedTuple):
    """A work of an engine."""

    engine: str
    work: str
    has_inputs: bool = True


class Bench:
    """``skipped`` collects what did not run: name -> why.

    Args:
        most_repeats: of a short work in a round.
        begin_at_once: how many engines compile at a time, before anything is timed; above 1, each
            has one job only.
        lock: a file that is locked during the rounds of a work.
    """

    def __init__(
        self,
        engines: dict[str, Engine],
        skipped: dict[str, str],
        place: Path,
        rounds: int,
        most_repeats: int = 10,
        begin_at_once: int = 1,
        lock: Path | None = None,
    ) -> None:
        self.engines, self.skipped, self.place, self.rounds = engines, skipped, place, rounds
        self.most_repeats, self.begin_at_once = most_repeats, begin_at_once
        self.lock = lock

    def same(self, work: str, names: list[str] | None = None) -> dict[str, Job]:
        """One work of all engines, or of those named which run here."""
        return {name: Job(name, work) for name in self.engines if names is None or name in names}

    def run(self, jobs: dict[str, Job], warm: int = 1, **inputs: np.ndarray) -> dict[str, Any]:
        """Job's name -> first call, rounds, and differences of outputs from the first job's."""
        file = self.place / "inputs.npz"
        np.savez(file, **inputs)  # type: ignore[arg-type]
        found: dict[str, Any] = {}
        expected: dict[str, np.ndarray] = {}
        with ThreadPoolExecutor(self.begin_at_once) as pool:
            begun = {name: pool.submit(self._begin, job, file, warm) for name, job in jobs.items()}
        for name, job in jobs.items():
            try:
                row, outputs = begun[name].result()
            except (MissingError, KeyError) as why:
                self.skipped[f"{name}: {job.work}"] = str(why)
                print(f"  {name} is left out: {why}", file=sys.stderr, flush=True)
                continue
            expected = expected or outputs
            found[name] = {**row, **differences(outputs, expected)}
        with alone(self.lock):
            for number in range(self.rounds):
                for name in list(found) if number % 2 else list(reversed(found)):
                    once = self._once(jobs[name], file, found[name]["warm_s"])
                    found[name]["rounds"].append(once)
        return found

    def _once(self, job: Job, file: Path, expected: float) -> dict[str, float]:
        """What a round has of a job: a short one is repeated, after a call that is not counted."""
        repeats = min(max(round(ROUND / expected), 1), self.most_repeats)
        inputs = file if job.has_inputs else None
        return self.engines[job.engine].ask(
            job.work, inputs, before=int(expected < SHORT), repeats=repeats
        )

    def _begin(
        self, job: Job, file: Path, warm: int
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """First call and ``warm`` more, none of them counted."""
        engine, inputs = self.engines[job.engine], file if job.has_inputs else None
        output = self.place / f"{job.engine}, {job.work}.npz"
        first = engine.ask(job.work, inputs, output)
        outputs = dict(np.load(output))
        warmed = [engine.ask(job.work, inputs) for _ in range(warm)]
        return {
            "first_s": first["seconds"],
            "warm_s": (warmed or [first])[-1]["seconds"],
            "rounds": [],
        }, outputs


def pixels_of(batch: int) -> np.ndarray:
    """Images for a tower: (batch, 3, 224, 224), the same in every run."""
    return np.random.default_rng(batch).normal(size=(batch, 3, 224, 224)).astype("float32")


def differences(
    outputs: dict[str, np.ndarray], expected: dict[str, np.ndarray]
) -> dict[str, float]:
    """Largest difference as a part of the largest value; for label maps and assignments the share
    of equal ones.
    """
    kept = {}
    for name, value in outputs.items():
        if name not in expected or expected[name] is value:
            continue
        theirs = expected[name]
        if name == "labels":
            kept["same_labels"] = float(np.mean(value == theirs))
            continue
        kept[f"{name}_within"] = float(
            np.abs(value - theirs).max() / max(np.abs(theirs).max(), 1e-9)
        )
        if name == "assignment":
            kept["same_groups"] = float(np.mean(value.argmax(1) == theirs.argmax(1)))
    return kept
