"""The command line `tf-groupvit`: one file a command, loaded when the command is named."""

import errno
import io
import os
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

from tf_groupvit.errors import GroupViTError, one_line

# Name -> what it does, in the order of the help page. The module of the same name holds the command
# as `command`.
COMMANDS = {
    "segment": "Name the classes in words, get a mask for each image.",
    "annotate": "Label pictures by the thousand, for tools that people label with.",
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


class OneLineError(click.ClickException):
    """An error of ours: one line, exit code 2, no traceback."""

    exit_code = 2


class LazyGroup(click.Group):
    """Imports a command's module when the command is named, so that `--help` costs nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command of that name; None if there is none."""
        return import_module(f"tf_groupvit.cli.{name}").command if name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, *arguments: Any, **keywords: Any) -> Any:
        """Run a command; files and standard output that cannot be written are one line."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A name that standard output cannot encode is no reason to stop.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            try:
                return super().main(*arguments, **keywords)
            finally:
                if sys.stdout is not None:  # as it is for a command started with >&-
                    sys.stdout.flush()  # a full disk shows here, not as a traceback at exit
        except OSError as error:
            _stop_writing()
            if error.errno == errno.EPIPE:  # the reader of the output has seen enough
                sys.exit(1)
            with suppress(OSError):  # standard error may be on that disk
                click.echo(f"Error: {_described(error)}", err=True)
            sys.exit(OneLineError.exit_code)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors of ours and wrong values of options are one line.

        Where a word is missing, the usage stands before the error.
        """
        try:
            return super().invoke(ctx)
        except click.MissingParameter:
            raise
        except click.BadParameter as error:
            raise OneLineError(error.format_message()) from error
        except GroupViTError as error:
            raise OneLineError(str(error)) from error
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            raise OneLineError(
                "It ran out of memory: take a smaller --size, batch or picture."
            ) from error


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Of Python, NumPy or TensorFlow, which may not be loaded; Keras hides its error in another."""
    return error is not None and (
        isinstance(error, MemoryError)
        or type(error).__name__ == "ResourceExhaustedError"
        or _is_out_of_memory(error.__context__)
    )


def _stop_writing() -> None:
    """Discard what is left for standard output: Python would fail on it again at exit."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _described(error: OSError) -> str:
    what = error.strerror or one_line(error)
    if error.filename is None:
        return f"{what}: the output cannot be written."
    return (
        f"{what}: '{error.filename}' cannot be read or written; check the path, its permissions and"
        " the free space."
    )


def _say(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {message}", err=True)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tf-groupvit")
def main() -> None:
    """GroupViT for TensorFlow and Keras: zero-shot semantic segmentation."""
    if not sys.warnoptions:
        warnings.showwarning = _say
