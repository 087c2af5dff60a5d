"""The options that commands share: model, classes, templates, protocol, mode, background."""

from collections.abc import Callable
from typing import Any

import click

from tf_groupvit.cli.kernels import prefer_onednn
from tf_groupvit.cli.quiet import held_back, import_tensorflow
from tf_groupvit.hub import demo_checkpoint
from tf_groupvit.models.runtimes import GRAPH, TITLES

OPTIONS = {
    "model": click.option("--model", metavar="FOLDER_OR_ID", help="A checkpoint; the demo checkpoint unless given."),
    "classes": click.option(
        "--classes",
        help="Names, separated by commas; 'sofa|couch' are synonyms. Only a folder that holds its classes needs none.",
    ),
    "templates": click.option(
        "--templates",
        multiple=True,
        help="A prompt with {} for the class, or a set: identity, simple, subset, full. May be repeated.",
    ),
    "protocol": click.option(
        "--protocol", help="paper: the published inference; hf: transformers' logits.  [default: paper]"
    ),
    "mode": click.option("--mode", help="whole: the image as one square; window: windows over it.  [default: whole]"),
    "background": click.option(
        "--background", type=float, help="Threshold from 0 to 1 that adds the class background."
    ),
    "size": click.option("--size", type=int, help="Side of the square in mode whole, a multiple of the patch size."),
    "normalize": click.option("--normalize", help="imagenet or clip: statistics instead of the checkpoint's own."),
    "runtime": click.option(
        "--runtime",
        help="graph: TensorFlow's own; lite: LiteRT, sooner for each image once it is prepared; lite_int8: in 8 bits, "
        "sooner still, nearly the same results; openvino: OpenVINO, where it is installed.  [default: graph]",
    ),
}


CHECKED = ("protocol", "mode", "background", "runtime")  # before TensorFlow is loaded


def segmenter_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the named options to a command, in the order of the table."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed([name for name in OPTIONS if name in names]):
            function = OPTIONS[name](function)
        return function

    return add


def model_folder(model: str | None) -> str:
    """The checkpoint that was named, or the demo's. Raises ``HubError`` where this installation has none."""
    return str(demo_checkpoint()) if model is None else model


def load_segmenter(model: str | None, templates: tuple[str, ...] = (), here: bool = True, **choices: Any) -> Any:
    """The segmenter that the options describe, with a word on what is being waited for.

    A choice that is None is left to the segmenter. What can be refused without TensorFlow is refused before it loads.
    ``here``: it is to run in this process, with the kernels that are fastest; not in a server, which has its own.
    """
    from tf_groupvit.segmentation.class_names import parse_classes
    from tf_groupvit.segmentation.settings import check_choices
    from tf_groupvit.segmentation.templates import templates_of

    choices = {name: choice for name, choice in choices.items() if choice is not None}
    if templates:
        choices["templates"] = templates[0] if len(templates) == 1 else templates
        templates_of(choices["templates"])
    if "classes" in choices:
        parse_classes(choices["classes"])
    check_choices(**{name: choices[name] for name in CHECKED if name in choices})
    folder = model_folder(model)
    click.echo(f"Loading {model or 'the demo checkpoint'} ...", err=True)
    if here:
        prefer_onednn()
    import_tensorflow()
    from tf_groupvit.segmentation.segmenter import Segmenter

    segmenter = Segmenter.from_pretrained(folder, **choices)
    if segmenter.runtime != GRAPH:
        _prepare(segmenter)
    return segmenter


def _prepare(segmenter: Any) -> None:
    """Make a runtime's program, and say so, instead of at the first image, where nobody would know what is awaited."""
    import numpy as np

    click.echo(f"Preparing {TITLES[segmenter.runtime]}: some seconds ...", err=True)
    side = segmenter.settings.window  # the size of most windows; in mode whole any will do
    with held_back():  # it tells that it was made
        segmenter(np.zeros((side, side, 3), np.uint8))
