"""An input as a server hands it over, of any shape, in; the same tensor, its shape made sure of,
out.

Neither the server nor its C++ session looks at the shapes that a signature declares, and TensorFlow
folds a check of them away when it believes the declaration. So the checks here read the rank while
the graph runs, and hang on the data.
"""

from collections.abc import Sequence

import tensorflow as tf

from tf_groupvit.preprocessing.image_graph_bytes import only_if
from tf_groupvit.preprocessing.image_reading import MAX_SIDE

# Letters of shapes that name a size: what an input of one dimension less or more should have been.
Sizes = Sequence[int | None]


def strings(value: tf.Tensor, name: str, most: int) -> tf.Tensor:
    """A string for each image or text, (B), of at most ``most``."""
    return _few(_of_rank(value, name, "(B)", 1), name, most)


def numbers(value: tf.Tensor, name: str, letters: str, sizes: Sizes, most: int) -> tf.Tensor:
    """(B, *sizes), where None is any size, and B at most ``most``.

    An empty batch may come as shape (0): JSON has no way to say (0, 4, 4, 3).

    Args:
        letters: the shape as messages write it, e.g. ``"(B, H, W, 3)"``.
    """
    loose = _loose(value)
    came = tf.shape(loose)
    nothing = tf.reduce_all(tf.equal(came, 0)) & tf.equal(tf.size(came), 1)
    none = tf.constant([0, *(size or 1 for size in sizes)])
    loose = tf.cond(nothing, lambda: _loose(tf.reshape(loose, none)), lambda: tf.identity(loose))
    value = _of_rank(loose, name, letters, 1 + len(sizes))
    shape = tf.shape(value)
    wanted = tf.constant([-1, *(-1 if size is None else size for size in sizes)])
    fits = tf.reduce_all(tf.equal(wanted, -1) | tf.equal(shape, wanted))
    value = only_if(fits, [f"{name}: expected shape {letters}, came ", _words(shape), "."], value)
    return _few(tf.ensure_shape(value, [None, *sizes]), name, most)


def _few(value: tf.Tensor, name: str, most: int) -> tf.Tensor:
    rows = tf.shape(value, out_type=tf.int64)[0]
    return only_if(
        rows <= most,
        [f"{name}: expected at most {most} rows, came ", rows, ": send fewer at once."],
        value,
    )


def few_pixels(value: tf.Tensor, name: str, most: int, height: int, width: int) -> tf.Tensor:
    """``value`` (B, ...), if its images have no more pixels than ``most``, all together.

    Args:
        height: the axis of the height; ``width`` likewise.
    """
    shape = tf.shape(value, out_type=tf.int64)
    pixels = shape[0] * shape[height] * shape[width]
    said = [
        f"{name}: expected at most {most} pixels in all, came ",
        pixels,
        ": send fewer or smaller images.",
    ]
    value = only_if(pixels <= most, said, value)
    short = tf.maximum(shape[height], shape[width]) <= MAX_SIDE
    return only_if(
        short,
        [f"{name}: expected at most {MAX_SIDE} pixels a side, came another: shrink it."],
        value,
    )


def some_well(words: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """``value``, if at least one of the rows (B) has no words that say what is wrong with it, or
    there are no rows.
    """
    first = tf.concat([words, [""]], axis=0)[0]
    return only_if((tf.size(words) == 0) | tf.reduce_any(words == ""), [first], value)


def nothing_wrong(rows: tf.Tensor) -> tf.Tensor:
    """Words for each of the rows (B, ...): none."""
    return tf.fill(tf.shape(rows)[:1], "")


def together(value: tf.Tensor, name: str, other: tf.Tensor, other_name: str) -> tf.Tensor:
    """``value``, if it has as many rows as ``other``."""
    mine, theirs = tf.shape(value)[0], tf.shape(other)[0]
    words = [
        f"{name} and {other_name}: expected one row for each image in both, came ",
        mine,
        " and ",
        theirs,
        ".",
    ]
    return only_if(tf.equal(mine, theirs), words, value)


def _of_rank(value: tf.Tensor, name: str, letters: str, rank: int) -> tf.Tensor:
    loose = _loose(value)
    came = tf.shape(loose)
    checked = only_if(
        tf.equal(tf.size(came), rank),
        [f"{name}: expected shape {letters}, came ", _words(came), "."],
        loose,
    )
    return tf.ensure_shape(checked, [None] * rank)


def _loose(value: tf.Tensor) -> tf.Tensor:
    """The same tensor, of a shape that nobody believes to know."""
    return tf.raw_ops.PlaceholderWithDefault(input=value, shape=tf.TensorShape(None))


def _words(shape: tf.Tensor) -> tf.Tensor:
    return tf.strings.join(
        ["(", tf.strings.reduce_join(tf.strings.as_string(shape), separator=", "), ")"]
    )
