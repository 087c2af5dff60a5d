"""Load training pairs, many at once where a network is waited for; say what is wrong with one."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from tf_groupvit.errors import DatasetError, GroupViTError, one_line
from tf_groupvit.preprocessing.image_reading import read_image
from tf_groupvit.storage import is_url
from tf_groupvit.training.caption_shards import Record, StorageError
from tf_groupvit.training.texts import clean_caption

MIN_SIDE = 2  # an image of one pixel stands on the web where one was taken away
UNDECODED = "its image cannot be decoded"
AT_ONCE = 32  # records of another storage that are loaded at once
IN_A_ROW = 1000  # so many failures, one after the other, are no accident of single pairs
LONGEST = 1000  # letters of a name that are shown; it may hold line ends

Pair = tuple[bytes, str]  # an encoded image, and its clean caption
Loaded = tuple[int, Record, Pair | GroupViTError]


def load_pair(record: Record) -> Pair:
    """Encoded image and clean caption of a record.

    Raises:
        DatasetError: it cannot be read, or its caption is empty or no text.
    """
    image, caption = record.load()
    caption = clean_caption(caption)
    if not caption:
        raise DatasetError("its caption is empty")
    if "\0" in caption:
        raise DatasetError("its caption has zero bytes: write it as UTF-8")
    if not caption.isascii() and any("\ud800" <= letter <= "\udfff" for letter in caption):
        raise DatasetError("its caption has half of a surrogate pair, which is no letter")
    return image, caption


def load_pairs(records: Iterable[tuple[int, Record]], threads: int = 1) -> Iterator[Loaded]:
    """Each record, by its number, with its pair or with what is wrong with it: in their order.

    Args:
        threads: so many are loaded at once.

    Raises:
        DatasetError: the storage gave none of ``IN_A_ROW`` records: it is gone.
    """
    failed = 0
    for number, record, pair in _load_in_order(records, threads):
        if not isinstance(pair, GroupViTError):
            failed = 0
        elif isinstance(pair, StorageError):
            failed += 1
            if failed == IN_A_ROW:
                raise DatasetError(
                    f"{failed:,} pairs in a row cannot be read, the last of them"
                    f" {one_line(record.name, LONGEST)}: {one_line(pair)}."
                )
        yield number, record, pair


def _load_in_order(records: Iterable[tuple[int, Record]], threads: int) -> Iterator[Loaded]:
    if threads == 1:
        yield from ((number, record, _pair_or_error(record)) for number, record in records)
        return
    waiting: deque[tuple[int, Record, Future[Pair | GroupViTError]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for number, record in records:
            waiting.append((number, record, pool.submit(_pair_or_error, record)))
            if len(waiting) == 2 * threads:
                number, record, answer = waiting.popleft()
                yield number, record, answer.result()
        while waiting:
            number, record, answer = waiting.popleft()
            yield number, record, answer.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _pair_or_error(record: Record) -> Pair | GroupViTError:
    try:
        return load_pair(record)
    except GroupViTError as error:
        return error


def threads_for(shards: Sequence[str]) -> int:
    """How many records of shards to load at once: several where each waits for a network."""
    return AT_ONCE if shards and is_url(shards[0]) else 1


def decode_error(record: Record) -> str:
    """What is wrong with an image that the graph did not decode."""
    try:
        height, width = read_image(record.load()[0], name="its image").shape[:2]
    except GroupViTError as error:
        return str(error).rstrip(".")
    return (
        f"its image has {width} x {height} pixels" if min(height, width) < MIN_SIDE else UNDECODED
    )
