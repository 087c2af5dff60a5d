"""The command `tf-groupvit`: one file per command, each loaded when it is named."""

import sys
import warnings
from importlib import import_module
from typing import Any

import click

from tf_groupvit.errors import GroupViTError

# Name -> what it does, in the order of the help page. The module of the same name holds the command as `command`.
COMMANDS = {
    "segment": "Name the classes in words, get a mask for each image.",
    "classify": "Name the classes in words, get a probability for each.",
    "convert": "Turn any GroupViT checkpoint into a folder of config.json and model.safetensors.",
    "info": "Sizes, config and parameter counts of a checkpoint.",
    "query": "Segment images on a server.",
    "serve": "Serve SavedModels as tensorflow_model_server does.",
    "evaluate": "Measure mIoU on a dataset.",
    "export": "Write a SavedModel that TensorFlow Serving runs as it is.",
    "train": "Train from captions, by a recipe.",
    "scenes": "Write captioned pictures with masks.",
    "app": "Open a page in the browser: drop a photo, type words, see the regions.",
}


class Refusal(click.ClickException):
    """An error of ours: one line, exit code 2, no traceback."""

    exit_code = 2


class LazyGroup(click.Group):
    """Imports a command's module when the command is named, so that `--help` costs nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return import_module(f"tf_groupvit.cli.{name}").command if name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GroupViTError as error:
            raise Refusal(str(error)) from error


def _say(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {message}", err=True)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tf-groupvit")
def main() -> None:
    """GroupViT for TensorFlow and Keras: zero-shot semantic segmentation."""
    if not sys.warnoptions:
        warnings.showwarning = _say
