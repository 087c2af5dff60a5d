"""The command `tf-groupvit export`."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tf_groupvit.cli.choices import OPTIONS, load_segmenter, segmenter_options
from tf_groupvit.cli.images import find_images
from tf_groupvit.errors import InputError
from tf_groupvit.export.saving import ALL, SAVED_MODEL, WARMUPS, check_place
from tf_groupvit.quiet import import_tensorflow

FORMATS = (SAVED_MODEL, "litert", "onnx", "openvino")
SERVING_ONLY = ("version", "max_images", "max_texts", "max_pixels", "warmup", "verbose")
PORTABLE_ONLY = ("int8", "calibration", "is_open")


@click.command("export", context_settings={"show_default": True})
@click.argument("base_path", metavar="BASE_PATH")
@segmenter_options(*(name for name in OPTIONS if name != "runtime"))
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    default=SAVED_MODEL,
    help="savedmodel: for TensorFlow Serving; the others run without TensorFlow.",
)
@click.option("--int8", is_flag=True, help="Weights in 8 bits; not of a SavedModel.")
@click.option(
    "--calibration",
    metavar="FOLDER",
    help="With --int8: pictures, a hundred or more, on which ranges are found once, and not at each"
    " call.",
)
@click.option(
    "--open",
    "is_open",
    is_flag=True,
    help="Leave the classes open, and write a text encoder beside; a SavedModel always does.",
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
    format: str,
    int8: bool,
    calibration: str | None,
    is_open: bool,
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

    With another --format, BASE_PATH is a new folder for files of LiteRT, ONNX or OpenVINO, which
    label squares of pixels on phones, small computers and web pages.
    """
    options: dict[str, Any] = dict(check=check, say=lambda words: click.echo(words, err=True))
    if format == SAVED_MODEL:
        _refuse(PORTABLE_ONLY, "is not about SavedModels: name another --format")
        check_place(Path(base_path), version)
        options |= dict(
            version=version,
            max_images=max_images,
            max_texts=max_texts,
            max_pixels=max_pixels,
            warmup=warmup,
            verbose=verbose,
        )
    else:
        _refuse(SERVING_ONLY, f"is about SavedModels: leave it out with --format {format}")
        import_tensorflow()
        from tf_groupvit.export.portable import check_empty, check_format

        check_format(format, int8, calibration is not None)
        check_empty(Path(base_path))
        pictures = find_images([calibration]) if calibration is not None else ()
        options |= dict(int8=int8, calibration=pictures, is_open=is_open)
    segmenter = load_segmenter(here=False, **choices)
    from tf_groupvit.export.portable import export_model

    click.echo(str(export_model(segmenter, base_path, format, **options)))


def _refuse(names: tuple[str, ...], words: str) -> None:
    """Raises ``InputError`` for the first of these options that was given."""
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") == ParameterSource.COMMANDLINE
        if parameter.name in names and given:
            raise InputError(f"{parameter.opts[0]} {words}.")
