"""Requests that make no sense get INVALID_ARGUMENT and a message that helps."""

import base64
import struct

import numpy as np
import pytest
from exported import as_file, drawn, labels_of, strings

INVALID_ARGUMENT = 3
IMAGE = strings(as_file(drawn(8, 8)))
HUGE = as_file(drawn(8, 8))
HUGE = HUGE[:16] + struct.pack(">II", 30000, 30000) + HUGE[24:]  # its header says so


def refusal(runner, signature, **inputs):
    error = runner.answer(signature, inputs)["error"]
    assert error is not None and error[0] == INVALID_ARGUMENT
    return error[1]


JPEG = as_file(drawn(50, 50), "JPEG")
BAD = {
    "empty": (b"", "got 0 bytes of another kind"),
    "nonsense": (
        b"no picture",
        "Expected an image of kind JPEG, PNG, GIF, BMP, WebP, got 10 bytes of another kind.",
    ),
    "tiff": (as_file(drawn(8, 8), "TIFF"), "bytes of another kind"),
    "huge": (HUGE, "An image of 30000 x 30000 is over the limit of 89478485 pixels: shrink it."),
    "cut jpeg": (JPEG[:-200], "Expected a whole JPEG, got a damaged or truncated one."),
    "jpeg of a few bytes": (
        JPEG[:9],
        "Expected a JPEG with a whole header, got a damaged or truncated one.",
    ),
    "cut png": (
        as_file(drawn(50, 50))[:90],
        "Expected a whole PNG, got a damaged or truncated one.",
    ),
    "cut gif": (as_file(drawn(50, 50), "GIF")[:-60], "Expected a GIF with a whole first frame"),
    "cut bmp": (as_file(drawn(50, 50), "BMP")[:-60], "Expected a whole BMP of 50 x 50"),
    "cut webp": (as_file(drawn(50, 50), "WEBP")[:-60], "Expected a whole WebP"),
    "base64": (base64.b64encode(JPEG), "got base64 as plain text: send {"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_request_of_one_bad_image_is_refused_in_words(runner, name):
    contents, words = BAD[name]
    said = refusal(runner, "serving_default", image_bytes=strings(contents)).splitlines()[0]
    assert words in said and "{{" not in said


def test_bad_images_are_rows_with_an_error_among_good_ones(runner):
    """Merged batches are such requests: nobody is refused for what another client sends."""
    good = [as_file(drawn(40, 56, 1), "JPEG"), as_file(drawn(30, 41, 2))]
    alone = runner.answer("serving_default", {"image_bytes": strings(*good)})["outputs"]
    assert alone["error"].tolist() == [b"", b""]
    files = [good[0], *(contents for contents, _ in BAD.values()), good[1]]
    outputs = runner.answer("serving_default", {"image_bytes": strings(*files)})["outputs"]
    assert not any(outputs["error"][[0, -1]]) and all(outputs["mask_bytes"][[0, -1]])
    for i, j in ((0, 0), (-1, 1)):
        mask, wanted = labels_of(outputs["mask_bytes"][i]), labels_of(alone["mask_bytes"][j])
        assert mask.shape == wanted.shape and np.mean(mask == wanted) >= 0.99
        np.testing.assert_allclose(outputs["class_scores"][i], alone["class_scores"][j], atol=1e-3)
    for row, (_, words) in enumerate(BAD.values(), start=1):
        said = outputs["error"][row].decode()
        assert words in said and "{{" not in said and "\n" not in said
        assert outputs["mask_bytes"][row] == b""
        assert not outputs["class_scores"][row].any() and not outputs["class_areas"][row].any()


@pytest.mark.parametrize(
    ("signature", "numbers"), [("classify", "probabilities"), ("encode_image", "image_embeds")]
)
def test_signatures_without_masks_have_rows_with_an_error_too(runner, signature, numbers):
    outputs = runner.answer(signature, {"image_bytes": strings(b"no picture", IMAGE[0])})["outputs"]
    assert BAD["nonsense"][1].encode() == outputs["error"][0] and outputs["error"][1] == b""
    assert not outputs[numbers][0].any() and outputs[numbers][1].any()
    words = refusal(runner, signature, image_bytes=strings(b"", b"no picture"))
    assert "got 0 bytes" in words  # of the first


@pytest.mark.parametrize("shape", [(), (1, 1)])
def test_images_that_are_no_list_are_refused_by_name_and_shape(runner, shape):
    received = "(1, 1)" if shape else "()"
    image = np.reshape(IMAGE, shape) if shape else np.array(IMAGE[0], object)
    assert f"image_bytes: expected shape (B), got {received}." in refusal(
        runner, "serving_default", image_bytes=image
    )


LISTS = {
    "": "has an empty name",
    "dog,,cat": "The list of classes (dog,,cat) has an empty name: leave it out.",
    "dog, ": "has an empty name",
    "dog|,cat": "has an empty name",
    " \t\u3000": "has an empty name",
    "dog,cat, dog ": "has a class twice",
    "big dog,big   dog": "has a class twice",
    "cat,background": "which this model adds by itself",
    ",".join(
        f"c{i}" for i in range(256)
    ): "at most 256 labels an image, background included, got 257",
}


@pytest.mark.parametrize("names", LISTS, ids=lambda names: names[:12])
def test_a_list_of_classes_that_cannot_be_used_is_refused(runner, names):
    assert LISTS[names] in refusal(
        runner, "segment_open", image_bytes=IMAGE, class_names=strings(names)
    )


def test_bad_lists_are_rows_with_an_error_among_good_ones(runner):
    many = "a|" * 5000 + "a"  # one class, of more names than a request may hold
    lists = ["cat, dog", *LISTS, "cat", many]
    files = strings(*[IMAGE[0]] * (len(lists) - 2), b"no picture", IMAGE[0])
    outputs = runner.answer("segment_open", {"image_bytes": files, "class_names": strings(*lists)})[
        "outputs"
    ]
    alone = runner.answer(
        "segment_open", {"image_bytes": IMAGE, "class_names": strings("cat, dog")}
    )["outputs"]
    assert (
        labels_of(outputs["mask_bytes"][0]).tolist() == labels_of(alone["mask_bytes"][0]).tolist()
    )
    np.testing.assert_allclose(outputs["class_scores"][:1], alone["class_scores"], atol=1e-3)
    assert (
        outputs["class_names"].tolist()[0] == [b"background", b"cat", b"dog"]
        and outputs["error"][0] == b""
    )
    wanted = [
        *LISTS.values(),
        BAD["nonsense"][1],
        "at most 4096 names of classes, synonyms included, got 5001",
    ]
    for row, words in enumerate(wanted, start=1):
        assert words in outputs["error"][row].decode()
        assert outputs["mask_bytes"][row] == b"" and not outputs["class_scores"][row].any()
    assert outputs["class_names"].tolist()[1] == [b"", b"", b""]
    assert outputs["class_names"].tolist()[-2] == [
        b"background",
        b"cat",
        b"",
    ]  # of an image that cannot be read


def test_when_all_lists_together_are_too_long_the_longest_are_refused(runner):
    """4096 names are the limit: of 4 images, each has a share of 1024."""
    lists = strings("cat|dog", "a|" * 1500 + "a", "a|" * 3000 + "a", "a|" * 600 + "a")
    files = {"image_bytes": strings(*[IMAGE[0]] * 4), "class_names": lists}
    assert [bool(error) for error in runner.answer("segment_open", files)["outputs"]["error"]] == [
        0,
        1,
        1,
        0,
    ]


def test_a_list_of_a_megabyte_is_not_read_and_of_a_text_only_the_beginning(runner):
    words = refusal(
        runner, "segment_open", image_bytes=IMAGE, class_names=strings("a" * (2**20 + 1))
    )
    assert "Expected a list of classes of at most 1048576 bytes, got 1048577." in words
    texts = strings("a dog and a cat on the grass " * 40, "a dog and a cat on the grass " * 300_000)
    embeds = runner.answer("encode_text", {"text": texts})["outputs"]["text_embeds"]
    np.testing.assert_allclose(embeds[0], embeds[1], atol=1e-5)


def test_embeddings_that_are_no_numbers_are_a_row_with_an_error(runner):
    embeds = np.tile(np.eye(2, 8, dtype="float32"), (3, 1, 1))
    embeds[1, 1, 3] = np.nan
    outputs = runner.answer(
        "segment_embeds", {"image_bytes": strings(*[IMAGE[0]] * 3), "text_embeds": embeds}
    )["outputs"]
    words = b"text_embeds: expected finite numbers, got NaN or infinity."
    assert outputs["error"].tolist() == [b"", words, b""]
    assert outputs["mask_bytes"][0] == outputs["mask_bytes"][2] and outputs["mask_bytes"][1] == b""


# More than a request may hold, by the limits of exports that name none. What claims to be large
# takes no memory here.
MANY = {
    "rows of images": (
        "serving_default",
        {"image_bytes": np.full(257, b"", object)},
        "at most 256 rows, got 257",
    ),
    "rows of texts": (
        "encode_text",
        {"text": np.full(4097, b"a", object)},
        "text: expected at most 4096 rows",
    ),
    "rows of pixels": (
        "segment_pixels",
        {"pixels": np.zeros((257, 1, 1, 3), "uint8")},
        "at most 256 rows, got 257",
    ),
    "pixels": (
        "segment_pixels",
        {"pixels": np.zeros((256, 1024, 513, 3), "uint8")},
        (
            "pixels: expected at most 134217728 pixels in all, got 134479872: send fewer or"
            " smaller images."
        ),
    ),
    "a long side": (
        "segment_pixels",
        {"pixels": np.zeros((1, 1, 1_000_001, 3), "uint8")},
        "pixels: expected at most 1000000 pixels a side, got 1000001: shrink it.",
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        "rows of images",
        "rows of texts",
        pytest.param("rows of pixels", marks=pytest.mark.slow),
        pytest.param("pixels", marks=pytest.mark.slow),
        pytest.param("a long side", marks=pytest.mark.slow),
    ],
)
def test_more_rows_or_pixels_than_a_request_may_hold_are_refused(runner, name):
    signature, inputs, words = MANY[name]
    assert words in refusal(runner, signature, **inputs)


def test_a_list_for_every_image_is_wanted(runner):
    words = refusal(runner, "segment_open", image_bytes=IMAGE, class_names=strings("cat", "dog"))
    assert (
        "class_names and image_bytes: expected one row for each image in both, got 2 and 1."
        in words
    )


PIXELS = {
    "segment_pixels": [
        ({"pixels": np.zeros((4, 4, 3), "uint8")}, "pixels: expected shape (B, H, W, 3), got (4, 4, 3)."),
        ({"pixels": np.zeros((1, 4, 4, 4), "uint8")}, "pixels: expected shape (B, H, W, 3), got (1, 4, 4, 4)."),
        ({"pixels": np.zeros((1, 0, 4, 3), "uint8")}, "pixels: expected at least one, got images of 4 x 0."),
    ],
    "segment_embeds": [
        ({"image_bytes": IMAGE, "text_embeds": np.zeros((1, 8), "float32")}, "text_embeds: expected shape (B, K, 8)"),
        ({"image_bytes": IMAGE, "text_embeds": np.zeros((1, 2, 7), "float32")}, "got (1, 2, 7)"),
        ({"image_bytes": IMAGE, "text_embeds": np.zeros((1, 0, 8), "float32")}, "expected 1 to 255 classes an image"),
        ({"image_bytes": IMAGE, "text_embeds": np.zeros((1, 256, 8), "float32")}, "got 256"),
        ({"image_bytes": IMAGE, "text_embeds": np.full((1, 2, 8), np.nan, "float32")}, "expected finite numbers"),
        ({"image_bytes": strings(*[b""] * 300), "text_embeds": np.zeros((300, 2, 8), "float32")}, "got 300"),
        ({"image_bytes": IMAGE, "text_embeds": np.zeros((2, 2, 8), "float32")}, "got 2 and 1"),
    ],
    "logits": [
        ({"input_ids": np.zeros((1, 33), "int32")}, "input_ids: expected 1 to 32 tokens a text, got 33."),
        ({"input_ids": np.full((1, 2), 9999, "int32")}, "input_ids: expected numbers from 0 to"),
        ({"input_ids": np.zeros((2, 2), "int32")}, "input_ids: expected an end token, "),
        ({"attention_mask": np.ones((1, 3), "int32")}, "attention_mask: expected one number for each"),
        ({"pixel_values": np.zeros((1, 3, 30, 32), "float32")}, "multiples of the patch size (8, 8), got 30 and 32."),
        ({"pixel_values": np.zeros((1, 1, 32, 32), "float32")}, "pixel_values: expected shape (B, 3, H, W)"),
        ({"input_ids": np.zeros((4097, 1), "int32")}, "input_ids: expected at most 4096 rows, got 4097"),
        # Of 32 x 32 the model takes 256 at once, so of 512 x 512, with 65,536 times the pairs of
        # patches, none.
        ({"pixel_values": np.zeros((1, 3, 512, 512), "float32")}, "fewer or smaller images, got 1 x 512 x 512"),
        ({"input_ids": (4096, 2), "pixel_values": np.zeros((33, 3, 32, 32), "float32")},
         "segmentation_logits: expected at most 134217728 numbers, got 4096 texts for 33 x 32 x 32."),
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signature", "given", "words"), [(name, *case) for name in PIXELS for case in PIXELS[name]]
)
def test_arrays_of_other_shapes_are_refused(runner, export, signature, given, words):
    """A shape in place of token ids is that of sound ones."""
    end = export.segmenter.tokenizer.eos_token_id
    ids = given.get("input_ids", (1, 2))
    ids = np.full(ids, end, "int32") if isinstance(ids, tuple) else ids
    sound = {
        "input_ids": ids,
        "attention_mask": np.ones(ids.shape, "int32"),
        "pixel_values": np.zeros((1, 3, 32, 32), "float32"),
    }
    if signature == "logits":
        given = {**sound, **given, "input_ids": ids}
    assert words in refusal(runner, signature, **given)


@pytest.mark.slow
def test_an_empty_batch_may_come_as_an_empty_list(runner):
    """JSON's [] has shape (0), whatever the rank that is meant."""
    outputs = runner.answer("segment_pixels", {"pixels": np.zeros(0, "uint8")})["outputs"]
    assert outputs["labels"].size == 0
