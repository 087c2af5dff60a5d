"""The published inference: by hand, against a rendering in PyTorch, and by laws."""

from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from tf_groupvit.errors import InputError
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.segmentation.protocol import (
    Groups,
    class_affinity,
    class_probabilities,
    encode_image,
    image_scores,
    paper_scores,
    pixel_scores,
    scatter_groups,
    with_background,
)
from tf_groupvit.segmentation.settings import check_protocol

pytestmark = pytest.mark.models

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
NAMES = ("fewer_outputs", "legacy_end", "three_stages")


@cache
def model_of(name):
    return TFGroupViTModel.from_pretrained(GOLDEN / "models" / name)


@cache
def rendering_of(name):
    return dict(np.load(GOLDEN / "protocol" / f"{name}.npz"))


@pytest.fixture
def model():
    return model_of("three_stages")


@pytest.fixture
def pixels():
    return rendering_of("three_stages")["own.pixel_values"]


@pytest.fixture
def texts():
    return rendering_of("three_stages")["texts"]


def array(tensor):
    return ops.convert_to_numpy(tensor)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# By hand: two groups side by side, three classes, four by four pixels


def two_groups(group_embeds=((1, 0), (0, 1)), image_embeds=(1, 0), scale=1.0):
    """The left column of patches belongs to group 0, the right one to group 1."""
    left = [[0.9, 0.2], [0.9, 0.2]]
    right = [[0.1, 0.8], [0.1, 0.8]]
    return Groups.of(
        maps=(ops.convert_to_tensor([[left, right]], "float32"),),
        group_embeds=ops.convert_to_tensor([group_embeds], "float32"),
        image_embeds=ops.convert_to_tensor([image_embeds], "float32"),
        scale=ops.convert_to_tensor(scale, "float32"),
    )


THREE = np.array([[1, 0], [0, 1], [0.6, 0.8]], "float32")
LOGITS = np.array([[1, 0, 0.6], [0, 1, 0.8]])  # of groups 0 and 1 with THREE


def test_with_up_to_five_classes_the_affinity_is_the_softmax_squared():
    assert array(class_affinity(two_groups(), THREE))[0] == pytest.approx(
        softmax(LOGITS) ** 2, abs=1e-6
    )


def test_each_pixel_takes_the_row_of_its_group():
    scores = array(pixel_scores(two_groups(), THREE, 4, 4, "paper"))
    B, H, W, K = scores.shape
    assert (B, H, W, K) == (1, 4, 4, 3)
    rows = softmax(LOGITS) ** 2
    # Between the centres of the patches, group 0 falls from 0.9 to 0.2 and group 1 rises from 0.1
    # to 0.8: at a quarter of the way 0.725 against 0.275, at three quarters 0.375 against 0.625.
    for x, group in enumerate((0, 0, 1, 1)):
        assert scores[0, :, x] == pytest.approx(np.tile(rows[group], (4, 1)), abs=1e-6)


def test_the_background_is_where_no_class_reaches_the_threshold():
    affinity = ops.convert_to_tensor([[[0.5, 0.1], [0.2, 0.3]]], "float32")
    assert array(with_background(affinity, 0.4))[0] == pytest.approx(
        np.array([[0, 0.5, 0.1], [1, 0.2, 0.3]])
    )
    assert array(with_background(affinity, 0.3))[0, :, 0].tolist() == [0, 0]  # reached by equality


def test_several_thresholds_give_a_background_each():
    affinity = ops.convert_to_tensor([[[0.5, 0.1], [0.2, 0.3]]], "float32")
    rows = array(with_background(affinity, (0.4, 0.3, 0.95)))[0]
    assert rows == pytest.approx(np.array([[0, 0, 0, 0.5, 0.1], [1, 0, 1, 0.2, 0.3]]))


def test_without_a_threshold_there_is_no_background():
    affinity = ops.convert_to_tensor([[[0.5, 0.1]]], "float32")
    assert with_background(affinity, None) is affinity


def test_a_threshold_that_nothing_reaches_is_lowered_to_the_highest_affinity_of_its_image():
    affinity = ops.convert_to_tensor(
        [[[0.5, 0.1], [0.2, 0.3]], [[0.05, 0.1], [0.2, 0.15]]], "float32"
    )
    assert array(with_background(affinity, 0.95))[:, :, 0].tolist() == [[0, 1], [1, 0]]


def test_the_scale_is_clamped_at_100():
    groups = two_groups(group_embeds=((0.02, 0), (0, 0.02)), scale=1000.0)
    expected = softmax(LOGITS * 0.02 * 100) ** 2
    assert array(class_affinity(groups, THREE))[0] == pytest.approx(expected, rel=1e-5)


def seven_texts():
    """The closer to (1, 0) the earlier; the last two are the closest to (0, 1)."""
    angles = np.linspace(0, np.pi / 2, 7)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("float32")


def test_only_the_five_best_classes_of_the_whole_image_can_score():
    affinity = array(class_affinity(two_groups(image_embeds=(1, 0)), seven_texts()))[0]
    assert (affinity[:, :5] > 0).all()
    assert (affinity[:, 5:] == 0).all()  # though group 1 fits them best of all
    logits = np.eye(2) @ seven_texts().T
    expected = softmax(logits[:, :5]) * softmax(logits)[:, :5]
    assert affinity[:, :5] == pytest.approx(expected, rel=1e-5)


def test_of_classes_that_fit_the_image_alike_the_first_five_stay():
    same = np.tile(np.array([[0.6, 0.8]], "float32"), (7, 1))
    affinity = array(class_affinity(two_groups(), same))[0]
    assert (affinity[:, :5] > 0).all()
    assert (affinity[:, 5:] == 0).all()


def test_one_class_scores_one_everywhere():
    assert array(pixel_scores(two_groups(), THREE[:1], 4, 4, "paper")) == pytest.approx(
        np.ones((1, 4, 4, 1))
    )


def test_of_equal_groups_the_first_owns_the_pixel():
    maps = ops.ones((1, 3, 2, 2))
    affinity = ops.convert_to_tensor([[[1.0], [2.0], [3.0]]])
    assert array(scatter_groups(maps, affinity, 5, 3)) == pytest.approx(np.ones((1, 5, 3, 1)))


# Against PyTorch: scripts/make_golden/protocol.py


@pytest.mark.parametrize("background", [None, 0.3, 0.95])
@pytest.mark.parametrize(
    ("name", "size"), [*((name, "own") for name in NAMES), ("three_stages", "odd")]
)
def test_scores_and_labels_are_those_of_the_published_rules(name, size, background):
    expected = rendering_of(name)
    actual = array(
        paper_scores(
            model_of(name), expected[f"{size}.pixel_values"], expected["texts"], background
        )
    )
    wanted = expected[f"{size}.{background}"]
    assert actual.shape == wanted.shape
    same = actual.argmax(1) == wanted.argmax(1)
    assert same.mean() >= 0.999
    # A pixel between two groups may fall to either by rounding; the others have the same scores.
    assert (np.abs(actual - wanted).max(axis=1) < 1e-4).mean() >= 0.999


def test_the_rendering_tells_classes_groups_and_backgrounds_apart():
    """What the parity above would be worth nothing without."""
    for name in NAMES:
        plain = rendering_of(name)["own.None"]
        assert len(np.unique(plain.argmax(1))) >= 2
        assert (plain == 0).all(axis=(2, 3)).any()  # the filter has struck
    behind = [
        (rendering_of(name)[f"own.{t}"].argmax(1) == 0).mean()
        for name in NAMES
        for t in (0.3, 0.95)
    ]
    assert sum(0 < share < 1 for share in behind) >= 3


# Laws


def test_a_batch_is_its_images_one_by_one(model, pixels, texts):
    together = array(paper_scores(model, pixels, texts, 0.3))
    for image, scores in zip(pixels, together, strict=True):
        assert array(paper_scores(model, image[None], texts, 0.3))[0] == pytest.approx(
            scores, abs=1e-5
        )


def test_permuting_the_classes_permutes_the_scores(model, pixels, texts):
    order = np.random.default_rng(0).permutation(len(texts))
    scores, permuted = (array(paper_scores(model, pixels, each)) for each in (texts, texts[order]))
    assert permuted == pytest.approx(scores[:, order], abs=1e-6)
    assert (order[permuted.argmax(1)] == scores.argmax(1)).all()


def test_the_hf_protocol_is_the_models_segmentation_logits(model, pixels, texts):
    logits = model(pixel_values=pixels, text_embeds=texts, output_segmentation=True)[
        "segmentation_logits"
    ]
    scores = array(image_scores(model, pixels, ops.convert_to_tensor(texts), "hf")).transpose(
        0, 3, 1, 2
    )
    assert scores == pytest.approx(array(logits), rel=1e-5, abs=1e-4)
    assert (scores.argmax(1) == array(logits).argmax(1)).all()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.function is TensorFlow's")
@pytest.mark.parametrize(
    ("protocol", "background"), [("paper", None), ("paper", 0.3), ("hf", None)]
)
def test_a_graph_of_unknown_sizes_gives_what_eager_gives(model, texts, protocol, background):
    import tensorflow as tf

    unknown = [
        tf.TensorSpec([None, 3, None, None], tf.float32),
        tf.TensorSpec([None, None], tf.float32),
    ]
    graph = tf.function(
        lambda pixels, texts: image_scores(model, pixels, texts, protocol, background),
        input_signature=unknown,
    )
    rng = np.random.default_rng(3)
    for B, H, W, N in ((1, 32, 32, 8), (2, 43, 61, 3), (3, 8, 80, 1)):
        pixels = rng.normal(size=(B, 3, H, W)).astype("float32")
        eager = array(image_scores(model, pixels, tf.constant(texts[:N]), protocol, background))
        traced = array(graph(pixels, texts[:N]))
        assert traced.shape == eager.shape
        close = np.isclose(traced, eager, rtol=1e-4, atol=1e-4).all(axis=-1)
        assert close.mean() >= 0.999


def test_pixels_beyond_the_last_whole_patch_are_not_looked_at(model, texts):
    pixels = np.random.default_rng(0).normal(size=(1, 3, 43, 61)).astype("float32")
    other = pixels.copy()
    other[:, :, 40:] = 7
    other[:, :, :, 56:] = -7
    assert (
        array(paper_scores(model, pixels, texts)) == array(paper_scores(model, other, texts))
    ).all()


def test_groups_are_named_by_stage_and_of_length_one(model, pixels):
    groups = encode_image(model, pixels)
    assert [maps.shape for maps in groups["maps"]] == [(2, 8, 4, 4), (2, 4, 4, 4)]
    assert np.linalg.norm(array(groups["group_embeds"]), axis=-1) == pytest.approx(
        np.ones((2, 4)), rel=1e-5
    )
    assert np.linalg.norm(array(groups["image_embeds"]), axis=-1) == pytest.approx(
        np.ones(2), rel=1e-5
    )
    for maps in groups["maps"]:  # each patch is shared out among the groups
        assert array(maps).sum(1) == pytest.approx(np.ones((2, 4, 4)), rel=1e-4)


def test_probabilities_of_the_classes_sum_to_one(model, pixels, texts):
    groups = encode_image(model, pixels)
    found = array(class_probabilities(groups["image_embeds"], groups["scale"], texts))
    logits = array(model(pixel_values=pixels, text_embeds=texts)["logits_per_image"])
    assert found == pytest.approx(softmax(logits), rel=1e-4)
    assert found.sum(1) == pytest.approx(np.ones(2), rel=1e-5)


# What is refused


@pytest.mark.parametrize("background", [-0.1, 1.1, float("nan"), True, "0.5"])
def test_a_background_that_is_no_threshold_is_refused(model, pixels, texts, background):
    with pytest.raises(InputError, match="from 0 to 1"):
        paper_scores(model, pixels, texts, background)


def test_an_unknown_protocol_is_refused_naming_those_there_are():
    with pytest.raises(InputError, match=r"'hg'.*paper, hf"):
        check_protocol("hg", None)


def test_a_background_with_logits_is_refused():
    with pytest.raises(InputError, match="needs protocol='paper'"):
        check_protocol("hf", 0.5)


@pytest.mark.parametrize(
    ("pixel_shape", "text_shape", "word"),
    [
        ((3, 32, 32), (8, 8), "pixel_values"),
        ((1, 32, 32, 3), (8, 8), "pixel_values"),
        ((1, 3, 7, 32), (8, 8), "pixel_values"),
        ((1, 3, 32, 32), (8, 9), "text_embeds"),
        ((1, 3, 32, 32), (8,), "text_embeds"),
        ((1, 3, 32, 32), (0, 8), "text_embeds"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(model, pixel_shape, text_shape, word):
    with pytest.raises(InputError, match=word):
        paper_scores(model, np.zeros(pixel_shape, "float32"), np.ones(text_shape, "float32"))
