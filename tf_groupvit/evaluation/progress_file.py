"""What has been counted so far in, a file to go on from out; written whole or not at all."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tf_groupvit.errors import InputError
from tf_groupvit.segmentation.writing import write_whole

VERSION = 1


class Running(Protocol):
    """What has a score to show while pictures are counted."""

    def headline(self) -> str:
        """The running score, for a progress bar."""


class Tally(Running, Protocol):
    """What is counted: a ``ConfusionMatrix`` or a ``TopK``."""

    def results(self) -> dict[str, Any]:
        """The scores by name."""

    def state(self) -> Any:
        """The counts, as JSON takes them."""

    def restore(self, state: Any) -> None:
        """Take up such counts. Raises ``ValueError`` where they do not fit."""


class ProgressFile:
    """The state of an evaluation on disk: which pictures are counted, and their counts.

    The settings that the scores depend on stand in the file; one that was written under others is refused.

    Raises:
        InputError: the file is none of ours, is damaged, or belongs to another evaluation; or cannot be written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], tally: Tally) -> None:
        self.path, self.tally = path, tally
        # What JSON makes of them is what will be compared: tuples become lists.
        self.settings = json.loads(json.dumps(dict(settings)))

    def load(self, names: Iterable[str]) -> list[str]:
        """Fill the tally and return the names that are counted already; none where there is no file yet."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path}: the state of an evaluation cannot be read: {error}.") from error
        content = self._checked(text)
        strangers = set(content["done"]) - set(names)
        if strangers:
            raise InputError(
                f"{self.path}: '{min(strangers)}' is counted there and not among the pictures to evaluate: "
                "take the same dataset and no smaller limit, or name another file."
            )
        try:
            self.tally.restore(content["counts"])
        except ValueError as error:
            raise InputError(f"{self.path}: the counts are damaged: {error}: delete it to start anew.") from error
        return list(content["done"])

    def save(self, done: Iterable[str]) -> None:
        """Write beside and rename: a run that is killed leaves the last whole state."""
        content = {"version": VERSION, "settings": self.settings, "done": list(done), "counts": self.tally.state()}
        write_whole(self.path, json.dumps(content, ensure_ascii=False).encode())

    def _checked(self, text: str) -> dict[str, Any]:
        try:
            content = json.loads(text)
            settings, done, version = content["settings"], content["done"], content["version"]
            fits = version == VERSION and isinstance(settings, dict) and all(isinstance(name, str) for name in done)
            fits = fits and len(set(done)) == len(done) and "counts" in content
        except (ValueError, KeyError, TypeError):
            fits = False
        if not fits:
            raise InputError(f"{self.path}: expected the state of an evaluation: delete it or name another file.")
        other = [key for key in sorted({*settings, *self.settings}) if settings.get(key) != self.settings.get(key)]
        if other:
            was, now = (_short(held.get(other[0])) for held in (settings, self.settings))
            raise InputError(
                f"{self.path}: belongs to another evaluation: {other[0]} was {was} and is {now} now: "
                "use the same settings, or name another file."
            )
        return content


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
