"""The commands' --help in; the page tf_groupvit/cli/README.md out. A test compares them."""

import sys
from pathlib import Path

import click

from tf_groupvit.cli import COMMANDS, main

PAGE = Path(__file__).resolve().parents[2] / "tf_groupvit" / "cli" / "README.md"
WIDTH = 100

HEAD = """# The command tf-groupvit

What `tf-groupvit COMMAND --help` prints; this page is written by `scripts/docs --commands`. Exit code 0 is success, 2 a
word or a file that cannot be used, said in one line on standard error, and 1 an interruption. `-` is standard input
wherever a file is, and with `--json` standard output holds JSON alone.
"""


def page() -> str:
    """The page as it should be."""
    parts = [HEAD, _listed()]
    for name in COMMANDS:
        parts.append(f"## {name}\n\n```text\n{_help(name).rstrip()}\n```\n")
    return "\n".join(parts)


def _listed() -> str:
    rows = [f"| [`{name}`](#{name}) | {said} |" for name, said in COMMANDS.items()]
    return "\n".join(["| Command | What it does |", "|---|---|", *rows, ""])


def _help(name: str) -> str:
    """What --help prints, at a width that does not depend on the terminal."""
    root = click.Context(main, info_name="tf-groupvit", **main.context_settings)
    command = main.get_command(root, name)
    assert command is not None
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    return command.get_help(click.Context(command, info_name=name, parent=root, **settings))


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        print(page(), end="")
    else:
        PAGE.write_text(page(), encoding="utf-8")
        print(f"Wrote {PAGE}")
