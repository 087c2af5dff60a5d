"""tf-groupvit train: a recipe and a folder in; a checkpoint, trained from captions, in that folder out."""

import sys
from typing import Any

import click

from tf_groupvit.cli.quiet import import_tensorflow


@click.command(name="train", context_settings={"show_default": True})
@click.option(
    "--recipe",
    "name",
    metavar="NAME_OR_FILE",
    help="demo, finetune, or a TOML file; unless given, finetune with --data or --model, else demo.",
)
@click.option("--output", required=True, metavar="DIR", help="Where the checkpoint goes; made if it is missing.")
@click.option("--data", metavar="PATH", help="A folder with captions, WebDataset shards or TFRecord files; or scenes.")
@click.option("--model", metavar="FOLDER_OR_ID", help="The checkpoint to begin at.")
@click.option("--seed", default=0, help="Of the order of the data, the first weights and the noise.")
@click.option("--steps", type=click.IntRange(min=1), help="In place of the recipe's steps or epochs.")
@click.option("--batch-size", type=click.IntRange(min=2), help="In place of the recipe's.")
@click.option("--tensorboard", metavar="LOGDIR", help="Where to write what TensorBoard shows: losses, groups, masks.")
def command(
    name: str | None,
    output: str,
    data: str | None,
    model: str | None,
    seed: int,
    steps: int | None,
    batch_size: int | None,
    tensorboard: str | None,
) -> None:
    """Train GroupViT from captions, without masks.

    The recipe demo does it on drawn scenes, on a laptop. The recipe finetune takes captions of your own and a
    checkpoint, the demo checkpoint unless --model names another. Copy a recipe to change what has no option: what
    learns, the losses, held-out captions, the precision.

    Its state is saved on the way (DIR/training): the same command goes on where a run was stopped, and gives the same
    losses as if it had not been. DIR then holds config.json, model.safetensors, the vocabulary, the image settings and
    README.md, a model card with the curve.
    """
    from pathlib import Path

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
    length = f"{recipe.epochs} epochs" if recipe.epochs else f"{recipe.steps} steps"
    click.echo(f"Training {length} with batches of {recipe.batch_size} from {recipe.data.source} ...", err=True)
    import_tensorflow()
    from tf_groupvit.training.runs import train

    shown = None if tensorboard is None else Path(tensorboard)
    history = train(recipe, Path(output), seed, bar=sys.stderr.isatty(), tensorboard=shown)
    click.echo(f"{output}: {_outcome(history)}", err=True)


def _outcome(history: list[dict[str, Any]]) -> str:
    """What the last round and the last measurement say."""
    last, measured = history[-1], {key: value for line in history for key, value in line.items()}
    parts = [f"step {last['step']}, loss {last['loss']:.3f}"]
    if "val_miou" in measured:
        parts.append(f"mIoU {100 * measured['val_miou']:.1f} on held-out scenes")
    if "val_loss" in measured:
        parts.append(f"loss {measured['val_loss']:.3f} on held-out captions")
    return ", ".join(parts)
