"""Python and the graph read the same pixels from every kind of file, and refuse the same files."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from image_sides import SIDES, draw, words, write
from PIL import Image, ImageOps

from tf_groupvit.errors import ImageError
from tf_groupvit.preprocessing.image_reading import (
    MAX_PIXELS,
    ORIENTATIONS,
    read_class_numbers,
    read_image,
    several,
    turn,
)


@pytest.fixture(params=SIDES)
def side(request):
    return SIDES[request.param]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples: np.ndarray, color: int, depth: int = 8, between: bytes = b"") -> bytes:
    """A PNG written by hand: samples (H, W, C), uint8 or big-endian uint16."""
    H, W = samples.shape[:2]
    lines = b"".join(b"\0" + row.tobytes() for row in samples)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, depth, color, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + between
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def interlaced_png(pixels: np.ndarray) -> bytes:
    """The same in the seven passes of Adam7, which Pillow does not write."""
    H, W = pixels.shape[:2]
    passes = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    parts = [pixels[y::dy, x::dx] for y, x, dy, dx in passes]
    lines = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, 8, 2, 0, 0, 1))
    return (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )


def deep(C: int) -> np.ndarray:
    return np.random.default_rng(C).integers(0, 65536, (7, 9, C)).astype(">u2")


RGB = draw()
COLOR = Image.fromarray(RGB)
GRAY = COLOR.convert("L")
ALPHA = Image.fromarray(draw(C=4)[..., 3])
RGBA = Image.merge("RGBA", (*COLOR.split(), ALPHA))
PALETTE = COLOR.quantize(16)
TURNED = PALETTE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def rgb(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


# name -> (bytes, the pixels that they must give)
LOSSLESS = {
    "png": (write(COLOR, "PNG"), RGB),
    "png with alpha": (write(RGBA, "PNG"), RGB),
    "png gray": (write(GRAY, "PNG"), rgb(GRAY)),
    "png gray with alpha": (write(Image.merge("LA", (GRAY, ALPHA)), "PNG"), rgb(GRAY)),
    "png one bit": (write(COLOR.convert("1"), "PNG"), rgb(COLOR.convert("1"))),
    "png palette": (write(PALETTE, "PNG"), rgb(PALETTE)),
    "png palette, transparent": (
        write(PALETTE, "PNG", transparency=bytes(range(0, 160, 10))),
        rgb(PALETTE),
    ),
    "png palette, one transparent": (write(PALETTE, "PNG", transparency=3), rgb(PALETTE)),
    "png color key": (write(COLOR, "PNG", transparency=tuple(map(int, RGB[0, 0]))), RGB),
    "png interlaced": (interlaced_png(RGB), RGB),
    "png animated": (
        write(COLOR, "PNG", save_all=True, append_images=[ImageOps.mirror(COLOR)]),
        RGB,
    ),
    "png 16-bit gray": (png(deep(1), 0, 16), np.repeat(deep(1) >> 8, 3, -1)),
    "png 16-bit gray with alpha": (png(deep(2), 4, 16), np.repeat(deep(2)[..., :1] >> 8, 3, -1)),
    "png 16-bit color": (png(deep(3), 2, 16), deep(3) >> 8),
    "png 16-bit color with alpha": (png(deep(4), 6, 16), deep(4)[..., :3] >> 8),
    "gif": (write(PALETTE, "GIF"), rgb(PALETTE)),
    "gif, not interlaced": (write(PALETTE, "GIF", interlace=0), rgb(PALETTE)),
    "gif transparent": (write(PALETTE, "GIF", transparency=2, optimize=False), rgb(PALETTE)),
    "gif animated": (
        write(PALETTE, "GIF", save_all=True, append_images=[TURNED] * 3, loop=0),
        rgb(PALETTE),
    ),
    "gif with a comment": (write(PALETTE, "GIF", comment=b"words" * 200), rgb(PALETTE)),
    "bmp": (write(COLOR, "BMP"), RGB),
    "bmp with alpha": (write(RGBA, "BMP"), RGB),
    "bmp gray": (write(GRAY, "BMP"), rgb(GRAY)),
    "bmp palette": (write(PALETTE, "BMP"), rgb(PALETTE)),
    "bmp one bit": (write(COLOR.convert("1"), "BMP"), rgb(COLOR.convert("1"))),
    "webp": (write(COLOR, "WEBP", lossless=True), RGB),
    "webp with alpha": (write(RGBA, "WEBP", lossless=True, exact=True), RGB),
    "webp animated": (
        write(COLOR, "WEBP", lossless=True, save_all=True, append_images=[ImageOps.mirror(COLOR)]),
        RGB,
    ),
    "one pixel": (write(COLOR.crop((0, 0, 1, 1)), "PNG"), RGB[:1, :1]),
    "20:1": (write(Image.fromarray(draw(2, 40)), "PNG"), draw(2, 40)),
    "1:20": (write(Image.fromarray(draw(40, 2)), "BMP"), draw(40, 2)),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_file_gives_the_pixels_that_were_saved(side, name):
    data, expected = LOSSLESS[name]
    H, W, C = (pixels := side.read(data)).shape
    assert expected.shape == (H, W, C)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


LOSSY = {
    "jpeg": write(COLOR, "JPEG", quality=80),
    "jpeg 4:2:0": write(COLOR, "JPEG", quality=90, subsampling="4:2:0"),
    "jpeg 4:2:2": write(COLOR, "JPEG", quality=90, subsampling="4:2:2"),
    "jpeg 4:4:4": write(COLOR, "JPEG", quality=90, subsampling="4:4:4"),
    "jpeg progressive": write(COLOR, "JPEG", progressive=True),
    "jpeg gray": write(GRAY, "JPEG"),
    "jpeg cmyk": write(COLOR.convert("CMYK"), "JPEG"),
    "jpeg with something behind": write(COLOR, "JPEG") + b"something behind",
    "webp lossy": write(COLOR, "WEBP", quality=80),
    "webp lossy with alpha": write(RGBA, "WEBP", quality=80),
}


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_files_are_decoded_alike_to_the_bit(name):
    with Image.open(io.BytesIO(LOSSY[name])) as image:
        expected = rgb(image)
    for side in SIDES.values():
        np.testing.assert_array_equal(side.read(LOSSY[name]), expected)


def test_a_jpeg_with_bytes_between_its_segments_is_read_as_without(side):
    """Readers skip them; its size is then the decoder's, since it cannot be found by walking from
    part to part.
    """
    plain = LOSSY["jpeg"]
    after_first = 4 + int.from_bytes(plain[4:6], "big")
    np.testing.assert_array_equal(
        side.read(plain[:after_first] + b"\0\0" + plain[after_first:]), side.read(plain)
    )


def test_photos_are_decoded_alike_to_the_bit(photos):
    for photo in photos:
        np.testing.assert_array_equal(SIDES["graph"].read(photo.read_bytes()), read_image(photo))


# EXIF


def exif_block(orientation: int, order: str = ">", form: int = 3) -> bytes:
    """An EXIF block of two entries, the orientation second, in one byte order, as SHORT (3) or LONG
    (4).
    """
    mark = b"MM\0*" if order == ">" else b"II*\0"
    value = (
        struct.pack(f"{order}HH", orientation, 0)
        if form == 3
        else struct.pack(f"{order}I", orientation)
    )
    entries = (
        struct.pack(f"{order}HHII", 0x010F, 2, 4, 0)
        + struct.pack(f"{order}HHI", 0x0112, form, 1)
        + value
    )
    return mark + struct.pack(f"{order}IH", 8, 2) + entries + struct.pack(f"{order}I", 0)


def test_orientation_6_turns_a_picture_clockwise_by_hand(side):
    picture = np.repeat(np.array([[[10], [20], [30]], [[40], [50], [60]]], np.uint8), 3, -1)
    data = png(picture, 2, between=chunk(b"eXIf", exif_block(6)))
    np.testing.assert_array_equal(side.read(data)[..., 0], [[40, 10], [50, 20], [60, 30]])


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_a_file_with_an_orientation_is_turned_as_pillow_turns_it(side, kind, orientation, order):
    block = exif_block(orientation, order, form=3 if orientation % 2 else 4)
    options = {"lossless": True} if kind == "WEBP" else {}
    data = write(COLOR, kind, exif=block if kind == "PNG" else b"Exif\0\0" + block, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif().get(0x0112) == orientation
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(side.read(data), expected)


def test_every_orientation_is_undone_by_pillows_inverse():
    upright = read_image(COLOR)
    undo = {
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
        3: Image.Transpose.ROTATE_180,
    }
    for orientation in ORIENTATIONS:
        turned = Image.fromarray(turn(upright, orientation))
        method = undo.get(orientation)
        back = (
            turned.transpose(method)
            if method is not None
            else Image.fromarray(turn(np.asarray(turned), orientation))
        )
        np.testing.assert_array_equal(np.asarray(back), upright)


def test_exif_behind_the_picture_and_behind_other_parts_is_found(side):
    block = chunk(b"eXIf", exif_block(3))
    late = write(COLOR, "PNG")[:-12] + block + chunk(b"IEND", b"")
    jpeg = write(
        COLOR, "JPEG", icc_profile=bytes(70000), comment=b"words", exif=b"Exif\0\0" + exif_block(3)
    )
    with Image.open(io.BytesIO(jpeg)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(side.read(late), RGB[::-1, ::-1])
    np.testing.assert_array_equal(side.read(jpeg), expected)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"MM",
        b"XX*\0" + bytes(20),
        exif_block(6)[:14],
        b"MM\0*\xff\xff\xff\xff",
        exif_block(6)[:8] + b"\xff\xff",
    ],
    ids=[
        "empty",
        "cut at the order",
        "no order",
        "cut in an entry",
        "directory far away",
        "65535 entries",
    ],
)
def test_a_broken_exif_block_leaves_the_picture_as_it_lies(side, block):
    np.testing.assert_array_equal(side.read(png(RGB, 2, between=chunk(b"eXIf", block))), RGB)


# What is refused

HUGE = struct.pack(">II", 20000, 20000)
JPEG, PNG, GIF, BMP = LOSSY["jpeg"], LOSSLESS["png"][0], LOSSLESS["gif"][0], LOSSLESS["bmp"][0]


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def jpeg_of(height: int, width: int) -> bytes:
    return patched(JPEG, JPEG.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width))


def gif_frame(data: bytes, left: int, top: int, width: int, height: int) -> bytes:
    """Give the first frame of a GIF another place."""
    return patched(
        data, data.index(b"\x2c\0\0\0\0") + 1, struct.pack("<HHHH", left, top, width, height)
    )


BOMBS = {
    "png": b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", HUGE + b"\x08\x02\0\0\0")
    + chunk(b"IDAT", zlib.compress(bytes(99))),
    "jpeg": jpeg_of(20000, 20000),
    "gif": patched(GIF, 6, struct.pack("<HH", 60000, 60000)),
    "gif frame": gif_frame(GIF, 0, 0, 60000, 60000),
    "bmp": patched(BMP, 18, struct.pack("<ii", 20000, -20000)),
    "webp lossless": patched(LOSSLESS["webp"][0], 21, b"\xff\xff\xff\x0f"),
    "webp lossy": patched(LOSSY["webp lossy"], 26, b"\xff\x3f\xff\x3f"),
    "webp with alpha": patched(LOSSY["webp lossy with alpha"], 24, b"\xff\xff\0\xff\xff\0"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_from_its_header(side, name):
    refusals = [f"over the limit of {MAX_PIXELS}", f"over the limit of {MAX_PIXELS:,}"]
    if name == "webp with alpha" and PIL.__version__ < "13":
        refusals.append(
            "the image's header is broken"
        )  # older decoders look at it before they tell the size
    with pytest.raises(side.error, match="|".join(refusals)):
        side.read(BOMBS[name])


@pytest.mark.parametrize(("width", "height"), [(1_000_001, 1), (1, 1_000_001)])
def test_a_side_of_over_a_million_pixels_is_refused(side, width, height):
    """Resizing such a row takes some 250 bytes a pixel: of a file of 50 MB, 4 GB."""
    bmp = b"BM" + struct.pack(
        "<IIIIiiHHIIIIII", 58, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0
    )
    with pytest.raises(
        side.error, match=rf"{width} x {height} is over the limit of 1,?000,?000 pixels a side"
    ):
        side.read(bmp + bytes(4 * width * height))


def test_the_limit_is_the_last_size_that_passes(side):
    data, expected = LOSSLESS["png"]
    limit = expected.shape[0] * expected.shape[1]  # 22 x 13 is 286
    np.testing.assert_array_equal(side.read(data, max_pixels=limit), expected)
    over = r"41 x 7 is 287 pixels, over the limit of 286|41 x 7 is over the limit of 286"
    with pytest.raises(side.error, match=over):
        side.read(write(Image.fromarray(draw(7, 41)), "PNG"), max_pixels=limit)


def test_pillows_own_limit_is_the_one_documented():
    assert Image.MAX_IMAGE_PIXELS == MAX_PIXELS


BROKEN = {
    "empty": b"",
    "text": b"This is no picture, whatever its name says.\n",
    "jpeg, half": JPEG[: len(JPEG) // 2],
    "jpeg without its last two bytes": JPEG[:-2],
    "jpeg, three bytes": JPEG[:3],
    "jpeg without frame": b"\xff\xd8\xff\xd9",
    "png, half": PNG[: len(PNG) // 2],
    "png, eight bytes": PNG[:8],
    "png without header": PNG[:8] + PNG[33:],
    "png with a wrong sum": patched(PNG, len(PNG) // 2, bytes(8)),
    "png of no size": patched(PNG, 8, chunk(b"IHDR", bytes(8) + b"\x08\x02\0\0\0")),
    "gif, half": GIF[: len(GIF) // 2],
    "gif, six bytes": GIF[:6],
    "gif without frame": GIF[: GIF.index(b"\x2c\0\0\0\0")] + b";",
    "bmp, half": BMP[: len(BMP) // 2],
    "bmp, two bytes": BMP[:2],
    "bmp of 7 bits": patched(BMP, 28, b"\x07\0"),
    "webp, half": LOSSLESS["webp"][0][:60],
    "webp, twelve bytes": LOSSLESS["webp"][0][:12],
}


# What libpng can do without, and Pillow, too: the end mark, and checksums of parts that are no part
# of the picture.
SPOILED_TEXT = chunk(b"tEXt", b"a\0words")[:-1] + b"\0"
WITHOUT = {
    "no end": PNG[:-12],
    "a wrong sum of a text": PNG[:33] + SPOILED_TEXT + PNG[33:],
    "a wrong sum of a text, no end": PNG[:33] + SPOILED_TEXT + PNG[33:-12],
    "something behind": PNG + b"something behind",
}
DAMAGED_PNG = {
    "half an end": PNG[:-6],
    "a wrong sum of the picture": PNG[:-13] + bytes([PNG[-13] ^ 1]) + PNG[-12:],
    "a wrong sum of the header": patched(PNG, 29, bytes(4)),
    "a wrong sum of the end": PNG[:-1] + b"\0",
    "a part that is cut": PNG[:-12] + chunk(b"tEXt", b"a\0words")[:-3],
    "a part of no name": PNG[:-12] + chunk(b"\x98END", b"") + PNG[-12:],
}


@pytest.mark.parametrize("name", WITHOUT)
def test_a_png_without_what_readers_can_do_without_is_read(side, name):
    np.testing.assert_array_equal(side.read(WITHOUT[name]), RGB)


@pytest.mark.parametrize("name", DAMAGED_PNG)
def test_a_png_with_a_wrong_checksum_or_a_part_cut_short_is_refused(side, name):
    with pytest.raises(side.error, match=r"whole PNG|sound PNG"):
        side.read(DAMAGED_PNG[name])


@pytest.mark.parametrize("name", BROKEN)
def test_broken_bytes_are_refused(side, name):
    with pytest.raises(side.error) as caught:
        side.read(BROKEN[name])
    assert words(caught.value).strip()


def test_frames_behind_the_first_are_never_unpacked():
    second = (
        b"\x2c" + struct.pack("<HHHH", 0, 0, 65535, 65535) + b"\0\x02\x02\x4c\x01\0"
    )  # 4 GB when unpacked
    bomb = GIF[:-1] + second * 50 + b";"
    np.testing.assert_array_equal(SIDES["graph"].read(bomb), rgb(PALETTE))


def test_a_gif_frame_that_covers_part_of_its_canvas_lies_where_it_should(side):
    part = gif_frame(GIF, 3, 2, 22, 13)
    with Image.open(io.BytesIO(part)) as image:
        expected = rgb(image)
    assert expected.shape == (15, 25, 3)
    np.testing.assert_array_equal(side.read(part), expected)
    np.testing.assert_array_equal(expected[2:, 3:], rgb(PALETTE))


def test_a_gif_in_tiny_blocks_is_given_up_early():
    start = GIF.index(b"\x2c\0\0\0\0") + 11
    with pytest.raises(SIDES["graph"].error, match="whole first frame"):
        SIDES["graph"].read(GIF[:start] + b"\x01\x00"[:1] * 200000 + b"\0;")


# What only Python takes


def test_path_bytes_pil_image_and_array_are_the_same_image(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    for source in (path, str(path), PNG, bytearray(PNG), memoryview(PNG), COLOR, RGB, RGBA):
        np.testing.assert_array_equal(read_image(source), RGB)


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "TGA"])
def test_other_kinds_that_pillow_reads_are_read(kind):
    np.testing.assert_array_equal(read_image(write(COLOR, kind)), RGB)


def test_sixteen_bit_gray_is_scaled_in_every_mode():
    gray = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    for image in (Image.fromarray(gray), Image.fromarray(gray.astype(np.int32))):
        assert read_image(image)[0, :, 0].tolist() == [0, 0, 1, 128, 255]
        assert read_image(write(image, "TIFF"))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_an_orientation_set_on_a_pil_image_counts():
    image = COLOR.copy()
    image.getexif()[0x0112] = 3
    np.testing.assert_array_equal(read_image(image), RGB[::-1, ::-1])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_in_one_line(name, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(BROKEN[name])
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="needs a device")
def test_a_device_is_refused_before_it_is_read():
    with pytest.raises(ImageError, match=r"^/dev/null: expected an image file, got a device"):
        read_image("/dev/null")


def test_missing_files_and_directories_are_told_apart(tmp_path):
    with pytest.raises(ImageError, match=r"none\.png: there is no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="got a directory"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image("zero\0byte.png")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 5, 3), 0.5), "from 0.5 to 0.5: give np.rint"),
        (np.full((4, 5, 3), 1.5, np.float32), "from 1.5 to 1.5: give the image as uint8"),
        (np.full((4, 5, 3), -1.0), "normalized"),
        (np.full((4, 5, 3), np.nan), "normalized"),
        (np.full((4, 5, 3), 256.0), "normalized"),
        (np.full((4, 5, 3), 9, np.uint16), "16 bits"),
        (np.full((4, 5, 3), 256), "16 bits"),
        (np.zeros((4, 5, 3), bool), r"mask\.astype"),
        (np.zeros((4, 5, 3), complex), "got complex"),
        (np.array([["a.jpg"]]), "got <U5"),
        (np.zeros((3, 4, 5), np.uint8), "channels last"),
        (np.zeros((2, 4, 5, 3), np.uint8), r"give list\(images\), or call predict"),
        (np.zeros((0, 5, 3), np.uint8), "at least one pixel"),
        (np.zeros((4, 0), np.uint8), "at least one pixel"),
        (np.uint8(3), "expected an array"),
    ],
    ids=str,
)
def test_arrays_that_are_no_image_or_could_be_two_are_refused(array, message):
    with pytest.raises(ImageError, match=message) as caught:
        read_image(array)
    assert "\n" not in str(caught.value)


def test_arrays_of_other_types_and_channels_are_the_same_image():
    pixels = draw()
    for same in (
        pixels.astype(np.int64),
        pixels.astype("float32"),
        pixels + 0.4,
        np.dstack([pixels, pixels[..., :1]]),
    ):
        found = read_image(same)
        assert found.dtype == np.uint8 and (found == pixels).all()
    gray = pixels[..., 0]
    for same in (gray, gray[..., None], gray.astype("float16")):
        assert (read_image(same) == gray[..., None]).all() and read_image(
            same
        ).shape == pixels.shape
    black = np.zeros((2, 2, 3), "float32")
    assert (read_image(black) == 0).all(), "black is 0 on every scale"


def test_open_files_are_read_from_their_start(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    written = io.BytesIO()
    COLOR.save(written, "PNG")  # leaves the position at the end
    with (
        open(tmp_path / "a.png", "rb") as file,
        open(tmp_path / "a.png", encoding="latin-1") as text,
    ):
        assert (read_image(file) == RGB).all() and (read_image(written) == RGB).all()
        with pytest.raises(ImageError, match=r"a\.png: .*mode 'rb'"):
            read_image(text)
    with pytest.raises(ImageError, match=r"a\.png: cannot be read: .*closed"):
        read_image(file)


def test_tensors_are_arrays_and_encoded_bytes():
    import tensorflow as tf

    assert (read_image(tf.constant(RGB)) == RGB).all() and (
        read_image(tf.constant(PNG)) == RGB
    ).all()


@pytest.mark.parametrize("images", [[PNG], (PNG,), (each for each in [PNG]), {"a": PNG}.values()])
def test_several_images_are_told_from_one(images):
    assert list(several(images)) == [PNG]


@pytest.mark.parametrize(
    "image", ["a.png", PNG, COLOR, RGB, io.BytesIO(PNG), {"a.png"}, {}, None], ids=type
)
def test_one_image_is_told_from_several(image):
    assert several(image) is None


@pytest.mark.parametrize(
    "source", [None, 7, object(), [PNG]], ids=["None", "number", "object", "list"]
)
def test_other_things_are_refused(source):
    with pytest.raises(ImageError, match="expected a path, an open file, bytes"):
        read_image(source)


def test_pil_images_without_a_range_or_a_pixel_are_refused():
    with pytest.raises(ImageError, match="floating-point"):
        read_image(Image.fromarray(np.zeros((2, 2), np.float32)))
    with pytest.raises(ImageError, match="from 0 to 65535"):
        read_image(Image.fromarray(np.array([[-1, 70000]], np.int32)))
    with pytest.raises(ImageError, match="at least one pixel"):
        read_image(Image.new("RGB", (0, 5)))


# Class numbers


def gray_png(numbers, bits):
    """A PNG (sections 7.2 and 11.2) of gray at a depth that Pillow may not write."""
    rows = [
        [number >> shift & 1 for number in row for shift in reversed(range(bits))]
        for row in numbers
    ]
    lines = b"".join(b"\0" + np.packbits(row).tobytes() for row in rows)
    header = chunk(
        b"IHDR", struct.pack(">IIBBBBB", len(numbers[0]), len(numbers), bits, 0, 0, 0, 0)
    )
    return (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    )


def saved(mask, kind):
    content = io.BytesIO()
    mask.save(content, kind)
    return content.getvalue()


def numbers_of(content):
    return read_class_numbers(Image.open(io.BytesIO(content)), "mask").tolist()


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_class_numbers_are_those_of_the_file_at_every_depth_of_gray(bits):
    numbers = [[0, 1, 2**bits - 1], [1, 2**bits // 2, 0]]
    assert numbers_of(gray_png(numbers, bits)) == numbers


@pytest.mark.parametrize("count", [2, 4, 16, 17])
def test_class_numbers_of_a_palette_are_its_entries(count):
    mask = Image.fromarray(np.array([[0, 1, count - 1]], np.uint8)).convert("P")
    mask.putpalette([255, 0, 128] * count)
    assert numbers_of(saved(mask, "PNG")) == [[0, 1, count - 1]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_class_numbers_do_not_ask_for_opacity(kind):
    mask = Image.fromarray(np.array([[[3, 0], [7, 255]]], np.uint8), "LA")
    assert numbers_of(saved(mask, kind)) == [[3, 7]]


@pytest.mark.parametrize(
    ("highest", "plain"), [(20, True), (20, False), (300, True), (300, False), (255, False)]
)
def test_class_numbers_of_a_pgm_are_not_stretched_to_its_highest(highest, plain):
    head = f"P{2 if plain else 5} 3 1 {highest}\n".encode()
    numbers = np.array([0, 7, highest], ">u2" if highest > 255 else "u1")
    assert numbers_of(head + (b"0 7 %d\n" % highest if plain else numbers.tobytes())) == [
        [0, 7, highest]
    ]


@pytest.mark.parametrize(
    ("mask", "kind", "message"),
    [
        (Image.new("RGB", (2, 2)), "PNG", "got mode 'RGB'"),
        (Image.new("RGBA", (2, 2)), "PNG", "got mode 'RGBA'"),
        (Image.new("L", (2, 2)), "JPEG", "does not keep class numbers"),
    ],
)
def test_what_holds_no_class_numbers_is_refused(mask, kind, message):
    with pytest.raises(ImageError, match=message):
        numbers_of(saved(mask, kind))


@pytest.mark.parametrize("mode", ["I", "I;16"])
def test_a_gray_picture_of_8_bits_in_a_mode_of_16_is_not_read_as_black(mode):
    eight = Image.fromarray(np.array([[0, 100], [200, 255]], np.uint8))
    with pytest.raises(
        ImageError, match=rf"mode {mode} is read as 16 bits, .* end at 255: .*convert\('L'\)"
    ):
        read_image(eight.convert(mode))
    sixteen = Image.fromarray(np.array([[0, 256], [512, 65535]], np.uint16)).convert(mode)
    assert read_image(sixteen)[..., 0].tolist() == [[0, 1], [2, 255]]
