"""Reading in threads, ahead of whoever asks: in order, and never more than fits."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import numpy as np

MOST_WAITING = 32  # pictures, besides those that are being read
MOST_PIXELS = 2**25  # of the pictures that wait

Key = TypeVar("Key")
Read = tuple[Key, np.ndarray | Exception]


def read_ahead(
    keys: Iterable[Key],
    read: Callable[[Key], np.ndarray],
    threads: int,
    most_waiting: int = MOST_WAITING,
    most_pixels: int = MOST_PIXELS,
) -> Iterator[Read[Key]]:
    """Yield each key, in order, with its picture (H, W, 3), or with the error that it met.

    Keys, too, are asked for in a thread. No further picture is begun while ``most_waiting`` are
    ready or under way, or those that are ready have ``most_pixels``: so at most that many pixels
    are waiting, besides a picture for each thread.
    """
    queue = _Queue(iter(keys), read, most_waiting, most_pixels)
    workers = [threading.Thread(target=queue.work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield from queue.answers()
    finally:
        queue.stop()
        for worker in workers:
            worker.join()


class _Queue(Generic[Key]):
    def __init__(
        self,
        keys: Iterator[Key],
        read: Callable[[Key], np.ndarray],
        most_waiting: int,
        most_pixels: int,
    ) -> None:
        self.keys, self.read = keys, read
        self.most_waiting, self.most_pixels = most_waiting, most_pixels
        self.asking = threading.Lock()  # for the next key
        self.changed = threading.Condition()
        self.ready: dict[int, Read[Key]] = {}
        self.taken = self.given = self.pixels = 0
        self.ended = False
        self.failure: BaseException | None = None

    def work(self) -> None:
        """Read one picture after the other, until there are no more."""
        while True:
            with self.asking:
                with self.changed:
                    self.changed.wait_for(lambda: self.ended or self._has_room())
                    if self.ended:
                        return
                try:
                    key = next(self.keys)
                except BaseException as error:  # it is raised where the answers are waited for
                    self.stop(None if isinstance(error, StopIteration) else error)
                    return
                number = self.taken
                self.taken += 1
            answer: np.ndarray | Exception
            try:
                answer = self.read(key)
            except Exception as error:  # whatever it is, it concerns this picture
                answer = error
            with self.changed:
                self.ready[number] = key, answer
                self.pixels += _pixels(answer)
                self.changed.notify_all()

    def _has_room(self) -> bool:
        return self.taken - self.given < self.most_waiting and self.pixels < self.most_pixels

    def answers(self) -> Iterator[Read[Key]]:
        """What was read, in order."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.given in self.ready or self._is_over())
                if self.given not in self.ready:
                    break
                answer = self.ready.pop(self.given)
                self.given += 1
                self.pixels -= _pixels(answer[1])
                self.changed.notify_all()
            yield answer
        if self.failure is not None:
            raise self.failure

    def _is_over(self) -> bool:
        return self.ended and self.given == self.taken

    def stop(self, failure: BaseException | None = None) -> None:
        """Begin no further picture."""
        with self.changed:
            self.ended, self.failure = True, failure or self.failure
            self.changed.notify_all()


def _pixels(answer: np.ndarray | Exception) -> int:
    return 0 if isinstance(answer, Exception) else answer.shape[0] * answer.shape[1]
