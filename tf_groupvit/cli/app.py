"""The command `tf-groupvit app`."""

from typing import Any

import click

from tf_groupvit.cli.choices import load_segmenter, segmenter_options
from tf_groupvit.segmentation.settings import REFINEMENTS


@click.command("app", context_settings={"show_default": True})
@segmenter_options("model", "classes", "normalize", "runtime")
@click.option(
    "--refine",
    type=click.Choice([*REFINEMENTS]),
    default="pamr",
    help="How the page's switch sharpens masks, as --refine of segment does.",
)
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=7860, help="Port to listen on; 0 for any.")
def command(
    host: str, port: int, classes: str | None, normalize: str | None, **choices: Any
) -> None:
    """Open a page to play with: drop a photo, type words, see the regions light up.

    --classes are the words that the page begins with. Nothing that you give to the page leaves this
    machine. Needs the extra demo: pip install 'tf-groupvit[demo]'.
    """
    from tf_groupvit.app.page_server import (
        check_gradio,
        check_port,
        running_page,
        wait_until_stopped,
    )
    from tf_groupvit.scenes.scene import CLASSES

    check_gradio()
    check_port(host, port)
    segmenter = load_segmenter(
        classes=classes or ", ".join(CLASSES), normalize=normalize, **choices
    )
    click.echo("Opening the page ...", err=True)
    with running_page(segmenter, host, port, normalize) as address:
        click.echo(f"The page is at {address}; stop with Ctrl-C")
        wait_until_stopped()
    click.echo("Closed.", err=True)
