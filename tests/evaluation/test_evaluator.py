"""Evaluation of prepared answers on small trees: scores by hand, failures named, runs that go on."""

import json

import keras
import numpy as np
import pytest
from travel import WAYS
from trees import Answers, ade_tree, cityscapes_tree, coco_tree, voc_tree, write_image, write_mask

from tf_groupvit.errors import DatasetError, ImageError, InputError
from tf_groupvit.evaluation.datasets import (
    FolderDataset,
    MaskDataset,
    OwnMaskDataset,
    SceneDataset,
)
from tf_groupvit.evaluation.evaluator import evaluate, fingerprint

CITY = "munster/munster_000000_000019"

# dataset -> (make the tree, numbers in the mask, answer, mIoU by hand, pixel accuracy by hand, IoU
# of some classes)
CASES = {
    # background 2 of 3, aeroplane 1 of 2; the last pixel is ignored
    "voc": (
        lambda root, m: voc_tree(root, {"a": m}),
        [[0, 0], [1, 0], [255, 255]],
        [[0, 0], [1, 1], [3, 4]],
        (2 / 3 + 1 / 2) / 2,
        3 / 4,
        {"background": 2 / 3, "aeroplane": 1 / 2, "bicycle": None},
    ),
    # monitor right; bicycle (2) is taken for aeroplane: 0 and 0; background is ignored
    "voc20": (
        lambda root, m: voc_tree(root, {"a": m}, "gray"),
        [[0, 20], [20, 2]],
        [[5, 19], [19, 0]],
        1 / 3,
        2 / 3,
        {"monitor": 1.0, "bicycle": 0.0, "aeroplane": 0.0, "bottle": None},
    ),
    "context": (
        lambda root, m: voc_tree(root, {"a": m}, "gray", "VOC2010"),
        [[0, 59, 59, 59]],
        [[0, 59, 59, 0]],
        (1 / 2 + 2 / 3) / 2,
        3 / 4,
        {"background": 1 / 2, "wood": 2 / 3},
    ),
    "context59": (
        lambda root, m: voc_tree(root, {"a": m}, "gray", "VOC2010"),
        [[0, 59, 59, 1]],
        [[7, 58, 0, 0]],
        1 / 2,
        2 / 3,
        {"wood": 1 / 2, "airplane": 1 / 2},
    ),
    # person, unlabelled (background), banner (background), toothbrush
    "coco-object": (
        lambda root, m: coco_tree(root, {"a": m}),
        [[0, 255, 91, 89]],
        [[1, 0, 80, 80]],
        (1 + 1 / 2 + 1 / 2) / 3,
        3 / 4,
        {"person": 1.0, "background": 1 / 2, "toothbrush": 1 / 2},
    ),
    "coco-stuff": (
        lambda root, m: coco_tree(root, {"a": m}),
        [[0, 255, 181, 181]],
        [[0, 3, 170, 170]],
        1.0,
        1.0,
        {"person": 1.0, "wood": 1.0, "car": None},
    ),
    "ade20k": (
        lambda root, m: ade_tree(root, {"a": m}),
        [[0, 1, 150, 150]],
        [[9, 0, 149, 0]],
        (1 / 2 + 1 / 2) / 2,
        2 / 3,
        {"wall": 1 / 2, "flag": 1 / 2, "grass": None},
    ),
    "cityscapes": (
        lambda root, m: cityscapes_tree(root, {CITY: m}),
        [[1, 7, 33, 33]],
        [[9, 0, 18, 18]],
        1.0,
        1.0,
        {"road": 1.0, "bicycle": 1.0, "terrain": None},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_scores_of_a_benchmark_are_those_worked_out_by_hand(tmp_path, name):
    make, numbers, answer, miou, accuracy, ious = CASES[name]
    make(tmp_path, numbers)
    scores = evaluate(Answers(answer), MaskDataset(name, tmp_path))
    assert scores.miou == pytest.approx(miou)
    assert scores.pixel_accuracy == pytest.approx(accuracy)
    assert {key: scores.iou[key] for key in ious} == pytest.approx(ious)
    assert (scores.images, scores.failures) == (1, {})


@pytest.fixture
def voc(tmp_path):
    voc_tree(tmp_path, {name: [[0, 1], [1, 255]] for name in "abc"})
    return MaskDataset("voc", tmp_path)


RIGHT, WRONG = [[0, 1], [1, 0]], [[0, 0], [0, 0]]


def test_pictures_are_counted_together_not_averaged(voc):
    # background: 3 right, 3 labelled, 3 + 2 + 0 + 0 predicted -> 3/5; aeroplane: 4 of 6
    scores = evaluate(Answers(RIGHT, WRONG, RIGHT), voc)
    assert scores.iou["background"] == pytest.approx(3 / 5)
    assert scores.iou["aeroplane"] == pytest.approx(4 / 6)


def test_the_segmenter_is_shown_the_pixels_of_the_image(voc):
    answers = Answers(RIGHT, RIGHT, RIGHT)
    evaluate(answers, voc)
    assert [image.shape for image in answers.shown] == [(2, 2, 3)] * 3
    assert answers.shown[0].dtype == np.uint8


def test_a_limit_takes_the_first_pictures(voc):
    answers = Answers(RIGHT, WRONG)
    assert evaluate(answers, voc, limit=2).images == len(answers.shown) == 2
    assert evaluate(Answers(RIGHT, WRONG, RIGHT), voc, limit=99).images == 3
    with pytest.raises(InputError, match="limit is expected to be 1 or more: received 0"):
        evaluate(answers, voc, limit=0)


def test_a_picture_that_fails_is_counted_and_named_and_the_rest_are_measured(voc, tmp_path, capsys):
    (tmp_path / "VOCdevkit/VOC2012/JPEGImages/b.jpg").write_bytes(b"no image")
    scores = evaluate(Answers(RIGHT, RIGHT), voc)
    assert (scores.images, list(scores.failures), scores.miou) == (2, ["b"], 1.0)
    assert "b.jpg: expected an image" in scores.failures["b"]
    assert "b: " in capsys.readouterr().err
    content = scores.to_dict()
    assert content["failures"] == [{"image": "b", "error": scores.failures["b"]}]
    assert "2 images, 1 failed" in scores.table()


def test_whatever_goes_wrong_with_a_picture_is_named_by_its_kind(voc):
    shown = []

    def segment(image):
        shown.append(image)
        if len(shown) == 2:
            raise MemoryError("too large")
        return np.array(RIGHT)

    assert evaluate(segment, voc).failures == {"b": "MemoryError: too large"}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([[0, 1]], "expected as"),
        ([[0, 21], [0, 0]], "0..20: received 21"),
        ([[0.0, 1.0], [1.0, 0.0]], "integers"),
    ],
)
def test_an_answer_that_does_not_fit_is_a_failure_of_that_picture(voc, answer, words):
    scores = evaluate(Answers(RIGHT, answer, RIGHT), voc)
    assert scores.images == 2
    assert words in scores.failures["b"]


def test_where_nothing_works_the_first_error_is_raised(voc, tmp_path):
    def segment(image):
        raise ZeroDivisionError("of the model")

    with pytest.raises(ZeroDivisionError, match="of the model"):
        evaluate(segment, voc)
    for name in "abc":
        (tmp_path / f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"a\.jpg"):
        evaluate(Answers(), voc)


def test_a_hopeless_evaluation_does_not_go_through_every_picture(tmp_path):
    voc_tree(tmp_path, {f"{k:02d}": [[0]] for k in range(30)})
    shown = []
    with pytest.raises(ZeroDivisionError):
        evaluate(lambda image: shown.append(image) or 1 / 0, MaskDataset("voc", tmp_path))
    assert len(shown) == 20


def test_masks_are_checked_before_the_first_picture_is_segmented(voc, tmp_path):
    answers = Answers(RIGHT, RIGHT, RIGHT)
    write_mask(tmp_path / "VOCdevkit/VOC2012/SegmentationClass/c.png", [[0, 77], [0, 0]])
    with pytest.raises(DatasetError, match=r"c\.png: label 77"):
        evaluate(answers, voc)
    assert not answers.shown
    assert evaluate(answers, voc, limit=2).images == 2


def test_a_segmenter_with_other_classes_is_refused(voc):
    answers = Answers(RIGHT)
    answers.class_names = ["background", "airplane", *voc.class_names[2:]]
    with pytest.raises(
        InputError, match="expected 'aeroplane' as class 1, the segmenter has 'airplane'"
    ):
        evaluate(answers, voc)
    answers.class_names = voc.class_names[:-1]
    with pytest.raises(InputError, match="expected 21 classes, the segmenter has 20"):
        evaluate(answers, voc)


# Going on


def test_a_run_that_was_interrupted_goes_on_where_it_was(voc, tmp_path):
    state = tmp_path / "state.json"

    shown = []

    def interrupted(image):
        shown.append(image)
        if len(shown) == 3:
            raise KeyboardInterrupt
        return np.array(WRONG if len(shown) == 2 else RIGHT)

    with pytest.raises(KeyboardInterrupt):
        evaluate(interrupted, voc, state=state)
    assert json.loads(state.read_text())["done"] == ["a", "b"]
    rest = Answers(RIGHT)
    scores = evaluate(rest, voc, state=state)
    assert (scores.images, len(rest.shown)) == (3, 1)
    assert scores.results == evaluate(Answers(RIGHT, WRONG, RIGHT), voc).results
    assert evaluate(Answers(), voc, state=state).results == scores.results


def test_a_failed_picture_is_tried_again(voc, tmp_path):
    image, state = tmp_path / "VOCdevkit/VOC2012/JPEGImages/b.jpg", tmp_path / "state.json"
    image.write_bytes(b"")
    assert evaluate(Answers(RIGHT, RIGHT), voc, state=state).failures.keys() == {"b"}
    write_image(image)
    scores = evaluate(Answers(RIGHT), voc, state=state)
    assert (scores.images, scores.failures) == (3, {})


def test_the_counts_of_other_scenes_are_not_taken_for_those_of_these(tmp_path):
    state = tmp_path / "state.json"
    scores = evaluate(lambda image: image[..., 0] * 0, SceneDataset(1, 2, 32), state=state)
    assert scores.settings == {"seed": 1, "scene_size": 32}
    for other, words in (
        (SceneDataset(2, 2, 32), "seed was 1 and is 2 now"),
        (SceneDataset(1, 2, 16), "scene_size was 32 and is 16 now"),
    ):
        with pytest.raises(InputError, match=words):
            evaluate(Answers(), other, state=state)


def test_a_limit_can_be_raised_and_not_lowered(voc, tmp_path):
    state = tmp_path / "state.json"
    evaluate(Answers(RIGHT, RIGHT), voc, state=state, limit=2)
    assert evaluate(Answers(RIGHT), voc, state=state).images == 3
    with pytest.raises(InputError, match=r"'b' is counted there and not among the pictures"):
        evaluate(Answers(), voc, state=state, limit=1)


def test_a_state_that_could_not_be_written_is_refused_before_work_starts(voc, tmp_path):
    answers = Answers()
    for state in (tmp_path / "no" / "state.json", tmp_path):
        with pytest.raises(InputError, match="folder"):
            evaluate(answers, voc, state=state)
    assert answers.shown == []


def test_the_state_of_another_evaluation_is_refused(voc, tmp_path):
    state = tmp_path / "state.json"
    evaluate(
        Answers(RIGHT, RIGHT, RIGHT),
        voc,
        state=state,
        settings={"weights": "ab", "background": 0.9},
    )
    with pytest.raises(InputError, match='weights was "ab" and is "cd" now'):
        evaluate(Answers(), voc, state=state, settings={"weights": "cd", "background": 0.9})
    with pytest.raises(InputError, match=r"background was 0\.9 and is null now"):
        evaluate(Answers(), voc, state=state, settings={"weights": "ab"})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"version": 1}',
        '{"version": 9, "settings": {}, "done": [], "counts": []}',
        "null",
    ],
)
def test_a_file_that_is_no_state_is_refused_and_kept(voc, tmp_path, content):
    state = tmp_path / "state.json"
    state.write_text(content)
    with pytest.raises(InputError, match=r"state\.json: expected the state of an evaluation"):
        evaluate(Answers(RIGHT), voc, state=state)
    assert state.read_text() == content


@pytest.mark.parametrize(
    "counts", [[[1]], [[-1] * 21] * 21, [[0.5] * 21] * 21, "many", [[1], [2, 3]]]
)
def test_damaged_counts_are_refused(voc, tmp_path, counts):
    state = tmp_path / "state.json"
    evaluate(Answers(RIGHT, RIGHT, RIGHT), voc, state=state)
    content = json.loads(state.read_text())
    state.write_text(json.dumps({**content, "counts": counts}))
    with pytest.raises(InputError, match=r"state\.json: the counts are damaged"):
        evaluate(Answers(), voc, state=state)


def test_a_state_that_cannot_be_written_is_an_error_of_ours(voc, tmp_path):
    with pytest.raises(InputError, match="no folder"):
        evaluate(Answers(RIGHT, RIGHT, RIGHT), voc, state=tmp_path / "nowhere" / "state.json")


def test_the_progress_bar_carries_the_running_miou(voc, capsys):
    evaluate(Answers(RIGHT, RIGHT, RIGHT), voc, progress=True)
    assert "mIoU 100.0" in capsys.readouterr().err


def test_the_table_names_every_class_and_the_sums(voc):
    lines = evaluate(Answers(RIGHT, RIGHT, RIGHT), voc).table().splitlines()
    assert lines[0] == "voc: 3 images"
    assert [line.split()[-1] for line in lines if line.startswith(("aeroplane", "bicycle"))] == [
        "100.00",
        "-",
    ]
    assert [line.split()[-1] for line in lines[-2:]] == ["100.00", "100.00"]


# Fingerprints of weights


def made(first=1.0, width=2):
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(width), keras.layers.Dropout(0.5, seed=None)]
    )
    model.set_weights([np.full((3, width), first), np.zeros(width)])
    return model


def test_models_of_the_same_weights_agree_though_keras_names_them_apart():
    one, two = made(), made()
    assert one.weights[0].path != two.weights[0].path
    assert fingerprint(one) == fingerprint(two)
    assert len(fingerprint(one)) == 16


def test_another_value_or_shape_gives_another_fingerprint():
    assert len({fingerprint(model) for model in (made(), made(first=1.0001), made(width=3))}) == 3


# To other processes


@pytest.mark.parametrize("again", WAYS)
def test_datasets_and_scores_travel(tmp_path, again):
    home = voc_tree(tmp_path, {"a": [[0, 1], [2, 255]]})
    write_image(tmp_path / "tree/dog/a.jpg")
    names = ["dog", "cat", "sky"]
    for dataset in (
        MaskDataset("voc", tmp_path),
        OwnMaskDataset(home / "JPEGImages", home / "SegmentationClass", names),
        SceneDataset(3, 2),
        FolderDataset(tmp_path / "tree"),
    ):
        dataset.image(0)
        other = again(dataset)
        assert (other.image(0) == dataset.image(0)).all()
        assert (other.names, other.class_names) == (dataset.names, dataset.class_names)
        if not isinstance(dataset, FolderDataset):
            assert (other.labels(0) == dataset.labels(0)).all()
    scores = evaluate(Answers([[0, 1], [2, 2]]), MaskDataset("voc", tmp_path))
    other = again(scores)
    assert other.to_dict() == scores.to_dict()
    assert other.counts.tolist() == scores.counts.tolist()
