"""Where a run is kept: a folder of this disk, or one on other storage that fsspec reaches.

On other storage nothing is renamed. A state has a name with its step, and counts once
``training/last.json``, which is written after it, names it: what a kill leaves behind half-written
has no marker. The older state is deleted after that.
"""

import json
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from tf_groupvit.errors import CheckpointError
from tf_groupvit.files import atomic_write, make_folder
from tf_groupvit.storage import Output, is_url
from tf_groupvit.training.state import step_of

STATE, HISTORY, BEST = "training/state.safetensors", "training/history.jsonl", "training/best"
MARKER = "training/last.json"  # on other storage
CONFIG = "config.json"  # the last file of a checkpoint: without it none is loaded


class RunFolder:
    """A folder of this disk, in which a run is kept."""

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self.location = os.fspath(location)
        self.local = Path(location)

    def look(self) -> None:
        """Find out which state is the last good one."""

    def fetch(self) -> None:
        """Have the last good state in ``local``, where there is one."""

    def keep(self, step: int) -> None:
        """Keep what ``local`` holds as the state of a step."""

    def finish(self) -> None:
        """Keep the checkpoint that ``local`` holds."""

    def last(self) -> tuple[int, str] | None:
        """The step of the last good state, and where it is."""
        state = self.local / STATE
        return (step_of(state), str(state)) if state.exists() else None

    def kept(self) -> str:
        """The last good state, as a part of a message."""
        last = self.last()
        if last is None:
            return "no state was saved before it"
        return f"the last good state is of step {last[0]}, {last[1]}"


class RemoteFolder(RunFolder):
    """A folder on other storage, with a copy on this disk for as long as the process runs.

    Raises:
        InputError: the storage is unknown, or its package is not installed.
    """

    def __init__(self, location: str) -> None:
        super().__init__(_scratch(self))
        self.location = location.rstrip("/")
        self.output = Output(location)
        self._marker: dict[str, Any] | None = None
        self._sent: dict[str, int] = {}  # name -> version of the file

    def look(self) -> None:
        """Read the marker. Raises InputError where the storage cannot be read."""
        if self.output.exists(MARKER):
            self._marker = json.loads(self.output.read(MARKER))

    def fetch(self) -> None:
        """Copy the state that the marker names, its history, and what belongs to it.

        Raises:
            CheckpointError: the marker names a state that is not there whole.
            InputError: the storage cannot be read.
        """
        self.look()
        if (marker := self._marker) is None:
            return
        state = self.output.read(marker["state"])
        if len(state) != marker["bytes"]:
            raise CheckpointError(
                f"{self.location}/{marker['state']} has {len(state):,} bytes, and {MARKER} says"
                f" {marker['bytes']:,}: bring it back, or empty the folder."
            )
        contents = {STATE: state, HISTORY: marker["history"].encode()}
        contents |= {name: self.output.read(name) for name in marker["files"]}
        for name, content in contents.items():
            make_folder((self.local / name).parent)
            atomic_write(self.local / name, content)

    def keep(self, step: int) -> None:
        """Write the state, then the marker; then delete the older state.

        Raises:
            InputError: the storage cannot be written.
        """
        state, history = f"training/state-{step:08}.safetensors", self.local / HISTORY
        paths = {path.relative_to(self.local).as_posix(): path for path in self._files()}
        for name in (files := sorted(paths.keys() - {STATE, HISTORY})):
            self._upload(paths[name], name)
        self._upload(paths[STATE], state)
        marker = {"step": step, "state": state, "bytes": paths[STATE].stat().st_size}
        marker |= {"history": history.read_text(encoding="utf-8"), "files": files}
        self.output.write(MARKER, json.dumps(marker))
        self._marker = marker
        for name in self.output.names("training"):
            if name.startswith("state-") and f"training/{name}" != state:
                self.output.remove(f"training/{name}")

    def _files(self) -> list[Path]:
        return [path for path in self.local.rglob("*") if path.is_file()]

    def _upload(self, path: Path, name: str) -> None:
        """Write a file, unless it is there as it is."""
        version = path.stat().st_mtime_ns
        if self._sent.get(name) == version:
            return
        with open(path, "rb") as file, self.output.stream(name) as there:
            shutil.copyfileobj(file, there, 2**24)
        self._sent[name] = version

    def finish(self) -> None:
        """Write the files of the checkpoint, its config last."""
        files = [
            path for path in self._files() if path.name != CONFIG and path != self.local / STATE
        ]
        for path in [*sorted(files), self.local / CONFIG]:
            self._upload(path, path.relative_to(self.local).as_posix())

    def last(self) -> tuple[int, str] | None:
        """The step that the marker names, and its state."""
        marker = self._marker
        return (marker["step"], f"{self.location}/{marker['state']}") if marker else None


def _scratch(owner: object) -> str:
    """A folder of this disk that is deleted with its owner."""
    folder = tempfile.mkdtemp(prefix="tf-groupvit-")
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder


def open_folder(location: str | os.PathLike[str]) -> RunFolder:
    """The folder of a path or a URL."""
    place = os.fspath(location)
    return RemoteFolder(place) if is_url(place) else RunFolder(place)


class NoFolder(RunFolder):
    """What a process that keeps nothing works in; the first one keeps what all need."""

    def __init__(self, location: str | os.PathLike[str]) -> None:
        super().__init__(_scratch(self))
        self.location = os.fspath(location)

    def kept(self) -> str:
        """Who knows more."""
        return f"worker 0 names the last good state in {self.location}"
