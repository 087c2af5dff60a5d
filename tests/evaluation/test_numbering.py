"""Which number in a mask is which class: by order, by a table, and what does not fit together."""

import json

import pytest

from tf_groupvit.errors import InputError
from tf_groupvit.evaluation.numbering import number_classes, read_table

ROWS = [(1, "background"), (7, "sofa|couch"), (9, "cat"), (11, "cat"), (30, "sky")]


@pytest.mark.parametrize(
    ("options", "names", "labels"),
    [
        (dict(classes="dog,cat"), ["dog", "cat"], {0: 0, 1: 1, 255: 255}),
        (
            dict(classes="dog,cat", background=True),
            ["background", "dog", "cat"],
            {0: 0, 1: 1, 2: 2, 255: 255},
        ),
        (dict(classes=["dog", "cat"], ignore=[7, 9]), ["dog", "cat"], {0: 0, 1: 1, 7: 255, 9: 255}),
        (
            dict(rows=ROWS),
            ["sofa", "cat", "sky"],
            {1: 255, 7: 0, 9: 1, 11: 1, 30: 2, 255: 255},
        ),
        (
            dict(rows=ROWS, background=True),
            ["background", "sofa", "cat", "sky"],
            {1: 0, 7: 1, 9: 2, 11: 2, 30: 3, 255: 255},
        ),
        (
            dict(rows=ROWS, classes="couch,cat", ignore=[30]),
            ["couch", "cat"],
            {1: 255, 7: 0, 9: 1, 11: 1, 30: 255},
        ),
        (  # what is in the table and not among the classes
            dict(rows=ROWS, classes=["cat"], background=True),
            ["background", "cat"],
            {1: 0, 7: 0, 9: 1, 11: 1, 30: 0, 255: 255},
        ),
        (dict(rows=ROWS, classes="cat"), ["cat"], {1: 255, 7: 255, 9: 0, 11: 0, 30: 255, 255: 255}),
        (  # no number is called background, so it is 0
            dict(rows=[(3, "cat")], background=True),
            ["background", "cat"],
            {0: 0, 3: 1, 255: 255},
        ),
        (dict(rows=[(255, "cat"), (0, "dog")]), ["cat", "dog"], {255: 0, 0: 1}),
        (  # regions that are drawn need no number for the rest
            dict(rows=[(0, "cat")], background=True, free=True),
            ["background", "cat"],
            {0: 1, 255: 255},
        ),
    ],
)
def test_numbers_by_hand(options, names, labels):
    found = number_classes(**options)
    assert (list(found.class_names), found.labels) == (names, labels)
    table = found.label_map()
    assert {n: int(table[n]) for n in range(len(table)) if table[n] >= 0} == labels


def test_what_is_reported():
    found = number_classes("couch|sofa,cat", ROWS)
    assert found.prompts == ("couch|sofa", "cat")
    assert found.left_out == ("sky",)
    assert found.numbers() == {"couch": [7], "cat": [9, 11]}
    assert found.ignored_numbers() == [1, 30, 255]


def test_over_255_classes_another_label_is_ignored():
    found = number_classes([f"class {k}" for k in range(300)], ignore=[65535])
    assert (found.ignored, found.labels[255], found.labels[65535]) == (65535, 255, 65535)
    assert len(found.label_map()) == 65536
    assert number_classes([f"class {k}" for k in range(300)]).labels == found.labels
    assert number_classes([f"class {k}" for k in range(255)]).ignored_numbers() == [255]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(), "names are missing: .*--classes .*--table"),
        (dict(classes="background,dog"), "'background' is among the classes.*--background"),
        (dict(classes="background,dog", background=True), "leave it out there"),
        (dict(classes="dog,dog"), "twice: 'dog'"),
        (dict(classes="dog,cat", ignore=[0]), "0 is the number of 'dog' .* to be ignored.*--table"),
        (dict(classes="dog", rows=ROWS), "no number of the class 'dog': did you mean"),
        (dict(classes="sky", rows=ROWS, ignore=[30]), "30 is the number of 'sky'"),
        (dict(rows=[(3, "cat"), (3, "dog")]), "3 is the number of both 'cat' and 'dog'"),
        (dict(rows=[(0, "cat")], background=True), "0 is the number of 'cat', .*background"),
        (dict(rows=[(0, "background")]), "empty"),
        (dict(classes="dog", ignore=[-1]), "from 0 to 65535: received -1"),
        (dict(classes="dog", ignore=[65536]), "received 65536"),
    ],
)
def test_what_does_not_fit_together_is_refused(options, words):
    with pytest.raises(InputError, match=words) as caught:
        number_classes(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("table.txt", "0 hot dog\n7\tsofa|couch\n"),
        ("table.txt", "# numbers\n\n0   hot dog\n7 sofa|couch"),
        ("table.txt", "hot dog 0\nsofa|couch 7\n"),
        ("table.csv", "\ufeff0,hot dog\r\n7,sofa|couch\r\n"),
        ("table.csv", "name,number\nhot dog,0\nsofa|couch,7\n"),
        ("table.csv", '"id";"color";"name"\n0;#ff0000;"hot dog"\n7;;sofa|couch\n'),
        ("table.tsv", "Name\tcount\tIdx\nhot dog\t12\t0\nsofa|couch\t3\t7\n"),
    ],
)
def test_a_table_is_read_whatever_is_between(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_table(tmp_path / name) == [(0, "hot dog"), (7, "sofa|couch")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "found none"),
        ("number,name\n", "found none"),
        ("dog\ncat\n", "found 'dog'"),
        ("0 dog\ncat\n", "found 'cat'"),
        ("0,dog,cat\n", "found '0,dog,cat'"),
        ("0,dog\n-1,cat\n", "found '-1,cat'"),
        ("0,\n", "found '0,'"),
        ("70000 dog", "from 0 to 65535 .*found '70000 dog'"),
        ("0 dog\0", "zero bytes"),
    ],
)
def test_what_is_no_table_is_refused_with_its_line(tmp_path, text, words):
    (tmp_path / "table.txt").write_text(text)
    with pytest.raises(InputError, match=rf"table\.txt.*{words}"):
        read_table(tmp_path / "table.txt")
    with pytest.raises(InputError, match=r"gone\.csv: there is no such file"):
        read_table(tmp_path / "gone.csv")


def test_the_classes_that_annotate_writes_are_a_table(tmp_path):
    file = tmp_path / "classes.json"
    classes = [{"number": 0, "name": "hot dog", "color": [1, 2, 3]}, {"number": 7, "name": "sofa"}]
    file.write_text(json.dumps({"ignore": 255, "classes": classes}))
    assert read_table(file) == [(0, "hot dog"), (7, "sofa")]
    for content in ({}, {"classes": []}, {"classes": [{"number": -1, "name": "x"}]}):
        file.write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"classes\.json: expected .* as annotate writes\.$"):
            read_table(file)
