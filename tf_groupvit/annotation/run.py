"""Annotate a collection of pictures, and go on where an earlier run was stopped.

    sources -> items -> pictures (read ahead in threads) -> segmentations (in batches)
            -> records (in threads) -> parts -> the format's files, and what is said in the end

In mode whole pictures of all sizes go through the model together, so that batches need no sorting.
"""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tf_groupvit.annotation.ending import SUMMARY, end
from tf_groupvit.annotation.format_parts import MINIMUM_AREA, PICTURE_URL, Description
from tf_groupvit.annotation.formats import FORMATS, check_format, write_format
from tf_groupvit.annotation.manifest import describe, go_on
from tf_groupvit.annotation.parts import FOLDER, Parts
from tf_groupvit.annotation.polygons import TOLERANCE
from tf_groupvit.annotation.progress import Progress, with_bar
from tf_groupvit.annotation.read_ahead import read_ahead
from tf_groupvit.annotation.records import Record, record_of
from tf_groupvit.annotation.sources import (
    Found,
    Item,
    PictureFinder,
    Problem,
    Say,
    check_found,
    count_items,
    find_items,
)
from tf_groupvit.errors import GroupViTError, ImageError, InputError
from tf_groupvit.files import check_folder
from tf_groupvit.preprocessing.image_reading import read_image
from tf_groupvit.segmentation.batches import MOST_IMAGES, in_batches
from tf_groupvit.storage import Output, reason_of

if TYPE_CHECKING:
    import ray.data

    from tf_groupvit.segmentation.result import Segmentation
    from tf_groupvit.segmentation.segmenter import Segmenter

PART_PICTURES, PART_SECONDS = 1000, 10.0  # a part is written after about so many, or so long
THREADS = 2  # that read pictures, and as many that make records; TensorFlow has its own
HOPELESS = 20  # pictures that the model fails on before the first success: it is not their fault
LOCK = ".lock"
ENGINES = LOCAL, RAY = "local", "ray"

Location = str | os.PathLike[str]
Value = TypeVar("Value")


def annotate(
    locations: "Location | Sequence[Location] | ray.data.Dataset",
    segmenter: "Segmenter",
    output: str | os.PathLike[str],
    format: str = "parquet",
    *,
    recursive: bool = False,
    column: str | None = None,
    ignore_below: float | None = None,
    retry_failed: bool = False,
    batch_size: int = MOST_IMAGES,
    tolerance: float = TOLERANCE,
    minimum_area: int = MINIMUM_AREA,
    with_pictures: bool = False,
    picture_url: str = PICTURE_URL,
    seed: int = 0,
    engine: str = LOCAL,
    workers: int | None = None,
    ray_address: str | None = None,
    progress: bool = False,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Segment the pictures of all locations, and write what was found to a folder.

    The folder gets ``manifest.json``, ``records/part-*.parquet``, and in the end
    ``errors.jsonl``, ``review.csv`` (the least certain pictures first), ``contact_sheet.jpg``,
    ``summary.json`` and the files of the format. The same call goes on where an earlier one was
    stopped at any moment: it leaves out what has a record. What was in the last 10 seconds may be
    done again.

    Args:
        locations: see ``sources.find_items``, which takes ``recursive`` and ``column``, too. Or a
            dataset of Ray, whose rows have a picture (encoded bytes, an array, or a whole address)
            in
            ``column``, or else in the first of ``sources.COLUMNS`` that there is, and an ``id`` or
            a ``path``. The engine is Ray, then, and the dataset is read once: there is no contact
            sheet.
        output: a folder that is empty, not there yet, or of an earlier run; or a URL of one.
        format: one of ``formats.FORMATS``; of "parquet" the parts are the files. It can be another
            than that of the run before, whose records are taken.
        ignore_below: pixels whose margin between the two best classes is smaller belong to none.
        retry_failed: whether pictures that failed in earlier runs are done again.
        batch_size: pictures that go through the model together.
        tolerance, minimum_area: of polygons, in pixels: see ``format_parts.Description``.
        with_pictures: whether pictures are copied to where "voc", "yolo" and "labelme" have them;
            those that are gone meanwhile are named, and have their labels alone.
        picture_url: what a picture's id is put behind to be opened by Label Studio.
        seed: decides which pictures are on the contact sheet.
        engine: "local", this process, or "ray", workers on a Ray cluster, which the extra ``ray``
            brings: the records are the same.
        workers: of a cluster, each with a segmenter and its share of the processors; unless given,
            one for each machine.
        ray_address: of a cluster that runs, such as ``ray://host:10001``; unless given, that of
            ``RAY_ADDRESS``, or else a cluster on this machine for the time of the run.
        progress: whether standard error shows how many are done.
        say: is told what is left out.

    Returns:
        What ``summary.json`` holds: pictures done and failed, pixels by class, and the time.

    Raises:
        InputError: there is no picture; the format cannot hold the classes; or the folder holds
            something else, or records of another model, other classes or settings, or cannot be
            written.
    """
    started = time.monotonic()
    dataset = locations if hasattr(locations, "map_batches") else None
    if dataset is not None:
        if with_pictures:
            raise InputError("Pictures of a dataset are not copied: leave out with_pictures.")
        engine, locations = RAY, []
    listed: Sequence[Any] = (
        [locations] if isinstance(locations, (str, os.PathLike)) else locations  # type: ignore[assignment]
    )
    find = partial(find_items, [os.fspath(one) for one in listed], recursive, column)
    about = check_arguments(
        segmenter.class_names,
        output,
        format,
        tolerance=tolerance,
        minimum_area=minimum_area,
        with_pictures=with_pictures,
        picture_url=picture_url,
        batch_size=batch_size,
        ignore_below=ignore_below,
        engine=engine,
        workers=workers,
        ray_address=ray_address,
    )
    if dataset is None:
        check_found(find, column)
    place = Output(output)
    go_on(place, describe(segmenter, ignore_below, listed, column), say)
    with _alone(place):
        parts = Parts(place)
        if retry_failed:
            parts.forget_failures()
        run = Run(parts)
        recorder = partial(Recorder, segmenter, ignore_below, batch_size)
        count = partial(count_items, find) if dataset is None else lambda: None
        began = time.monotonic()
        with Progress(len(run.known), count, progress) as bar:
            items = run.new(find(say=say))
            if engine == RAY:
                from tf_groupvit.annotation.cluster import OnRay

                on_ray = OnRay(recorder, run, bar.step, batch_size, workers, ray_address)
                if dataset is None:
                    on_ray.work_on_items(items)
                else:
                    on_ray.work_on_dataset(dataset, column)
            else:
                _work(items, recorder(run.clock), run, bar.step)
        working = time.monotonic() - began
        if place.folder is None:  # nothing keeps another run away from there
            parts.forget_repeated()
        with run.clock("writing the format"):
            copies = partial(_copy, PictureFinder(find()), run.problems) if with_pictures else None
            total = len(run.known) + run.pictures
            records = with_bar(parts.records(), total, f"writing {format}", progress)
            write_format(format, records, about, place, copies)
        with run.clock("ending"):
            sums = end(parts.records(), segmenter.class_names, place, find(), run.problems, seed)
        summary = {
            **sums,
            "problems": [{"source": one.source, "error": one.reason} for one in run.problems],
            "format": format,
            "run": run.report(time.monotonic() - started, working),
        }
        place.write(SUMMARY, json.dumps(summary, ensure_ascii=False, indent=2) + "\n")
    return summary


def check_arguments(
    class_names: Sequence[str],
    output: str | os.PathLike[str],
    format: str = "parquet",
    *,
    tolerance: float = TOLERANCE,
    minimum_area: int = MINIMUM_AREA,
    with_pictures: bool = False,
    picture_url: str = PICTURE_URL,
    batch_size: int = MOST_IMAGES,
    ignore_below: float | None = None,
    engine: str = LOCAL,
    workers: int | None = None,
    ray_address: str | None = None,
) -> Description:
    """Raise ``InputError`` for what ``annotate`` refuses without a model; what a format needs."""
    about = Description(class_names, tolerance, minimum_area, picture_url=picture_url)
    chosen = check_format(format, about)
    if with_pictures and not chosen.takes_pictures:
        taking = ", ".join(name for name, one in FORMATS.items() if one.takes_pictures)
        raise InputError(f"Copies of the pictures belong to {taking}, not to {format!r}.")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}: expected at least 1.")
    if ignore_below is not None and not 0 <= ignore_below <= 1:
        raise InputError(f"ignore_below is {ignore_below}: expected a margin from 0 to 1, or None.")
    if engine not in ENGINES:
        raise InputError(f"engine is {engine!r}: expected one of {', '.join(ENGINES)}.")
    if engine == RAY and find_spec("ray") is None:
        raise InputError("The engine ray needs ray: pip install 'tf-groupvit[ray]'.")
    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}: expected at least 1.")
    if engine == RAY:
        from tf_groupvit.annotation.cluster import check_address

        check_address(ray_address)
    if engine != RAY and (workers is not None or ray_address is not None):
        raise InputError(f"workers and an address of Ray are for the engine ray, not {engine!r}.")
    if (folder := Output(output).folder) is not None:
        check_folder(folder)
    return about


def _copy(find: PictureFinder, problems: list[Problem], item_id: str) -> bytes | None:
    """The bytes of a picture; None where it is gone, which is a problem of this picture alone."""
    try:
        return find(item_id)
    except Exception as error:  # each storage has errors of its own
        problems.append(Problem(item_id, f"it has no copy, since {reason_of(error)}"))
        return None


@contextmanager
def _alone(output: Output) -> Iterator[None]:
    """Refuse a second run into one folder at a time; only on a disk, and where files are locked.

    The system takes the lock from a process that ends, however it does.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    if output.folder is None:
        yield
        return
    with open(output.folder / LOCK, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"Another run is writing to '{output.location}': wait until it has ended."
            ) from error
        for folder in (output.folder, output.folder / FOLDER):
            for unfinished in folder.glob(".*.tmp"):  # of a run that was killed
                unfinished.unlink()
        yield


class Clock:
    """Seconds by part of the work, of the thread that segments and of those beside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(part, time.perf_counter() - begun)

    def add(self, part: str, seconds: float) -> None:
        """Count seconds of a part."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def waiting(self, part: str, values: Iterable[Value]) -> Iterator[Value]:
        """The values, with the time that each is waited for."""
        waiting = iter(values)
        while True:
            with self(part):
                value = next(waiting, self)
            if value is self:
                return
            yield value  # type: ignore[misc]


class Run:
    """What is known of one run: what is done, what cannot be found, and where the time goes.

    known, seen: the hashes of the ids that were done before, and that this run has met: some 100
        bytes a picture.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.known = {hash(item_id) for item_id, _ in parts.ids()}
        self.seen: set[int] = set()
        self.problems: list[Problem] = []
        self.clock = Clock()
        self.pictures = 0

    def new(self, found: Iterable[Found]) -> Iterator[Item]:
        """The items that have no record and were not seen before in this run."""
        for one in found:
            if isinstance(one, Problem):
                self.problems.append(one)
            elif not self.is_second(one.id) and hash(one.id) not in self.known:
                yield one

    def is_second(self, item_id: str) -> bool:
        """Whether a picture of this run had that id before, which is a problem, then."""
        if hash(item_id) in self.seen:
            reason = "another picture has this id: give one of them another name"
            self.problems.append(Problem(item_id, reason))
            return True
        self.seen.add(hash(item_id))
        return False

    def report(self, seconds: float, working: float) -> dict[str, Any]:
        """How many pictures this run did, in what time, and the share of the time by part.

        working: the seconds between beginning and end of the pictures; ``pictures_a_second`` counts
            over those.
        """
        parts = {"segmenting": 0.0, **self.clock.seconds}
        parts["rest"] = max(0.0, seconds - sum(parts.values()))
        return {
            "pictures": self.pictures,
            "seconds": round(seconds, 3),
            "pictures_a_second": round(self.pictures / working, 3),
            "shares": {name: round(value / seconds, 4) for name, value in parts.items()},
        }


def _work(items: Iterable[Item], recorder: "Recorder", run: Run, step: Callable[[], None]) -> None:
    """Annotate the items here; ``step`` is called for each picture."""
    store = _Store(run.parts, run.clock, recorder.batch_size)
    try:
        with closing(recorder.records(items)) as records:
            for record in records:
                store.add(record)
                run.pictures += 1
                step()
    except BaseException:
        with suppress(GroupViTError):  # what ended the run counts
            store.close()
        raise
    store.close()


class Recorder:
    """Makes records of items: reads ahead, segments in batches, and records in threads."""

    def __init__(
        self,
        segmenter: "Segmenter",
        ignore_below: float | None,
        batch_size: int,
        clock: Clock,
    ) -> None:
        self.segmenter, self.clock = segmenter, clock
        self.ignore_below, self.batch_size = ignore_below, batch_size
        self.done = self.failed = 0

    def records(self, items: Iterable[Item]) -> Generator[Record]:
        """The record of each item, in order."""
        ahead = read_ahead(items, _read, THREADS, most_waiting=2 * self.batch_size)
        pairs = self.clock.waiting("reading", ahead)
        try:
            with ThreadPoolExecutor(THREADS) as pool:
                waiting = deque[Future[Record]]()
                for (item, _), answer in in_batches(
                    pairs, _image_of, self._segment, self.batch_size
                ):
                    waiting.append(pool.submit(self._record, item, answer))
                    if len(waiting) > self.batch_size:
                        yield self._finished(waiting.popleft())
                while waiting:
                    yield self._finished(waiting.popleft())
        finally:
            ahead.close()  # type: ignore[attr-defined]

    def _segment(self, images: list[np.ndarray]) -> "list[Segmentation]":
        with self.clock("segmenting"):
            return self.segmenter.segment_batch(images)

    def _record(self, item: Item, answer: "Segmentation | Exception") -> Record:
        if not isinstance(answer, Exception):
            try:
                return record_of(item.id, answer, self.ignore_below)
            except Exception as error:  # whatever it is, the others are done
                answer = error
        if self.done == 0 and self.failed >= HOPELESS and not isinstance(answer, GroupViTError):
            raise answer
        return Record(item.id, error=reason_of(answer).removeprefix("image: "))

    def _finished(self, future: "Future[Record]") -> Record:
        with self.clock("recording"):
            record = future.result()
        self.done += record.error is None
        self.failed += record.error is not None
        return record


def _read(item: Item) -> np.ndarray:
    """The picture of an item, uint8 (H, W, 3)."""
    return read_image(item.read())


def _image_of(pair: "tuple[Item, np.ndarray | Exception]") -> np.ndarray:
    _, image = pair
    if isinstance(image, GroupViTError):
        raise image
    if isinstance(image, Exception):
        raise ImageError(reason_of(image)) from image
    return image


class _Store:
    """Records on their way into parts; a part is written in a thread while the next is gathered.

    Parts are of whole batches: scores depend, by rounding, on how many pictures a batch has, and a
    run that goes on after them makes the same batches.
    """

    def __init__(self, parts: Parts, clock: Clock, batch_size: int) -> None:
        self.parts, self.clock, self.batch_size = parts, clock, batch_size
        self.records: list[Record] = []
        self.written = time.monotonic()
        self.thread = ThreadPoolExecutor(1)
        self.under_way: Future[str] | None = None

    def add(self, record: Record) -> None:
        """Keep a record; where enough have gathered, write them."""
        self.records.append(record)
        late = time.monotonic() - self.written >= PART_SECONDS
        enough = late or len(self.records) >= PART_PICTURES
        if enough and len(self.records) % self.batch_size == 0:
            self._write()

    def _write(self) -> None:
        self._wait()
        self.under_way = self.thread.submit(self.parts.write, self.records)
        self.records, self.written = [], time.monotonic()

    def _wait(self) -> None:
        """Raises what kept the last part from being written."""
        before, self.under_way = self.under_way, None
        if before is not None:
            with self.clock("writing"):
                before.result()

    def close(self) -> None:
        """Write what is left."""
        try:
            if self.records:
                self._write()
            self._wait()
        finally:
            self.thread.shutdown()
