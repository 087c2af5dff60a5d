"""Image formats that the exported graph decodes: JPEG, PNG, GIF, BMP and WebP, one row each.

To add a format: a function that reads its header, one that decodes it, and a row of ``FORMATS``.
``data`` is the file as ``bytes_of`` gives it, uint8 (L + 1); ``contents`` is the same file as a
scalar string.
"""

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from tf_groupvit.preprocessing.image_graph_bytes import (
    MAX_PARTS,
    Header,
    after_riff_part,
    big,
    byte,
    bytes_of,
    first_error,
    header,
    jpeg_parts,
    little,
    matches,
    next_in_png,
    next_in_webp,
    orientation_of,
    read,
    size_checks,
    size_of,
)


@dataclass(frozen=True)
class ImageFormat:
    """A format of image files.

    Attributes:
        marks: what its files begin with: (position, bytes), all of them.
        base64: a regular expression of how its files begin when they are written as base64.
        read_header: (contents, data, max_pixels) -> ``Header``; it never fails.
        decode: (header, halvings) -> uint8 (H, W, 3), or (0, 0, 3) where that fails.
        failure: the error of a file whose header is sound and that cannot be decoded.
    """

    marks: tuple[tuple[int, bytes], ...]
    base64: str
    read_header: Callable[[tf.Tensor, tf.Tensor, int], Header]
    decode: Callable[[Header, tf.Tensor], tf.Tensor]
    failure: str


def or_nothing(
    decoder: Callable[..., tf.Tensor], *given: tf.Tensor, nothing: tf.Tensor | None = None
) -> tf.Tensor:
    """``decoder(*given)``, or ``nothing`` where it fails: unless given, uint8 (0, 0, 3).

    A graph cannot catch an error, but its datasets can. The decoder is prepared anew each time, so
    it should be of few operations.
    """
    nothing = tf.zeros([0, 0, 3], tf.uint8) if nothing is None else nothing
    made = tf.data.Dataset.from_tensors(given).map(decoder).ignore_errors()
    return made.concatenate(tf.data.Dataset.from_tensors(nothing)).take(1).get_single_element()


def _on_canvas(head: Header, decoder: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Decode a part of an image and lay it where it belongs on a canvas of one color."""

    def decode_and_place(
        still: tf.Tensor, size: tf.Tensor, corner: tf.Tensor, color: tf.Tensor
    ) -> tf.Tensor:
        pixels = decoder(still)
        fills = tf.reduce_all(tf.shape(pixels, out_type=tf.int64)[:2] == size)
        return tf.cond(fills, lambda: pixels, lambda: _place(pixels, corner, size, color))

    return or_nothing(decode_and_place, head.still, head.size, head.corner, head.color)


def _place(pixels: tf.Tensor, corner: tf.Tensor, size: tf.Tensor, color: tf.Tensor) -> tf.Tensor:
    H, W = tf.unstack(tf.shape(pixels, out_type=tf.int64)[:2])
    (top, left), (height, width) = tf.unstack(corner), tf.unstack(size)
    edges = [[top, height - top - H], [left, width - left - W], [0, 0]]
    covered = tf.pad(tf.ones([H, W, 1], tf.bool), edges)
    return tf.where(covered, tf.pad(pixels, edges), color)


# ---- JPEG ----


def jpeg_header(contents: tf.Tensor, data: tf.Tensor, max_pixels: int) -> Header:
    """Read the header of a JPEG: scalar string, and its bytes, uint8 (L + 1).

    Where the segments are in disorder, which many readers forgive, the decoder is asked for the
    size.
    """
    orientation, height, width = jpeg_parts(data)

    def ask() -> tuple[tf.Tensor, tf.Tensor]:
        sides = or_nothing(tf.image.extract_jpeg_shape, contents, nothing=tf.fill([3], -1))
        return tf.cast(sides[0], tf.int64), tf.cast(sides[1], tf.int64)

    height, width = tf.cond(height < 0, ask, lambda: (height, width))
    sound = (height >= 0, ["Expected a JPEG with a whole header, got a damaged or truncated one."])
    error = first_error(sound, *size_checks(height, width, max_pixels))
    return header(error, height, width, contents, orientation=orientation)


def decode_jpeg(head: Header, halvings: tf.Tensor) -> tf.Tensor:
    """Decode a JPEG at its size, halved 0 to 3 times: uint8 (H, W, 3).

    Parity: the accurate DCT gives Pillow's pixels to the bit; TensorFlow's default is up to 12
    levels off.
    """

    def at_fraction(i: int) -> tf.Tensor:
        return or_nothing(
            lambda still: tf.io.decode_jpeg(
                still, channels=3, ratio=2**i, dct_method="INTEGER_ACCURATE"
            ),
            head.still,
        )

    return tf.switch_case(halvings, [lambda i=i: at_fraction(i) for i in range(4)])


# ---- PNG ----

_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"


def png_header(contents: tf.Tensor, data: tf.Tensor, max_pixels: int) -> Header:
    """Read the header of a PNG: scalar string, and its bytes, uint8 (L + 1).

    A missing end is added: pixels that are all there are shown without it everywhere else, too.
    """
    height, width = big(data, 20, 4), big(data, 16, 4)
    begins = (
        matches(data, 12, b"IHDR"),
        ["Expected a PNG that begins with IHDR, got a broken one."],
    )
    error = first_error(begins, *size_checks(height, width, max_pixels))
    ends = matches(data, size_of(data) - len(_PNG_END), _PNG_END)
    still = tf.cond(ends, lambda: contents, lambda: tf.strings.join([contents, _PNG_END]))
    orientation = orientation_of(data, 8, next_in_png)
    return header(error, height, width, still, orientation=orientation)


def decode_png(head: Header, _: tf.Tensor) -> tf.Tensor:
    """Decode a PNG: uint8 (H, W, 3)."""
    return or_nothing(lambda still: tf.io.decode_png(still, channels=3), head.still)


# ---- GIF ----

_EXTENSION, _FRAME, _GIF_END = 0x21, 0x2C, b"\x3b"
_GRAPHIC_CONTROL = 0xF9
_MAX_EXTENSIONS = 1024
_HOPS = 8  # blocks that are stepped over in one round of the loop


def gif_header(contents: tf.Tensor, data: tf.Tensor, max_pixels: int) -> Header:
    """Find the first frame of a GIF, scalar string and uint8 (L + 1), and its place on the canvas.

    TensorFlow's decoder unpacks every frame, so that a small file can fill the memory, and paints
    transparent pixels black. So it gets a file of the first frame alone, of the frame's own size,
    without the extension that makes colors transparent; around the frame is what Pillow puts there.
    """
    frame, control = _first_frame(data, _after_color_table(data, 10, 13))
    left, top, W, H = (little(data, frame + 1 + 2 * i, 2) for i in range(4))
    height = tf.maximum(little(data, 8, 2), top + H)
    width = tf.maximum(little(data, 6, 2), left + W)
    colors = _after_color_table(data, frame + 9, frame + 10)
    end = _skip_blocks(data, colors + 1)
    whole = (byte(data, end) == 0) & (end < size_of(data))
    error = first_error(
        (byte(data, frame) == _FRAME, ["Expected a GIF with a frame, got none or a broken one."]),
        *size_checks(height, width, max_pixels),
        (whole, ["Expected a GIF with a whole first frame, got a broken or truncated one."]),
    )
    still = tf.cond(error == "", lambda: _gif_of_frame(contents, frame, end), lambda: contents)
    table = tf.where(colors > frame + 10, frame + 10, 13)
    unused = tf.where(byte(data, control + 3) % 2 == 1, byte(data, control + 6), 0)
    color = tf.cast(read(data, table + 3 * unused, 3), tf.uint8)
    return header(error, height, width, still, (top, left), color)


def decode_gif(head: Header, _: tf.Tensor) -> tf.Tensor:
    """Decode the first frame of a GIF: uint8 (H, W, 3)."""
    return _on_canvas(head, lambda still: tf.io.decode_gif(still)[0])


def _after_color_table(
    data: tf.Tensor, flags_at: tf.Tensor | int, table_at: tf.Tensor | int
) -> tf.Tensor:
    """Where the table of colors ends that these flags announce; there may be none."""
    flags = big(data, flags_at, 1)
    entries = tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8)
    return tf.cast(table_at, tf.int64) + tf.where(flags >= 128, 3 * entries, 0)


def _first_frame(data: tf.Tensor, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the first frame begins, and the last graphic control before it (or the end)."""

    def step(at: tf.Tensor, control: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        control = tf.where(byte(data, at + 1) == _GRAPHIC_CONTROL, at, control)
        return _skip_blocks(data, at + 2) + 1, control

    return tf.while_loop(
        lambda at, _: byte(data, at) == _EXTENSION,
        step,
        (at, tf.size(data, out_type=tf.int64)),
        maximum_iterations=_MAX_EXTENSIONS,
    )


def _skip_blocks(data: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Step over blocks that begin with their length, up to the empty one: its position.

    Encoders fill blocks with 255 bytes. Where they hold under 64 on average, the walk gives up
    early, at a block that is not empty.
    """

    def hop(at: tf.Tensor) -> tuple[tf.Tensor]:
        for _ in range(_HOPS):
            length = byte(data, at)
            at = tf.where(length > 0, at + 1 + length, at)
        return (at,)

    rounds = 256 + tf.size(data) // (64 * _HOPS)
    return tf.while_loop(lambda at: byte(data, at) > 0, hop, (at,), maximum_iterations=rounds)[0]


def _gif_of_frame(contents: tf.Tensor, frame: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """Write a GIF of one frame that fills its canvas: header, table of colors, frame, end."""

    def cut(start: tf.Tensor | int, stop: tf.Tensor | int) -> tf.Tensor:
        start = tf.cast(start, tf.int64)
        return tf.strings.substr(contents, start, tf.cast(stop, tf.int64) - start)

    size = cut(frame + 5, frame + 9)
    table_end = _after_color_table(tf.io.decode_raw(cut(0, 13), tf.uint8), 10, 13)
    head = [cut(0, 6), size, cut(10, table_end)]
    image = [cut(frame, frame + 1), b"\0\0\0\0", size, cut(frame + 9, end + 1)]
    return tf.strings.join([*head, *image, _GIF_END])


# ---- BMP ----

# The two ways of storing pixels that are read: as they are, and with masks for the channels.
_PLAIN, _MASKS = 0, 3
_USUAL_MASKS = (0xFF0000, 0xFF00, 0xFF)


def bmp_header(contents: tf.Tensor, data: tf.Tensor, max_pixels: int) -> Header:
    """Read the header of a BMP: scalar string, and its bytes, uint8 (L + 1).

    Files of 1, 4 and 8 bits with a palette, and of 24 and 32 bits are decoded. Compressed files and
    those of 16 bits, which hardly exist, are not.
    """
    header_size, bits, storage = little(data, 14, 4), little(data, 28, 2), little(data, 30, 4)
    W, H = _signed(data, 18), tf.abs(_signed(data, 22))
    usual = tf.reduce_all(
        [little(data, 54 + 4 * i, 4) == mask for i, mask in enumerate(_USUAL_MASKS)]
    )
    plain = tf.reduce_any(bits == [1, 4, 8, 24, 32]) & (storage == _PLAIN)
    readable = plain | (bits == 32) & (storage == _MASKS) & usual
    expected = "Expected an uncompressed BMP of 1, 4, 8, 24 or 32 bits, got "
    end = little(data, 10, 4) + _stride(W, bits) * H  # of the pixels
    error = first_error(
        ((header_size >= 40) & readable, [expected, bits, " bits, kind ", storage, "."]),
        *size_checks(H, W, max_pixels),
        (end <= size_of(data), ["Expected a whole BMP of ", W, " x ", H, ", got a truncated one."]),
    )
    return header(error, H, W, contents)


def decode_bmp(head: Header, _: tf.Tensor) -> tf.Tensor:
    """Decode a BMP; a fourth channel is dropped: uint8 (H, W, 3).

    TensorFlow's own decoder takes palette numbers for gray.
    """
    return or_nothing(_bmp_pixels, head.still)


def _bmp_pixels(contents: tf.Tensor) -> tf.Tensor:
    data = bytes_of(contents)
    start, header_size, bits = little(data, 10, 4), little(data, 14, 4), little(data, 28, 2)
    W, H, upward = _signed(data, 18), tf.abs(_signed(data, 22)), _signed(data, 22) > 0
    stride = _stride(W, bits)
    rows = tf.reshape(data[start : start + stride * H], [H, stride])
    rows = tf.cond(upward, lambda: tf.reverse(rows, [0]), lambda: rows)
    table = read(data, 14 + header_size, 4 * 256)
    palette = tf.reshape(tf.cast(table, tf.uint8), [256, 4])[:, 2::-1]  # blue is first
    return tf.cond(
        bits <= 8,
        lambda: _palette_pixels(palette, rows, bits, W),
        lambda: _color_pixels(rows, bits, W),
    )


def _stride(W: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Bytes of a row, which is filled up to a multiple of four."""
    return (W * bits + 31) // 32 * 4


def _signed(data: tf.Tensor, at: int) -> tf.Tensor:
    value = little(data, at, 4)
    return tf.where(big(data, at + 3, 1) >= 128, value - (1 << 32), value)


def _palette_pixels(
    palette: tf.Tensor, rows: tf.Tensor, bits: tf.Tensor, W: tf.Tensor
) -> tf.Tensor:
    """Look up numbers of 1, 4 or 8 bits, upper bits first: (H, W, 3) <- (256, 3), (H, stride)."""
    bits = tf.minimum(tf.cast(bits, tf.uint8), 8)
    shifts = tf.cast(tf.range(8 // tf.cast(bits, tf.int32))[::-1], tf.uint8) * bits
    numbers = tf.bitwise.right_shift(rows[..., None], shifts)  # (H, stride, pixels in a byte)
    mask = tf.bitwise.right_shift(tf.constant(255, tf.uint8), 8 - bits)
    numbers = tf.reshape(tf.bitwise.bitwise_and(numbers, mask), [tf.shape(rows)[0], -1])
    return tf.gather(palette, tf.cast(numbers[:, :W], tf.int32))


def _color_pixels(rows: tf.Tensor, bits: tf.Tensor, W: tf.Tensor) -> tf.Tensor:
    """Split rows into pixels of 3 or 4 bytes, blue first: (H, W, 3) <- (H, stride)."""
    C = bits // 8
    return tf.reshape(rows[:, : W * C], [tf.shape(rows, out_type=tf.int64)[0], W, C])[..., 2::-1]


# ---- WebP ----

_IMAGES = (b"VP8 ", b"VP8L", b"ALPH", b"ANMF")  # parts that hold an image, or begin one
_ALPHA_FLAG = 0x10


def webp_header(contents: tf.Tensor, data: tf.Tensor, max_pixels: int) -> Header:
    """Find the first image of a WebP, scalar string and uint8 (L + 1), and its place on the canvas.

    That is a still, or the first frame of an animation. The decoder never sees the file itself:
    TensorFlow 2.21 writes beyond its memory when it is given an animation and asked for the first
    frame. It gets a still file made of the first image alone.
    """
    end = size_of(data)
    part = tf.while_loop(
        lambda at: (at < end) & ~tf.reduce_any([matches(data, at, mark) for mark in _IMAGES]),
        lambda at: (after_riff_part(data, at),),
        (tf.constant(12, tf.int64),),
        maximum_iterations=MAX_PARTS,
    )[0]
    moving = matches(data, part, b"ANMF")
    # A frame's place, size and duration come before its image.
    alpha = tf.where(moving, part + 24, part)
    image = tf.where(matches(data, alpha, b"ALPH"), after_riff_part(data, alpha), alpha)
    H, W = _webp_sides(data, image)
    left, top = (tf.where(moving, 2 * little(data, part + i, 3), 0) for i in (8, 11))
    canvas = [tf.where(matches(data, 12, b"VP8X"), little(data, i, 3) + 1, 0) for i in (27, 24)]
    height, width = tf.maximum(canvas[0], top + H), tf.maximum(canvas[1], left + W)
    stop = after_riff_part(data, image)
    whole = (H > 0) & (W > 0) & (stop <= end + 1)
    size = ["Expected a WebP of ", width, " x ", height, ", got ", W, " x ", H, "."]
    error = first_error(
        (whole, ["Expected a whole WebP, got a broken or truncated one of ", end, " bytes."]),
        *size_checks(height, width, max_pixels),
        (moving | ((height == H) & (width == W)), size),
    )
    still = tf.cond(
        error == "", lambda: _webp_of_image(contents, alpha, image, stop, H, W), lambda: contents
    )
    orientation = orientation_of(data, 12, next_in_webp)
    return header(error, height, width, still, (top, left), orientation=orientation)


def decode_webp(head: Header, _: tf.Tensor) -> tf.Tensor:
    """Decode the first image of a WebP; alpha is dropped: uint8 (H, W, 3)."""

    def decode(still: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_image(still, channels=0, expand_animations=False)
        return tf.ensure_shape(pixels[..., :3], [None, None, 3])  # of 4 channels where it has alpha

    return _on_canvas(head, decode)


def _webp_sides(data: tf.Tensor, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width from the head of a lossy or lossless image; zeros if it is neither."""
    packed = little(data, at + 9, 4)  # lossless: 14 bits each, one less than the size
    lossy = (little(data, at + 16, 2) % 2**14, little(data, at + 14, 2) % 2**14)
    lossless = (packed // 2**14 % 2**14 + 1, packed % 2**14 + 1)
    is_lossy = matches(data, at, b"VP8 ") & matches(data, at + 11, b"\x9d\x01\x2a")
    is_lossless = matches(data, at, b"VP8L") & (big(data, at + 8, 1) == 0x2F)
    H, W = (tf.where(is_lossy, lossy[i], tf.where(is_lossless, lossless[i], 0)) for i in range(2))
    return H, W


def _webp_of_image(
    contents: tf.Tensor,
    alpha: tf.Tensor,
    image: tf.Tensor,
    stop: tf.Tensor,
    H: tf.Tensor,
    W: tf.Tensor,
) -> tf.Tensor:
    """Write a WebP of one image of H x W, whose alpha and colors are these parts of a file."""
    body = tf.strings.substr(contents, alpha, stop - alpha)
    flags = tf.constant(_ALPHA_FLAG, tf.int64)
    sides = [_packed(W - 1, 3), _packed(H - 1, 3)]
    head = tf.strings.join([b"VP8X", b"\x0a\0\0\0", _packed(flags, 4), *sides])
    body = tf.cond(alpha < image, lambda: tf.strings.join([head, body]), lambda: body)
    length = tf.cast(tf.strings.length(body), tf.int64) + 4
    return tf.strings.join([b"RIFF", _packed(length, 4), b"WEBP", body])


def _packed(number: tf.Tensor, count: int) -> tf.Tensor:
    """Write a number in ``count`` bytes, the least significant first: scalar string."""
    digits = tf.stack([number // 256**i % 256 for i in range(count)])
    return tf.strings.reduce_join(tf.gather([bytes([i]) for i in range(256)], digits))


# ---- the formats ----

_DAMAGED = "Expected a whole {}, got a damaged or truncated one"

FORMATS = {
    "JPEG": ImageFormat(
        marks=((0, b"\xff\xd8\xff"),),
        base64="/9j/",
        read_header=jpeg_header,
        decode=decode_jpeg,
        failure=f"{_DAMAGED.format('JPEG')}.",
    ),
    "PNG": ImageFormat(
        marks=((0, b"\x89PNG\r\n\x1a\n"),),
        base64="iVBORw0KGgo",
        read_header=png_header,
        decode=decode_png,
        failure=f"{_DAMAGED.format('PNG')}.",
    ),
    "GIF": ImageFormat(
        marks=((0, b"GIF8"),),
        base64="R0lGOD",
        read_header=gif_header,
        decode=decode_gif,
        failure=f"{_DAMAGED.format('GIF')}.",
    ),
    "BMP": ImageFormat(
        marks=((0, b"BM"),),
        base64="Qk[A-Za-z0-9+/]{30}",
        read_header=bmp_header,
        decode=decode_bmp,
        failure=f"{_DAMAGED.format('BMP')}.",
    ),
    "WebP": ImageFormat(
        marks=((0, b"RIFF"), (8, b"WEBP")),
        base64="UklGR",
        read_header=webp_header,
        decode=decode_webp,
        # TensorFlow 2.19 reads no WebP, and a graph cannot ask which one runs it.
        failure=f"{_DAMAGED.format('WebP')}, or this TensorFlow does not read WebP.",
    ),
}
JPEG = list(FORMATS).index("JPEG")


def format_of(data: tf.Tensor) -> tf.Tensor:
    """Tell the format of a file, uint8 (L + 1), by its first bytes.

    Returns:
        The number of its row in ``FORMATS``, or ``len(FORMATS)``: int32 scalar.
    """
    found = [
        tf.reduce_all([matches(data, at, mark) for at, mark in row.marks])
        for row in FORMATS.values()
    ]
    return tf.argmax(tf.stack([*found, tf.constant(True)]), output_type=tf.int32)
