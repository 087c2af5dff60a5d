"""Image formats that the exported graph decodes: JPEG, PNG, GIF, BMP and WebP, one row each.

To add a format: a function that reads its header, one that decodes it, and a row of ``FORMATS``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_groupvit.preprocessing.image_graph_bytes import (
    NOWHERE,
    File,
    Place,
    big,
    first_found,
    little,
    mark,
    offsets,
    read,
    read_at,
    upper,
)


class Found(NamedTuple):
    """What a file's header says; int64 scalars, where a format knows them."""

    height: tf.Tensor  # as stored, before the image is turned
    width: tf.Tensor
    broken: tf.Tensor  # 1 where the header cannot be read
    unlike: tf.Tensor  # 1 where the rest of the file is not as the header says
    exif: tf.Tensor  # where the EXIF block is
    top: tf.Tensor  # of the decoded part within the image
    left: tf.Tensor
    H: tf.Tensor  # of the decoded part
    W: tf.Tensor
    color: tf.Tensor  # what is around that part: red + 256 * green + 65536 * blue
    a: tf.Tensor  # what the format's decoder and its messages need besides
    b: tf.Tensor
    c: tf.Tensor
    d: tf.Tensor

    @classmethod
    def of(cls, **numbers: tf.Tensor) -> tf.Tensor:
        """As one row, int64 (14); 0 is what is not given, and ``exif`` is nowhere."""
        nothing = tf.constant(0, tf.int64)
        given = {name: tf.cast(number, tf.int64) for name, number in numbers.items()}
        given.setdefault("exif", tf.constant(NOWHERE, tf.int64))
        return tf.stack([given.get(name, nothing) for name in cls._fields])


@dataclass(frozen=True)
class ImageFormat:
    """A format of image files.

    Attributes:
        mark: the bytes that its files begin with, and where they are, up to 8.
        base64: a regular expression of how its files begin when they are written as base64.
        read_header: file -> ``Found`` as a row; it never fails.
        decoders: (contents, ``Found``) -> a dataset of one uint8 (H, W, 3), whose making may fail;
            for JPEG at its size, halved once, twice and three times.
        broken, unlike: errors, with names of ``Found`` in braces.
        failure: the error of a file whose header is sound and that cannot be decoded.
    """

    mark: tuple[bytes, Place]
    base64: str
    read_header: Callable[[File], tf.Tensor]
    decoders: tuple[Callable[[tf.Tensor, Found], tf.data.Dataset], ...]
    broken: str
    failure: str
    unlike: str = ""


def or_nothing(made: tf.data.Dataset, nothing: tf.data.Dataset) -> tf.Tensor:
    """The one tensor of a dataset, or that of ``nothing`` where making it fails.

    A graph cannot catch an error, but its datasets can. Their functions are prepared anew each
    time, so they should be of few operations.
    """
    return made.ignore_errors().concatenate(nothing).take(1).get_single_element()


def _decoded(contents: tf.Tensor, decoder: Callable[[tf.Tensor], tf.Tensor]) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensors(contents).map(decoder)


# ---- JPEG ----

_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of the part that has the size
_EXIF_SEGMENT = mark(b"\xe1\xffExif\0\0")


def _segments() -> np.ndarray:
    """How to go on from the marker FF00 + i: int64 (256, 3).

    To the position is added: this, and the length of the segment times that. The third is whether
    it has the size.
    """
    table = np.full([256, 3], [NOWHERE, 0, 0])  # the pixels begin, or it is no marker
    table[[*range(0xC0, 0xD0), *range(0xDB, 0xFF)], :2] = 2, 1
    table[0xFF, 0] = 1  # FF may be repeated as filling
    table[[*_FRAMES], 2] = 1
    return table


def jpeg_header(file: File) -> tf.Tensor:
    """Read the header of a JPEG.

    Where the segments are in disorder, which many readers forgive, the decoder is asked for the
    size.
    """
    segments = tf.constant(_segments())

    def step(at: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        marker, length, exif = read(file, at, big(0, 2), big(2, 2), [1, 0, *range(4, 10)])
        plus, times, is_frame = tf.unstack(tf.gather(segments, tf.maximum(marker - 0xFF00, 0)))
        return at + plus + times * length, [exif == _EXIF_SEGMENT, is_frame > 0]

    exif, frame = first_found(file, 2, step, kinds=2)

    def ask() -> tf.Tensor:
        shape = _decoded(file.contents, tf.image.extract_jpeg_shape)
        unknown = tf.data.Dataset.from_tensors(tf.constant([-1, -1, -1]))
        return tf.cast(or_nothing(shape, unknown)[:2], tf.int64)

    sides = tf.cond(
        frame + 9 <= file.end, lambda: tf.stack(read(file, frame, big(5, 2), big(7, 2))), ask
    )
    height, width = tf.unstack(sides)
    return Found.of(height=height, width=width, broken=height < 0, exif=exif + 4)


def _jpeg_decoder(ratio: int) -> Callable[[tf.Tensor, Found], tf.data.Dataset]:
    # Parity: the accurate DCT gives Pillow's pixels to the bit; TensorFlow's default is up to 12
    # levels off.
    def decode(contents: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_jpeg(contents, 3, ratio, dct_method="INTEGER_ACCURATE")

    return lambda contents, _: _decoded(contents, decode)


# ---- PNG ----

_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"


def png_header(file: File) -> tf.Tensor:
    """Read the header of a PNG."""

    def step(at: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        length, kind = read(file, at, big(0, 4), little(4, 4))
        after = at + 12 + length
        return tf.where(kind != mark(b"IEND"), after, NOWHERE), [kind == mark(b"eXIf")]

    (exif,) = first_found(file, 8, step, kinds=1)
    first, width, height = read(file, None, little(12, 4), big(16, 4), big(20, 4))
    broken = first != mark(b"IHDR")
    return Found.of(height=height, width=width, broken=broken, exif=exif + 8)


def decode_png(contents: tf.Tensor, _: Found) -> tf.data.Dataset:
    """Decode a PNG.

    An end is added: pixels that are all there are shown without it everywhere else, too.
    """
    still = tf.strings.join([contents, _PNG_END])
    return _decoded(still, lambda still: tf.io.decode_png(still, channels=3))


# ---- GIF ----

_EXTENSION, _FRAME = 0x21, 0x2C
_GRAPHIC_CONTROL = mark(b"\x21\xf9")
_MAX_EXTENSIONS = 1024
_HOPS = 8  # blocks that are stepped over in one round of the loop
# Bytes of the table of colors that flags announce.
_COLORS = [0] * 128 + [3 * 2 ** (flags % 8 + 1) for flags in range(128)]


def gif_header(file: File) -> tf.Tensor:
    """Find the first frame of a GIF, and its place on the canvas.

    ``a`` is where the frame begins, ``b`` where it ends, ``c`` where the table of colors of all
    frames ends.
    """
    W, H, flags = read(file, None, little(6, 2), little(8, 2), [10])
    colors = tf.constant(_COLORS, tf.int64)
    table_end = 13 + tf.gather(colors, flags)

    def step(state: tf.Tensor) -> tuple[tf.Tensor]:
        at, _, _, control = tf.unstack(state)
        kind, label, flags = read(file, at, [0], [0, 1], [9])
        is_last = kind != _EXTENSION  # a frame, or nothing that is known
        start = tf.where(is_last, 11 + tf.gather(colors, flags), 2)
        end = _skip_blocks(file, tf.minimum(at + start, file.end))
        control = tf.where(label == _GRAPHIC_CONTROL, at, control)
        return (tf.stack([end + 1, end, tf.where(is_last, at, NOWHERE), control]),)

    nowhere = tf.constant(NOWHERE, tf.int64)
    (state,) = tf.while_loop(
        lambda state: tf.unstack(state)[2] == NOWHERE,
        step,
        (tf.stack([table_end, nowhere, nowhere, nowhere]),),
        maximum_iterations=_MAX_EXTENSIONS + 1,
    )
    _, end, frame, control = tf.unstack(state)
    (last,) = read(file, end, [0])
    kind, left, top, frame_W, frame_H, flags = read(
        file, frame, [0], *(little(at, 2) for at in (1, 3, 5, 7)), [9]
    )
    # Around the frame is what Pillow puts there.
    transparent, color = read(file, control, [3], [6])
    unused = tf.where(transparent % 2 == 1, color, 0)
    table = tf.where(flags >= 128, frame + 10, 13)
    (color,) = read(file, table + 3 * unused, little(0, 3))
    return Found.of(
        height=tf.maximum(H, top + frame_H),
        width=tf.maximum(W, left + frame_W),
        broken=kind != _FRAME,
        unlike=(last > 0) | (end >= file.end),
        top=top,
        left=left,
        H=frame_H,
        W=frame_W,
        color=color,
        a=frame,
        b=end,
        c=table_end,
    )


def decode_gif(contents: tf.Tensor, found: Found) -> tf.data.Dataset:
    """Decode the first frame of a GIF.

    TensorFlow's decoder unpacks every frame, so that a small file can fill the memory, and paints
    transparent pixels black. So it gets a file of the first frame alone, of the frame's own size,
    without the extension that makes colors transparent.
    """
    frame, end, table_end = found.a, found.b, found.c
    begins = tf.stack([0, frame + 5, 10, frame + 9])
    ends = tf.stack([6, frame + 9, table_end, end + 1])
    head, size, screen, image = tf.unstack(tf.strings.substr(contents, begins, ends - begins))
    still = tf.strings.join([head, size, screen, b",\0\0\0\0", size, image, b";"])
    return _decoded(still, lambda still: tf.io.decode_gif(still)[0])


def _skip_blocks(file: File, at: tf.Tensor) -> tf.Tensor:
    """Step over blocks that begin with their length, up to the empty one: its position.

    Encoders fill blocks with 255 bytes. Where they hold under 64 on average, the walk gives up
    early, at a block that is not empty.
    """
    size_of = tf.constant([0, *range(2, 257)], tf.int64)  # the empty one is never left

    def hop(at: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        for _ in range(_HOPS):
            length = tf.raw_ops.Gather(params=file.data, indices=at)
            at += tf.raw_ops.Gather(params=size_of, indices=tf.cast(length, tf.int32))
        return at, length

    rounds = tf.cast(256 + (file.end + 1) // (64 * _HOPS), tf.int32)
    one = tf.constant(1, tf.uint8)
    return tf.while_loop(lambda _, length: length > 0, hop, (at, one), maximum_iterations=rounds)[0]


# ---- BMP ----

# The two ways of storing pixels that are read: as they are, and with masks for the channels.
_PLAIN, _MASKS = 0, 3
_USUAL_MASKS = mark(b"\0\0\xff\0\0\xff\0\0"), mark(b"\xff\0\0\0")


def bmp_header(file: File) -> tf.Tensor:
    """Read the header of a BMP.

    Files of 1, 4 and 8 bits with a palette, and of 24 and 32 bits are decoded. Compressed files and
    those of 16 bits, which hardly exist, are not. ``a`` is the number of bits, ``b`` the way of
    storing pixels.
    """
    start, header_size, W, H, bits, storage, *masks = read(
        file,
        None,
        *(little(10, 4), little(14, 4), upper(18), upper(22), little(28, 2), little(30, 4)),
        *(little(54, 8), little(62, 4)),
    )
    W, H = W // 2**32, tf.abs(H // 2**32)
    usual = (masks[0] == _USUAL_MASKS[0]) & (masks[1] == _USUAL_MASKS[1])
    plain = tf.reduce_any(bits == [1, 4, 8, 24, 32]) & (storage == _PLAIN)
    readable = plain | (bits == 32) & (storage == _MASKS) & usual
    return Found.of(
        height=H,
        width=W,
        broken=(header_size < 40) | ~readable,
        unlike=start + _stride(W, bits) * H > file.end,
        a=bits,
        b=storage,
    )


def decode_bmp(contents: tf.Tensor, found: Found) -> tf.data.Dataset:
    """Decode a BMP; a fourth channel is dropped.

    TensorFlow's own decoder takes palette numbers for gray.
    """
    file, H, W, bits = File.of(contents), found.height, found.width, found.a
    start, header_size, upward = read(file, None, little(10, 4), little(14, 4), upper(22))
    stride = _stride(W, bits)
    rows = tf.reshape(file.data[start : start + stride * H], [H, stride])
    rows = tf.cond(upward > 0, lambda: tf.reverse(rows, [0]), lambda: rows)
    pixels = tf.cond(
        bits <= 8,
        lambda: _palette_pixels(file, 14 + header_size, rows, bits),
        lambda: _color_pixels(rows, bits, W),
    )
    return tf.data.Dataset.from_tensors(pixels[:, :W])


def _stride(W: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Bytes of a row, which is filled up to a multiple of four."""
    return (W * bits + 31) // 32 * 4


def _palette_pixels(file: File, palette: tf.Tensor, rows: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Look up the 1, 2 or 8 pixels of each byte of rows, upper bits first: (H, >= W, 3).

    Args:
        palette: where it begins; colors have 4 bytes, blue first.
    """
    shifts = tf.range(8 - bits, -1, -bits)
    octets = tf.range(256, dtype=tf.int64)[:, None]
    highest = tf.bitwise.left_shift(tf.constant(1, tf.int64), bits)
    numbers = tf.bitwise.right_shift(octets, shifts) % highest
    places = tf.minimum(palette + 4 * numbers[..., None] + [2, 1, 0], file.end)
    colors = tf.gather(file.data, places)  # (256, pixels in a byte, 3)
    H = tf.shape(rows)[0]
    return tf.reshape(tf.gather(colors, tf.cast(rows, tf.int32)), [H, -1, 3])


def _color_pixels(rows: tf.Tensor, bits: tf.Tensor, W: tf.Tensor) -> tf.Tensor:
    """Split rows into pixels of 3 or 4 bytes, blue first: (H, W, 3) <- (H, stride)."""
    C = bits // 8
    return tf.reshape(rows[:, : W * C], [-1, W, C])[..., 2::-1]


# ---- WebP ----

_IMAGES = [mark(kind) for kind in (b"VP8 ", b"VP8L", b"ALPH", b"ANMF")]  # hold or begin an image
_LOSSY, _LOSSLESS = mark(b"VP8 \x9d\x01\x2a"), mark(b"VP8L\x2f")


def webp_header(file: File) -> tf.Tensor:
    """Find the first image of a WebP, and its place on the canvas.

    That is a still, or the first frame of an animation. ``a`` is where its alpha begins, ``b``
    where its colors begin, which may be the same, and ``c`` where they end.
    """

    def step(at: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        kind, length = read(file, at, little(0, 4), little(4, 4))
        is_image = tf.reduce_any(kind == _IMAGES)
        return at + _riff_size(length), [kind == mark(b"EXIF"), is_image]

    exif, part = first_found(file, 12, step, kinds=2)
    kind, left, top = read(file, part, little(0, 4), little(8, 3), little(11, 3))
    moving = kind == mark(b"ANMF")
    # A frame's place, size and duration come before its image.
    alpha = part + tf.where(moving, tf.constant(24, tf.int64), 0)
    corner = tf.where(moving, 2 * tf.stack([top, left]), 0)
    kind, length = read(file, alpha, little(0, 4), little(4, 4))
    image = alpha + tf.where(kind == mark(b"ALPH"), _riff_size(length), 0)
    length, lossy, lossless, *packed = read(
        file,
        image,
        *(little(4, 4), [0, 1, 2, 3, 11, 12, 13], [0, 1, 2, 3, 8]),
        *(little(14, 4), little(9, 4)),
    )
    is_lossy, is_lossless = lossy == _LOSSY, lossless == _LOSSLESS
    # 14 bits each; lossy, of 16; lossless, one less than the size.
    packed, height_from = tf.unstack(
        tf.where(is_lossy, tf.stack([packed[0], 2**16]), tf.stack([packed[1], 2**14]))
    )
    more = tf.cast(is_lossless, tf.int64)
    sides = tf.stack([packed // height_from, packed]) % 2**14 + more
    stop = image + _riff_size(length)
    whole = (is_lossy | is_lossless) & (tf.reduce_min(sides) > 0) & (stop <= file.end + 1)
    kind, *canvas = read(file, None, little(12, 4), little(27, 3), little(24, 3))
    canvas = tf.where(kind == mark(b"VP8X"), tf.stack(canvas) + 1, 0)
    size = tf.maximum(canvas, corner + sides)
    (height, width), (top, left), (H, W) = map(tf.unstack, (size, corner, sides))
    return Found.of(
        height=height,
        width=width,
        broken=~whole,
        unlike=~moving & tf.reduce_any(size != sides),
        exif=exif + 8,
        top=top,
        left=left,
        H=H,
        W=W,
        a=alpha,
        b=image,
        c=stop,
        d=file.end,
    )


def _riff_size(length: tf.Tensor) -> tf.Tensor:
    """Bytes of a part of a RIFF file, given the length that it says."""
    return 8 + length + length % 2


def decode_webp(contents: tf.Tensor, found: Found) -> tf.data.Dataset:
    """Decode the first image of a WebP; alpha is dropped.

    The decoder never sees the file itself: TensorFlow 2.21 writes beyond its memory when it is
    given an animation and asked for the first frame. It gets a still file made of the first image
    alone.
    """
    alpha, image, stop = found.a, found.b, found.c
    body = tf.strings.substr(contents, alpha, stop - alpha)
    has_alpha = alpha < image
    length = tf.cast(tf.strings.length(body) + tf.where(has_alpha, 22, 4), tf.int64)
    sides = (found.W - 1) * 2**16 + (found.H - 1) * 2**40
    octets = tf.bitcast(tf.stack([length + (mark(b"WEBP") << 32), sides]), tf.uint8)
    octets = tf.gather([bytes([i]) for i in range(256)], tf.cast(octets, tf.int32))
    begins, sides = tf.unstack(tf.strings.reduce_join(octets, 1))
    flags = tf.where(has_alpha, tf.strings.join([b"VP8X\x0a\0\0\0\x10\0", sides]), b"")

    def decode(still: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_image(still, expand_animations=False)
        return pixels[..., :3]  # of 4 channels where it has alpha

    return _decoded(tf.strings.join([b"RIFF", begins, flags, body]), decode)


# ---- the formats ----

_DAMAGED = "Expected a whole {}, got a damaged or truncated one"

FORMATS = {
    "JPEG": ImageFormat(
        mark=(b"\xff\xd8\xff", [0, 1, 2]),
        base64="/9j/",
        read_header=jpeg_header,
        decoders=tuple(_jpeg_decoder(ratio) for ratio in (1, 2, 4, 8)),
        broken="Expected a JPEG with a whole header, got a damaged or truncated one.",
        failure=f"{_DAMAGED.format('JPEG')}.",
    ),
    "PNG": ImageFormat(
        mark=(b"\x89PNG\r\n\x1a\n", range(8)),
        base64="iVBORw0KGgo",
        read_header=png_header,
        decoders=(decode_png,),
        broken="Expected a PNG that begins with IHDR, got a broken one.",
        failure=f"{_DAMAGED.format('PNG')}.",
    ),
    "GIF": ImageFormat(
        mark=(b"GIF8", range(4)),
        base64="R0lGOD",
        read_header=gif_header,
        decoders=(decode_gif,),
        broken="Expected a GIF with a frame, got none or a broken one.",
        unlike="Expected a GIF with a whole first frame, got a broken or truncated one.",
        failure=f"{_DAMAGED.format('GIF')}.",
    ),
    "BMP": ImageFormat(
        mark=(b"BM", range(2)),
        base64="Qk[A-Za-z0-9+/]{30}",
        read_header=bmp_header,
        decoders=(decode_bmp,),
        broken="Expected an uncompressed BMP of 1, 4, 8, 24 or 32 bits, got {a} bits, kind {b}.",
        unlike="Expected a whole BMP of {width} x {height}, got a truncated one.",
        failure=f"{_DAMAGED.format('BMP')}.",
    ),
    "WebP": ImageFormat(
        mark=(b"RIFFWEBP", [*range(4), *range(8, 12)]),
        base64="UklGR",
        read_header=webp_header,
        decoders=(decode_webp,),
        broken="Expected a whole WebP, got a broken or truncated one of {d} bytes.",
        unlike="Expected a WebP of {width} x {height}, got {W} x {H}.",
        # TensorFlow 2.19 reads no WebP, and a graph cannot ask which one runs it.
        failure=f"{_DAMAGED.format('WebP')}, or this TensorFlow does not read WebP.",
    ),
}
JPEG = list(FORMATS).index("JPEG")


def format_of(file: File) -> tf.Tensor:
    """Tell the format of a file by its first bytes.

    Returns:
        The number of its row in ``FORMATS``, or ``len(FORMATS)``: int32 scalar.
    """
    marks, places = zip(*(row.mark for row in FORMATS.values()), strict=True)
    # At the end a mark of no bytes, which every file has.
    found = read_at(file, offsets(*places, [])) == [*map(mark, marks), 0]
    return tf.argmax(found, output_type=tf.int32)
