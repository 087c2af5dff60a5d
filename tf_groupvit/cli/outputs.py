"""A segmentation, a name and a folder in; files, a line of text or a JSON record out."""

import json
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from tf_groupvit.files import atomic_write, make_folder
from tf_groupvit.segmentation.image_encoding import png
from tf_groupvit.segmentation.result import Segmentation

__all__ = ["line_of", "make_folder", "names_for", "record_of", "write_outputs"]

KINDS = ("overlay", "labels", "colors")  # written of every image, as NAME.KIND.png


def names_for(sources: Sequence[str], folders: Sequence[str] = ()) -> list[str]:
    """A name for the outputs of each source: its stem, "stdin" for "-", with a number where that is
    taken.

    Files of one folder that differ in their ending alone keep it: x.bmp and x.gif. What lies below
    one of ``folders`` lies so among the outputs, too: ``deep/x``. Names differ even where a file
    system does not tell capitals: outputs never overwrite one another.
    """
    endings: dict[tuple[PurePath, str], set[str]] = {}
    for source in sources:
        path = PurePath(source)
        endings.setdefault((path.parent, path.stem.casefold()), set()).add(path.suffix)
    names: list[str] = []
    taken: set[str] = set()
    for source in sources:
        path = PurePath(source)
        alike = len(endings[path.parent, path.stem.casefold()]) > 1
        own = "stdin" if source == "-" else (path.name if alike else path.stem) or "image"
        stem = str(_below(path, folders) / own)
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _below(path: PurePath, folders: Sequence[str]) -> PurePath:
    """Where a file lies below the first of the folders that holds it; ``.`` where none does."""
    above = next((folder for folder in folders if path.is_relative_to(folder)), path.parent)
    return path.parent.relative_to(above)


def write_outputs(
    result: Segmentation,
    name: str,
    folder: str | Path,
    views: Sequence[str] = (),
    source: str | None = None,
) -> list[Path]:
    """Write overlay, labels (gray class numbers), colors, JSON and each view, as NAME.KIND.png;
    returns their paths.

    The JSON names ``source``, the image. Everything is drawn before anything is written, and each
    file is whole or not there. Raises ``InputError`` for a view that there is not, and where the
    folder is missing or cannot be written.
    """
    named = {} if source is None else {"image": source}
    text = json.dumps({**named, **result.to_dict()}, ensure_ascii=False, allow_nan=False)
    files = {
        "overlay.png": png(result.overlay()),
        "labels.png": png(result.label_image()),
        "colors.png": png(result.color_image()),
        "json": (text + "\n").encode(errors="backslashreplace"),
        **{f"{view}.png": png(result.view(view)) for view in views},
    }
    if PurePath(name).parent != PurePath():
        make_folder(Path(folder) / PurePath(name).parent)
    paths = []
    for ending, content in files.items():
        paths.append(Path(folder) / f"{name}.{ending}")
        atomic_write(paths[-1], content)
    return paths


def line_of(result: Segmentation, source: str, paths: Sequence[Path] = ()) -> str:
    """What a person reads: the areas, largest first, and where the files are."""
    shares = sorted(result.areas.items(), key=lambda item: -item[1])
    text = ", ".join(f"{name} {100 * area:.1f}%" for name, area in shares if area)
    return f"{source}: {text}" + (f" -> {', '.join(map(str, paths))}" if paths else "")


def record_of(result: Segmentation, source: str, paths: Sequence[Path] = ()) -> dict[str, Any]:
    """What ``--json`` prints of an image: its source, size, classes, areas, scores and files; no
    labels.
    """
    return {"image": source, **result.summary(), "files": [str(path) for path in paths]}
