"""How many pictures are done, how many a second, and how much time is left, on standard error."""

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, TypeVar

from tqdm import tqdm

EVERY = 10.0  # seconds between two lines, where there is no terminal
UNIT = " pictures"
FASTEST = 0.1  # seconds between two updates of the bar

Value = TypeVar("Value")


def bar_options(shown: bool) -> dict[str, Any]:
    """Options of a ``tqdm``: it is there in a terminal alone, if ``shown``, and gone at the end."""
    # tqdm shows nothing in a terminal that does not say its size.
    columns, rows = shutil.get_terminal_size()
    size = {"mininterval": FASTEST, "ncols": columns, "nrows": rows}
    return {"unit": UNIT, "leave": False, "disable": not (shown and sys.stderr.isatty()), **size}


def with_bar(records: Iterable[Value], count: int, what: str, shown: bool) -> Iterator[Value]:
    """The same records; in a terminal, a bar shows how many of them were asked for."""
    yield from tqdm(records, what, count, **bar_options(shown))


class Progress:
    """A bar in a terminal, else a line now and then.

    Args:
        done: pictures of earlier runs.
        count: finds out how many pictures there are, or None, while the first are done.
        shown: whether anything is shown.
    """

    def __init__(self, done: int, count: Callable[[], int | None], shown: bool) -> None:
        self.count, self.shown = count, shown
        self.in_terminal = sys.stderr.isatty()
        self.bar = tqdm(initial=done, **bar_options(shown))
        self.initial = self.done = done
        self.started = self.last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self.shown:
            threading.Thread(target=self._count, daemon=True).start()
        return self

    def _count(self) -> None:
        try:
            self.total = self.count()
        except Exception:  # what is wrong with the sources is said where they are read
            return
        self.bar.total = self.total

    total: int | None = None

    def step(self) -> None:
        """One more picture is done."""
        self.done += 1
        self.bar.update()
        now = time.monotonic()
        if self.shown and not self.in_terminal and now - self.last_line >= EVERY:
            self.last_line = now
            print(self.line(now - self.started), file=sys.stderr)

    def line(self, seconds: float) -> str:
        """What is done after so many seconds, in words."""
        new = self.done - self.initial
        words = f"{self.done:,}{f' of {self.total:,}' if self.total else ''}{UNIT}"
        if not new:
            return words
        words += f", {new / seconds:.3g} a second"
        if self.total is None:
            return words
        return f"{words}, {tqdm.format_interval((self.total - self.done) * seconds / new)} left"

    def __exit__(self, *_: object) -> None:
        self.bar.close()
