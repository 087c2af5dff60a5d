"""tf-groupvit train: a recipe and a folder in; a checkpoint, trained from captions, in that folder out."""

import sys
from typing import Any

import click

from tf_groupvit.cli.quiet import import_tensorflow


@click.command(name="train", context_settings={"show_default": True})
@click.option("--recipe", "name", default="demo", metavar="NAME_OR_FILE", help="demo, or the path of a TOML file.")
@click.option("--output", required=True, metavar="DIR", help="Where the checkpoint goes; made if it is missing.")
@click.option("--seed", default=0, help="Of the scenes, the first weights and the noise.")
@click.option("--steps", type=click.IntRange(min=1), help="In place of the recipe's.")
@click.option("--batch-size", type=click.IntRange(min=2), help="In place of the recipe's.")
def command(name: str, output: str, seed: int, steps: int | None, batch_size: int | None) -> None:
    """Train GroupViT from captions: the demo recipe does it on drawn scenes, without masks, on a laptop.

    Its state is saved on the way (DIR/training): the same command goes on where a run was stopped, and gives the same
    losses as if it had not been. DIR then holds config.json, model.safetensors, the vocabulary, the image settings and
    README.md, a model card with the curve.
    """
    from pathlib import Path

    from tf_groupvit.training.recipe import read_recipe

    changes: dict[str, Any] = {"steps": steps, "batch_size": batch_size}
    recipe = read_recipe(name, **{key: value for key, value in changes.items() if value is not None})
    click.echo(f"Training {recipe.steps} steps of {recipe.batch_size} scenes, without masks ...", err=True)
    import_tensorflow()
    from tf_groupvit.training.runs import train

    history = train(recipe, Path(output), seed, bar=sys.stderr.isatty())
    measured = [line for line in history if "val_miou" in line]
    score = f", mIoU {100 * measured[-1]['val_miou']:.1f} on held-out scenes" if measured else ""
    click.echo(f"{output}: step {history[-1]['step']}, loss {history[-1]['loss']:.3f}{score}", err=True)
