"""The command `tf-groupvit scenes`."""

import sys
from pathlib import Path

import click


@click.command(name="scenes", context_settings={"show_default": True})
@click.option(
    "--output", required=True, metavar="DIR", help="Where the files go; made if it is missing."
)
@click.option(
    "--seed", default=0, help="Which scenes: those that `evaluate scenes` draws from the same seed."
)
@click.option("--count", default=100, help="How many.")
@click.option("--size", default=64, help="Side of the pictures in pixels.")
def command(output: str, seed: int, count: int, size: int) -> None:
    """Write captioned pictures of simple things on simple grounds, with their masks.

    images/NNNNN.png, masks/NNNNN.png (class numbers, one byte a pixel), captions.txt (a line for
    each picture) and classes.txt (one class a line, in the order of the numbers).
    """
    from tf_groupvit.scenes.scene import write_scenes

    write_scenes(Path(output), seed, count, size, progress=sys.stderr.isatty())
    click.echo(f"{count} scenes of {size}x{size} pixels in {output}", err=True)
