"""The command `tf-groupvit segment`."""

from typing import Any

import click

from tf_groupvit.cli.choices import (
    OPTIONS,
    json_option,
    load_segmenter,
    recursive_option,
    segmenter_options,
)
from tf_groupvit.cli.images import find_images, read_source
from tf_groupvit.cli.reports import report, teller
from tf_groupvit.files import make_folder
from tf_groupvit.segmentation.batches import in_batches
from tf_groupvit.segmentation.overlay import VIEWS


@click.command(context_settings={"show_default": True})
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@segmenter_options(*OPTIONS)
@click.option(
    "--view",
    "views",
    multiple=True,
    type=click.Choice([*VIEWS]),
    help="Also write this view. May be repeated.",
)
@recursive_option
@click.option("--output", default="out", metavar="DIR", help="Where the files go.")
@json_option
def command(
    images: tuple[str, ...],
    views: tuple[str, ...],
    recursive: bool,
    output: str,
    as_json: bool,
    **choices: Any,
) -> None:
    """Name the classes in words, get a mask for each IMAGE.

    An IMAGE is a file, a folder, a pattern, or - for standard input. For each, NAME.overlay.png
    (photo, classes and legend), NAME.labels.png (gray, the number of the class for each pixel),
    NAME.colors.png (the same in colors) and NAME.json are written; a bad one is reported, and the
    rest are done.
    """
    sources = find_images(images, recursive)
    tell = teller(sources, images, make_folder(output), views)
    segmenter = load_segmenter(**choices)

    from tf_groupvit.segmentation.pipeline import untraced

    with untraced(len(sources) == 1):
        answers = in_batches(range(len(sources)), lambda k: read_source(sources[k]), segmenter)
        report(sources, answers, tell, as_json, kept=output)
