"""Decode, resize and normalize images, and encode masks, as operations of a TensorFlow graph.

The counterpart of ``image_reading`` and ``image_arrays`` for exports: core operations alone, of
TensorFlow 2.19 and later, with every size unknown. An image is read in two steps: ``read_header``
says its size, or why it cannot be read, and ``read_pixels`` decodes it. Neither fails, whatever the
bytes are: errors are data.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_groupvit.preprocessing.image_graph_bytes import (
    File,
    Header,
    assert_with_message,
    filled_in,
    orientation_at,
    upright,
)
from tf_groupvit.preprocessing.image_graph_formats import (
    FORMATS,
    Found,
    format_of,
    or_nothing,
)
from tf_groupvit.preprocessing.image_reading import MAX_PIXELS, MAX_SIDE

HEADER = Header(
    error=tf.TensorSpec([], tf.string),
    size=tf.TensorSpec([2], tf.int64),
    orientation=tf.TensorSpec([], tf.int32),
    format=tf.TensorSpec([], tf.int32),
    contents=tf.TensorSpec([], tf.string),
    found=tf.TensorSpec([len(Found._fields)], tf.int64),
)
_BAND = 2**22  # pixels that are resized at a time
_IMAGE = tf.TensorSpec([1, None, None, 3], tf.uint8)
_BASE64 = "|".join(row.base64 for row in FORMATS.values())
_NO_IMAGE = f"Expected an image of kind {', '.join(FORMATS)}, got {{a}} bytes of another kind."
_IS_BASE64 = (
    'Expected the bytes of an image, got base64 as plain text: send {{"b64": "..."}} over REST,'
    " bytes over gRPC."
)


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
        file = File.of(contents)
        number = format_of(file)
        readers = [lambda row=row: row.read_header(file) for row in FORMATS.values()]
        found = tf.switch_case(number, [*readers, lambda: _no_image(contents)])
        found = tf.ensure_shape(found, HEADER.found.shape)
        said = Found(*tf.unstack(found))
        size = tf.stack([said.height, said.width])
        bad = _first_bad(said, size, max_pixels)
        error = filled_in(_errors(max_pixels), number * _CHECKS + bad, Found._fields, found)
        return Header(error, size, orientation_at(file, said.exif), number, contents, found)

    return tf.function(read, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def _no_image(contents: tf.Tensor) -> tf.Tensor:
    beginning = tf.strings.substr(contents, 0, 64)
    is_base64 = tf.strings.regex_full_match(beginning, rf"\s*(data:image/|{_BASE64})(?s:.*)")
    return Found.of(broken=is_base64, a=tf.strings.length(contents))


def _first_bad(said: Found, size: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Which of the checks of a header is the first that fails, or the last, which says nothing."""
    # One more than the limit is enough to be over it, and so no product overflows.
    pixels = tf.reduce_prod(tf.minimum(size, max_pixels + 1))
    low, high = tf.reduce_min(size), tf.reduce_max(size)
    checks = tf.stack([said.broken, -low, pixels, high, said.unlike, 1])
    return tf.argmax(checks > [0, -1, max_pixels, MAX_SIDE, 0, 0], output_type=tf.int32)


_CHECKS = 6


def _errors(max_pixels: int) -> list[str]:
    """What is said where a check fails, format by format."""
    empty = "Expected an image of at least one pixel, got {width} x {height}."
    large = [
        f"An image of {{width}} x {{height}} is over the limit of {limit}: shrink it."
        for limit in (f"{max_pixels} pixels", f"{MAX_SIDE} pixels a side")
    ]
    rows = [[row.broken, empty, *large, row.unlike, ""] for row in FORMATS.values()]
    # Of what is no image no size is read.
    return [error for row in [*rows, [_IS_BASE64, _NO_IMAGE, *large, "", ""]] for error in row]


@functools.cache
def _pixel_reader() -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    def read(*fields: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        head, halvings = Header(*fields[:-1]), fields[-1]
        said = Found(*tf.unstack(head.found))
        rows = [*FORMATS.values()]
        no_pixels = tf.data.Dataset.from_tensors(tf.zeros([0, 0, 3], tf.uint8))
        nothing = tf.data.experimental.to_variant(no_pixels)
        makers = [
            functools.partial(_as_variant, decoder, head.contents, said)
            for row in rows
            for decoder in row.decoders
        ]
        counts = [len(row.decoders) for row in rows]
        first = tf.gather([*itertools.accumulate(counts, initial=0)], head.format)
        last = tf.gather([*(count - 1 for count in counts), 0], head.format)
        chosen = tf.where(head.error == "", first + tf.minimum(halvings, last), len(makers))
        made = tf.switch_case(chosen, [*makers, lambda: nothing])
        made = tf.data.experimental.from_variant(made, tf.TensorSpec([None, None, 3], tf.uint8))
        pixels = or_nothing(made, no_pixels)
        is_made = tf.size(pixels) > 0
        failure = tf.gather([*(row.failure for row in rows), ""], head.format)
        error = tf.where((head.error == "") & ~is_made, failure, head.error)
        is_part = is_made & (said.H > 0) & (said.height * said.width > said.H * said.W)
        return error, tf.cond(is_part, lambda: _placed(pixels, said), lambda: pixels)

    return tf.function(
        read, input_signature=[*HEADER, tf.TensorSpec([], tf.int32)], autograph=False
    )


def _as_variant(
    decoder: Callable[[tf.Tensor, Found], tf.data.Dataset], contents: tf.Tensor, said: Found
) -> tf.Tensor:
    return tf.data.experimental.to_variant(decoder(contents, said))


def _placed(pixels: tf.Tensor, said: Found) -> tf.Tensor:
    """Lay a part of an image, (H, W, 3), where it belongs on a canvas of one color."""
    below, right = said.height - said.top - said.H, said.width - said.left - said.W
    color = tf.cast(said.color // [1, 2**8, 2**16] % 2**8, tf.uint8)
    edges = [[said.top, below], [said.left, right], [0, 0]]
    return tf.pad(pixels - color, edges) + color  # numbers of 8 bits come around


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
    H, W, _ = tf.unstack(tf.shape(pixels))
    height, width = tf.cast(height, tf.int32), tf.cast(width, tf.int32)
    rows_first = rows_come_first(H, W, height, width) if rows_first is None else rows_first
    old, new = tf.stack([H, W]), tf.stack([height, width])
    between = tf.where(tf.stack([rows_first, ~rows_first]), new, old)
    covered = tf.cast(old, tf.float32) if covered is None else covered
    images = _resize_once(_resize_once(pixels[None], between, covered), new, covered)
    return tf.ensure_shape(tf.squeeze(images, [0]), [*map(tf.get_static_value, (height, width)), 3])


def rows_come_first(
    H: tf.Tensor, W: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int
) -> tf.Tensor:
    """Whether the number of rows changes first, as ``image_arrays.rows_first``: bool scalar."""
    return H - height > tf.maximum(0, 2 * (W - width))


@tf.function(
    input_signature=[_IMAGE, tf.TensorSpec([2], tf.int32), tf.TensorSpec([2], tf.float32)],
    autograph=False,
)
def _resize_once(image: tf.Tensor, size: tf.Tensor, covered: tf.Tensor) -> tf.Tensor:
    """Resize (1, H, W, 3) once; where only the number of columns changes, a band of rows at a time.

    In between the operation holds float32 of the new height and the old width: twelve bytes for
    each old pixel.
    """
    (_, H, W, _), (height, width) = tf.unstack(tf.shape(image)), tf.unstack(size)
    same = size == tf.stack([H, W])
    scale = tf.where(same, 1.0, tf.cast(size, tf.float32) / covered)
    rows = tf.where(same[0], tf.maximum(_BAND // W, 1), H)

    def resize(at: tf.Tensor, resized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        band = tf.raw_ops.ScaleAndTranslate(
            images=image[:, at : at + rows],
            size=tf.stack([tf.where(same[0], tf.minimum(rows, H - at), height), width]),
            scale=scale,
            translation=[0.0, 0.0],
            kernel_type="keyscubic",
            antialias=True,
        )
        return at + rows, tf.concat([resized, _round(band)], 1)

    _, resized = tf.while_loop(
        lambda at, _: at < H,
        resize,
        (0, tf.zeros([1, 0, width, 3], tf.uint8)),
        shape_invariants=(tf.TensorShape([]), _IMAGE.shape),
        parallel_iterations=1,
    )
    return resized


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
    # A cast rounds down.
    return tf.cast(
        tf.raw_ops.ClipByValue(t=levels + 0.5, clip_value_min=0.0, clip_value_max=255.0), tf.uint8
    )


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
