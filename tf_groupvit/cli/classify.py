"""The command `tf-groupvit classify`."""

from typing import Any

import click
import numpy as np

from tf_groupvit.cli.choices import (
    json_option,
    load_segmenter,
    recursive_option,
    segmenter_options,
)
from tf_groupvit.cli.images import find_images, read_source
from tf_groupvit.cli.reports import report
from tf_groupvit.segmentation.batches import in_batches

SHOWN = 5  # classes in the line for a person


@click.command(context_settings={"show_default": True})
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@segmenter_options("model", "classes", "templates", "size", "normalize", "runtime")
@recursive_option
@json_option
def command(images: tuple[str, ...], recursive: bool, as_json: bool, **choices: Any) -> None:
    """Name the classes in words, get a probability for each of them in each IMAGE.

    An IMAGE is a file, a folder, a pattern, or - for standard input. It is seen whole, uncropped.
    """
    sources = find_images(images, recursive)
    segmenter = load_segmenter(**choices)

    from tf_groupvit.segmentation.pipeline import untraced

    def tell(index: int, probabilities: np.ndarray) -> tuple[dict[str, Any], str]:
        pairs = zip(segmenter.classes.names, probabilities.tolist(), strict=True)
        ranked = sorted(pairs, key=lambda pair: -pair[1])
        best = ", ".join(f"{name} {chance:.1%}" for name, chance in ranked[:SHOWN])
        record = {"image": sources[index], "probabilities": dict(ranked)}
        return record, f"{sources[index]}: {best}"

    with untraced(len(sources) == 1):
        answers = in_batches(
            range(len(sources)), lambda k: read_source(sources[k]), segmenter.classify
        )
        report(sources, answers, tell, as_json)
