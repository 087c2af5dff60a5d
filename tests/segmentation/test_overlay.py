"""Colors that can be told apart, names that can be read and lie where they belong."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from tf_groupvit.segmentation import label_placement
from tf_groupvit.segmentation.label_placement import depth, legible, place
from tf_groupvit.segmentation.overlay import (
    Entry,
    Tag,
    blend,
    draw_contours,
    draw_names,
    with_legend,
)
from tf_groupvit.segmentation.palette import (
    class_colors,
    contrast,
    group_colors,
    ink_on,
    luminance,
    oklab,
    picture_colors,
)

NAMES = [f"c{k}" for k in range(300)]


def nearest_pair(colors):
    lab = oklab(colors)
    gaps = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return gaps[~np.eye(len(lab), dtype=bool)].min()


@pytest.mark.parametrize(("count", "least"), [(21, 0.1), (30, 0.1), (150, 0.04), (256, 0.03)])
def test_colors_of_classes_and_groups_are_far_apart(count, least):
    # 0.02 in OKLab is about the smallest step seen side by side; 0.1 is plain at a glance.
    assert nearest_pair(class_colors(NAMES[:count])) > least
    assert nearest_pair(group_colors(count)) > least


def test_no_class_looks_like_the_background():
    colors = class_colors(["background", *NAMES[:100]])
    assert not colors[0].any()
    assert np.linalg.norm(oklab(colors[1:]) - oklab(colors[0]), axis=1).min() > 0.4


def test_a_class_looks_the_same_with_and_without_background():
    assert (class_colors(["background", *NAMES])[1:] == class_colors(NAMES)).all()


def halves(left, right):
    """A picture of two regions of these colors."""
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, :4], image[:, 4:] = left, right
    return image


def test_a_class_keeps_its_color_unless_its_own_region_looks_like_it():
    names = ["grass", "sky", *NAMES[:6]]
    labels = np.array([[0] * 4 + [1] * 4] * 8)
    red, blue = class_colors(names)[:2]
    kept = picture_colors(names, labels, halves(blue, red))
    assert (kept == class_colors(names)).all()
    moved = picture_colors(names, labels, halves(red, red))
    assert (moved[1:] == class_colors(names)[1:]).all() and (moved[0] != red).any()
    assert np.linalg.norm(oklab((moved[0] + red.astype(float)) / 2) - oklab(red)) > 0.1
    assert nearest_pair(moved) >= 0.1, "and no other class of the list has it"


def test_grass_that_would_be_green_on_green_grass_has_another_hue_in_all_pictures():
    names = ["car", "boat", "sun", "dog", "grass"]
    labels = np.array([[4] * 4 + [0] * 4] * 8)
    found = set()
    for grass in [(60, 140, 60), (90, 170, 70), (70, 110, 40), (120, 190, 90)]:
        color = picture_colors(names, labels, halves(grass, (200, 200, 200)))[4]
        one, other = (oklab(each)[1:] for each in (color, np.array(grass)))
        assert one @ other < 0.82 * np.linalg.norm(one) * np.linalg.norm(other), (
            "35 degrees and more apart"
        )
        found.add(tuple(color.tolist()))
    assert len(found) == 1


def test_classes_of_a_picture_are_told_apart_out_of_many():
    table = class_colors(NAMES[:256])
    gaps = np.linalg.norm(oklab(table)[:, None] - oklab(table)[None], axis=-1) + np.eye(256)
    first, second = np.unravel_index(gaps.argmin(), gaps.shape)
    labels = np.array([[first] * 4 + [second] * 4] * 8)
    colors = picture_colors(NAMES[:256], labels, halves((0, 0, 0), (255, 255, 255)))
    assert gaps.min() < 0.05 and nearest_pair(colors[[first, second]]) >= 0.1


def test_contours_are_seen_on_every_color():
    for color in (0, 128, 255):
        pixels, labels = np.full((20, 20, 3), color, np.uint8), np.zeros((20, 20), int)
        labels[:, 10:] = 1
        draw_contours(pixels, labels)
        across = pixels[10, 8:13, 0].tolist()
        assert across == [color, 0, 255, 0, color]
        assert (pixels == pixels[10]).all()


def test_colors_come_round_after_256():
    assert (class_colors(NAMES)[256:] == class_colors(NAMES)[:44]).all()
    assert (group_colors(300)[256:] == group_colors(44)).all()


def test_contrast_is_that_of_wcag():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(
        4.48, abs=0.005
    )  # the known near miss #777
    assert luminance((255, 0, 0)) == pytest.approx(0.2126)


def test_ink_can_be_read_on_every_color():
    steps = range(0, 256, 51)
    for color in [(r, g, b) for r in steps for g in steps for b in steps]:
        assert contrast(ink_on(color), color) >= 4.5


def test_blend_is_half_of_each():
    every = np.arange(256, dtype=np.uint8)
    one, other = np.meshgrid(every, every)
    assert (blend(one, other) == (one.astype(int) + other + 1) // 2).all()


# Where names go


def test_depth_counts_steps_to_another_class_or_the_rim():
    labels = np.array([[0, 0, 0, 1, 1, 1]] * 3)
    assert depth(labels).tolist() == [[1, 1, 1, 1, 1, 1], [1, 2, 1, 1, 2, 1], [1, 1, 1, 1, 1, 1]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (5, 1)])
def test_depth_of_a_sliver_is_one(shape):
    assert (depth(np.zeros(shape, int)) == 1).all()


def test_the_widest_place_wins_over_the_largest_thin_one():
    labels = np.zeros((60, 200), int)
    labels[5:9, :] = 1  # long and thin
    labels[20:50, 150:190] = 1  # short and wide
    _, (left, top) = place(labels, {1: [(20, 10)]})[1]
    assert labels[top : top + 10, left : left + 20].all()
    assert abs(left + 10 - 170) <= 6 and abs(top + 5 - 35) <= 6


def test_a_box_that_does_not_fit_is_tried_smaller_and_then_left_out():
    labels = np.zeros((50, 50), int)
    labels[:12, :12] = 1
    assert place(labels, {1: [(20, 20), (10, 10)]})[1][0] == 1
    assert place(labels, {1: [(60, 60)]}) == {}
    assert place(labels, {1: [(30, 30)]}) == {}


@pytest.mark.parametrize("shape", [(448, 448), (64, 64), (100, 2000), (900, 700)])
@pytest.mark.parametrize("count", [2, 12, 150])
def test_boxes_lie_in_their_regions_in_the_picture_and_apart(shape, count):
    height, width = shape
    points = np.random.default_rng(count).uniform(0, 1, (2 * count, 2)) * shape
    y, x = np.mgrid[:height, :width]
    nearest = np.full(shape, np.inf)
    labels = np.zeros(shape, int)
    for index, (a, b) in enumerate(points):
        gap = (y - a) ** 2 + (x - b) ** 2
        labels[gap < nearest] = index % count
        nearest = np.minimum(nearest, gap)
    box = (30, 14)
    places = place(labels, {k: [box] for k in range(count)})
    assert places or count == 150
    covered = np.zeros(shape, int)
    for k, (_, (left, top)) in places.items():
        assert left >= 0 and top >= 0 and left + box[0] <= width and top + box[1] <= height
        inside = labels[top : top + box[1], left : left + box[0]] == k
        assert inside.mean() > 0.4, "half, less what a coarse grid of large pictures misses"
        covered[top : top + box[1], left : left + box[0]] += 1
    assert covered.max() <= 1


def test_a_drawn_name_is_readable_and_inside():
    labels = np.zeros((200, 200), int)
    labels[:, 100:] = 1
    names, colors = ["left", "right"], class_colors(["left", "right"])
    picture = Image.new("RGB", (200, 200), (128, 128, 128))
    draw_names(picture, labels, names, colors)
    pixels = np.asarray(picture)
    for k in (0, 1):
        pill = (pixels == colors[k]).all(-1)
        ink = (pixels == ink_on(colors[k])).all(-1)
        assert pill.sum() > 100 and ink.any()
        assert pill[labels != k].sum() == 0
        assert contrast(ink_on(colors[k]), colors[k]) >= 4.5


# Letters


def test_ascii_is_set_in_pillows_own_font():
    text, font = legible("dining table", 3, 14)
    assert (
        text == "dining table"
        and isinstance(font, ImageFont.FreeTypeFont)
        and font.getname()[0] == "Aileron"
    )


def test_a_name_that_no_font_can_write_is_given_by_its_number(monkeypatch):
    monkeypatch.setattr(label_placement, "SYSTEM_FONTS", ())
    assert legible("狗", 3, 14)[0] == "#3"
    assert legible("狗 dog", 3, 14)[0] == "#3"


def test_a_system_font_is_taken_where_it_has_the_letters():
    if label_placement._system_font("DejaVuSans.ttf", 14) is None:
        pytest.skip("DejaVuSans.ttf is not installed here")
    text, font = legible("трава", 3, 14)
    assert (
        text == "трава"
        and isinstance(font, ImageFont.FreeTypeFont)
        and font.getname()[0] == "DejaVu Sans"
    )


@pytest.mark.parametrize(
    ("name", "drawn"),
    [("a\nb\tc\x1b[0m", "a b c [0m"), ("x" * 99, "x" * 29 + "..."), ("   ", "#7"), ("", "#7")],
)
def test_names_are_drawn_on_one_short_line(name, drawn):
    assert legible(name, 7, 14)[0] == drawn


def test_a_tag_holds_its_whole_text():
    tag = Tag.of("gypq", 0, 20)
    picture = Image.new("L", tag.size, 0)
    from PIL import ImageDraw

    ImageDraw.Draw(picture).text(tag.start, tag.text, 255, tag.font)
    ink = np.asarray(picture) > 0
    rim = np.ones(ink.shape, bool)
    rim[2:-2, 2:-2] = False
    assert ink.any() and not ink[rim].any()


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0.0%"), (1e-5, "<0.1%"), (0.0005, "0.1%"), (0.456, "45.6%"), (1, "100.0%")],
)
def test_shares_are_percents(share, text):
    assert Entry("a", 0, (0, 0, 0), share).percent == text


@pytest.mark.parametrize(("size", "corner"), [((2000, 100), (0, 100)), ((100, 2000), (100, 0))])
def test_the_legend_goes_where_the_sheet_stays_squarest(size, corner):
    picture = Image.new("RGB", size, (9, 9, 9))
    sheet = with_legend(picture, [Entry("dog", 0, (200, 0, 0), 1.0)])
    assert (200, 0, 0) in set(sheet.crop((*corner, *sheet.size)).get_flattened_data())
