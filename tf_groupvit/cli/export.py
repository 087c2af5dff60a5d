"""The command `tf-groupvit export`."""

from pathlib import Path
from typing import Any

import click

from tf_groupvit.cli.choices import load_segmenter, segmenter_options
from tf_groupvit.export.saving import ALL, WARMUPS, check_place


@click.command("export", context_settings={"show_default": True})
@click.argument("base_path", metavar="BASE_PATH")
@segmenter_options(
    "model",
    "classes",
    "templates",
    "protocol",
    "mode",
    "background",
    "size",
    "normalize",
    "refine",
)
@click.option(
    "--version", type=int, metavar="N", help="Number of the version.  [default: the next]"
)
@click.option(
    "--max-images", type=click.IntRange(1), default=256, help="Images that one request may hold."
)
@click.option(
    "--max-texts",
    type=click.IntRange(1),
    default=4096,
    help="Texts, and names of classes in all, that it may hold.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=2**27,
    help="Pixels of arrays in all that it may hold.",
)
@click.option(
    "--warmup",
    type=click.Choice(WARMUPS),
    default=ALL,
    help="The signatures that a server asks itself before it is AVAILABLE, since their first"
    " answers take seconds. default: serving_default alone.",
)
@click.option(
    "--check/--no-check",
    default=True,
    help="Ask every signature as a server would, and compare.",
)
@click.option("--verbose", is_flag=True, help="Name the operations of the graph, too.")
def command(
    base_path: str,
    version: int | None,
    max_images: int,
    max_texts: int,
    max_pixels: int,
    warmup: str,
    check: bool,
    verbose: bool,
    **choices: Any,
) -> None:
    """Write a SavedModel to BASE_PATH/N: images in, masks out, nothing left to do for the client.

    Point tensorflow_model_server, or tf-groupvit serve, at BASE_PATH. Prints the path of the
    version; what is being done, and what the check finds, goes to standard error. The version
    appears when it is whole and checked.
    """
    from tf_groupvit.export.saving import export_saved_model

    check_place(Path(base_path), version)
    segmenter = load_segmenter(here=False, **choices)
    path = export_saved_model(
        segmenter,
        base_path,
        version,
        check,
        say=lambda words: click.echo(words, err=True),
        max_images=max_images,
        max_texts=max_texts,
        max_pixels=max_pixels,
        verbose=verbose,
        warmup=warmup,
    )
    click.echo(str(path))
