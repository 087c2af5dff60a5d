"""A segmentation from a PNG of class numbers and the bytes of an image, as a server answers and is
asked.
"""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from tf_groupvit.errors import ImageError, InputError
from tf_groupvit.segmentation.image_encoding import encode_image
from tf_groupvit.segmentation.result import Segmentation

GRAY = np.full((2, 4, 3), 100, np.uint8)
LABELS = np.array([[0, 0, 1, 1], [0, 0, 0, 2]])
NAMES = ["background", "cat", "dog", "bird"]


def encoded(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_mask_png_and_its_image_make_a_segmentation():
    result = Segmentation.from_png(
        encoded(LABELS.astype(np.uint8)), NAMES, encoded(GRAY), class_scores=[1, 2, 3, 4]
    )
    assert (
        (result.labels == LABELS).all()
        and (result.image == GRAY).all()
        and result.areas["cat"] == 0.25
    )


def test_a_result_of_the_client_is_pickled_with_the_bytes_of_its_image():
    result = Segmentation.from_png(
        encoded(LABELS.astype(np.uint8)), NAMES, encoded(GRAY), class_scores=np.arange(4.0)
    )
    for _ in range(2):  # not used, and used
        other = pickle.loads(pickle.dumps(result))
        assert (other.image == GRAY).all() and (other.labels == LABELS).all()
        assert other.class_scores == result.class_scores and other.to_json() == result.to_json()


def test_the_mask_has_the_size_of_the_image_as_a_person_sees_it():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    tall = np.zeros((4, 2, 3), np.uint8)
    photo = encoded(tall, "JPEG", exif=exif.tobytes())
    assert Segmentation.from_png(encoded(LABELS.astype(np.uint8)), NAMES, photo).image.shape == (
        2,
        4,
        3,
    )
    with pytest.raises(InputError, match="2x4 and the image 4x2"):
        Segmentation.from_png(encoded(LABELS.T.astype(np.uint8)), NAMES, photo)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (b"", "no image is in it"),
        (encoded(GRAY), "mode 'RGB'"),
        (encoded(LABELS.astype(np.uint8), "JPEG"), "JPEG does not keep class numbers"),
        (encoded(np.full((2, 4), 9, np.uint8)), "received 9"),
        (
            encoded(np.random.default_rng(0).integers(0, 3, (2, 4)).astype(np.uint8))[:45],
            "damaged|no image",
        ),
    ],
)
def test_a_mask_that_cannot_be_one_is_refused(mask, message):
    with pytest.raises(InputError, match=message):
        Segmentation.from_png(mask, NAMES, encoded(GRAY))


def test_sixteen_bit_gray_is_scaled_and_alpha_dropped():
    gray = np.array([[0, 65535, 32768]], np.uint16)
    mask = encoded(np.zeros((1, 3), np.uint8))
    assert Segmentation.from_png(mask, ["a"], encoded(gray)).image[0, :, 0].tolist() == [
        0,
        255,
        128,
    ]
    clear = np.array([[[10, 20, 30, 0]] * 3], np.uint8)
    assert Segmentation.from_png(mask, ["a"], encoded(clear)).image[0, 0].tolist() == [10, 20, 30]


def test_an_image_over_the_pixel_limit_is_refused_from_its_header(monkeypatch):
    monkeypatch.setattr("tf_groupvit.segmentation.image_encoding.MAX_PIXELS", 4)
    with pytest.raises(ImageError, match="4x2 is over 4 pixels"):
        Segmentation.from_png(encoded(LABELS.astype(np.uint8)), NAMES, encoded(GRAY))


def test_a_damaged_image_is_an_error_when_it_is_looked_at():
    photo = encoded(np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8), "JPEG")
    result = Segmentation.from_png(encoded(np.zeros((80, 80), np.uint8)), ["a"], photo[:2000])
    with pytest.raises(ImageError, match="damaged"):
        _ = result.image


# Bytes for a server


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_formats_that_tensorflow_reads_are_sent_as_they_are(tmp_path, kind):
    content = encoded(GRAY, kind)
    (tmp_path / "a").write_bytes(content)
    assert (
        encode_image(content)
        == encode_image(tmp_path / "a")
        == encode_image(str(tmp_path / "a"))
        == content
    )


def test_an_open_file_is_sent_as_it_is():
    content = encoded(GRAY, "JPEG")
    assert encode_image(io.BytesIO(content)) == content


@pytest.mark.parametrize(
    "source",
    [GRAY, Image.fromarray(GRAY), encoded(GRAY, "TIFF"), encoded(GRAY, "WEBP", lossless=True)],
)
def test_everything_else_is_sent_as_png_without_loss(source):
    sent = Image.open(io.BytesIO(encode_image(source)))
    assert sent.format == "PNG" and (np.asarray(sent) == GRAY).all()


def test_exif_stays_in_jpeg_and_is_applied_elsewhere():
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, size in (("JPEG", (4, 2)), ("PNG", (2, 4))):
        content = encoded(GRAY, kind, exif=exif.tobytes())
        assert Image.open(io.BytesIO(encode_image(content))).size == size
        mask = encoded(np.zeros((4, 2), np.uint8))
        assert Segmentation.from_png(mask, ["a"], encode_image(content)).image.shape == (4, 2, 3)


@pytest.mark.parametrize(
    "source", [b"", b"some text", "no/such/file.png", ".", "a\0b", GRAY / 255, GRAY[0, 0], 3, None]
)
def test_what_is_no_image_is_not_sent(source):
    with pytest.raises(ImageError):
        encode_image(source)
