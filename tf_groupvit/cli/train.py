"""``tf-groupvit train``: train a checkpoint from captions, as a recipe says."""

import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tf_groupvit.errors import GroupViTError, InputError, TrainingError
from tf_groupvit.quiet import import_tensorflow
from tf_groupvit.training.devices import TIMEOUT, Cluster, end_process

TYPED = ParameterSource.COMMANDLINE


@click.command(name="train", context_settings={"show_default": True})
@click.option(
    "--recipe",
    "name",
    metavar="NAME_OR_FILE",
    help=(
        "demo, finetune, published, or a TOML file; unless given, finetune with --data or --model,"
        " else demo."
    ),
)
@click.option(
    "--output",
    required=True,
    metavar="DIR",
    help="Where the checkpoint goes; made if it is missing. Or a URL, such as s3://bucket/mine.",
)
@click.option(
    "--data",
    metavar="PATH",
    help="A folder, file or URL: captions with pictures, or WebDataset, Parquet or TFRecord shards;"
    " or scenes.",
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
    "--devices",
    metavar="all|N",
    help="How many GPUs of this machine train together; all under TF_CONFIG, else 1.",
)
@click.option(
    "--worker-timeout",
    type=click.FloatRange(min=1),
    default=TIMEOUT,
    metavar="SECONDS",
    help="How long a worker of TF_CONFIG waits for the others before it ends.",
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
    devices: str | None,
    worker_timeout: float,
    check: bool,
) -> None:
    """Train GroupViT from captions, without masks.

    The recipe demo trains on drawn scenes, on a laptop. The recipe finetune trains a checkpoint on
    captions of your own: the demo checkpoint unless --model names another. The recipe published is
    the run of the paper, from first weights. To change what has no option - what learns, the
    losses, held-out captions, the precision - copy a recipe and edit it.

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
    *.parquet       the columns image and caption
    captions_*.json COCO's captions; or a list of what captions.jsonl has
    NAME.jpg        with NAME.txt or NAME.json beside it, also in folders
    *.tsv           captions and addresses, and the downloads by their CRC-32

    The column image may also be called file_name, image_path, image_name or path, and caption text,
    title or comment. A picture may have several lines, each with another caption. What cannot be
    read is left out, and named at the end; --check tells before. A batch larger than the data is
    lowered.

    Ten pictures with captions to try it, and to look at:

    \b
      tf-groupvit scenes --output ten --count 10
      tf-groupvit train --data ten --output tuned --steps 20

    The state is saved on the way (DIR/training): the same command resumes a run that was stopped,
    with the same losses as without the stop. At the end, DIR holds config.json, model.safetensors,
    the vocabulary, the image settings and README.md, a model card with the learning curve.

    --devices all trains on all GPUs of this machine. With TF_CONFIG in the environment, which lists
    machines and says which one this is, the same command on each trains on all of them. A batch and
    the losses stay what they are on one device. When a worker is lost, the others end and name the
    last good state: start all again.
    """
    from tf_groupvit.files import check_folder
    from tf_groupvit.memory import keep_freed_memory
    from tf_groupvit.storage import is_url
    from tf_groupvit.training.devices import (
        check_devices,
        check_precision,
        describe,
        least_replicas,
        read_cluster,
    )
    from tf_groupvit.training.recipe import SCENES, read_recipe

    cluster = read_cluster(os.environ.get("TF_CONFIG"))
    devices = devices or ("all" if cluster.workers > 1 else "1")
    check_devices(devices)
    keep_freed_memory()
    given = {"steps": steps, "batch_size": batch_size}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if data == SCENES and Path(SCENES).exists():
        click.echo(f"Scenes are drawn; the folder {SCENES} is ./{SCENES}.", err=True)
    if data is not None:
        changes["data"] = {"source": data}
    if model is not None:
        changes["start"] = {"checkpoint": model}
    own = data is not None or model is not None
    recipe = read_recipe(name or ("finetune" if own else "demo"), **changes)
    if tensorboard is not None and is_url(tensorboard):
        raise InputError(f"--tensorboard is {tensorboard}: give a folder of this disk.")
    for folder in (output, tensorboard):
        if folder is not None and not is_url(folder):
            check_folder(folder)
    if check:
        _check(recipe, output)
        return
    check_precision(recipe, least_replicas(devices, cluster))
    length = f"{recipe.epochs:,} epochs" if recipe.epochs else f"{recipe.steps:,} steps"
    click.echo(
        f"Training on {recipe.data.source}, {length}, into {output}{describe(devices, cluster)}:"
        " TensorFlow is being loaded ...",
        err=True,
    )
    shown = None if tensorboard is None else Path(tensorboard)
    try:
        history = _train(recipe, output, seed, shown, devices, cluster, worker_timeout)
    except KeyboardInterrupt:
        click.echo(_kept(output), err=True)
        raise
    except GroupViTError as error:
        if cluster.workers == 1:
            raise
        end_process(str(error))
    if history:
        click.echo(f"{output}: {_outcome(history)}", err=True)


def _check(recipe: Any, output: str) -> None:
    click.echo(f"Looking through {recipe.data.source} ...", err=True)
    import_tensorflow()
    from tf_groupvit.training.caption_check import check_data

    click.echo(check_data(recipe, output))


def _train(
    recipe: Any,
    output: str,
    seed: int,
    tensorboard: Path | None,
    devices: str,
    cluster: Cluster,
    timeout: float,
) -> list[dict[str, Any]]:
    """Load TensorFlow, set up the devices, and train.

    Raises:
        TrainingError: besides the others, this worker of several was interrupted or terminated.
    """
    from tf_groupvit.storage import is_url
    from tf_groupvit.training.devices import make_team, to_do

    if cluster.workers == 1:
        import_tensorflow()  # has it look for devices, which workers must not
    team = make_team(devices, cluster, timeout)
    if cluster.workers > 1:  # TensorFlow's workers take note of SIGTERM, and go on
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    from tf_groupvit.training.trainer import train

    folder = output if is_url(output) else Path(output)
    bar = sys.stderr.isatty()
    try:
        return train(recipe, folder, seed, bar=bar, tensorboard=tensorboard, team=team)
    except KeyboardInterrupt:
        if cluster.workers == 1:
            raise
        said = f"Worker {cluster.worker} was stopped{to_do(team.watch.kept())}"
        raise TrainingError(said) from None


def _kept(output: str) -> str:
    """What an interrupted run leaves behind, and the command that resumes it."""
    from tf_groupvit.training.run_folder import open_folder

    context = click.get_current_context()
    words = ["tf-groupvit", "train"]
    for option in context.command.params:
        name = str(option.name)
        if context.get_parameter_source(name) is TYPED:
            words += [option.opts[0], str(context.params[name])]
    again, folder = shlex.join(words), open_folder(output)
    folder.look()
    last = folder.last()
    if last is None:
        return f"Stopped before a first state was saved. To begin again: {again}"
    return f"Stopped. Step {last[0]} is kept in {last[1]}. To go on from there: {again}"


def _outcome(history: Sequence[Mapping[str, float]]) -> str:
    """What the last round and the last measurement say."""
    last, measured = history[-1], {key: value for line in history for key, value in line.items()}
    parts = [f"step {last['step']}, loss {last['loss']:.3f}"]
    if "val_miou" in measured:
        parts.append(f"mIoU {100 * measured['val_miou']:.1f} on held-out scenes")
    if "val_loss" in measured:
        parts.append(f"loss {measured['val_loss']:.3f} on held-out captions")
    return ", ".join(parts)
