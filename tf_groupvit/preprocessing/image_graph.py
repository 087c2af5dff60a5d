"""Bytes of an image in, pixels (H, W, 3), pixel values (B, 3, H, W) and PNG masks out: the graph twin of reading.

Core TensorFlow operations alone, of version 2.19 and later, with every size unknown, to be exported. An image is
read in two steps: ``read_header`` tells its size, and why it cannot be read, and ``read_pixels`` decodes it. Neither
fails, whatever the bytes are: words say what is wrong.
"""

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_groupvit.preprocessing.image_graph_bmp import bmp_header, decode_bmp
from tf_groupvit.preprocessing.image_graph_bytes import (
    KINDS,
    Header,
    big,
    bytes_of,
    first_fault,
    header,
    joined,
    kind_of,
    matches,
    only_if,
    place,
    within_limit,
)
from tf_groupvit.preprocessing.image_graph_exif import orientation_of, upright
from tf_groupvit.preprocessing.image_graph_gif import gif_header
from tf_groupvit.preprocessing.image_graph_webp import decode_webp, webp_header
from tf_groupvit.preprocessing.image_reading import MAX_PIXELS

HEADER = Header(
    *(tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.int64), tf.TensorSpec([], tf.string)),
    *(tf.TensorSpec([2], tf.int64), tf.TensorSpec([3], tf.uint8), tf.TensorSpec([], tf.int32)),
    tf.TensorSpec([], tf.int32),
)
_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
# How a file of each kind begins when it is written as base64.
_AS_BASE64 = r"\s*(data:image/|/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk[A-Za-z0-9+/]{30})(?s:.*)"


def decode(contents: tf.Tensor, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Decode one image, a scalar string, as image_reading.read_image does: uint8 (H, W, 3).

    JPEG, PNG, GIF (first frame), BMP (uncompressed) and WebP, where the runtime reads it (TensorFlow 2.21
    does, 2.19 does not). Turned as EXIF says; alpha dropped; the upper eight of sixteen bits. What cannot
    be decoded, and an image of more than ``max_pixels`` pixels by its header, is INVALID_ARGUMENT; the
    latter before anything is decoded. The pixels are Pillow's, to the bit where the file is sound (one
    level off in some CMYK). Orientation that stands in XMP alone, which Pillow also reads, is not looked for.
    """
    words, pixels = read_pixels(read_header(contents, max_pixels))
    return only_if(words == "", [words], pixels)


def read_header(contents: tf.Tensor, max_pixels: int = MAX_PIXELS) -> Header:
    """Read what one file, a scalar string, says before it is decoded."""
    return Header(*_header_reader(max_pixels)(contents))


def read_pixels(head: Header) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode the file of a header: why that cannot be done, "" where all is well, and uint8 (H, W, 3), else (0, 0, 3).

    Args:
        head: of ``read_header``; where it has words, nothing is decoded.
    """
    return _pixel_reader()(*head)


@functools.cache
def _header_reader(max_pixels: int) -> Callable[..., Header]:
    """Make the reader a function of the graph, so that signatures share its nodes, traced once."""

    def read(contents: tf.Tensor) -> Header:
        data = bytes_of(contents)
        by_kind = {
            "JPEG": lambda: _jpeg_header(contents, data, max_pixels),
            "PNG": lambda: _png_header(contents, data, max_pixels),
            "GIF": lambda: gif_header(contents, data, max_pixels),
            "BMP": lambda: bmp_header(contents, data, max_pixels),
            "WebP": lambda: webp_header(contents, data, max_pixels),
        }
        kind = kind_of(data)
        found = tf.switch_case(kind, [*(by_kind[name] for name in KINDS), lambda: _no_image(contents)])
        return found._replace(kind=kind)

    return tf.function(read, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


@functools.cache
def _pixel_reader() -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Make the decoder a function of the graph, as above."""

    def read(*fields: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        head = Header(*fields)
        return tf.cond(head.words == "", lambda: _decoded(head), lambda: (head.words, tf.zeros([0, 0, 3], tf.uint8)))

    return tf.function(read, input_signature=list(HEADER), autograph=False)


def _decoded(head: Header) -> tuple[tf.Tensor, tf.Tensor]:
    pixels = tf.switch_case(head.kind, [lambda name=name: _guarded(*_DECODERS[name](head)) for name in KINDS])
    pixels = upright(tf.ensure_shape(pixels, [None, None, 3]), head.orientation)
    said = joined(["Expected a whole ", tf.gather(list(KINDS), head.kind), ", came a damaged or truncated one."])
    return tf.where(tf.size(pixels) > 0, "", said), pixels


def _guarded(decoder: Callable[..., tf.Tensor], *given: tf.Tensor, none: tf.Tensor | None = None) -> tf.Tensor:
    """``decoder(*given)``, or nothing, (0, 0, 3), where it fails: a graph cannot catch an error, its datasets can.

    The decoder is prepared anew each time, so it should be of few operations.
    """
    none = tf.zeros([0, 0, 3], tf.uint8) if none is None else none
    made = tf.data.Dataset.from_tensors(given).map(decoder).ignore_errors()
    return made.concatenate(tf.data.Dataset.from_tensors(none)).take(1).get_single_element()


def _jpeg_header(contents: tf.Tensor, data: tf.Tensor, max_pixels: int) -> Header:
    """The decoder is asked, so that no other size is checked than the one that it takes."""
    sides = _guarded(tf.image.extract_jpeg_shape, contents, none=tf.fill([3], -1))
    height, width = tf.cast(sides[0], tf.int64), tf.cast(sides[1], tf.int64)
    sound = (height >= 0, ["Expected a JPEG with a whole header, came a damaged or truncated one."])
    words = first_fault(sound, *within_limit(height, width, max_pixels))
    return header(words, height, width, contents, orientation=orientation_of(data, "JPEG"))


def _png_header(contents: tf.Tensor, data: tf.Tensor, max_pixels: int) -> Header:
    """A missing end is added: pixels that are all there are shown without it everywhere else, too."""
    height, width = big(data, 20, 4), big(data, 16, 4)
    begins = (matches(data, 12, b"IHDR"), ["Expected a PNG that begins with IHDR, came a broken one."])
    words = first_fault(begins, *within_limit(height, width, max_pixels))
    ends = matches(data, tf.size(data, out_type=tf.int64) - 1 - len(_PNG_END), _PNG_END)
    still = tf.cond(ends, lambda: contents, lambda: tf.strings.join([contents, _PNG_END]))
    return header(words, height, width, still, orientation=orientation_of(data, "PNG"))


def _no_image(contents: tf.Tensor) -> Header:
    length, kinds = tf.strings.length(contents), ", ".join(KINDS)
    is_base64 = tf.strings.regex_full_match(tf.strings.substr(contents, 0, 64), _AS_BASE64)
    hint = 'Expected the bytes of an image, came base64 as plain text: send {"b64": "..."} over REST, bytes over gRPC.'
    other = [f"Expected an image of kind {kinds}, came ", length, " bytes of another kind."]
    words = first_fault((~is_base64, [hint]), (False, other))
    nothing = tf.constant(0, tf.int64)
    return header(words, nothing, nothing, contents)


def _decode_jpeg(still: tf.Tensor) -> tf.Tensor:
    """Parity: the accurate DCT gives Pillow's pixels to the bit; TensorFlow's default is up to 12 levels off."""
    return tf.io.decode_jpeg(still, channels=3, dct_method="INTEGER_ACCURATE")


def _on_canvas(decoder: Callable[[tf.Tensor], tf.Tensor]) -> Callable[..., tf.Tensor]:
    def decode_and_place(still: tf.Tensor, size: tf.Tensor, corner: tf.Tensor, color: tf.Tensor) -> tf.Tensor:
        pixels = decoder(still)
        fills = tf.reduce_all(tf.shape(pixels, out_type=tf.int64)[:2] == size)
        return tf.cond(fills, lambda: pixels, lambda: place(pixels, corner, size, color))

    return decode_and_place


# Kind -> what decodes a file of it, and of the header what it is given.
_DECODERS: dict[str, Callable[[Header], tuple]] = {
    "JPEG": lambda head: (_decode_jpeg, head.still),
    "PNG": lambda head: (lambda still: tf.io.decode_png(still, channels=3), head.still),
    "GIF": lambda head: (
        _on_canvas(lambda still: tf.io.decode_gif(still)[0]),
        head.still,
        head.size,
        head.corner,
        head.color,
    ),
    "BMP": lambda head: (decode_bmp, head.still),
    "WebP": lambda head: (_on_canvas(decode_webp), head.still, head.size, head.corner, head.color),
}


def resize_bicubic(pixels: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    """Resize uint8 (H, W, 3) to (height, width, 3) as image_resize.resize_bicubic does, within 2 grey levels.

    Pillow rounds to 8 bits after each of its two passes, and which one comes first shows; so it is done here.
    """
    H, W = tf.unstack(tf.shape(pixels)[:2])
    height, width = tf.cast(height, tf.int32), tf.cast(width, tf.int32)
    rows_first = H - height > tf.maximum(0, 2 * (W - width))
    first = tf.where(rows_first, tf.stack([height, W]), tf.stack([H, width]))
    for size in (first, tf.stack([height, width])):
        pixels = _resize_once(pixels, size)
    return pixels


def _resize_once(pixels: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    scale = tf.cast(size, tf.float32) / tf.cast(tf.shape(pixels)[:2], tf.float32)
    resized = tf.raw_ops.ScaleAndTranslate(
        images=pixels[None], size=size, scale=scale, translation=[0.0, 0.0], kernel_type="keyscubic", antialias=True
    )
    return _round(resized[0])


def resize_bilinear(pixels: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    """Resize uint8 (H, W, 3) to (height, width, 3) as image_resize.resize_bilinear does: no antialiasing."""
    size = tf.stack([tf.cast(height, tf.int32), tf.cast(width, tf.int32)])
    return _round(tf.raw_ops.ResizeBilinear(images=pixels[None], size=size, half_pixel_centers=True)[0])


def _round(levels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.floor(levels + 0.5), 0.0, 255.0), tf.uint8)


def to_pixel_values(pixels: tf.Tensor, mean: Sequence[float], std: Sequence[float]) -> tf.Tensor:
    """(pixels / 255 - mean) / std, as image_statistics.normalise: uint8 (B, H, W, 3) -> float32 (B, 3, H, W)."""
    levels = tf.cast(tf.transpose(pixels, [0, 3, 1, 2]), tf.float32) / 255.0
    shift, scale = (tf.reshape(tf.cast(numbers, tf.float32), [3, 1, 1]) for numbers in (mean, std))
    return (levels - shift) / scale


def encode_mask(labels: tf.Tensor) -> tf.Tensor:
    """Write labels uint8 (H, W) as a grey PNG, one byte a pixel: scalar string."""
    return tf.io.encode_png(labels[..., None])
