"""Zero-shot classification on a tree with a folder for each class: top-1 and top-5 by hand."""

import numpy as np
import pytest
from trees import write_image

from tf_groupvit.errors import DatasetError
from tf_groupvit.evaluation.datasets import FolderDataset
from tf_groupvit.evaluation.evaluator import evaluate_classes

SIX = ("a", "b", "c", "d", "e", "f")


@pytest.fixture
def tree(tmp_path):
    """Two pictures of a hot dog (gray 10 and 20), one of a cat (gray 30)."""
    for name, gray in (("hot_dog/1.png", 10), ("hot_dog/2.png", 20), ("cat/1.png", 30)):
        write_image(tmp_path / name, gray=gray)
    return tmp_path


def test_classes_are_the_folders_in_order_with_blanks_for_underscores(tree):
    dataset = FolderDataset(tree)
    assert dataset.class_names == ["cat", "hot dog"]
    assert list(zip(dataset.names, dataset.labels, strict=True)) == [
        ("cat/1.png", 0),
        ("hot_dog/1.png", 1),
        ("hot_dog/2.png", 1),
    ]


def test_top1_and_top5_by_hand(tree):
    scores = evaluate_classes(
        lambda image: [0.6, 0.4] if image[0, 0, 0] > 15 else [0.1, 0.9], FolderDataset(tree)
    )
    assert (scores.top1, scores.top5, scores.images) == (2 / 3, 1.0, 3)
    assert scores.to_dict()["accuracy"] == {"cat": 1.0, "hot dog": 0.5}
    assert scores.table().splitlines()[-2].split() == ["top-1", "66.67"]


@pytest.mark.parametrize(
    "content", ["n02\tfrankfurter|hot dog\nn01\ttabby\n", "tabby\nfrankfurter|hot dog\n"]
)
def test_a_file_can_name_the_classes(tmp_path, content):
    for folder in ("n01", "n02"):
        write_image(tmp_path / folder / "1.jpg")
    (tmp_path / "classes.txt").write_text(content)
    dataset = FolderDataset(tmp_path)
    assert dataset.prompts == ["tabby", "frankfurter|hot dog"]
    assert dataset.class_names == ["tabby", "frankfurter"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("tabby\n", "expected 2 names, one a folder; found 1 lines"),
        ("n01\ttabby\n", "'n02' has none"),
        ("tabby\ntabby|cat\n", "two classes are called 'tabby'"),
        ("n01\ttabby\nfrankfurter\n", "expected 2 names"),
    ],
)
def test_a_file_that_does_not_go_with_the_folders_is_refused(tmp_path, content, words):
    for folder in ("n01", "n02"):
        write_image(tmp_path / folder / "1.jpg")
    (tmp_path / "classes.txt").write_text(content)
    with pytest.raises(DatasetError, match=words):
        FolderDataset(tmp_path)


def test_names_alone_are_refused_where_the_order_of_the_folders_is_in_doubt(tmp_path):
    for folder in ("class 2", "class 10"):
        write_image(tmp_path / folder / "1.jpg")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(
        DatasetError, match=r"'cat' may be .* 'class 10' .* 'class 2' .*folder<TAB>name"
    ):
        FolderDataset(tmp_path)
    (tmp_path / "classes.txt").write_text("class 2\tcat\nclass 10\tdog\n")
    assert FolderDataset(tmp_path).prompts == ["dog", "cat"]


def test_what_systems_leave_is_neither_a_class_nor_an_image(tree):
    for name in (
        "__MACOSX/1.png",
        ".git/1.png",
        "cat/._1.png",
        "cat/.ipynb_checkpoints/1-checkpoint.png",
    ):
        write_image(tree / name)
    assert FolderDataset(tree).names == ["cat/1.png", "hot_dog/1.png", "hot_dog/2.png"]


def test_an_incomplete_tree_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        FolderDataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="expected a folder for each class"):
        FolderDataset(tmp_path)
    write_image(tmp_path / "cat/1.jpg")
    (tmp_path / "dog").mkdir()
    with pytest.raises(DatasetError, match=r"dog: expected the images of a class"):
        FolderDataset(tmp_path)


def test_a_limit_is_spread_over_the_classes(tmp_path):
    for folder in SIX:
        for number in range(4):
            write_image(tmp_path / folder / f"{number}.png")
    scores = evaluate_classes(lambda image: np.arange(6), FolderDataset(tmp_path), limit=6)
    assert scores.results["accuracy"] == {**dict.fromkeys(SIX[:5], 0.0), "f": 1.0}


def test_a_picture_that_fails_is_named_and_a_run_goes_on(tree):
    state = tree.parent / f"{tree.name}.json"
    (tree / "cat/1.png").write_bytes(b"no image")
    scores = evaluate_classes(lambda image: [0, 1], FolderDataset(tree), state=state)
    assert (list(scores.failures), scores.images, scores.top1) == (["cat/1.png"], 2, 1.0)
    write_image(tree / "cat/1.png")
    scores = evaluate_classes(lambda image: [0, 1], FolderDataset(tree), state=state)
    assert (scores.failures, scores.images, scores.top1) == ({}, 3, 2 / 3)
