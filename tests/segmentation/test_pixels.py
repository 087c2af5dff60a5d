"""The graph's way from pixels to labels, against the segmenter's own; and under Keras' predict."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_groupvit.errors import InputError
from tf_groupvit.segmentation.prompts import ClassEmbeddings


def pictures(count, height, width):
    coarse = np.random.default_rng(4).integers(0, 256, (count, 4, 5, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((width, height))) for each in coarse])


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("choices", "size"),
    [
        (dict(mode="whole", background=0.3), (50, 70)),
        pytest.param(dict(mode="whole", protocol="hf", size=64), (40, 33), marks=SLOW),
        pytest.param(dict(mode="window"), (50, 70), marks=SLOW),
        pytest.param(dict(mode="window", background=0.3), (20, 150), marks=SLOW),
    ],
)
def test_predict_labels_as_the_segmenter_does(make, choices, size):
    segmenter, images = make(**choices), pictures(3, *size)
    labels = segmenter.predict(images, batch_size=2, verbose=0)
    B, H, W = labels.shape
    assert (3, *size) == (B, H, W)
    expected = np.stack([result.labels for result in segmenter(list(images))])
    assert len(np.unique(expected)) > 1
    # The two resize within a grey level of each other.
    assert (labels == expected).mean() >= 0.98


@pytest.mark.slow
def test_predict_takes_another_size_after_the_first(make):
    segmenter = make()
    for size in ((20, 30), (33, 8)):
        assert segmenter.predict(pictures(1, *size), verbose=0).shape == (1, *size)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((2, 8, 8), "uint8"), r"for gray pixels\[..., None\]"),
        (np.zeros((8, 8, 3), "uint8"), r"for one image give pixels\[None\]"),
        (np.zeros((8, 8), "uint8"), r"give pixels\[None, ..., None\]"),
        (np.full((2, 8, 8, 3), 0.5), r"give np\.rint"),
        (np.full((2, 8, 8, 3), 9, "uint16"), "16 bits"),
        ([np.zeros((8, 8, 3), "uint8"), np.zeros((8, 9, 3), "uint8")], "several sizes"),
        ([], "at least one image"),
        (np.zeros((0, 8, 8, 3), "uint8"), "at least one image"),
        (np.zeros((2, 0, 8, 3), "uint8"), "at least one pixel"),
        (
            tf.data.Dataset.from_tensors(np.zeros((2, 8, 8, 3), "uint8")).take(0),
            "at least one image",
        ),
        ("photo.jpg", "for one image call the segmenter"),
        (tf.data.Dataset.from_tensors(np.full((2, 8, 8, 3), 0.5, "float32")), r"give np\.rint"),
        (tf.data.Dataset.from_tensors(np.zeros(8, "uint8")), "map it to images"),
        (tf.data.Dataset.from_tensors({"image": np.zeros((8, 8, 3), "uint8")}), "map it to images"),
    ],
)
def test_predict_refuses_what_are_no_pixels_and_says_how_to_convert(segmenter, pixels, message):
    with pytest.raises(InputError, match=message) as caught:
        segmenter.predict(pixels, verbose=0)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_predict_refuses_a_dataset_that_turns_out_to_be_empty(segmenter):
    images = tf.data.Dataset.from_tensors(np.zeros((2, 8, 8, 3), "uint8"))
    with pytest.raises(InputError, match="at least one image"):
        segmenter.predict(images.filter(lambda batch: False), verbose=0)


def of_two_sizes():
    yield np.zeros((8, 8, 3), "uint8")
    yield np.zeros((8, 9, 3), "uint8")


def test_predict_refuses_a_dataset_of_several_sizes(segmenter):
    spec = tf.TensorSpec((None, None, 3), tf.uint8)
    with pytest.raises(InputError, match="several sizes"):
        segmenter.predict(
            tf.data.Dataset.from_generator(of_two_sizes, output_signature=spec), verbose=0
        )


def test_predict_takes_pixels_of_every_plain_kind(segmenter):
    images = pictures(3, 20, 30)
    expected = segmenter.predict(images, verbose=0)
    assert expected.dtype == np.uint8 and len(np.unique(expected)) > 1
    grey = np.repeat(images[..., :1], 3, axis=-1)
    alpha = np.concatenate([images, images[..., :1]], axis=-1)
    dataset = tf.data.Dataset.from_tensor_slices
    for same in (
        np.minimum(images.astype("float32") + 0.25, 255),
        images.astype("int64"),
        alpha,
        tf.constant(images),
        list(images),
        (image for image in images),
        (batch for batch in (images[:2], images[2:])),
        dataset(images),
        dataset(images.astype("float32")).batch(2),
        dataset((alpha, [0, 1, 2])).batch(2),
    ):
        found = segmenter.predict(same, verbose=0)
        assert found.dtype == np.uint8 and np.array_equal(found, expected)
    of_grey = segmenter.predict(grey, verbose=0)
    for same in (images[..., :1], dataset(images[..., :1]).batch(3)):
        assert np.array_equal(segmenter.predict(same, verbose=0), of_grey)


def test_predict_takes_images_of_a_folder_as_keras_reads_them(segmenter, tmp_path):
    images = pictures(3, 20, 30)
    (tmp_path / "some").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "some" / f"{number}.png")
    for labels in ("inferred", None):
        read = keras.utils.image_dataset_from_directory(
            str(tmp_path),
            labels=labels,
            image_size=(20, 30),
            batch_size=2,
            shuffle=False,
            verbose=False,
        )
        assert np.array_equal(
            segmenter.predict(read, verbose=0), segmenter.predict(images, verbose=0)
        )


@pytest.mark.parametrize(("background", "dtype"), [(None, "uint8"), (0.5, "int32")])
def test_more_labels_than_a_byte_holds_are_wider(make, monkeypatch, background, dtype):
    names = tuple(f"c{k}" for k in range(256))
    embeds = (
        np.random.default_rng(0).normal(size=(256, make().text_embeds.shape[1])).astype("float32")
    )
    classes = ClassEmbeddings(names, embeds / np.linalg.norm(embeds, axis=1, keepdims=True))
    other = make(classes, background=background)
    monkeypatch.setattr(
        keras.Model, "predict", lambda _, pixels: np.zeros(pixels.shape[:3], "int32")
    )
    assert (
        other.predict(pictures(1, 20, 30)).dtype
        == other(pictures(1, 20, 30)[0]).labels.dtype
        == dtype
    )


def test_a_window_that_no_patch_divides_is_labelled(make):
    segmenter = make(mode="window")
    images = pictures(1, 11, 150)  # 21 x 293 after resizing: 2 rows of patches, and 5 pixels
    found = segmenter.predict(images, verbose=0)
    assert found.shape == (1, 11, 150)
    assert (found[0] == segmenter(images[0]).labels).mean() >= 0.98
