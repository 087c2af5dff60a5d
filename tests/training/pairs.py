"""Pictures of one colour with captions, and the files that hold such pairs: what the tests of
training data share.
"""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


def picture(number: int, size: int = 8) -> bytes:
    """A PNG whose every pixel is (number, number, number)."""
    return png(np.full((size, size, 3), number, np.uint8))


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pairs(count: int, first: int = 0) -> list[tuple[bytes, str]]:
    """Pair i is a picture of grey level i with the caption "picture i"."""
    return [(picture(i), f"picture {i}") for i in range(first, first + count)]


def write_tar(path: Path, members: dict[str, bytes] | list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def shard(path: Path, count: int, first: int = 0) -> Path:
    """What img2dataset writes: KEY.png, KEY.txt and KEY.json."""
    members = {}
    for i, (image, caption) in enumerate(pairs(count, first), start=first):
        members |= {f"{i:09d}.png": image, f"{i:09d}.txt": caption.encode()}
        members[f"{i:09d}.json"] = json.dumps(
            {"caption": caption, "key": f"{i:09d}", "status": "success"}
        ).encode()
    return write_tar(path, members)


def folder(path: Path, count: int) -> Path:
    """images/NNNNN.png and a captions.csv."""
    (path / "images").mkdir(parents=True)
    lines = ["file_name,caption"]
    for i, (image, caption) in enumerate(pairs(count)):
        (path / "images" / f"{i:05d}.png").write_bytes(image)
        lines.append(f"{i:05d}.png,{caption}")
    (path / "captions.csv").write_text("\n".join(lines) + "\n")
    return path
