"""``tf-groupvit train``: train a checkpoint from captions, as a recipe says."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tf_groupvit.quiet import import_tensorflow

TYPED = ParameterSource.COMMANDLINE


@click.command(name="train", context_settings={"show_default": True})
@click.option(
    "--recipe",
    "name",
    metavar="NAME_OR_FILE",
    help=(
        "demo, finetune, or a TOML file; unless given, finetune with --data or --model, else demo."
    ),
)
@click.option(
    "--output",
    required=True,
    metavar="DIR",
    help="Where the checkpoint goes; made if it is missing.",
)
@click.option(
    "--data",
    metavar="PATH",
    help="A folder with captions, WebDataset shards or TFRecord files; or scenes.",
)
@click.option("--model", metavar="FOLDER_OR_ID", help="The checkpoint to begin at.")
@click.option(
    "--seed", default=0, help="Of the order of the data, the first weights and the noise."
)
@click.option(
    "--steps", type=click.IntRange(min=1), help="In place of the recipe's steps or epochs."
)
@click.option("--batch-size", type=click.IntRange(min=2), help="In place of the recipe's.")
@click.option(
    "--tensorboard",
    metavar="LOGDIR",
    help="Where to write what TensorBoard shows: losses, groups, masks.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Look through the data in place of training: how many pairs, what is broken and why, how"
    " long captions are; and write DIR/contact_sheet.jpg.",
)
def command(
    name: str | None,
    output: str,
    data: str | None,
    model: str | None,
    seed: int,
    steps: int | None,
    batch_size: int | None,
    tensorboard: str | None,
    check: bool,
) -> None:
    """Train GroupViT from captions, without masks.

    The recipe demo trains on drawn scenes, on a laptop. The recipe finetune trains a checkpoint on
    captions of your own: the demo checkpoint unless --model names another. To change what has no
    option - what learns, the losses, held-out captions, the precision - copy a recipe and edit it.

    --data is a folder with a captions file and the pictures, which lie next to that file or in a
    folder images; or shards.

    \b
    captions.csv    the first line names the columns, at least image and caption
    captions.tsv    the same, with tabs between the columns
    captions.jsonl  on each line {"image": "1.jpg", "caption": "a dog"}; or a list
                    of captions, which makes a pair of each
    captions.txt    no names: a line for each picture, in the order of their names;
                    refused where that is in doubt (10.jpg, 2.jpg)
    *.tar           WebDataset shards: KEY.jpg with KEY.txt or KEY.json
    *.tfrecord      examples with the features image and caption

    The column image may also be called file_name, image_path or path, and caption text or title. A
    picture may have several lines, each with another caption. What cannot be read is left out, and
    named at the end. A batch larger than the data is lowered.

    Ten pictures with captions to try it, and to look at:

    \b
      tf-groupvit scenes --output ten --count 10
      tf-groupvit train --data ten --output tuned --steps 20

    The state is saved on the way (DIR/training): the same command resumes a run that was stopped,
    with the same losses as without the stop. At the end, DIR holds config.json, model.safetensors,
    the vocabulary, the image settings and README.md, a model card with the learning curve.
    """
    from tf_groupvit.files import check_folder
    from tf_groupvit.memory import keep_freed_memory
    from tf_groupvit.training.recipe import read_recipe

    keep_freed_memory()
    given = {"steps": steps, "batch_size": batch_size}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if data is not None:
        changes["data"] = {"source": data}
    if model is not None:
        changes["start"] = {"checkpoint": model}
    own = data is not None or model is not None
    recipe = read_recipe(name or ("finetune" if own else "demo"), **changes)
    for folder in (output, tensorboard):
        if folder is not None:
            check_folder(folder)
    if check:
        _check(recipe, output)
        return
    length = f"{recipe.epochs:,} epochs" if recipe.epochs else f"{recipe.steps:,} steps"
    click.echo(
        f"Training on {recipe.data.source}, {length}, into {output}: TensorFlow is being"
        " loaded ...",
        err=True,
    )
    import_tensorflow()
    from tf_groupvit.training.trainer import train

    shown = None if tensorboard is None else Path(tensorboard)
    try:
        history = train(recipe, Path(output), seed, bar=sys.stderr.isatty(), tensorboard=shown)
    except KeyboardInterrupt:
        click.echo(_kept(Path(output)), err=True)
        raise
    click.echo(f"{output}: {_outcome(history)}", err=True)


def _check(recipe: Any, output: str) -> None:
    click.echo(f"Looking through {recipe.data.source} ...", err=True)
    import_tensorflow()
    from tf_groupvit.training.caption_check import check_data

    click.echo(check_data(recipe, output))


def _kept(folder: Path) -> str:
    """What an interrupted run leaves behind, and the command that resumes it."""
    from tf_groupvit.training.state import step_of
    from tf_groupvit.training.trainer import STATE

    context = click.get_current_context()
    words = ["tf-groupvit", "train"]
    for option in context.command.params:
        name = str(option.name)
        if context.get_parameter_source(name) is TYPED:
            words += [option.opts[0], str(context.params[name])]
    again, state = shlex.join(words), folder / STATE
    if not state.exists():
        return f"Stopped before a first state was saved. To begin again: {again}"
    return f"Stopped. Step {step_of(state)} is kept in {state}. To go on from there: {again}"


def _outcome(history: Sequence[Mapping[str, float]]) -> str:
    """What the last round and the last measurement say."""
    last, measured = history[-1], {key: value for line in history for key, value in line.items()}
    parts = [f"step {last['step']}, loss {last['loss']:.3f}"]
    if "val_miou" in measured:
        parts.append(f"mIoU {100 * measured['val_miou']:.1f} on held-out scenes")
    if "val_loss" in measured:
        parts.append(f"loss {measured['val_loss']:.3f} on held-out captions")
    return ", ".join(parts)
