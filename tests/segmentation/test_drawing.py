"""Colours that can be told apart, names that can be read and lie where they belong."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from tf_groupvit.segmentation import fonts
from tf_groupvit.segmentation.drawing import Entry, Tag, blend, draw_names, with_legend
from tf_groupvit.segmentation.fonts import legible
from tf_groupvit.segmentation.palette import class_colours, contrast, group_colours, ink_on, luminance, oklab
from tf_groupvit.segmentation.placement import depth, place

NAMES = [f"c{k}" for k in range(300)]


def nearest_pair(colours):
    lab = oklab(colours)
    gaps = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return gaps[~np.eye(len(lab), dtype=bool)].min()


@pytest.mark.parametrize(("count", "least"), [(21, 0.1), (30, 0.1), (150, 0.04), (256, 0.03)])
def test_colours_of_classes_and_groups_are_far_apart(count, least):
    # 0.02 in OKLab is about the smallest step seen side by side; 0.1 is plain at a glance.
    assert nearest_pair(class_colours(NAMES[:count])) > least
    assert nearest_pair(group_colours(count)) > least


def test_no_class_looks_like_the_background():
    colours = class_colours(["background", *NAMES[:100]])
    assert not colours[0].any()
    assert np.linalg.norm(oklab(colours[1:]) - oklab(colours[0]), axis=1).min() > 0.4


def test_colours_come_round_after_256():
    assert (class_colours(NAMES)[256:] == class_colours(NAMES)[:44]).all()
    assert (group_colours(300)[256:] == group_colours(44)).all()


def test_contrast_is_that_of_wcag():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.005)  # the known near miss #777
    assert luminance((255, 0, 0)) == pytest.approx(0.2126)


def test_ink_can_be_read_on_every_colour():
    steps = range(0, 256, 51)
    for colour in [(r, g, b) for r in steps for g in steps for b in steps]:
        assert contrast(ink_on(colour), colour) >= 4.5


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
    names, colours = ["left", "right"], class_colours(["left", "right"])
    picture = Image.new("RGB", (200, 200), (128, 128, 128))
    draw_names(picture, labels, names, colours)
    pixels = np.asarray(picture)
    for k in (0, 1):
        pill = (pixels == colours[k]).all(-1)
        ink = (pixels == ink_on(colours[k])).all(-1)
        assert pill.sum() > 100 and ink.any()
        assert pill[labels != k].sum() == 0
        assert contrast(ink_on(colours[k]), colours[k]) >= 4.5


# Letters


def test_ascii_is_set_in_pillows_own_font():
    text, font = legible("dining table", 3, 14)
    assert text == "dining table" and isinstance(font, ImageFont.FreeTypeFont) and font.getname()[0] == "Aileron"


def test_a_name_that_no_font_can_write_is_given_by_its_number(monkeypatch):
    monkeypatch.setattr(fonts, "SYSTEM_FONTS", ())
    assert legible("狗", 3, 14)[0] == "#3"
    assert legible("狗 dog", 3, 14)[0] == "#3"


def test_a_system_font_is_taken_where_it_has_the_letters():
    if fonts._system_font("DejaVuSans.ttf", 14) is None:
        pytest.skip("DejaVuSans.ttf is not installed here")
    text, font = legible("трава", 3, 14)
    assert text == "трава" and isinstance(font, ImageFont.FreeTypeFont) and font.getname()[0] == "DejaVu Sans"


@pytest.mark.parametrize(
    ("name", "drawn"), [("a\nb\tc\x1b[0m", "a b c [0m"), ("x" * 99, "x" * 29 + "..."), ("   ", "#7"), ("", "#7")]
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
    ("share", "text"), [(0, "0.0%"), (1e-5, "<0.1%"), (0.0005, "0.1%"), (0.456, "45.6%"), (1, "100.0%")]
)
def test_shares_are_percents(share, text):
    assert Entry("a", 0, (0, 0, 0), share).percent == text


@pytest.mark.parametrize(("size", "corner"), [((2000, 100), (0, 100)), ((100, 2000), (100, 0))])
def test_the_legend_goes_where_the_sheet_stays_squarest(size, corner):
    picture = Image.new("RGB", size, (9, 9, 9))
    sheet = with_legend(picture, [Entry("dog", 0, (200, 0, 0), 1.0)])
    assert (200, 0, 0) in set(sheet.crop((*corner, *sheet.size)).get_flattened_data())
