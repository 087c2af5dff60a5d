"""The bytes of a GIF in; its header, with a file of its first frame alone, out."""

import tensorflow as tf

from tf_groupvit.preprocessing.image_graph_bytes import (
    Header,
    big,
    byte,
    first_fault,
    header,
    little,
    read,
    within_limit,
)

_EXTENSION, _FRAME, _END = 0x21, 0x2C, b"\x3b"
_GRAPHIC_CONTROL = 0xF9
_MOST_EXTENSIONS = 1024
_HOPS = 8  # blocks that are stepped over in one round of the loop


def gif_header(contents: tf.Tensor, data: tf.Tensor, max_pixels: int) -> Header:
    """Find the first frame of a GIF, which the decoder gets alone, and its place on the canvas.

    TensorFlow's decoder unpacks every frame, so that a small file can fill the memory, and paints
    transparent pixels black. It gets the first frame alone, as an image of the frame's own size,
    without the extension that makes colors transparent; around the frame is what Pillow puts there.
    """
    frame, control = _first_frame(data, _after_table(data, 10, 13))
    left, top, W, H = (little(data, frame + 1 + 2 * i, 2) for i in range(4))
    height, width = (
        tf.maximum(little(data, 8, 2), top + H),
        tf.maximum(little(data, 6, 2), left + W),
    )
    colors = _after_table(data, frame + 9, frame + 10)
    end = _skip_blocks(data, colors + 1)
    words = first_fault(
        (byte(data, frame) == _FRAME, ["Expected a GIF with a frame, came none or a broken one."]),
        *within_limit(height, width, max_pixels),
        (
            (byte(data, end) == 0) & (end < tf.size(data, out_type=tf.int64) - 1),
            ["Expected a GIF with a whole first frame, came a broken or truncated one."],
        ),
    )
    still = tf.cond(words == "", lambda: _alone(contents, frame, end), lambda: contents)
    table = tf.where(colors > frame + 10, frame + 10, 13)
    unused = tf.where(byte(data, control + 3) % 2 == 1, byte(data, control + 6), 0)
    color = tf.cast(read(data, table + 3 * unused, 3), tf.uint8)
    return header(words, height, width, still, (top, left), color)


def _after_table(
    data: tf.Tensor, flags_at: tf.Tensor | int, table_at: tf.Tensor | int
) -> tf.Tensor:
    """Say where the table of colours ends that these flags announce; it may be missing."""
    flags = big(data, flags_at, 1)
    entries = tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8)
    return tf.cast(table_at, tf.int64) + tf.where(flags >= 128, 3 * entries, 0)


def _first_frame(data: tf.Tensor, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Step over extensions: where the first frame begins, and the last graphic control before it
    (or the end).
    """

    def step(at: tf.Tensor, control: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        control = tf.where(byte(data, at + 1) == _GRAPHIC_CONTROL, at, control)
        return _skip_blocks(data, at + 2) + 1, control

    start = (at, tf.size(data, out_type=tf.int64))
    return tf.while_loop(
        lambda at, _: byte(data, at) == _EXTENSION, step, start, maximum_iterations=_MOST_EXTENSIONS
    )


def _skip_blocks(data: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Step over blocks that begin with their length, up to the empty one: its position, if it is
    reached.

    Encoders fill blocks with 255 bytes. Where they hold under 64 on average, the walk gives up
    early.
    """

    def hop(at: tf.Tensor) -> tf.Tensor:
        for _ in range(_HOPS):
            length = byte(data, at)
            at = tf.where(length > 0, at + 1 + length, at)
        return at

    rounds = 256 + tf.size(data) // (64 * _HOPS)
    return tf.while_loop(
        lambda at: byte(data, at) > 0, lambda at: (hop(at),), (at,), maximum_iterations=rounds
    )[0]


def _alone(contents: tf.Tensor, frame: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """Write a GIF of one frame that fills its canvas: header, table of colours, frame, end."""

    def cut(start: tf.Tensor | int, stop: tf.Tensor | int) -> tf.Tensor:
        start = tf.cast(start, tf.int64)
        return tf.strings.substr(contents, start, tf.cast(stop, tf.int64) - start)

    size = cut(frame + 5, frame + 9)
    table_end = _after_table(tf.io.decode_raw(cut(0, 13), tf.uint8), 10, 13)
    parts = [
        cut(0, 6),
        size,
        cut(10, table_end),
        cut(frame, frame + 1),
        b"\0\0\0\0",
        size,
        cut(frame + 9, end + 1),
        _END,
    ]
    return tf.strings.join(parts)
