"""Names that were asked for in; the engines that run here, and why the others do not, out. And a
lock that measurements hold.
"""

import argparse
import contextlib
import fcntl
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engines.process import Engine, MissingError


def chosen_of(
    given: str, known: Iterable[str], mark: str, parser: argparse.ArgumentParser
) -> list[str]:
    """The names between marks; ends the program, in one line, with one that is not known."""
    chosen = given.split(mark)
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"{unknown[0]!r} is none of: {' | '.join(known)}")
    return chosen


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """The options for what is run, and when."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="a folder with tokenizer instead of the seeded full-size one",
    )
    parser.add_argument(
        "--photo", type=Path, help="a JPEG to segment (default: a drawn one, 640 x 480)"
    )
    parser.add_argument(
        "--lock",
        type=Path,
        metavar="FILE",
        help="hold a lock on this file (flock) while something is timed, and not in between",
    )


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments of a parser with ``add_inputs``; ends where there is no such photo."""
    chosen = parser.parse_args()
    if chosen.photo and not chosen.photo.is_file():
        parser.error(f"--photo takes a JPEG file, but {chosen.photo} is none")
    return chosen


@contextlib.contextmanager
def alone(lock: Path | None) -> Iterator[None]:
    """While nothing else runs that takes the same lock."""
    if lock is None:
        yield
        return
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    time.sleep(0.1)  # else this process has it again before those who wait wake up


def start(
    makers: dict[str, Callable[[], Engine]], at_once: int = 1
) -> tuple[dict[str, Engine], dict[str, str]]:
    """What ``makers`` make, by name, some ``at_once``; told as they come."""
    running, skipped = {}, {}
    with ThreadPoolExecutor(at_once) as pool:
        begun = {name: pool.submit(make) for name, make in makers.items()}
        for name, engine in begun.items():
            try:
                running[name] = engine.result()
            except MissingError as why:
                skipped[name] = str(why)
            print(
                f"  {name}: {skipped.get(name) or running[name].facts['version']}",
                file=sys.stderr,
                flush=True,
            )
    return running, skipped
