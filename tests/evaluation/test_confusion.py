"""The confusion matrix as a picture: its size is bounded, and its colors say what its numbers do."""

import numpy as np
import pytest

from tf_groupvit.errors import InputError
from tf_groupvit.evaluation.confusion import EMPTY, RIGHT, WRONG, draw_confusion


def cells_of(picture):
    """Which of the three colors fill a cell."""
    pixels = np.asarray(picture)
    return [color for color in (RIGHT, WRONG, EMPTY) if (pixels == color).all(-1).sum() > 500]


def test_a_perfect_matrix_is_green_and_one_that_is_never_right_red():
    names = ["sheep", "grass"]
    assert cells_of(draw_confusion(np.diag([3, 2**40]), names)) == [RIGHT]
    # There is no grass in the masks, so its row is gray.
    assert cells_of(draw_confusion([[0, 1], [0, 0]], names)) == [WRONG, EMPTY]


@pytest.mark.parametrize("count", [1, 2, 60, 171, 1000])
def test_the_picture_fits_on_a_screen_or_a_wall(count):
    counts = np.random.default_rng(0).integers(0, 9, (count, count))
    picture = draw_confusion(counts, [f"class {k} with a long name, so long" for k in range(count)])
    assert picture.mode == "RGB" and max(picture.size) <= 5000
    assert min(picture.size) >= min(50 * count, 1800)


def test_a_row_reads_from_left_to_right():
    """All of the first class is taken for the last one: the red cell is at the upper right."""
    counts = np.diag([0, 1, 1])
    counts[0, 2] = 1
    pixels = np.asarray(draw_confusion(counts, ["a", "b", "c"]))
    rows, columns = np.nonzero((pixels == WRONG).all(-1))
    green_rows, green_columns = np.nonzero((pixels == RIGHT).all(-1))
    assert rows.max() < green_rows.min()
    assert columns.min() > np.median(green_columns)


def test_names_of_any_script_are_drawn_or_numbered():
    draw_confusion(np.ones((3, 3)), ["狗", "a\nb", "x" * 500])


def test_another_shape_is_refused():
    with pytest.raises(InputError, match=r"counts as \(2, 2\), .* received \(3, 3\)"):
        draw_confusion(np.ones((3, 3)), ["a", "b"])
