"""The command `tf-groupvit query`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from tf_groupvit.cli.choices import class_list, json_option, recursive_option
from tf_groupvit.cli.images import find_images, source_of
from tf_groupvit.cli.reports import report, teller
from tf_groupvit.errors import ImageError, RequestError
from tf_groupvit.files import make_folder

if TYPE_CHECKING:
    from tf_groupvit.client import Client
    from tf_groupvit.segmentation.result import Segmentation


@click.command(name="query", context_settings={"show_default": True})
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--server",
    required=True,
    metavar="ADDRESS",
    help="http://host:port or grpc://host:port; host:port is http.",
)
@click.option("--model-name", default="groupvit", help="The model's name on the server.")
@click.option(
    "--classes",
    help="Names, or a file, as for segment, in place of those that the model was exported with.",
)
@recursive_option
@click.option("--output", metavar="DIR", help="Write overlay, labels and JSON of each image here.")
@json_option
@click.option(
    "--timeout", default=60.0, help="Seconds for one image, waiting and retries included."
)
@click.option(
    "--wait/--no-wait", default=True, help="Wait for a server that is starting, until --timeout."
)
def command(
    images: tuple[str, ...],
    server: str,
    model_name: str,
    classes: str | None,
    recursive: bool,
    output: str | None,
    as_json: bool,
    timeout: float,
    wait: bool,
) -> None:
    """Segment images on a server: TensorFlow Serving, or tf-groupvit serve.

    IMAGE is a file, a folder, a pattern, or - for standard input. With --output, NAME.overlay.png
    (photo, classes and legend), NAME.labels.png (gray, the number of the class for each pixel),
    NAME.colors.png (the same in colors) and NAME.json are written. A bad image is reported, the
    others are done, and the exit code is 2 then.
    """
    from tf_groupvit.client import Client

    sources = find_images(images, recursive)
    tell = teller(sources, images, make_folder(output) if output else None)
    wanted = class_list(classes) if classes else classes

    with Client(server, model_name, timeout=timeout, wait=wait) as client:
        if wait:
            _wait_while_loading(client, timeout)

        def answers() -> Iterator[tuple[int, "Segmentation | Exception"]]:
            for index, source in enumerate(sources):
                try:
                    yield index, client.segment(source_of(source), wanted)
                except (ImageError, RequestError) as error:
                    yield index, error

        report(sources, answers(), tell, as_json, kept=output or "")


def _wait_while_loading(client: "Client", timeout: float) -> None:
    """Wait for a model that its server is loading; other faults show with the first image."""
    try:
        states = [version["state"] for version in client.status()]
    except RequestError as error:
        if error.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            raise
        return
    if "AVAILABLE" not in states and {"START", "LOADING"} & set(states):
        click.echo(f"The server is loading the model: waiting up to {timeout:g} s for it", err=True)
        client.wait_until_ready(timeout)
