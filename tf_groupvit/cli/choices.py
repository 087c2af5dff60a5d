"""Options that commands share, and the segmenter that they describe."""

import os
import sys
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from tf_groupvit.cli.kernels import prefer_onednn
from tf_groupvit.errors import InputError
from tf_groupvit.files import lines_of
from tf_groupvit.hub import demo_checkpoint, resolve, warn_of_demo
from tf_groupvit.preprocessing.image_arrays import STATISTICS
from tf_groupvit.quiet import held_back, import_tensorflow
from tf_groupvit.runtimes import GRAPH, RUNTIMES, WITH_AUTO
from tf_groupvit.segmentation.class_names import LISTS, classes_of, parse_classes, read_classes
from tf_groupvit.segmentation.settings import MODES, PROTOCOLS, REFINEMENTS, check_choices
from tf_groupvit.segmentation.templates import templates_of

if TYPE_CHECKING:
    from tf_groupvit.segmentation.segmenter import Segmenter

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

MODE, NORMALIZE = click.Choice(MODES), click.Choice([*STATISTICS])
OPTIONS = {
    "model": click.option(
        "--model",
        metavar="FOLDER_OR_ID",
        help="A checkpoint; unless given, the demo checkpoint, which only knows drawn scenes.",
    ),
    "classes": click.option(
        "--classes",
        help="Names, separated by commas, or a .txt file with one class a line; 'sofa|couch' are"
        " synonyms. Only a checkpoint that holds its classes needs none.",
    ),
    "templates": click.option(
        "--templates",
        multiple=True,
        help="A prompt with {} for the class, or a set: identity, simple, subset, full. May be"
        " repeated.",
    ),
    "protocol": click.option(
        "--protocol",
        type=click.Choice(PROTOCOLS),
        help="paper: the published inference; hf: transformers' logits.  [default: paper]",
    ),
    "mode": click.option(
        "--mode",
        type=MODE,
        help="whole: the image as one square; window: sliding windows.  [default: whole]",
    ),
    "background": click.option(
        "--background", type=float, help="Threshold from 0 to 1 that adds the class background."
    ),
    "size": click.option(
        "--size", type=int, help="Side of the square in mode whole, a multiple of the patch size."
    ),
    "normalize": click.option(
        "--normalize", type=NORMALIZE, help="Statistics to use instead of the checkpoint's own."
    ),
    "refine": click.option(
        "--refine",
        type=click.Choice([*REFINEMENTS]),
        help="Sharpen masks along the edges of the picture. pamr: scores spread among neighbors of"
        " like color; guided: a faster filter, on a coarser grid; pamr-published: pamr with the"
        " published distances of neighbors and rounds, on a coarser grid.  [default: off]",
    ),
    "runtime": click.option(
        "--runtime",
        type=click.Choice(WITH_AUTO),
        help="graph: TensorFlow's own; lite: LiteRT, faster for each image once it is prepared;"
        " lite_int8: in 8 bits, faster still, nearly the same results; openvino: OpenVINO, and"
        " onnx: ONNX Runtime, where they are installed; auto: the fastest of those with the same"
        " results, measured once on this machine. All but graph compile a snapshot of the weights"
        " when the command starts."
        "  [default: graph]",
    ),
}

recursive_option = click.option(
    "--recursive", is_flag=True, help="Take the folders below a folder, too."
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON alone, a list with one object an image."
)

TABLES = (".csv", ".tsv", ".json", ".yaml", ".yml")  # --classes that ends so is refused
SAVED_CLASSES = "segmenter.json"  # in a folder that Segmenter.save_pretrained wrote
CHECKED = ("protocol", "mode", "background", "runtime", "refine")  # before TensorFlow is loaded


def segmenter_options(*names: str) -> Decorator:
    """Add the named options to a command, in the order of the table."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed([name for name in OPTIONS if name in names]):
            function = OPTIONS[name](function)
        return function

    return add


def class_list(given: str) -> str | list[str]:
    """The value of --classes: names as they are, or the lines of the file that it names.

    A file is a path that ends like a text file (``names.txt``), one with a slash in it that exists,
    any path behind ``@``, or ``-`` for standard input. How it is read: ``read_classes``.

    Raises ``InputError`` for a file that does not exist, is empty, or holds no list of lines.
    """
    name = given.strip()
    path = name.removeprefix("@")
    kind = PurePath(path).suffix.lower()
    marked = name == "-" or name.startswith("@") or ("/" in name and os.path.isfile(name))
    if not marked and ("," in name or "|" in name or kind not in LISTS + TABLES):
        return given
    if kind in TABLES:
        raise InputError(
            f"--classes {name!r}: expected a text file with one class a line, e.g. classes.txt."
        )
    if path == "-":
        try:
            found = classes_of(lines_of(sys.stdin.read()), "standard input")
        except UnicodeDecodeError as error:
            raise InputError("Standard input is not a text in UTF-8.") from error
    else:
        found = read_classes(Path(path))
    listed = found if isinstance(found, list) else found.split(",")
    click.echo(f"Classes from {path}: {len(listed)}", err=True)
    return found


def load_segmenter(
    model: str | None,
    classes: str | list[str] | None = None,
    templates: tuple[str, ...] = (),
    here: bool = True,
    photos: bool = True,
    **choices: Any,
) -> "Segmenter":
    """The segmenter that the options describe; what is being waited for is said on standard error.

    What can be refused without TensorFlow is refused before it is loaded.

    Args:
        here: it runs in this process, with the kernels that are fastest, not in a server.
        photos: it gets pictures of the user's, which the demo checkpoint does not know.
        choices: those of ``Segmenter``; one that is None is left to it.
    """
    choices = {name: choice for name, choice in choices.items() if choice is not None}
    if templates:
        choices["templates"] = templates[0] if len(templates) == 1 else templates
        templates_of(choices["templates"])
    if classes is not None:
        classes = class_list(classes) if isinstance(classes, str) else classes
        parse_classes(classes)
    check_choices(**{name: choices[name] for name in CHECKED if name in choices})
    click.echo(f"Loading {model or 'the demo checkpoint'} ...", err=True)
    folder = demo_checkpoint() if model is None else resolve(model)
    if classes is None and folder.is_dir() and not (folder / SAVED_CLASSES).exists():
        raise InputError(
            "Class names are missing: give some, e.g. --classes dog,grass, or --classes names.txt."
        )
    warn_of_demo(folder, lambda words: click.echo(words, err=True) if photos else None)
    if here:
        prefer_onednn()
    import_tensorflow()
    from tf_groupvit.segmentation.segmenter import Segmenter

    segmenter = Segmenter.from_pretrained(folder, classes, **choices)
    if segmenter.runtime != GRAPH:
        _prepare(segmenter)
    return segmenter


def _prepare(segmenter: "Segmenter") -> None:
    """Compile for a runtime now, and say so, so that the first image does not seem to hang."""
    import numpy as np

    click.echo(f"Preparing {RUNTIMES[segmenter.runtime].title}: some seconds ...", err=True)
    side = segmenter.settings.window  # the size of most windows; in mode whole any will do
    with held_back():  # what the compiler writes to standard error
        segmenter(np.zeros((side, side, 3), np.uint8))
