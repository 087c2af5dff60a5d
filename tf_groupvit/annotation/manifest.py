"""``manifest.json``: what the records of a folder depend on, so that another run can go on there.

A run of other classes, another model or other settings is refused by the name of the difference.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from tf_groupvit.errors import InputError
from tf_groupvit.evaluation.progress import first_difference
from tf_groupvit.segmentation.palette import class_colors
from tf_groupvit.storage import Output

if TYPE_CHECKING:
    from tf_groupvit.segmentation.segmenter import Segmenter

MANIFEST = "manifest.json"
KIND, VERSION = "tf-groupvit annotate", 1
START = 128  # bytes of a manifest that have its kind: others' can be of any size
COMPARED = ("version", "embeds", "model", "settings")  # the rest may differ
# Of each class's embedding, which synonyms change, the first components. Other machines round
# differently: those as near as this count as equal.
COMPONENTS, DIGITS, NEAR = 4, 5, 1e-3
MOST_LOCATIONS = 3  # that the manifest names
PACKAGES = ("tf-groupvit", "tensorflow", "keras", "numpy", "pyarrow", "pycocotools")


def describe(
    segmenter: "Segmenter",
    ignore_below: float | None = None,
    locations: Sequence[str | os.PathLike[str]] = (),
    column: str | None = None,
) -> dict[str, Any]:
    """The manifest of a run.

    Args:
        ignore_below: pixels of a smaller margin belong to no class.
        locations: where the pictures are; ids begin with theirs where there are several.
        column: of Parquet files, if one was named.
    """
    settings, names = segmenter.settings, segmenter.class_names
    embeds = segmenter.text_embeds[:, :COMPONENTS].astype(float).round(DIGITS).tolist()
    return {
        "kind": KIND,
        "version": VERSION,
        "classes": [
            {"number": number, "name": name, "color": color}
            for number, (name, color) in enumerate(
                zip(names, class_colors(names).tolist(), strict=True)
            )
        ],
        "embeds": dict(zip(segmenter.classes.names, embeds, strict=True)),
        "model": _hashes(segmenter),
        "settings": {
            "templates": list(segmenter.classes.templates),
            "protocol": settings.protocol,
            "mode": settings.mode,
            "background": settings.background,
            "size": list(settings.size),
            "mean": [float(value) for value in settings.mean],
            "std": [float(value) for value in settings.std],
            "refine": settings.refine,
            "runtime": segmenter.runtime,
            "ignore_below": ignore_below,
            "ids": "with their location" if len(locations) > 1 else "within the only location",
        },
        "source": str(segmenter.source) if segmenter.source else None,
        "locations": _shown([os.fspath(one) for one in locations])
        + (f" (column {column})" if column and locations else ""),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _shown(locations: Sequence[str]) -> str:
    more = len(locations) - MOST_LOCATIONS
    return ", ".join(locations[:MOST_LOCATIONS]) + (f" and {more} more" if more > 0 else "")


def _hashes(segmenter: "Segmenter") -> dict[str, str]:
    """SHA-256 of the model's config, and of its weights in their order."""
    import numpy as np
    from keras.ops import convert_to_numpy

    config = json.dumps(segmenter.model.config.to_dict(), sort_keys=True, default=str)
    weights = hashlib.sha256()
    for variable in segmenter.model.weights:  # "variables" has the seeds of dropout, too
        weights.update(f"{variable.dtype} {tuple(variable.shape)}".encode())
        weights.update(np.ascontiguousarray(convert_to_numpy(variable)).tobytes())
    return {
        "config": hashlib.sha256(config.encode()).hexdigest(),
        "weights": weights.hexdigest(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def is_manifest(start: bytes) -> bool:
    """Whether a file that starts with these ``START`` bytes is a manifest of ours."""
    return f'"kind": "{KIND}"'.encode() in start  # it is written first


def read_manifest(output: Output) -> dict[str, Any] | None:
    """The manifest of a folder; None where it is empty or not there.

    Raises ``InputError`` for a folder that holds something else.
    """
    names = output.names()
    if MANIFEST not in names:
        if names:
            raise InputError(
                f"'{output.location}' holds {names[0]!r}, and is no folder of annotations: name an"
                " empty folder, or one to be made (--output)."
            )
        return None
    content = output.read(MANIFEST)
    with suppress(ValueError):
        found = json.loads(content)
        if isinstance(found, dict) and found.get("kind") == KIND:
            return found
    raise InputError(
        f"'{output.location}' holds a {MANIFEST} that is no manifest of annotations: name another"
        " folder (--output)."
    )


def go_on(
    output: Output, manifest: dict[str, Any], say: Callable[[str], object] = lambda _: None
) -> bool:
    """Write the manifest into an empty folder, or check that it is that of the folder's records.

    ``say`` is told where the folder was begun with pictures from elsewhere. Returns whether there
    may be records already. Raises ``InputError`` for a folder of something else, or of another run,
    with the name of the first difference.
    """
    manifest = json.loads(json.dumps(manifest))
    before = read_manifest(output)
    if before is None:
        output.write(MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=2) + "\n")
        return False
    if _near(before.get("embeds"), manifest.get("embeds")):
        manifest["embeds"] = before["embeds"]
    difference = first_difference(_flat(before), _flat(manifest))
    if difference is not None:
        raise InputError(
            f"'{output.location}' belongs to another run: {difference}: use the same, or name"
            " another folder (--output)."
        )
    first, now = before.get("locations"), manifest.get("locations")
    if first and first != now:
        say(
            f"'{output.location}' was begun with pictures of {first}: those of {now} are added, and"
            " what has the id of one that is done counts as done."
        )
    return True


def _near(before: Any, now: Any) -> bool:
    """Whether embeddings, {class: components}, are equal within rounding."""
    try:
        return before.keys() == now.keys() and all(
            abs(one - other) <= NEAR
            for name in now
            for one, other in zip(before[name], now[name], strict=True)
        )
    except (AttributeError, TypeError, ValueError):
        return False


def _flat(manifest: dict[str, Any]) -> dict[str, Any]:
    """What is compared, by the names that a message calls it."""
    flat: dict[str, Any] = {"classes": ", ".join(manifest.get("embeds", ()))}
    for part in COMPARED:
        value = manifest.get(part)
        values = value if isinstance(value, dict) else {"": value}
        flat |= {f"{part} {name}".strip(): one for name, one in values.items()}
    return flat
