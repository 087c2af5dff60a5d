"""Tables of captions as csv.writer makes them: any separator, line end and way to quote."""

import csv
import io
from itertools import product

import pytest

from tf_groupvit.errors import DatasetError
from tf_groupvit.training.caption_tables import read_table

CAPTIONS = ["plain", 'one, and "two"', "it's a; b|c", "tab\there", "two\nlines", "a \\ b", " x "]
ROWS = [(f"{number}.png", caption) for number, caption in enumerate(CAPTIONS)]


def written(rows, **form) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, **form).writerows([("image", "caption"), *rows])
    return file.getvalue()


@pytest.mark.parametrize("separator", [*",;\t|:", " ", "#"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r", "\n\n", "\r\n\r\n"])
def test_any_separator_and_line_end_is_read_back(separator, line_end):
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC):
        if quoting == csv.QUOTE_MINIMAL and line_end == "\r":
            continue  # a line feed in a caption is not quoted, and ends the row for csv.reader too
        text = written(ROWS, delimiter=separator, lineterminator=line_end, quoting=quoting)
        assert read_table(text, "captions.csv", ",") == ROWS


@pytest.mark.parametrize(
    ("separator", "quote", "doubled"), list(product(",\t;", "\"'", [True, False]))
)
def test_any_way_to_quote_is_read_back(separator, quote, doubled):
    # Something that the usual way does not fit tells that it is another.
    rows = [*ROWS, ("x.png", f"{quote}a{quote}{separator} b")]
    form = {"delimiter": separator, "quotechar": quote, "doublequote": doubled}
    text = written(rows, **form, escapechar=None if doubled else "\\")
    assert read_table(text, "captions.csv", ",") == rows


def test_signs_that_are_escaped_in_place_of_quoted_are_read_back():
    rows = [("0.png", "one, two"), ("1.png", 'a "b", c'), ("2.png", "a \\ b")]
    text = written(rows, quoting=csv.QUOTE_NONE, escapechar="\\")
    assert read_table(text, "captions.csv", ",") == rows


def test_the_usual_form_stays_where_it_fits():
    text = "image,caption\na.png,'quoted'\nb.png,a \\\"b\\\"\nc.png,one, two\n"
    with pytest.raises(DatasetError, match="line 4: expected 2 columns, got 3"):
        read_table(text, "captions.csv", ",")
    fits = text.rpartition("c.png")[0]
    assert read_table(fits, "captions.csv", ",")[0] == ("a.png", "'quoted'")


def test_columns_may_stand_anywhere_and_an_address_is_the_last_choice():
    text = "url\tid\tTEXT\timage_path\nhttp://x\t1\ta dog\ta.png\n"
    assert read_table(text, "captions.tsv", "\t") == [("a.png", "a dog")]
    text = 'caption,url\n"a dog, a cat",http://x\n'
    assert read_table(text, "captions.csv", ",") == [("http://x", "a dog, a cat")]


def test_the_table_of_flickr30k_is_read_and_its_odd_row_is_named():
    text = "image_name| comment_number| comment\n1.jpg| 0| Two men , one waves .\n"
    assert read_table(text, "results.csv", ",") == [("1.jpg", " Two men , one waves .")]
    odd = "2.jpg| 4   A dog runs across the grass .\n"  # as one row of the file is
    with pytest.raises(
        DatasetError, match=r"results\.csv, line 3: expected 3 columns, got 2: put the sep"
    ):
        read_table(text + odd, "results.csv", ",")
