"""A segmentation: its numbers, its pictures, its files."""

import copy
import io
import json
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tf_groupvit.errors import InputError
from tf_groupvit.segmentation.image_encoding import png
from tf_groupvit.segmentation.overlay import VIEWS
from tf_groupvit.segmentation.result import Segmentation

GRAY = np.full((2, 4, 3), 100, np.uint8)
LABELS = np.array([[0, 0, 1, 1], [0, 0, 0, 2]])
NAMES = ["background", "cat", "dog", "bird"]


def small(**parts):
    return Segmentation(LABELS, NAMES, GRAY, class_scores=[0.5, 0.25, 0.125, 0.0], **parts)


def encoded(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def test_areas_are_fractions_of_the_pixels_in_class_order():
    assert list(small().areas.items()) == [
        ("background", 0.625),
        ("cat", 0.25),
        ("dog", 0.125),
        ("bird", 0.0),
    ]


def test_class_scores_come_by_name_in_class_order():
    by_name = {"bird": 4, "dog": 3, "cat": 2, "background": 1}
    result = Segmentation(LABELS, NAMES, GRAY, class_scores=by_name)
    assert list(result.class_scores.items()) == [
        ("background", 1.0),
        ("cat", 2.0),
        ("dog", 3.0),
        ("bird", 4.0),
    ]


def test_class_scores_left_out_are_the_highest_of_the_scores():
    scores = np.arange(32).reshape(4, 2, 4) / 32
    assert Segmentation(LABELS, NAMES, GRAY, scores=scores).class_scores["cat"] == 15 / 32


@pytest.mark.parametrize(("count", "dtype"), [(3, np.uint8), (256, np.uint8), (257, np.int32)])
def test_labels_are_bytes_while_they_fit(count, dtype):
    labels = np.array([[0, 2]], np.int64)
    result = Segmentation(labels, [f"c{k}" for k in range(count)], np.zeros((1, 2, 3), np.uint8))
    assert result.labels.dtype == dtype and result.labels.tolist() == [[0, 2]]


def test_what_is_deferred_is_worked_out_once_and_only_when_asked_for():
    asked = []

    def scores():
        asked.append("scores")
        return np.zeros((4, 2, 4))

    result = small(scores=scores)
    assert asked == []
    assert result.scores is result.scores and asked == ["scores"]


@pytest.mark.parametrize(
    "again", [copy.deepcopy, copy.copy, lambda result: pickle.loads(pickle.dumps(result))]
)
@pytest.mark.parametrize("used", [False, True])
def test_copies_hold_what_was_deferred_as_data(again, used):
    asked = []

    def later(name, value):
        return lambda: asked.append(name) or value

    scores, groups = np.arange(32.0).reshape(4, 2, 4), [LABELS, LABELS % 2]
    parts = dict(groups=later("groups", groups), group_embeds=later("embeds", np.ones((2, 3))))
    whole = dict(
        class_scores=later("highest", [1, 2, 3, 4]), group_scores=later("affinity", np.ones((2, 4)))
    )
    result = Segmentation(
        LABELS, NAMES, later("image", GRAY), scores=partial(np.copy, scores), **parts, **whole
    )
    if used:
        assert result.scores[3, 1, 3] == 31 and result.areas and result.image[0, 0, 0] == 100
    other = again(result)
    asked.clear()
    assert (
        (other.labels == LABELS).all()
        and other.class_names == NAMES
        and (other.image == GRAY).all()
    )
    assert (other.scores == scores).all() and other.class_scores == {
        "background": 1,
        "cat": 2,
        "dog": 3,
        "bird": 4,
    }
    assert (other.final_group == LABELS % 2).all() and other.group_scores.shape == (2, 4)
    assert np.asarray(other.view("all_groups")).shape == np.asarray(result.view("all_groups")).shape
    assert asked == [], "nothing is worked out anew"


def test_a_copy_says_as_well_why_a_part_is_not_there():
    with pytest.raises(InputError, match=r"no group maps\. Because\."):
        _ = copy.deepcopy(small(absence="Because.")).groups


@pytest.mark.parametrize(
    "part",
    ["scores", "margins", "groups", "first_group", "final_group", "group_embeds", "group_scores"],
)
def test_what_is_not_there_says_why(part):
    with pytest.raises(
        InputError, match=r"This segmentation has no .*The server does not send them\."
    ):
        getattr(small(absence="The server does not send them."), part)


@pytest.mark.parametrize("view", ["first_group", "final_group", "all_groups"])
def test_group_views_without_groups_say_why(view):
    with pytest.raises(InputError, match=r"no group maps\. Because\."):
        small(absence="Because.").view(view)


def test_the_ends_of_the_group_maps_have_names():
    first, final = np.zeros((2, 4), int), np.ones((2, 4), int)
    result = small(groups=lambda: [first, final])
    assert (result.first_group == 0).all() and (result.final_group == 1).all()


def test_each_group_names_its_best_classes():
    result = small(group_scores=[[0.1, 0.7, 0.2, 0.0], [0.4, 0.1, 0.1, 0.4]])
    assert result.group_classes(2) == [
        [("cat", 0.7), ("dog", 0.2)],
        [("background", 0.4), ("bird", 0.4)],
    ]


@pytest.mark.parametrize(
    ("labels", "names", "image", "message"),
    [
        (np.zeros((2, 4)), NAMES, GRAY, "integers"),
        (np.zeros((2, 4, 1), int), NAMES, GRAY, "integers"),
        (np.zeros((0, 4), int), NAMES, GRAY[:0], "integers"),
        (np.full((2, 4), 4), NAMES, GRAY, r"0\.\.3, received 4"),
        (np.full((2, 4), -1), NAMES, GRAY, r"0\.\.3, received -1"),
        (LABELS, ["a", "b", "a"], GRAY, "'a' is there twice"),
        (LABELS, NAMES, GRAY[:, :3], r"\(2, 4, 3\), received uint8 \(2, 3, 3\)"),
        (LABELS, NAMES, GRAY / 255, "uint8"),
    ],
)
def test_what_does_not_go_together_is_refused(labels, names, image, message):
    with pytest.raises(InputError, match=message):
        Segmentation(labels, names, image)


def test_scores_groups_and_class_scores_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"\(4, 2, 4\)"):
        _ = small(scores=np.zeros((2, 4, 4))).scores
    with pytest.raises(InputError, match="group maps"):
        _ = small(groups=[np.zeros((4, 2))]).groups
    with pytest.raises(InputError, match=r"Expected margins \(2, 4\)"):
        _ = small(margins=np.zeros((4, 2))).margins
    with pytest.raises(InputError, match="4 class scores"):
        _ = Segmentation(LABELS, NAMES, GRAY, class_scores=[1.0]).class_scores


# Pictures


@pytest.mark.parametrize("view", [name for name in VIEWS if name != "all_groups"])
def test_views_have_the_size_of_the_image(view):
    result = small(groups=[LABELS, LABELS])
    picture = result.view(view)
    assert picture.size == (4, 2) and picture.mode == "RGB"


def test_an_unknown_view_is_refused_with_the_names_of_the_seven():
    with pytest.raises(
        InputError,
        match="input, pred, input_pred, input_pred_label, first_group, final_group, all_gr",
    ):
        small().view("prediction")


def test_pred_is_the_palette_and_input_pred_is_half_of_it():
    result = small()
    palette = np.array(result.color_image().getpalette()).reshape(-1, 3)
    pred = np.asarray(result.view("pred"))
    assert (pred == palette[LABELS]).all()
    assert (pred[0, 0] == 0).all(), "background is black"
    half = (GRAY.astype(int) + pred + 1) // 2
    half[LABELS == 0] = GRAY[LABELS == 0]  # nothing is painted over the background
    assert (np.asarray(result.view("input_pred")) == half).all()


def test_the_background_has_no_name_in_the_picture():
    labels = np.zeros((100, 200), int)
    image = np.full((100, 200, 3), 90, np.uint8)
    assert (np.asarray(Segmentation(labels, NAMES, image).view("input_pred_label")) == image).all()
    assert (
        np.asarray(Segmentation(labels + 1, NAMES, image).view("input_pred_label")) != image
    ).any()


def test_a_class_has_the_same_color_with_and_without_background():
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 3), np.uint8)
    plain = Segmentation(LABELS, ["a", "b", "c"], image)
    behind = Segmentation(LABELS + 1, ["background", "a", "b", "c"], image)
    assert (behind.colors[1:] == plain.colors).all() and not behind.colors[0].any()
    assert (np.asarray(plain.view("pred")) == np.asarray(behind.view("pred"))).all()
    assert (np.asarray(plain.overlay()) == np.asarray(behind.overlay())).all()


def test_the_overlay_holds_the_blend_with_contours_and_a_legend_beside_it():
    labels = np.repeat(np.repeat(LABELS, 40, 0), 40, 1)
    image = np.random.default_rng(0).integers(0, 256, (80, 160, 3), np.uint8)
    result = Segmentation(labels, NAMES, image)
    overlay = result.overlay()
    picture, blended = np.asarray(overlay)[:80, :160], np.asarray(result.view("input_pred"))
    line = (picture == 255).all(-1)
    sides = [
        line[:39, 79:82],
        line[41:, 119:121],
    ]  # where background meets cat, and background meets bird
    assert all(side.any(axis=1).all() for side in sides), "a white line along the borders"
    assert (
        picture[10, 78:83] == [blended[10, 78], [0] * 3, [255] * 3, [0] * 3, blended[10, 82]]
    ).all(), "black beside"
    y, x = np.mgrid[:80, :160]
    inside = (abs(x - 79.5) > 3) & (abs(x - 119.5) > 3) & (abs(y - 39.5) > 3)
    assert (picture == blended)[inside].all()
    assert (np.asarray(result.overlay(contours=False))[:80, :160] == blended).all()
    legend = np.asarray(overlay)[80:].reshape(-1, 3)
    seen = {tuple(color) for color in np.unique(legend, axis=0).tolist()}
    palette = result.color_image().getpalette() or []
    colors = [tuple(palette[3 * number : 3 * number + 3]) for number in range(4)]
    assert {colors[1], colors[2]} <= seen, "a swatch for every class that is there"
    assert not {colors[0], colors[3]} & seen, "an empty one for the background, and none for others"


@pytest.mark.parametrize(
    ("alpha", "share"), [(0, 0), (0.25, 0.25), (np.float32(0.75), 0.75), (1, 1)]
)
def test_alpha_is_how_much_of_the_colors_covers_the_image(alpha, share):
    result = small()
    bare = np.asarray(result.overlay(alpha, legend=False, contours=False)).astype(float)
    expected = GRAY * (1 - share) + result.colors[LABELS] * share
    expected[LABELS == 0] = 100
    assert bare.shape == GRAY.shape and np.abs(bare - expected).max() <= 0.5


@pytest.mark.parametrize("options", [{"alpha": v} for v in (-0.1, 1.5, "0.5", None, True, float("nan"))]
                         + [{"legend": "no"}, {"contours": 2}, {"contours": None}])  # fmt: skip
def test_options_of_the_overlay_that_make_no_sense_are_refused(options):
    with pytest.raises(InputError, match=f"^{next(iter(options))} is .*: expected"):
        small().overlay(**options)


def test_a_notebook_shows_the_overlay():
    result = small()
    shown = Image.open(io.BytesIO(result._repr_png_()))
    assert (np.asarray(shown) == np.asarray(result.overlay())).all()
    large = Segmentation(
        np.zeros((2000, 3000), np.uint8), ["a"], np.zeros((2000, 3000, 3), np.uint8)
    )
    assert max(Image.open(io.BytesIO(large._repr_png_())).size) <= 1600


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2000, 100), (100, 2000), (64, 64)])
@pytest.mark.parametrize("count", [1, 150])
def test_every_picture_can_be_drawn_at_any_size(size, count):
    width, height = size
    labels = np.arange(width * height).reshape(height, width) * 7 // 1000 % count
    image = np.zeros((height, width, 3), np.uint8)
    result = Segmentation(
        labels, [f"class {k}" for k in range(count)], image, groups=[labels % 64, labels % 8]
    )
    overlay = result.overlay()
    assert overlay.width >= width and overlay.height >= height and overlay.size != size
    for view in VIEWS:
        assert result.view(view).mode == "RGB"


def test_all_groups_shows_a_panel_for_every_stage():
    labels = np.zeros((100, 100), int)
    result = Segmentation(labels, ["a"], np.zeros((100, 100, 3), np.uint8), groups=[labels] * 3)
    assert result.view("all_groups").width > 300


def test_captions_of_panels_are_whole_over_a_tiny_picture():
    labels = np.zeros((4, 6), int)
    sheet = np.asarray(
        Segmentation(labels, ["a"], np.zeros((4, 6, 3), np.uint8), groups=[labels]).view(
            "all_groups"
        )
    )
    assert sheet.shape[1] > 60  # "stage 1: 1 group" takes more than the six pixels of the picture
    assert (sheet[:, -2:] == 255).all() and (sheet[:, :-2] < 255).any()


# Files


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_label_images_keep_every_number_through_png(count, height, width, seed):
    labels = np.random.default_rng(seed).integers(0, count, (height, width))
    result = Segmentation(
        labels, [f"c{k}" for k in range(count)], np.zeros((height, width, 3), np.uint8)
    )
    image = Image.open(io.BytesIO(png(result.label_image())))
    assert image.mode == ("L" if count <= 256 else "I;16") and (np.asarray(image) == labels).all()
    again = Segmentation.from_png(png(image), result.class_names, encoded(result.image))
    assert (again.labels == labels).all() and again.labels.dtype == result.labels.dtype


def test_label_files_hold_gray_numbers_for_every_reader(tmp_path):
    import tensorflow as tf

    small().save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert (content[24], content[25]) == (8, 0), "bit depth 8, color type gray (PNG 11.2.2)"
    assert (tf.io.decode_png(content, channels=1).numpy()[..., 0] == LABELS).all()
    assert (np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))[..., 0] == LABELS).all()


def test_the_color_image_is_the_view_pred_with_numbers_behind_its_colors():
    result = small()
    colors = result.color_image()
    assert colors.mode == "P" and (np.asarray(colors) == LABELS).all()
    assert (np.asarray(colors.convert("RGB")) == np.asarray(result.view("pred"))).all()
    header = png(colors)[16:33]
    assert header[8] == 8 and header[9] == 3, "bit depth 8, color type palette (PNG 11.2.2)"
    many = Segmentation(LABELS, [f"c{k}" for k in range(257)], GRAY)
    assert many.color_image().mode == "RGB"


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_labels_come_back_from_json_as_documented(height, width, count, seed):
    labels = np.random.default_rng(seed).integers(0, count, (height, width))
    result = Segmentation(
        labels, NAMES[:count], np.zeros((height, width, 3), np.uint8), class_scores=[0.5] * count
    )
    d = json.loads(result.to_json())
    assert (
        np.repeat(d["labels"]["values"], d["labels"]["counts"]).reshape(d["height"], d["width"])
        == labels
    ).all()
    assert (
        d["areas"] == result.areas
        and d["class_names"] == NAMES[:count]
        and d["class_scores"] == result.class_scores
    )


def test_json_has_no_scores_where_there_are_none_and_no_nan():
    assert Segmentation(LABELS, NAMES, GRAY).to_dict()["class_scores"] is None
    odd = Segmentation(LABELS, NAMES, GRAY, class_scores=[float("nan"), float("-inf"), 1, 2])
    assert json.loads(odd.to_json())["class_scores"] == {
        "background": None,
        "cat": None,
        "dog": 1.0,
        "bird": 2.0,
    }


def test_save_writes_by_extension(tmp_path):
    small().save(tmp_path / "a.PNG")
    small().save(str(tmp_path / "a.json"))
    assert (np.asarray(Image.open(tmp_path / "a.PNG")) == LABELS).all()
    assert json.loads((tmp_path / "a.json").read_text())["width"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.PNG",
        "a.json",
    ], "nothing is left beside"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.jpg", r"\.png or \.json"),
        ("a", r"\.png or \.json"),
        ("gone/a.png", "no folder"),
        ("dir.png", "is a folder"),
    ],
)
def test_save_says_what_is_wrong_with_a_path(tmp_path, name, message):
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(InputError, match=message):
        small().save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["dir.png"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(InputError, match="cannot be written: No space left"):
        small().save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"] and path.read_text() == "old"


def test_a_segmentation_loads_no_tensorflow():
    code = (
        "import sys, tf_groupvit.segmentation.result; sys.exit(bool({'tensorflow','keras','httpx'}"
        " & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_view_of_the_photos_shows_the_photo_and_its_regions(photos):
    y, x = np.mgrid[:448, :448]
    labels = (x // 150 + 3 * (y // 150)) % 4
    for photo in photos:
        content = photo.read_bytes()
        mask = encoded(labels.astype(np.uint8))
        result = Segmentation.from_png(mask, ["background", "sheep", "grass", "sky"], content)
        with_groups = Segmentation(
            labels, result.class_names, result.image, groups=[x // 56 + 8 * (y // 56), x // 56]
        )
        pictures = {view: np.asarray(with_groups.view(view)) for view in VIEWS}
        assert (pictures["input"] == result.image).all()
        assert pictures["all_groups"].shape[1] > 2 * 448
        others = [pictures[view] for view in VIEWS if view != "all_groups"]
        assert all((one != other).any() for i, one in enumerate(others) for other in others[:i])
        names = (pictures["input_pred_label"] != pictures["input_pred"]).any(-1)
        named = [bool(names[labels == k].any()) for k in range(4)]
        assert named == [False, True, True, True], "a name in every region but the background"
