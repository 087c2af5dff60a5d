"""Read numbers, marks and the EXIF orientation out of an image file's bytes, in the graph.

Positions are int64 scalars, counted from the start of the file; a read beyond its end gives zeros.
A server prepares every operation of a graph for each signature, so many numbers are read at once.
"""

from collections.abc import Callable, Sequence
from string import Formatter
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_groupvit.files import EXIF_ORIENTATION
from tf_groupvit.preprocessing.image_reading import ORIENTATIONS

Message = list[str | tf.Tensor]  # the parts of a message: texts, and numbers in the graph
Place = Sequence[int]  # where the bytes of a number are, the least significant first

NOWHERE = 1 << 60  # a position beyond every file
ZEROS = 512  # bytes behind a file, for what steps over its end


class File(NamedTuple):
    """The bytes of a file in the graph."""

    contents: tf.Tensor  # scalar string
    data: tf.Tensor  # uint8 (L + ZEROS): its bytes, then zeros
    end: tf.Tensor  # int64 scalar: L

    @classmethod
    def of(cls, contents: tf.Tensor) -> "File":
        """Make the bytes of a scalar string."""
        data = tf.io.decode_raw(tf.strings.join([contents, b"\0" * ZEROS]), tf.uint8)
        return cls(contents, data, tf.cast(tf.strings.length(contents), tf.int64))


class Header(NamedTuple):
    """What an image file says before anything is decoded; tensors, the same for every format."""

    error: tf.Tensor  # scalar string: why the image cannot be read, "" where it may be decoded
    size: tf.Tensor  # int64 (2): height and width as stored, before the image is turned
    orientation: tf.Tensor  # scalar int32: the EXIF orientation, 1 to 8
    format: tf.Tensor  # scalar int32: its row in FORMATS, len(FORMATS) for none
    contents: tf.Tensor  # scalar string: the file
    found: tf.Tensor  # int64: ``Found`` as a row, for the decoder


# ---- numbers and marks ----


def little(at: int, count: int) -> Place:
    """The place of an unsigned little-endian number of ``count`` bytes."""
    return range(at, at + count)


def big(at: int, count: int) -> Place:
    """The place of an unsigned big-endian number of ``count`` bytes."""
    return little(at, count)[::-1]


def upper(at: int) -> Place:
    """The place of a signed little-endian number of 4 bytes, which is read times 2**32."""
    return [NOWHERE] * 4 + [*little(at, 4)]


def mark(text: bytes) -> int:
    """Up to 8 bytes as a little-endian number."""
    return int.from_bytes(text, "little")


def offsets(*places: Place) -> np.ndarray:
    """Where the 8 bytes of each of N numbers are: int64 (N, 8)."""
    table = np.full([len(places), 8], NOWHERE)
    for row, place in zip(table, places, strict=True):
        row[: len(place)] = place
    return table


def read_at(file: File, positions: tf.Tensor | np.ndarray) -> tf.Tensor:
    """Read numbers of 8 bytes: int64 (...) <- positions of their bytes, int64 (..., 8)."""
    # The older one of two operations, which is told no axis.
    octets = tf.raw_ops.Gather(params=file.data, indices=tf.minimum(positions, file.end))
    return tf.bitcast(octets, tf.int64)


def read(file: File, at: tf.Tensor | None, *places: Place) -> list[tf.Tensor]:
    """Read numbers of up to 8 bytes, whose places count from a position, or from the start.

    Returns:
        int64 scalars.
    """
    where = offsets(*places)
    return tf.unstack(read_at(file, where if at is None else at + where))


def first_found(
    file: File,
    first: int,
    step: Callable[[tf.Tensor], tuple[tf.Tensor, list[tf.Tensor]]],
    kinds: int,
) -> list[tf.Tensor]:
    """Walk through the parts of a file until the first of each wanted kind has been found.

    Args:
        first: where the first part begins.
        step: position of a part -> that of the next, and for each kind whether this one is of it.
        kinds: how many there are.

    Returns:
        Positions, one for each kind; ``NOWHERE`` for what is not among ``MAX_PARTS`` parts.
    """

    def walk(at: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        after, is_wanted = step(at)
        return after, tf.minimum(found, tf.where(tf.stack(is_wanted), at, NOWHERE))

    _, found = tf.while_loop(
        lambda at, found: (at < file.end) & (tf.reduce_max(found) == NOWHERE),
        walk,
        (tf.constant(first, tf.int64), tf.constant([NOWHERE] * kinds, tf.int64)),
        maximum_iterations=MAX_PARTS,
    )
    return tf.unstack(found)


# ---- errors ----


def assert_with_message(
    condition: tf.Tensor | bool, message: Message, value: tf.Tensor
) -> tf.Tensor:
    """Give ``value`` (of any shape) back, or fail with INVALID_ARGUMENT and the message.

    Whatever is made of the result cannot run before the check has passed. The check has to depend
    on the data in that way: nothing else keeps it in a SavedModel.
    """
    with tf.control_dependencies([tf.debugging.Assert(condition, [joined(message)])]):
        return tf.identity(value)


def joined(message: Message) -> tf.Tensor:
    """The parts of a message as one string, of the shape of its tensors (scalar or (B))."""
    return tf.strings.join(
        [part if isinstance(part, str) else tf.strings.as_string(part) for part in message]
    )


def first_error(*checks: tuple[tf.Tensor | bool, Message]) -> tf.Tensor:
    """The message of the first check that fails, "" where none does: string, scalar or (B)."""
    error = tf.constant("")
    for condition, message in reversed(checks):
        error = tf.where(condition, error, joined(message))
    return error


def filled_in(
    templates: Sequence[str], chosen: tf.Tensor, names: Sequence[str], numbers: tf.Tensor
) -> tf.Tensor:
    """One of M templates, as ``str.format`` has them, with numbers in place of their names.

    Args:
        chosen: its number, a scalar.
        numbers: int64 (N), those of N names.

    Returns:
        Scalar string.
    """
    named = [f"{{{name}}}" for name in names]
    rows = [
        [piece for text, name, *_ in Formatter().parse(row) for piece in (text, f"{{{name}}}")]
        for row in templates
    ]
    rows = [[piece for piece in row if piece not in ("", "{None}")] for row in rows]
    texts = ["", *dict.fromkeys(piece for row in rows for piece in row if piece not in named)]
    place = {piece: i for i, piece in enumerate([*texts, *named])}
    longest = max(map(len, rows))
    table = [[place[piece] for piece in row] + [0] * (longest - len(row)) for row in rows]
    given = tf.concat([texts, tf.strings.as_string(numbers)], 0)
    return tf.strings.reduce_join(tf.gather(given, tf.gather(table, chosen)))


# ---- EXIF orientation ----

# Where the EXIF block is not among that many parts of a file, the image is taken as it is stored. A
# phone writes it first; a file made of millions of empty parts must not keep a server busy.
MAX_PARTS = 4096
_MAX_ENTRIES = 512
_PREFIX = b"Exif\x00\x00"
_SHORT, _LONG = 3, 4

# Tables over the byte orders: Intel's, Motorola's, and any other, where nothing is found.
_MARKS = [mark(b"II*\0"), mark(b"MM\0*"), 0]
_MARKS_AND_STARTS = np.stack(
    [offsets(little(0, 4), little(0, 4), []), offsets(little(4, 4), big(4, 4), [])]
)
_COUNT = offsets(little(0, 2), big(0, 2), [])
# An entry's value, form and tag are read as one number. A value is in 2 bytes, or in the lower 2
# of 4.
_ENTRY = np.stack(
    [
        offsets(*([*number(at, 2), *number(4, 2), *number(2, 2)] for at in values))
        for number, values in ((little, (10, 10)), (big, (10, 12)))
    ]
    + [offsets([], [])]
)
_ORIENTATION = np.array([(EXIF_ORIENTATION << 32) + (form << 16) for form in (_SHORT, _LONG)])


def orientation_at(file: File, block: tf.Tensor) -> tf.Tensor:
    """Read the orientation in the first directory of an EXIF block, in either byte order.

    Args:
        block: where it is, or ``NOWHERE``.

    Returns:
        int32 scalar, 1 to 8; 1 if there is no such block, or a broken one.
    """
    (prefix,) = read(file, block, little(0, 6))
    block += tf.where(prefix == mark(_PREFIX), tf.constant(6, tf.int64), 0)
    marks, starts = tf.unstack(read_at(file, block + _MARKS_AND_STARTS))
    order = tf.argmax(marks == _MARKS)
    directory = block + tf.gather(starts, order)
    count = tf.minimum(read_at(file, directory + tf.gather(_COUNT, order)), _MAX_ENTRIES)
    entries = directory + tf.range(0, 12 * count, 12)[:, None, None]
    found = read_at(file, entries + tf.gather(_ENTRY, order)) - _ORIENTATION  # (count, 2)
    # What is not wanted is below 0, or 2**16 and more.
    value = tf.reduce_max(tf.where(found // 2**16 == 0, found, 0))
    return tf.gather([1, *ORIENTATIONS, 1], tf.clip_by_value(value, 0, len(ORIENTATIONS) + 1))


def upright(pixels: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn pixels (H, W, 3) as an EXIF orientation, int32 scalar from 1 to 8, says."""
    axes = [[1, 0, 2] if swap else [0, 1, 2] for swap, _, _ in ORIENTATIONS.values()]
    reversed_ = [[flip, mirror, False] for _, mirror, flip in ORIENTATIONS.values()]

    def turned() -> tf.Tensor:
        swapped = tf.transpose(pixels, tf.gather(axes, orientation - 1))
        return tf.raw_ops.Reverse(tensor=swapped, dims=tf.gather(reversed_, orientation - 1))

    return tf.cond(orientation == 1, lambda: pixels, turned)
