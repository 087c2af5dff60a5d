"""The options that commands share: model, classes, templates, protocol, mode, background."""

import sys
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import click

from tf_groupvit.cli.kernels import prefer_onednn
from tf_groupvit.errors import InputError
from tf_groupvit.files import refuse_pointer
from tf_groupvit.hub import DEMO_NAME, demo_checkpoint, resolve, warn_of_demo
from tf_groupvit.quiet import held_back, import_tensorflow
from tf_groupvit.runtimes import GRAPH, TITLES

OPTIONS = {
    "model": click.option(
        "--model",
        metavar="FOLDER_OR_ID",
        help=(
            "A checkpoint; the demo checkpoint unless given, which knows drawn scenes only, no"
            " photos."
        ),
    ),
    "classes": click.option(
        "--classes",
        help=(
            "Names, separated by commas, or a .txt file with one class a line; 'sofa|couch' are"
            " synonyms. Only a checkpoint that holds its classes needs none."
        ),
    ),
    "templates": click.option(
        "--templates",
        multiple=True,
        help=(
            "A prompt with {} for the class, or a set: identity, simple, subset, full. May be"
            " repeated."
        ),
    ),
    "protocol": click.option(
        "--protocol",
        help="paper: the published inference; hf: transformers' logits.  [default: paper]",
    ),
    "mode": click.option(
        "--mode", help="whole: the image as one square; window: windows over it.  [default: whole]"
    ),
    "background": click.option(
        "--background", type=float, help="Threshold from 0 to 1 that adds the class background."
    ),
    "size": click.option(
        "--size", type=int, help="Side of the square in mode whole, a multiple of the patch size."
    ),
    "normalize": click.option(
        "--normalize", help="imagenet or clip: statistics instead of the checkpoint's own."
    ),
    "runtime": click.option(
        "--runtime",
        help=(
            "graph: TensorFlow's own; lite: LiteRT, faster for each image once it is prepared;"
            " lite_int8: in 8 bits, faster still, nearly the same results; openvino: OpenVINO,"
            " where it is installed. All but graph compile a snapshot of the weights when the"
            " command starts.  [default: graph]"
        ),
    ),
}


recursive_option = click.option(
    "--recursive", is_flag=True, help="Take the folders below a folder, too."
)

LISTS, TABLES = (
    (".txt", ".names", ".lst"),
    (".csv", ".tsv", ".json", ".yaml", ".yml"),
)  # --classes with such an ending
SAVED_CLASSES = "segmenter.json"  # in a folder that Segmenter.save_pretrained wrote
CHECKED = ("protocol", "mode", "background", "runtime")  # before TensorFlow is loaded


def segmenter_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the named options to a command, in the order of the table."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed([name for name in OPTIONS if name in names]):
            function = OPTIONS[name](function)
        return function

    return add


def model_folder(model: str | None) -> str:
    """The checkpoint that was named, or the demo's. Raises ``HubError`` where this installation has
    none.
    """
    if model is None:
        return str(demo_checkpoint())
    return str(resolve(model)) if model == DEMO_NAME else model  # a folder of that name goes first


def class_list(given: str) -> str | list[str]:
    """The value of --classes: names as they are, or the lines of the file that it names.

    That is a path that ends like a text file (``names.txt``), any path behind ``@``, or ``-`` for
    standard input.

    Raises ``InputError`` for a file that is not there, is empty, or holds no list of lines.
    """
    name = given.strip()
    plain = name.removeprefix("@")
    kind = PurePath(plain).suffix.lower()
    if (
        name != "-"
        and not name.startswith("@")
        and ("," in name or "|" in name or kind not in LISTS + TABLES)
    ):
        return given
    if kind in TABLES:
        raise InputError(
            f"--classes {name!r}: expected a text file with one class a line, e.g. classes.txt."
        )
    if plain != "-":
        refuse_pointer(Path(plain), InputError)
    try:
        text = sys.stdin.read() if plain == "-" else Path(plain).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"--classes {name!r} names a file that cannot be read: {told}.") from error
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise InputError(f"--classes {name!r} names a file without a class: expected one a line.")
    click.echo(f"Classes from {plain}: {len(lines)}", err=True)
    return lines if len(lines) > 1 else lines[0]


def load_segmenter(
    model: str | None,
    templates: tuple[str, ...] = (),
    here: bool = True,
    photos: bool = True,
    **choices: Any,
) -> Any:
    """The segmenter that the options describe, with a word on what is being waited for.

    A choice that is None is left to the segmenter. What can be refused without TensorFlow is
    refused before it loads. ``here``: it is to run in this process, with the kernels that are
    fastest; not in a server, which has its own. ``photos``: it is to answer about pictures of the
    user's, which the demo checkpoint does not know.
    """
    from tf_groupvit.segmentation.class_names import parse_classes
    from tf_groupvit.segmentation.settings import check_choices
    from tf_groupvit.segmentation.templates import templates_of

    choices = {name: choice for name, choice in choices.items() if choice is not None}
    if templates:
        choices["templates"] = templates[0] if len(templates) == 1 else templates
        templates_of(choices["templates"])
    if isinstance(choices.get("classes"), str):
        choices["classes"] = class_list(choices["classes"])
    if "classes" in choices:
        parse_classes(choices["classes"])
    check_choices(**{name: choices[name] for name in CHECKED if name in choices})
    folder = model_folder(model)
    if (
        "classes" not in choices
        and Path(folder).is_dir()
        and not (Path(folder) / SAVED_CLASSES).exists()
    ):
        raise InputError(
            "Class names are missing: give some, e.g. --classes dog,grass, or --classes names.txt."
        )
    click.echo(f"Loading {model or 'the demo checkpoint'} ...", err=True)
    warn_of_demo(folder, lambda words: click.echo(words, err=True) if photos else None)
    if here:
        prefer_onednn()
    import_tensorflow()
    from tf_groupvit.segmentation.segmenter import Segmenter

    segmenter = Segmenter.from_pretrained(folder, **choices)
    if segmenter.runtime != GRAPH:
        _prepare(segmenter)
    return segmenter


def _prepare(segmenter: Any) -> None:
    """Make a runtime's program, and say so, instead of at the first image, where nobody would know
    what is awaited.
    """
    import numpy as np

    click.echo(f"Preparing {TITLES[segmenter.runtime]}: some seconds ...", err=True)
    side = segmenter.settings.window  # the size of most windows; in mode whole any will do
    with held_back():  # it tells that it was made
        segmenter(np.zeros((side, side, 3), np.uint8))
