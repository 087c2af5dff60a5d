"""Decode, resize and normalize images, and encode masks, as operations of a TensorFlow graph.

The counterpart of ``image_reading`` and ``image_arrays`` for exports: core operations alone, of
TensorFlow 2.19 and later, with every size unknown. An image is read in two steps: ``read_header``
says its size, or why it cannot be read, and ``read_pixels`` decodes it. Neither fails, whatever the
bytes are: errors are data.
"""

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_groupvit.preprocessing.image_graph_bytes import (
    Header,
    assert_with_message,
    bytes_of,
    first_error,
    header,
    upright,
)
from tf_groupvit.preprocessing.image_graph_formats import FORMATS, format_of
from tf_groupvit.preprocessing.image_reading import MAX_PIXELS

HEADER = Header(
    error=tf.TensorSpec([], tf.string),
    size=tf.TensorSpec([2], tf.int64),
    still=tf.TensorSpec([], tf.string),
    corner=tf.TensorSpec([2], tf.int64),
    color=tf.TensorSpec([3], tf.uint8),
    orientation=tf.TensorSpec([], tf.int32),
    format=tf.TensorSpec([], tf.int32),
)
_BAND = 2**22  # pixels that are resized at a time
_BASE64 = "|".join(row.base64 for row in FORMATS.values())


def decode(contents: tf.Tensor, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Decode one image, a scalar string, as ``image_reading.read_image`` does: uint8 (H, W, 3).

    JPEG, PNG, GIF (first frame), BMP (uncompressed) and WebP, where the runtime reads it
    (TensorFlow 2.21 does, 2.19 does not). Turned as EXIF says; alpha dropped; the upper eight of
    sixteen bits. The pixels are Pillow's, to the bit where the file is sound (one level off in some
    CMYK). Orientation that is in XMP alone, which Pillow also reads, is not looked for.

    Fails with INVALID_ARGUMENT for what cannot be decoded, and for an image of more than
    ``max_pixels`` pixels by its header, the latter before anything is decoded.
    """
    head = read_header(contents, max_pixels)
    error, pixels = read_pixels(head)
    return upright(assert_with_message(error == "", [error], pixels), head.orientation)


def read_header(contents: tf.Tensor, max_pixels: int = MAX_PIXELS) -> Header:
    """Read what one file, a scalar string, says before it is decoded."""
    return Header(*_header_reader(max_pixels)(contents))


def read_pixels(head: Header, halvings: tf.Tensor | int = 0) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode the file of a header.

    Args:
        head: of ``read_header``; where it has an error, nothing is decoded.
        halvings: 0 to 3; a JPEG is decoded at that many times half its size, rounded up. Other
            formats are not.

    Returns:
        Why it cannot be decoded, a scalar string, "" where it can; and uint8 (H, W, 3), else
        (0, 0, 3). The pixels lie as they are stored: ``upright`` turns them.
    """
    return _pixel_reader()(*head, tf.cast(halvings, tf.int32))


# The readers are functions of the graph, so that signatures share their nodes, traced once.


@functools.cache
def _header_reader(max_pixels: int) -> Callable[..., Header]:
    def read(contents: tf.Tensor) -> Header:
        data = bytes_of(contents)
        number = format_of(data)
        readers = [
            lambda row=row: row.read_header(contents, data, max_pixels) for row in FORMATS.values()
        ]
        found = tf.switch_case(number, [*readers, lambda: _no_image(contents)])
        return found._replace(format=number)

    return tf.function(read, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def _no_image(contents: tf.Tensor) -> Header:
    length = tf.strings.length(contents)
    beginning = tf.strings.substr(contents, 0, 64)
    is_base64 = tf.strings.regex_full_match(beginning, rf"\s*(data:image/|{_BASE64})(?s:.*)")
    hint = (
        'Expected the bytes of an image, got base64 as plain text: send {"b64": "..."} over REST,'
        " bytes over gRPC."
    )
    expected = f"Expected an image of kind {', '.join(FORMATS)}, got "
    other = [expected, length, " bytes of another kind."]
    nothing = tf.constant(0, tf.int64)
    return header(first_error((~is_base64, [hint]), (False, other)), nothing, nothing, contents)


@functools.cache
def _pixel_reader() -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    def read(*fields: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        head, halvings = Header(*fields[:-1]), fields[-1]
        nothing = (head.error, tf.zeros([0, 0, 3], tf.uint8))
        return tf.cond(head.error == "", lambda: _decoded(head, halvings), lambda: nothing)

    return tf.function(
        read, input_signature=[*HEADER, tf.TensorSpec([], tf.int32)], autograph=False
    )


def _decoded(head: Header, halvings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    decoders = [lambda row=row: row.decode(head, halvings) for row in FORMATS.values()]
    pixels = tf.ensure_shape(tf.switch_case(head.format, decoders), [None, None, 3])
    failure = tf.gather([row.failure for row in FORMATS.values()], head.format)
    return tf.where(tf.size(pixels) > 0, "", failure), pixels


# ---- resizing and normalizing ----


def resize_bicubic(
    pixels: tf.Tensor,
    height: tf.Tensor | int,
    width: tf.Tensor | int,
    covered: tf.Tensor | None = None,
    rows_first: tf.Tensor | None = None,
) -> tf.Tensor:
    """Resize uint8 (H, W, 3) to (height, width, 3) as Pillow's bicubic does, within 2 levels.

    Pillow rounds to 8 bits after each of its two passes, and which one comes first shows; so it is
    done here, in the order of ``image_arrays.resize_bicubic``.

    Args:
        covered: float32 (2): how many of the rows and columns the image covers, all of them unless
            given. A JPEG that was decoded at a fraction of its size ends somewhere within the last
            ones.
        rows_first: bool scalar: whether the number of rows changes first; as ``rows_come_first``
            says unless given.
    """
    H, W = tf.unstack(tf.shape(pixels)[:2])
    height, width = tf.cast(height, tf.int32), tf.cast(width, tf.int32)
    covered = tf.cast(tf.stack([H, W]), tf.float32) if covered is None else covered
    rows_first = rows_come_first(H, W, height, width) if rows_first is None else rows_first
    first = tf.where(rows_first, tf.stack([height, W]), tf.stack([H, width]))
    for size in (first, tf.stack([height, width])):
        same = size == tf.shape(pixels)[:2]
        scale = tf.where(same, 1.0, tf.cast(size, tf.float32) / covered)
        pixels = _resize_by_bands(pixels, size, scale)
    return tf.ensure_shape(pixels, [tf.get_static_value(height), tf.get_static_value(width), 3])


def rows_come_first(
    H: tf.Tensor, W: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int
) -> tf.Tensor:
    """Whether the number of rows changes first, as ``image_arrays.rows_first``: bool scalar."""
    return H - height > tf.maximum(0, 2 * (W - width))


def _resize_by_bands(pixels: tf.Tensor, size: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Resize once; where only the number of columns changes, a band of rows at a time.

    In between the operation holds float32 of the new height and the old width: twelve bytes for
    each old pixel.
    """
    H, W = tf.unstack(tf.shape(pixels)[:2])
    rows = tf.maximum(_BAND // W, 1)

    def step(at: tf.Tensor, bands: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        band = pixels[at : at + rows]
        resized = _resize_once(band, tf.stack([tf.shape(band)[0], size[1]]), scale)
        return at + rows, bands.write(at // rows, resized)

    def by_bands() -> tf.Tensor:
        count = (H + rows - 1) // rows
        bands = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=[None, None, 3])
        _, bands = tf.while_loop(lambda at, _: at < H, step, (0, bands), parallel_iterations=1)
        return bands.concat()

    is_large = (size[0] == H) & (rows < H)
    return tf.cond(is_large, by_bands, lambda: _resize_once(pixels, size, scale))


def _resize_once(pixels: tf.Tensor, size: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    resized = tf.raw_ops.ScaleAndTranslate(
        images=pixels[None],
        size=size,
        scale=scale,
        translation=[0.0, 0.0],
        kernel_type="keyscubic",
        antialias=True,
    )
    return _round(resized[0])


def resize_bilinear(
    pixels: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int
) -> tf.Tensor:
    """Resize uint8 (H, W, 3) to (height, width, 3) as OpenCV's bilinear does by default.

    Half-pixel centers and no antialiasing, as the published segmentation scores were made. OpenCV
    rounds its weights to 11 bits, so it may differ by one gray level. Halves round up.
    """
    size = tf.stack([tf.cast(height, tf.int32), tf.cast(width, tf.int32)])
    return _round(
        tf.raw_ops.ResizeBilinear(images=pixels[None], size=size, half_pixel_centers=True)[0]
    )


def _round(levels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.floor(levels + 0.5), 0.0, 255.0), tf.uint8)


def to_pixel_values(pixels: tf.Tensor, mean: Sequence[float], std: Sequence[float]) -> tf.Tensor:
    """(pixels / 255 - mean) / std: uint8 (B, H, W, 3) -> float32 (B, 3, H, W).

    The same floats as of ``image_arrays.normalize``.
    """
    levels = tf.cast(tf.transpose(pixels, [0, 3, 1, 2]), tf.float32) / _unfolded(255.0)
    shift, scale = (tf.reshape(tf.cast(numbers, tf.float32), [3, 1, 1]) for numbers in (mean, std))
    return (levels - shift) / _unfolded(scale)


def _unfolded(divisor: tf.Tensor | float) -> tf.Tensor:
    """A constant that graphs do not know as one: they would multiply by its rounded reciprocal."""
    divisor = tf.convert_to_tensor(divisor)
    return tf.raw_ops.PlaceholderWithDefault(input=divisor, shape=divisor.shape)


def encode_mask(labels: tf.Tensor) -> tf.Tensor:
    """Write labels uint8 (H, W) as a gray PNG, one byte a pixel: scalar string."""
    return tf.io.encode_png(labels[..., None])
