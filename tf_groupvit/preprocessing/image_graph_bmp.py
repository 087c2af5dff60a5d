"""The bytes of an uncompressed BMP in; its header, and its pixels (H, W, 3) read by tensor
operations, out.
"""

import tensorflow as tf

from tf_groupvit.preprocessing.image_graph_bytes import (
    Header,
    big,
    bytes_of,
    first_fault,
    header,
    little,
    read,
    within_limit,
)

_PLAIN, _MASKS = (
    0,
    3,
)  # the two ways of storing pixels that are read: as they are, and with masks for the channels
_USUAL_MASKS = (0xFF0000, 0xFF00, 0xFF)


def bmp_header(contents: tf.Tensor, data: tf.Tensor, max_pixels: int) -> Header:
    """Read the header: 1, 4 and 8 bits with a palette, 24 and 32 bits, not compressed, are decoded.

    Compressed files and those of 16 bits, which hardly exist, are not.
    """
    header_size, bits, storage = little(data, 14, 4), little(data, 28, 2), little(data, 30, 4)
    W, H = _signed(data, 18), tf.abs(_signed(data, 22))
    usual = tf.reduce_all(
        [little(data, 54 + 4 * i, 4) == mask for i, mask in enumerate(_USUAL_MASKS)]
    )
    readable = (
        tf.reduce_any(bits == [1, 4, 8, 24, 32]) & (storage == _PLAIN)
        | (bits == 32) & (storage == _MASKS) & usual
    )
    end = little(data, 10, 4) + _stride(W, bits) * H  # of the pixels
    words = first_fault(
        (
            (header_size >= 40) & readable,
            [
                "Expected an uncompressed BMP of 1, 4, 8, 24 or 32 bits, came ",
                bits,
                " bits, kind ",
                storage,
                ".",
            ],
        ),
        *within_limit(H, W, max_pixels),
        (
            end <= tf.size(data, out_type=tf.int64) - 1,
            ["Expected a whole BMP of ", W, " x ", H, ", came a truncated one."],
        ),
    )
    return header(words, H, W, contents)


def decode_bmp(contents: tf.Tensor) -> tf.Tensor:
    """Decode a BMP whose header is sound; a fourth channel is dropped: uint8 (H, W, 3).

    TensorFlow's own decoder takes palette numbers for grey.
    """
    data = bytes_of(contents)
    start, header_size, bits = little(data, 10, 4), little(data, 14, 4), little(data, 28, 2)
    W, H, upward = _signed(data, 18), tf.abs(_signed(data, 22)), _signed(data, 22) > 0
    stride = _stride(W, bits)
    rows = tf.reshape(data[start : start + stride * H], [H, stride])
    rows = tf.cond(upward, lambda: tf.reverse(rows, [0]), lambda: rows)
    table = read(data, 14 + header_size, 4 * 256)
    palette = tf.reshape(tf.cast(table, tf.uint8), [256, 4])[:, 2::-1]  # blue is first
    return tf.cond(
        bits <= 8, lambda: _through(palette, rows, bits, W), lambda: _straight(rows, bits, W)
    )


def _stride(W: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Bytes of a row, which is filled up to four."""
    return (W * bits + 31) // 32 * 4


def _signed(data: tf.Tensor, at: int) -> tf.Tensor:
    value = little(data, at, 4)
    return tf.where(big(data, at + 3, 1) >= 128, value - (1 << 32), value)


def _through(palette: tf.Tensor, rows: tf.Tensor, bits: tf.Tensor, W: tf.Tensor) -> tf.Tensor:
    """Look numbers of 1, 4 or 8 bits up, the upper bits of a byte first: (H, W, 3) <- (256, 3), (H,
    stride).
    """
    bits = tf.minimum(tf.cast(bits, tf.uint8), 8)
    shifts = tf.cast(tf.range(8 // tf.cast(bits, tf.int32))[::-1], tf.uint8) * bits
    numbers = tf.bitwise.right_shift(rows[..., None], shifts)  # (H, stride, pixels in a byte)
    numbers = tf.bitwise.bitwise_and(
        numbers, tf.bitwise.right_shift(tf.constant(255, tf.uint8), 8 - bits)
    )
    return tf.gather(
        palette, tf.cast(tf.reshape(numbers, [tf.shape(rows)[0], -1])[:, :W], tf.int32)
    )


def _straight(rows: tf.Tensor, bits: tf.Tensor, W: tf.Tensor) -> tf.Tensor:
    """Split rows into pixels of 3 or 4 bytes, blue first: (H, W, 3) <- (H, stride)."""
    C = bits // 8
    return tf.reshape(rows[:, : W * C], [tf.shape(rows, out_type=tf.int64)[0], W, C])[..., 2::-1]
