"""Requests that make no sense in, INVALID_ARGUMENT with words that help out."""

import struct

import numpy as np
import pytest
from exported import as_file, drawn, strings

INVALID_ARGUMENT = 3
IMAGE = strings(as_file(drawn(8, 8)))
HUGE = as_file(drawn(8, 8))
HUGE = HUGE[:16] + struct.pack(">II", 30000, 30000) + HUGE[24:]  # its header says so


def refusal(runner, signature, **inputs):
    error = runner.answer(signature, inputs)["error"]
    assert error is not None and error[0] == INVALID_ARGUMENT
    return error[1]


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"", "came 0 bytes of another kind"),
        (b"no picture", "Expected an image of kind JPEG"),
        (HUGE, "over the limit"),
        (as_file(drawn(50, 50), "JPEG")[:700], ""),
    ],
)
def test_one_bad_image_refuses_the_request(runner, contents, words):
    assert words in refusal(runner, "serving_default", image_bytes=strings(IMAGE[0], contents))


@pytest.mark.parametrize("shape", [(), (1, 1)])
def test_images_that_are_no_list_are_refused_by_name_and_shape(runner, shape):
    came = "(1, 1)" if shape else "()"
    image = np.reshape(IMAGE, shape) if shape else np.array(IMAGE[0], object)
    assert f"image_bytes: expected shape (B), came {came}." in refusal(runner, "serving_default", image_bytes=image)


LISTS = {
    "": "has an empty name",
    "dog,,cat": "The list of classes of image 2 (dog,,cat) has an empty name: leave it out.",
    "dog, ": "has an empty name",
    "dog|,cat": "has an empty name",
    " \t\u3000": "has an empty name",
    "dog,cat, dog ": "has a class twice",
    "big dog,big   dog": "has a class twice",
    "cat,background": "which this model adds by itself",
    ",".join(f"c{i}" for i in range(256)): "at most 256 labels an image, background included, came 257",
}


@pytest.mark.parametrize("names", LISTS, ids=lambda names: names[:12])
def test_a_list_of_classes_that_cannot_be_used_is_refused(runner, names):
    two = strings(IMAGE[0], IMAGE[0])
    assert LISTS[names] in refusal(runner, "segment_open", image_bytes=two, class_names=strings("cat", names))


def test_a_list_for_every_image_is_wanted(runner):
    words = refusal(runner, "segment_open", image_bytes=IMAGE, class_names=strings("cat", "dog"))
    assert "class_names and image_bytes: expected one row for each image in both, came 2 and 1." in words


PIXELS = {
    "segment_pixels": [
        ({"pixels": np.zeros((4, 4, 3), "uint8")}, "pixels: expected shape (B, H, W, 3), came (4, 4, 3)."),
        ({"pixels": np.zeros((1, 4, 4, 4), "uint8")}, "pixels: expected shape (B, H, W, 3), came (1, 4, 4, 4)."),
        ({"pixels": np.zeros((1, 0, 4, 3), "uint8")}, "pixels: expected at least one, came images of 4 x 0."),
    ],
    "segment_embeds": [
        ({"image_bytes": IMAGE, "text_embeds": np.zeros((1, 8), "float32")}, "text_embeds: expected shape (B, K, 8)"),
        ({"image_bytes": IMAGE, "text_embeds": np.zeros((1, 2, 7), "float32")}, "came (1, 2, 7)"),
        ({"image_bytes": IMAGE, "text_embeds": np.zeros((1, 0, 8), "float32")}, "expected 1 to 255 classes an image"),
        ({"image_bytes": IMAGE, "text_embeds": np.zeros((1, 256, 8), "float32")}, "came 256"),
        ({"image_bytes": IMAGE, "text_embeds": np.full((1, 2, 8), np.nan, "float32")}, "expected finite numbers"),
        ({"image_bytes": IMAGE, "text_embeds": np.zeros((2, 2, 8), "float32")}, "came 2 and 1"),
    ],
    "logits": [
        ({"input_ids": np.zeros((1, 33), "int32")}, "input_ids: expected 1 to 32 tokens a text, came 33."),
        ({"input_ids": np.full((1, 2), 9999, "int32")}, "input_ids: expected numbers from 0 to"),
        ({"attention_mask": np.ones((1, 3), "int32")}, "attention_mask: expected one number for each"),
        ({"pixel_values": np.zeros((1, 3, 30, 32), "float32")}, "multiples of the patch size (8, 8), came 30 and 32."),
        ({"pixel_values": np.zeros((1, 1, 32, 32), "float32")}, "pixel_values: expected shape (B, 3, H, W)"),
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("signature", "given", "words"), [(name, *case) for name in PIXELS for case in PIXELS[name]])
def test_arrays_of_other_shapes_are_refused(runner, signature, given, words):
    ids = np.zeros((1, 2), "int32")
    sound = {"input_ids": ids, "attention_mask": ids + 1, "pixel_values": np.zeros((1, 3, 32, 32), "float32")}
    if signature == "logits":
        shape = given.get("input_ids", ids).shape
        given = {**sound, "attention_mask": np.ones(shape, "int32"), **given}
    assert words in refusal(runner, signature, **given)


@pytest.mark.slow
def test_an_empty_batch_may_come_as_an_empty_list(runner):
    """JSON's [] has shape (0), whatever the rank that is meant."""
    outputs = runner.answer("segment_pixels", {"pixels": np.zeros(0, "uint8")})["outputs"]
    assert outputs["labels"].size == 0
