"""Large images: by bands, JPEGs at a fraction, one at a time; the same labels and pixels come out."""

import io
import threading

import numpy as np
import pytest
import tensorflow as tf
from exported import drawn
from PIL import Image

from tf_groupvit.export import segment_graph
from tf_groupvit.preprocessing import image_graph
from tf_groupvit.preprocessing.image_arrays import resize_bicubic
from tf_groupvit.preprocessing.image_reading import read_image


def jpeg(pixels: np.ndarray, orientation: int = 1, **options) -> bytes:
    content, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(
        content, "JPEG", exif=exif, **{"quality": 95, "subsampling": 0, **options}
    )
    return content.getvalue()


def smooth(height: int, width: int) -> np.ndarray:
    return np.asarray(
        Image.fromarray(drawn(5, 4)).resize((width, height), Image.Resampling.BICUBIC)
    )


def test_an_image_resized_by_bands_is_that_of_the_whole(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (61, 47, 3), np.uint8)
    sizes = [(12, 16), (12, 60), (60, 12), (70, 12)]
    whole = [image_graph.resize_bicubic(tf.constant(pixels), *size).numpy() for size in sizes]
    monkeypatch.setattr(image_graph, "_BAND", 500)
    for size, wanted in zip(sizes, whole, strict=True):
        np.testing.assert_array_equal(
            image_graph.resize_bicubic(tf.constant(pixels), *size).numpy(), wanted
        )


@pytest.mark.parametrize("halvings", range(4))
def test_a_jpeg_is_decoded_at_a_fraction_of_its_size(halvings):
    """Of a picture of one color, each fraction has the same color, and its sides are rounded up."""
    head = image_graph.read_header(tf.constant(jpeg(np.full((33, 50, 3), (200, 90, 40), np.uint8))))
    words, pixels = image_graph.read_pixels(head, halvings)
    assert words.numpy() == b"" and pixels.shape == (
        -(-33 // 2**halvings),
        -(-50 // 2**halvings),
        3,
    )
    assert np.abs(pixels.numpy().astype(int) - (200, 90, 40)).max() <= 2


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_the_model_sees_is_turned_after_it_was_resized(monkeypatch, orientation, large):
    """Within 2 gray levels of Python's, which decodes in full, turns and then resizes; so are JPEGs
    of a fraction.
    """
    monkeypatch.setattr(segment_graph, "LARGE", 1000 if large else 10**6)
    file = jpeg(smooth(403, 517), orientation)
    head = image_graph.read_header(tf.constant(file))
    halvings = segment_graph._halvings(head, (12, 16))
    assert halvings == (
        2 if large else 0
    )  # 403 is over 6 times 64: a quarter of it is over 4 times 16, an eighth not
    _, pixels = image_graph.read_pixels(head, halvings)
    found, size = segment_graph.turned_square((12, 16), head, pixels, halvings)
    image = read_image(file)
    assert size.numpy().tolist() == list(image.shape[:2])
    wanted = resize_bicubic(image, 12, 16)
    assert np.abs(found.numpy().astype(int) - wanted).max() <= 2


def test_only_large_jpegs_are_halved(monkeypatch):
    monkeypatch.setattr(segment_graph, "LARGE", 1000)
    content = io.BytesIO()
    Image.fromarray(smooth(403, 517)).save(content, "PNG")
    assert (
        segment_graph._halvings(image_graph.read_header(tf.constant(content.getvalue())), (12, 16))
        == 0
    )
    assert (
        segment_graph._halvings(
            image_graph.read_header(tf.constant(jpeg(smooth(20, 517)))), (12, 16)
        )
        == 0
    )


def test_large_images_are_worked_on_one_at_a_time():
    at_work, most, others = [], [], threading.Event()

    def work(_):
        at_work.append(0)
        others.wait(0.02)  # whoever is let in as well is there by then
        most.append(len(at_work))
        at_work.pop()
        return np.int32(7)

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64)])
    def once(size):
        # Without state, so that only what ``in_turn`` says keeps it between lock and release.
        make = lambda: tf.numpy_function(work, [size], tf.int32, stateful=False)  # noqa: E731
        return segment_graph.in_turn(size, make)

    assert int(once(tf.constant(segment_graph.LARGE, tf.int64))) == 7  # traced once, and not large
    found = []
    ask = lambda: found.append(int(once(tf.constant(segment_graph.LARGE + 1, tf.int64))))  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [7] * 4 and most == [1] * 5
