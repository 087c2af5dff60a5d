"""An export, in a session that cannot import this package, answers as the Python side does."""

import unicodedata

import numpy as np
import pytest
from exported import as_file, drawn, labels_of, strings

from tf_groupvit.export.check import compare

slow = pytest.mark.slow
FILES = strings(
    as_file(drawn(48, 64, 1), "JPEG"),
    as_file(drawn(30, 41, 2)),
    as_file(drawn(64, 33, 3), "GIF"),
    as_file(drawn(9, 50), "BMP"),
)
TEXTS = strings("a photo of a dog.", "", "Größe, naïve — 北京")
# Unlike each other: of classes that are all but the same, the five best of an image turn on the
# last bit.
MANY = ",".join(f"{'abcdefghij'[i % 10] * (i % 7 + 1)} {i * i}" for i in range(200))
LISTS = strings("cat, dog|hound,  grass ", "dog", MANY, "dog,cat,a  big   tree")


def inputs_of(signature: str, count: int) -> dict[str, np.ndarray]:
    """A request of ``count`` rows."""
    images = {"image_bytes": FILES[:count]}
    embeds = np.random.default_rng(5).normal(size=(count, 6, 8)).astype("float32")
    return {
        "segment_open": images | {"class_names": LISTS[:count]},
        "segment_pixels": {"pixels": np.stack([drawn(40, 56, i) for i in range(4)])[:count]},
        "segment_embeds": images
        | {"text_embeds": embeds / np.linalg.norm(embeds, axis=-1, keepdims=True)},
        "encode_text": {"text": TEXTS[:count]},
    }.get(signature, images)


QUICK = ["serving_default", "segment_open", "encode_text"]
SLOW = ["segment", "segment_pixels", "segment_embeds", "classify", "encode_image"]
BATCHABLE = [*QUICK, *(pytest.param(name, marks=slow) for name in SLOW)]


@pytest.mark.parametrize("signature", BATCHABLE)
@pytest.mark.parametrize("count", [1, 3])
def test_every_signature_answers_as_the_segmenter_does(runner, export, signature, count):
    answer = runner.answer(signature, inputs_of(signature, count))
    assert answer["error"] is None
    difference = compare(answer, export.segmenter)
    assert difference.passes and difference.batch == count, str(difference)
    assert difference.agreement is None or difference.agreement >= 0.98


def test_composed_and_decomposed_texts_get_one_answer(runner):
    names, text = "étoile, パンダ|Ångström, 한국어", "une étoile à Việt Nam"
    for signature, value in (("segment_open", names), ("encode_text", text)):
        answers = []
        for form in ("NFC", "NFD"):
            given = strings(unicodedata.normalize(form, value))
            inputs = (
                {"text": given}
                if signature == "encode_text"
                else {"image_bytes": FILES[:1], "class_names": given}
            )
            answers.append(runner.answer(signature, inputs)["outputs"])
        for name in answers[0].keys() - {"class_names"}:  # which come back as they were given
            np.testing.assert_array_equal(answers[0][name], answers[1][name], err_msg=name)


@slow
def test_logits_are_those_of_the_model_for_any_texts_and_images(runner, export):
    ids = export.segmenter.tokenizer(["cat", "a dog", "two"])
    for images, side in ((1, 32), (2, 48)):
        pixels = np.random.default_rng(0).normal(size=(images, 3, side, 32)).astype("float32")
        answer = runner.answer("logits", {**ids, "pixel_values": pixels})
        assert answer["error"] is None and compare(answer, export.segmenter).passes
        assert answer["outputs"]["segmentation_logits"].shape == (images, 3, side, 32)


SEGMENTED = {
    "mask_bytes": (0,),
    "class_scores": (0, 4),
    "class_areas": (0, 4),
    "class_names": (0, 4),
    "error": (0,),
}
EMPTY_SHAPES = {
    "serving_default": SEGMENTED,
    "segment": SEGMENTED,
    "segment_open": {name: shape[:1] + (1,) * len(shape[1:]) for name, shape in SEGMENTED.items()},
    "encode_text": {"text_embeds": (0, 8)},
    "segment_pixels": {"labels": (0, 40, 56)},
    "segment_embeds": {
        "mask_bytes": (0,),
        "class_scores": (0, 7),
        "class_areas": (0, 7),
        "error": (0,),
    },
    "classify": {"probabilities": (0, 3), "class_names": (0, 3), "error": (0,)},
    "encode_image": {"image_embeds": (0, 8), "error": (0,)},
}


@pytest.mark.parametrize("signature", BATCHABLE)
def test_an_empty_batch_gives_empty_answers(runner, signature):
    answer = runner.answer(signature, inputs_of(signature, 0))
    assert answer["error"] is None
    assert {name: value.shape for name, value in answer["outputs"].items()} == EMPTY_SHAPES[
        signature
    ]


@pytest.mark.parametrize("signature", BATCHABLE)
def test_every_output_has_a_row_for_each_image_as_batching_demands(runner, signature):
    inputs = inputs_of(signature, 3)
    assert {len(value) for value in inputs.values()} == {3}
    outputs = runner.answer(signature, inputs)["outputs"]
    assert outputs and all(value.ndim >= 1 and len(value) == 3 for value in outputs.values())


# A matrix product of other size may sum in another order, and its last bits differ: where the
# scores of two classes tie within 1e-4, either may be the label. Of the smallest image here, 450
# pixels, that is at most four.
EQUAL_BUT_FOR_TIES = 0.99


@pytest.mark.parametrize("signature", BATCHABLE)
def test_an_answer_does_not_depend_on_what_else_is_in_the_batch(runner, signature):
    inputs = inputs_of(signature, 3)
    together = runner.answer(signature, inputs)["outputs"]
    for i in range(3):
        alone = runner.answer(
            signature, {name: value[i : i + 1] for name, value in inputs.items()}
        )["outputs"]
        for name, value in alone.items():
            row = together[name][i]
            if name == "mask_bytes":
                assert np.mean(labels_of(value[0]) == labels_of(row)) >= EQUAL_BUT_FOR_TIES
            elif name == "labels":
                assert np.mean(value[0] == row) >= EQUAL_BUT_FOR_TIES
            elif name == "error":
                assert value[0] == row == b""
            elif value.dtype == object:
                assert row[: value.shape[1]].tolist() == value[0].tolist() and not any(
                    row[value.shape[1] :]
                )
            else:
                count = value.shape[-1]
                # An area is a share of labels: ties move it as far as they move those.
                far = 1 - EQUAL_BUT_FOR_TIES if name == "class_areas" else 1e-3
                np.testing.assert_allclose(row[:count], value[0], atol=far)
                assert not row[count:].any()


def test_images_of_several_sizes_and_formats_share_a_batch(runner, export):
    answer = runner.answer("serving_default", {"image_bytes": FILES})
    assert [labels_of(mask).shape for mask in answer["outputs"]["mask_bytes"]] == [
        (48, 64),
        (30, 41),
        (64, 33),
        (9, 50),
    ]
    assert compare(answer, export.segmenter).agreement >= 0.98


def test_the_answer_names_the_classes_background_first_and_its_areas_add_up(runner):
    outputs = runner.answer("serving_default", {"image_bytes": FILES[:2]})["outputs"]
    assert outputs["class_names"].tolist() == [[b"background", b"cat", b"dog", b"grass"]] * 2
    np.testing.assert_allclose(outputs["class_areas"].sum(axis=1), 1, atol=1e-6)
    for mask, areas in zip(outputs["mask_bytes"], outputs["class_areas"], strict=True):
        np.testing.assert_allclose(
            np.bincount(labels_of(mask).ravel(), minlength=4) / labels_of(mask).size,
            areas,
            atol=1e-6,
        )


def test_a_photo_turned_by_exif_gives_the_mask_a_person_expects(runner, tmp_path):
    from PIL import Image

    picture = Image.fromarray(drawn(40, 60))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    outputs = runner.answer(
        "serving_default", {"image_bytes": strings((tmp_path / "turned.jpg").read_bytes())}
    )["outputs"]
    assert labels_of(outputs["mask_bytes"][0]).shape == (60, 40)


def test_lists_of_one_and_of_200_classes_share_a_batch_padded(runner):
    inputs = {
        "image_bytes": FILES[:2],
        "class_names": strings(" dog ", ",".join(f"thing {i}" for i in range(200))),
    }
    outputs = runner.answer("segment_open", inputs)["outputs"]
    assert outputs["class_names"].shape == outputs["class_scores"].shape == (2, 201)
    assert outputs["class_names"][0].tolist() == [b"background", b"dog", *[b""] * 199]
    assert outputs["class_names"][1, -1] == b"thing 199"
    assert labels_of(outputs["mask_bytes"][0]).max() <= 1
    assert not outputs["class_scores"][0, 2:].any() and not outputs["class_areas"][0, 2:].any()


@slow
@pytest.mark.data
def test_photos_give_the_same_labels(runner, export, photos):
    files = strings(*[path.read_bytes() for path in photos])
    difference = compare(runner.answer("serving_default", {"image_bytes": files}), export.segmenter)
    assert difference.agreement >= 0.98, str(difference)
