"""Refinement equals an independent rendering of the published algorithm, and keeps its laws."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import slow_refinement as slow
import tensorflow as tf
from click.testing import CliRunner
from pictures import noise

from tf_groupvit.cli import main
from tf_groupvit.errors import ImageError, InputError
from tf_groupvit.segmentation import refinement
from tf_groupvit.segmentation.refinement import (
    guided_upsampling,
    inverse,
    pamr,
    resize,
    sharpen,
    window_matrix,
)
from tf_groupvit.segmentation.segmenter import Segmenter
from tf_groupvit.segmentation.settings import REFINEMENTS, check_refinement

RNG = np.random.default_rng(3)


def colors(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)


def scores_like(pixels: np.ndarray, channels: int) -> np.ndarray:
    return RNG.random((*pixels.shape[:3], channels), dtype=np.float32)


@pytest.mark.parametrize(
    ("name", "rounds"), [("short", 3), ("published", 10)], ids=["short", "published"]
)
def test_pamr_equals_the_golden_file(golden, name, rounds):
    given = np.load(golden / "protocol" / "refinement.npz")
    dilations = REFINEMENTS["pamr-published"].dilations if name == "published" else (1, 2, 4, 8)
    found = pamr(given["scores"], given["pixels"], dilations, rounds)
    np.testing.assert_allclose(found, given[name], atol=1e-5)


@pytest.mark.parametrize("dilations", [(1,), (1, 2, 4, 8), (1, 2, 4, 8, 12, 24), (3, 1)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (2, 2), (5, 4), (12, 13)], ids=str)
def test_pamr_equals_a_rendering_pixel_by_pixel(size, dilations):
    pixels = colors(2, *size)
    pixels[0, : size[0] // 2] = 77  # a part of one color; the other picture has 0 and 255 alone
    pixels[1] = pixels[1] // 128 * 255
    scores = RNG.normal(size=(*pixels.shape[:3], 3)).astype("float32")
    wanted = [slow.pamr(*pair, dilations, 4) for pair in zip(scores, pixels, strict=True)]
    np.testing.assert_allclose(pamr(scores, pixels, dilations, 4), wanted, atol=1e-5)
    fractions = pixels / np.float32(255)
    np.testing.assert_allclose(pamr(scores, fractions, dilations, 4), wanted, atol=1e-4)


@pytest.mark.parametrize(("radius", "epsilon"), [(1, 1e-3), (4, 1e-3), (2, 0.1)])
@pytest.mark.parametrize(
    ("cells", "size"),
    [((1, 1), (3, 2)), ((3, 4), (9, 11)), ((7, 9), (7, 9)), ((5, 8), (31, 40)), ((6, 1), (13, 1))],
    ids=str,
)
def test_guided_upsampling_equals_a_rendering_cell_by_cell(cells, size, radius, epsilon):
    pixels = RNG.random((1, *size, 3), dtype=np.float32)
    small, scores = resize(pixels, *cells).numpy(), scores_like(np.empty((1, *cells)), 3)
    wanted = slow.guided_upsampling(scores[0], small[0], pixels[0], radius, epsilon)
    found = guided_upsampling(scores, small, pixels, radius, epsilon)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_one_round_by_hand():
    """Two black pixels and a white one: black looks at black, white at all alike."""
    pixels = np.array([[[[0] * 3, [0] * 3, [255] * 3]]], np.uint8)
    scores = np.array([[[[1.0], [2.0], [4.0]]]], np.float32)
    # The neighbors of one row with repeated borders: three times left, twice the pixel, three
    # times right. Left pixel: five times itself, three times the next, all black: even weights.
    left = (5 * 1 + 3 * 2) / 8
    # The middle one has 3 black, 2 black, 3 white: sigma of 6 zeros and 3 times 255.
    sigma = 255 * np.sqrt((6 * 3 / 9) / 8)
    far = np.exp(-255 / (0.1 * sigma))
    middle = (3 * 1 + 2 * 2 + 3 * far * 4) / (5 + 3 * far)
    # The right one: 3 black, 5 times itself.
    right = (3 * far * 2 + 5 * 4) / (3 * far + 5)
    found = pamr(scores, pixels, (1,), 1)
    np.testing.assert_allclose(found[0, 0, :, 0], [left, middle, right], rtol=1e-5)


def test_even_pictures_have_even_weights():
    pixels, scores = np.full((1, 5, 6, 3), 9, np.uint8), np.zeros((1, 5, 6, 1), np.float32)
    scores[0, 2, 3] = 8.0
    found = pamr(scores, pixels, (1,), 1).numpy()[0, ..., 0]
    ring = np.zeros((5, 6))
    ring[1:4, 2:5] = 1.0
    ring[2, 3] = 0.0
    np.testing.assert_allclose(found, ring, atol=1e-6)


@pytest.mark.parametrize("name", REFINEMENTS)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 200), (50, 61)], ids=str)
@pytest.mark.parametrize("channels", [1, 7])
def test_sums_and_constants_stay(name, size, channels):
    pixels = colors(2, *size)
    scores = scores_like(pixels, channels)
    scores /= scores.sum(-1, keepdims=True)
    found = sharpen(scores, pixels, REFINEMENTS[name]).numpy()
    assert found.shape == scores.shape
    np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-3)
    constant = np.full_like(scores, 0.25)
    np.testing.assert_allclose(sharpen(constant, pixels, REFINEMENTS[name]), constant, atol=1e-3)


@pytest.mark.parametrize("name", REFINEMENTS)
@pytest.mark.parametrize("side", range(1, 14))
def test_pictures_smaller_than_the_dilations_are_refined_as_the_papers_say(name, side):
    """The grid of cells is the picture itself then."""
    pixels, how = colors(1, side, 14 - side), replace(REFINEMENTS[name], rounds=3)
    scores = scores_like(pixels, 2)
    small = pixels[0] / 255
    cells = slow.pamr(scores[0], small, how.dilations, how.rounds) if how.dilations else scores[0]
    wanted = slow.guided_upsampling(cells, small, small, how.radius, how.epsilon)
    np.testing.assert_allclose(sharpen(scores, pixels, how)[0], wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "cells", "rounds"),
    [
        ("pamr", (160, 241), (80, 120), 5),
        ("pamr-published", (130, 60), (86, 40), 10),
        ("guided", (64, 97), (32, 48), 0),
        ("pamr", (20, 55), (20, 55), 5),
    ],
)
def test_scores_are_refined_on_cells_as_square_as_can_be(name, size, cells, rounds):
    pixels, how = colors(1, *size), REFINEMENTS[name]
    scores, fractions = scores_like(pixels, 2), (pixels / 255).astype("float32")
    small, found = resize(fractions, *cells), resize(scores, *cells)
    if name != "guided":
        found = pamr(found, small, how.dilations, rounds)
    wanted = guided_upsampling(found, small, fractions, how.radius, 1e-3)
    np.testing.assert_allclose(sharpen(scores, pixels, how), wanted, atol=1e-5)


@pytest.mark.parametrize("name", REFINEMENTS)
@pytest.mark.parametrize("size", [(50, 61), (3, 200), (1, 4000)], ids=str)
def test_a_turned_picture_is_refined_likewise(name, size):
    pixels, how = colors(1, *size), REFINEMENTS[name]
    scores = scores_like(pixels, 2)
    wanted = sharpen(scores, pixels, how).numpy()
    turned = [array.transpose(0, 2, 1, 3) for array in (scores, pixels)]
    found = sharpen(*turned, how).numpy().transpose(0, 2, 1, 3)
    np.testing.assert_allclose(found, wanted, atol=2e-4)
    mirrored = [array[:, ::-1, ::-1] for array in (scores, pixels)]
    found = sharpen(*mirrored, how).numpy()[:, ::-1, ::-1]
    np.testing.assert_allclose(found, wanted, atol=2e-4)


@pytest.mark.parametrize("name", REFINEMENTS)
@pytest.mark.parametrize("level", [0, 9, 255])
def test_a_picture_of_one_color_keeps_constant_scores(name, level):
    pixels = np.full((1, 50, 60, 3), level, np.uint8)
    constant = np.tile(np.array([0.25, 0.0, 1.0], "float32"), (1, 50, 60, 1))
    found = sharpen(constant, pixels, REFINEMENTS[name])
    np.testing.assert_allclose(found, constant, atol=1e-5)
    scores = scores_like(pixels, 2)
    found = sharpen(scores, pixels, REFINEMENTS[name]).numpy()
    assert (found > scores.min()).all() and (found < scores.max()).all()


@pytest.mark.parametrize("name", REFINEMENTS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -3e38])
def test_a_score_that_is_no_number_spoils_no_other_class_or_picture(name, value):
    pixels, how = colors(2, 44, 52), REFINEMENTS[name]
    scores = scores_like(pixels, 3)
    wanted = sharpen(scores, pixels, how).numpy()
    scores[0, 20, 30, 1] = value
    found = sharpen(scores, pixels, how).numpy()
    np.testing.assert_allclose(found[0, ..., ::2], wanted[0, ..., ::2], atol=1e-5)
    np.testing.assert_allclose(found[1], wanted[1], atol=1e-5)


@pytest.mark.parametrize("name", REFINEMENTS)
def test_refining_is_linear(name):
    """So groups' maps are refined in place of the classes' scores."""
    pixels = colors(1, 44, 52)
    maps, mix = scores_like(pixels, 3), RNG.random((3, 5), dtype=np.float32)
    how = REFINEMENTS[name]
    np.testing.assert_allclose(
        sharpen(maps, pixels, how) @ mix, sharpen(maps @ mix, pixels, how), atol=1e-4
    )


@pytest.mark.parametrize("name", REFINEMENTS)
def test_pictures_of_a_batch_do_not_mix(name):
    pixels = colors(3, 45, 41)
    scores, how = scores_like(pixels, 2), REFINEMENTS[name]
    alone = [sharpen(scores[i : i + 1], pixels[i : i + 1], how) for i in range(3)]
    np.testing.assert_allclose(
        sharpen(scores, pixels, how), np.concatenate(alone), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", REFINEMENTS)
@pytest.mark.parametrize("axis", [1, 2])
def test_a_coarse_border_moves_to_the_edge_of_the_picture(name, axis):
    """Two colors that meet at 70 of 120; scores that meet at 64."""
    pixels, scores = np.zeros((1, 120, 120, 3), np.uint8), np.zeros((1, 120, 120, 2), np.float32)
    pixels[:] = (30, 90, 200)
    np.moveaxis(pixels, axis, 0)[70:] = (190, 160, 20)
    np.moveaxis(scores, axis, 0)[:64, ..., 0] = 1.0
    np.moveaxis(scores, axis, 0)[64:, ..., 1] = 1.0
    labels = sharpen(scores, pixels, REFINEMENTS[name]).numpy().argmax(-1)
    wanted = np.zeros((1, 120, 120), int)
    np.moveaxis(wanted, axis, 0)[70:] = 1
    assert (labels == wanted).mean() > 0.995


@pytest.mark.parametrize("band", [1, 7 * 61 * 4 * 3, 10**9], ids=["a row", "seven rows", "all"])
def test_pictures_are_upsampled_band_by_band(monkeypatch, band):
    pixels = colors(2, 50, 61)
    scores, how = scores_like(pixels, 3), REFINEMENTS["pamr"]
    wanted = sharpen(scores, pixels, how)
    monkeypatch.setattr(refinement, "BAND", band)
    np.testing.assert_allclose(sharpen(scores, pixels, how), wanted, atol=1e-5)


def test_guided_upsampling_follows_colors_exactly_where_scores_are_linear_in_them():
    pixels = RNG.random((1, 40, 60, 3), dtype=np.float32)
    small = resize(pixels, 10, 15)
    slope = np.array([[0.5, -1.0], [0.2, 0.3], [0.1, 0.7]], np.float32)
    found = guided_upsampling(small @ slope + 0.3, small, pixels, 2, 1e-9)
    np.testing.assert_allclose(found, pixels @ slope + 0.3, atol=1e-3)


@pytest.mark.parametrize(
    ("old", "new"), [((30, 37), (11, 9)), ((5, 8), (31, 40)), ((7, 7), (7, 7))]
)
def test_resize_equals_tensorflow(old, new):
    values = RNG.random((2, *old, 3), dtype=np.float32)
    wanted = tf.image.resize(values, new, antialias=True)
    np.testing.assert_allclose(resize(values, *new), wanted, atol=1e-5)


def test_windows_end_at_the_border():
    found = window_matrix(tf.constant(4), 1).numpy()
    third, half = 1 / 3, 1 / 2
    wanted = [[half, half, 0, 0], [third] * 3 + [0], [0] + [third] * 3, [0, 0, half, half]]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_inverse():
    some = RNG.normal(size=(50, 3, 3))
    symmetric = some @ some.transpose(0, 2, 1) + 0.01 * np.eye(3)
    np.testing.assert_allclose(inverse(tf.constant(symmetric)), np.linalg.inv(symmetric), rtol=1e-6)


def test_unknown_refinements_are_refused():
    check_refinement(None)
    with pytest.raises(InputError, match="no refinement 'crf': expected one of pamr,"):
        check_refinement("crf")


def plain(height, width, color=(90, 90, 90)):
    return np.full((height, width, 3), color, np.uint8)


@pytest.mark.parametrize("name", REFINEMENTS)
@pytest.mark.parametrize(
    "pixels",
    [
        plain(1, 1),
        plain(1, 300),
        plain(60, 80),
        plain(9, 7, (255, 255, 255)),
        np.repeat(colors(50, 70)[..., :1], 3, axis=-1),
    ],
    ids=["one pixel", "one row", "one color", "white", "gray"],
)
def test_any_picture_is_labeled(make, name, pixels):
    found = make(refine=name)(pixels)
    assert found.labels.shape == pixels.shape[:2]
    assert np.isfinite([*found.class_scores.values()]).all()


@pytest.mark.parametrize("mode", ["whole", "window"])
@pytest.mark.parametrize("count", [1, 256])
def test_any_number_of_classes_is_labeled(make, picture, count, mode):
    found = make([f"thing {i}" for i in range(count)], refine="pamr", mode=mode)(picture)
    assert found.labels.max() < count
    assert np.isfinite([*found.class_scores.values()]).all()


NOT_THERE = ["crf", "PAMR", "", "none", 1, True, ("pamr",), ["pamr"], {"pamr"}]


@pytest.mark.parametrize("name", NOT_THERE, ids=repr)
def test_a_segmenter_refuses_unknown_refinements(make, segmenter, name):
    with pytest.raises(InputError, match=r"no refinement .*: expected one of pamr,"):
        make(refine=name)
    with pytest.raises(InputError, match=r"no refinement .*: expected one of pamr,"):
        segmenter.with_choices(refine=name)
    assert segmenter.settings.refine is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["segment", "photo.jpg"],
        ["annotate", "photos", "--output", "out"],
        ["evaluate", "scenes"],
        ["export", "out"],
        ["app"],
    ],
    ids=" ".join,
)
def test_commands_refuse_unknown_refinements(arguments, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = [] if arguments[0] == "segment" else ["--model", str(folder)]
    done = CliRunner().invoke(main, [*arguments, *model, "--refine", "crf"])
    assert done.exit_code != 0 and "crf" in done.output and "guided" in done.output
    assert not any(tmp_path.iterdir())


CHOICES = [
    {},
    {"mode": "window"},
    {"protocol": "hf"},
    {"background": 0.3},
    {"mode": "window", "background": 0.3},
    {"templates": ["a {}.", "the {}"], "classes": ["cat", "dog|hound"]},
]


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_pictures_of_any_sizes_are_labeled_together_as_alone(make, choices):
    pictures = [noise(*size) for size in [(40, 70), (1, 1), (13, 2), (90, 33), (40, 70)]]
    segmenter = make(**choices, refine="pamr")
    atol = 2e-3 if "protocol" in choices else 1e-5  # logits are some hundred times larger
    for one, picture in zip(segmenter(pictures), pictures, strict=True):
        alone = segmenter(picture)
        np.testing.assert_allclose(one.scores, alone.scores, atol=atol)
        assert (one.labels == alone.labels).mean() > 0.999


@pytest.mark.slow
def test_a_segmenter_keeps_its_refinement(make, picture, tmp_path):
    segmenter = make(refine="guided")
    wanted = segmenter(picture).labels
    assert (wanted != make()(picture).labels).any()
    segmenter.save_pretrained(tmp_path)
    for same in (
        copy.deepcopy(segmenter),
        pickle.loads(pickle.dumps(segmenter)),
        type(segmenter).from_pretrained(tmp_path),
    ):
        assert same.settings.refine == "guided"
        np.testing.assert_array_equal(same(picture).labels, wanted)
    assert segmenter.with_background(0.4).settings.refine == "guided"
    assert segmenter.with_classes(["cat", "dog"]).settings.refine == "guided"
    plain = segmenter.with_choices(refine=None)(picture).labels
    np.testing.assert_array_equal(plain, make()(picture).labels)


def test_each_threshold_gives_the_labels_of_a_segmenter_that_has_it(make, picture):
    thresholds = [0.0, 0.3, 0.9]
    found = make(refine="pamr", background=0.5).labels_by_threshold(picture, thresholds)
    for labels, threshold in zip(found, thresholds, strict=True):
        wanted = make(refine="pamr", background=threshold)(picture).labels
        assert (labels == wanted).mean() > 0.999


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\nbroken"], ids=repr)
def test_what_is_no_image_is_refused(make, content):
    with pytest.raises(ImageError):
        make(refine="pamr")(content)


@pytest.mark.parametrize("mode", ["whole", "window"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16"])
def test_models_of_fewer_bits_have_refined_scores_of_32(folder, dtype, mode):
    segmenter = Segmenter.from_pretrained(folder, "dog,sky", refine="pamr", mode=mode, dtype=dtype)
    scores = segmenter(noise(40, 70)).scores
    assert scores.dtype == np.float32 and np.isfinite(scores).all()
    assert scores.min() > -0.2 and scores.max() < 1.2  # a linear function of colors may overshoot
