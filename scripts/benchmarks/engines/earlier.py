"""A commit in; the package as it was then, in a folder to put on a process' PYTHONPATH, out."""

import io
import subprocess
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def package_at(commit: str, folder: Path) -> Path:
    """Write the package into the folder. Raises ``CalledProcessError`` for an unknown commit."""
    command = ["git", "archive", commit, "tf_groupvit"]
    content = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")
    return folder / "tf_groupvit"
