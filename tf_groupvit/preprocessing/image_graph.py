"""Bytes of an image in, pixels (H, W, 3), pixel values (B, 3, H, W) and PNG masks out: the graph
twin of reading.

Core TensorFlow operations alone, of version 2.19 and later, with every size unknown, to be
exported. An image is read in two steps: ``read_header`` tells its size, and why it cannot be read,
and ``read_pixels`` decodes it. Neither fails, whatever the bytes are: words say what is wrong.
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
    kind_of,
    matches,
    only_if,
    place,
    within_limit,
)
from tf_groupvit.preprocessing.image_graph_exif import jpeg_parts, orientation_of, upright
from tf_groupvit.preprocessing.image_graph_gif import gif_header
from tf_groupvit.preprocessing.image_graph_webp import decode_webp, webp_header
from tf_groupvit.preprocessing.image_reading import MAX_PIXELS

HEADER = Header(
    *(tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.int64), tf.TensorSpec([], tf.string)),
    *(tf.TensorSpec([2], tf.int64), tf.TensorSpec([3], tf.uint8), tf.TensorSpec([], tf.int32)),
    tf.TensorSpec([], tf.int32),
)
_BAND = 2**22  # pixels that are resized at a time
_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
# How a file of each kind begins when it is written as base64.
_AS_BASE64 = r"\s*(data:image/|/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk[A-Za-z0-9+/]{30})(?s:.*)"


def decode(contents: tf.Tensor, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Decode one image, a scalar string, as image_reading.read_image does: uint8 (H, W, 3).

    JPEG, PNG, GIF (first frame), BMP (uncompressed) and WebP, where the runtime reads it
    (TensorFlow 2.21 does, 2.19 does not). Turned as EXIF says; alpha dropped; the upper eight of
    sixteen bits. What cannot be decoded, and an image of more than ``max_pixels`` pixels by its
    header, is INVALID_ARGUMENT; the latter before anything is decoded. The pixels are Pillow's, to
    the bit where the file is sound (one level off in some CMYK). Orientation that stands in XMP
    alone, which Pillow also reads, is not looked for.
    """
    head = read_header(contents, max_pixels)
    words, pixels = read_pixels(head)
    return upright(only_if(words == "", [words], pixels), head.orientation)


def read_header(contents: tf.Tensor, max_pixels: int = MAX_PIXELS) -> Header:
    """Read what one file, a scalar string, says before it is decoded."""
    return Header(*_header_reader(max_pixels)(contents))


def read_pixels(head: Header, halvings: tf.Tensor | int = 0) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode the file of a header: why that cannot be done, "" where all is well, and uint8 (H, W,
    3), else (0, 0, 3).

    The pixels lie as they are stored: ``upright`` turns them.

    Args:
        head: of ``read_header``; where it has words, nothing is decoded.
        halvings: 0 to 3; a JPEG is decoded at that many times half its size, rounded up. Other
            kinds are not.
    """
    return _pixel_reader()(*head, tf.cast(halvings, tf.int32))


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
        found = tf.switch_case(
            kind, [*(by_kind[name] for name in KINDS), lambda: _no_image(contents)]
        )
        return found._replace(kind=kind)

    return tf.function(read, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


@functools.cache
def _pixel_reader() -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Make the decoder a function of the graph, as above."""

    def read(*fields: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        head, halvings = Header(*fields[:-1]), fields[-1]
        nothing = (head.words, tf.zeros([0, 0, 3], tf.uint8))
        return tf.cond(head.words == "", lambda: _decoded(head, halvings), lambda: nothing)

    return tf.function(
        read, input_signature=[*HEADER, tf.TensorSpec([], tf.int32)], autograph=False
    )


def _decoded(head: Header, halvings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    by_kind = {
        "JPEG": lambda: tf.switch_case(
            halvings, [lambda i=i: _guarded(_jpeg_decoder(2**i), head.still) for i in range(4)]
        ),
        "PNG": lambda: _guarded(lambda still: tf.io.decode_png(still, channels=3), head.still),
        "GIF": lambda: _on_canvas(head, lambda still: tf.io.decode_gif(still)[0]),
        "BMP": lambda: _guarded(decode_bmp, head.still),
        "WebP": lambda: _on_canvas(head, decode_webp),
    }
    pixels = tf.ensure_shape(
        tf.switch_case(head.kind, [by_kind[kind] for kind in KINDS]), [None, None, 3]
    )
    # TensorFlow 2.19 reads no WebP, and a graph cannot ask which one runs it.
    words = [f"Expected a whole {kind}, came a damaged or truncated one." for kind in KINDS]
    words[list(KINDS).index("WebP")] = (
        "Expected a whole WebP, came a damaged or truncated one, or this TensorFlow does not read"
        " WebP."
    )
    said = tf.gather(words, head.kind)
    return tf.where(tf.size(pixels) > 0, "", said), pixels


def _jpeg_decoder(ratio: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Parity: the accurate DCT gives Pillow's pixels to the bit; TensorFlow's default is up to 12
    levels off.
    """
    return lambda still: tf.io.decode_jpeg(
        still, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"
    )


def _on_canvas(head: Header, decoder: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    def decode_and_place(
        still: tf.Tensor, size: tf.Tensor, corner: tf.Tensor, color: tf.Tensor
    ) -> tf.Tensor:
        pixels = decoder(still)
        fills = tf.reduce_all(tf.shape(pixels, out_type=tf.int64)[:2] == size)
        return tf.cond(fills, lambda: pixels, lambda: place(pixels, corner, size, color))

    return _guarded(decode_and_place, head.still, head.size, head.corner, head.color)


def _guarded(
    decoder: Callable[..., tf.Tensor], *given: tf.Tensor, none: tf.Tensor | None = None
) -> tf.Tensor:
    """``decoder(*given)``, or nothing, (0, 0, 3), where it fails: a graph cannot catch an error,
    its datasets can.

    The decoder is prepared anew each time, so it should be of few operations.
    """
    none = tf.zeros([0, 0, 3], tf.uint8) if none is None else none
    made = tf.data.Dataset.from_tensors(given).map(decoder).ignore_errors()
    return made.concatenate(tf.data.Dataset.from_tensors(none)).take(1).get_single_element()


def _jpeg_header(contents: tf.Tensor, data: tf.Tensor, max_pixels: int) -> Header:
    """Where the segments are in disorder, which many readers forgive, the decoder is asked for the
    size.
    """
    orientation, height, width = jpeg_parts(data)

    def ask() -> tuple[tf.Tensor, tf.Tensor]:
        sides = _guarded(tf.image.extract_jpeg_shape, contents, none=tf.fill([3], -1))
        return tf.cast(sides[0], tf.int64), tf.cast(sides[1], tf.int64)

    height, width = tf.cond(height < 0, ask, lambda: (height, width))
    sound = (height >= 0, ["Expected a JPEG with a whole header, came a damaged or truncated one."])
    words = first_fault(sound, *within_limit(height, width, max_pixels))
    return header(words, height, width, contents, orientation=orientation)


def _png_header(contents: tf.Tensor, data: tf.Tensor, max_pixels: int) -> Header:
    """A missing end is added: pixels that are all there are shown without it everywhere else, too."""
    height, width = big(data, 20, 4), big(data, 16, 4)
    begins = (
        matches(data, 12, b"IHDR"),
        ["Expected a PNG that begins with IHDR, came a broken one."],
    )
    words = first_fault(begins, *within_limit(height, width, max_pixels))
    ends = matches(data, tf.size(data, out_type=tf.int64) - 1 - len(_PNG_END), _PNG_END)
    still = tf.cond(ends, lambda: contents, lambda: tf.strings.join([contents, _PNG_END]))
    return header(words, height, width, still, orientation=orientation_of(data, "PNG"))


def _no_image(contents: tf.Tensor) -> Header:
    length, kinds = tf.strings.length(contents), ", ".join(KINDS)
    is_base64 = tf.strings.regex_full_match(tf.strings.substr(contents, 0, 64), _AS_BASE64)
    hint = (
        'Expected the bytes of an image, came base64 as plain text: send {"b64": "..."} over REST,'
        " bytes over gRPC."
    )
    other = [f"Expected an image of kind {kinds}, came ", length, " bytes of another kind."]
    words = first_fault((~is_base64, [hint]), (False, other))
    nothing = tf.constant(0, tf.int64)
    return header(words, nothing, nothing, contents)


def resize_bicubic(
    pixels: tf.Tensor,
    height: tf.Tensor | int,
    width: tf.Tensor | int,
    covered: tf.Tensor | None = None,
    rows_first: tf.Tensor | None = None,
) -> tf.Tensor:
    """Resize uint8 (H, W, 3) to (height, width, 3) as image_arrays.resize_bicubic does, within 2
    grey levels.

    Pillow rounds to 8 bits after each of its two passes, and which one comes first shows; so it is
    done here.

    Args:
        covered: float32 (2): how many of the rows and columns the image covers, all of them unless
            given. A JPEG that was decoded at a fraction of its size ends somewhere within the last
            ones.
        rows_first: whether the number of rows changes first; as ``rows_come_first`` says unless
            given.
    """
    H, W = tf.unstack(tf.shape(pixels)[:2])
    height, width = tf.cast(height, tf.int32), tf.cast(width, tf.int32)
    covered = tf.cast(tf.stack([H, W]), tf.float32) if covered is None else covered
    rows_first = rows_come_first(H, W, height, width) if rows_first is None else rows_first
    first = tf.where(rows_first, tf.stack([height, W]), tf.stack([H, width]))
    for size in (first, tf.stack([height, width])):
        same = size == tf.shape(pixels)[:2]
        pixels = _resize_by_bands(
            pixels, size, tf.where(same, 1.0, tf.cast(size, tf.float32) / covered)
        )
    return tf.ensure_shape(pixels, [tf.get_static_value(height), tf.get_static_value(width), 3])


def rows_come_first(
    H: tf.Tensor, W: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int
) -> tf.Tensor:
    """Say whether the number of rows changes first: the graph's twin of
    ``image_arrays.rows_first``.
    """
    return H - height > tf.maximum(0, 2 * (W - width))


def _resize_by_bands(pixels: tf.Tensor, size: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Where the number of columns alone changes, one band of rows after the other.

    In between the operation holds float32 of the new height and the old width: twelve bytes for
    each old pixel.
    """
    H, W = tf.unstack(tf.shape(pixels)[:2])
    rows = tf.maximum(_BAND // W, 1)

    def step(at: tf.Tensor, bands: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        some = pixels[at : at + rows]
        return at + rows, bands.write(
            at // rows, _resize_once(some, tf.stack([tf.shape(some)[0], size[1]]), scale)
        )

    def by_bands() -> tf.Tensor:
        count = (H + rows - 1) // rows
        bands = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=[None, None, 3])
        return tf.while_loop(lambda at, _: at < H, step, (0, bands), parallel_iterations=1)[
            1
        ].concat()

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
    """Resize uint8 (H, W, 3) to (height, width, 3) as image_arrays.resize_bilinear does: no
    antialiasing.
    """
    size = tf.stack([tf.cast(height, tf.int32), tf.cast(width, tf.int32)])
    return _round(
        tf.raw_ops.ResizeBilinear(images=pixels[None], size=size, half_pixel_centers=True)[0]
    )


def _round(levels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.floor(levels + 0.5), 0.0, 255.0), tf.uint8)


def to_pixel_values(pixels: tf.Tensor, mean: Sequence[float], std: Sequence[float]) -> tf.Tensor:
    """(pixels / 255 - mean) / std, as image_arrays.normalise: uint8 (B, H, W, 3) -> float32 (B, 3,
    H, W).
    """
    levels = tf.cast(tf.transpose(pixels, [0, 3, 1, 2]), tf.float32) / 255.0
    shift, scale = (tf.reshape(tf.cast(numbers, tf.float32), [3, 1, 1]) for numbers in (mean, std))
    return (levels - shift) / scale


def encode_mask(labels: tf.Tensor) -> tf.Tensor:
    """Write labels uint8 (H, W) as a grey PNG, one byte a pixel: scalar string."""
    return tf.io.encode_png(labels[..., None])
