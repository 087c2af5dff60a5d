"""`tf-groupvit segment`: images and class names in; overlay, label image and JSON for each out."""

import os
from typing import Any

import click

from tf_groupvit.cli.choices import load_segmenter, recursive_option, segmenter_options
from tf_groupvit.segmentation.overlay import VIEWS


@click.command(context_settings={"show_default": True})
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@segmenter_options(
    "model",
    "classes",
    "templates",
    "protocol",
    "mode",
    "background",
    "size",
    "normalize",
    "runtime",
)
@click.option(
    "--view",
    "views",
    multiple=True,
    type=click.Choice(list(VIEWS)),
    help="Also write this view. May be repeated.",
)
@recursive_option
@click.option("--output", default="out", metavar="DIR", help="Where the files go.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON alone, a list with one object an image."
)
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
    from tf_groupvit.cli.images import find_images, report, source_of
    from tf_groupvit.cli.outputs import line_of, make_folder, names_for, record_of, write_outputs

    sources = find_images(images, recursive)
    names, folder = names_for(sources, list(filter(os.path.isdir, images))), make_folder(output)
    segmenter = load_segmenter(**choices)

    from tf_groupvit.segmentation.inference import untraced

    def work(index: int, source: str) -> tuple[dict[str, Any], str]:
        with untraced(len(sources) == 1):
            result = segmenter(source_of(source))
        paths = write_outputs(result, names[index], folder, views, source)
        return record_of(result, source, paths), line_of(result, source, paths)

    report(sources, work, as_json, kept=output)
