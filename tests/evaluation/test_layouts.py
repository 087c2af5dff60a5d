"""Every benchmark is found in its layout, under every root that holds it; what is missing is named."""

import pytest
from trees import (
    ade_tree,
    cityscapes_tree,
    coco_tree,
    plain_tree,
    voc_tree,
    write_image,
    write_mask,
)

from tf_groupvit.errors import DatasetError, InputError
from tf_groupvit.evaluation.datasets import MaskDataset

CITY = "frankfurt/frankfurt_000000_000294"

# dataset -> (make the tree and return its home, the numbers in the mask, the labels that they mean)
TREES = {
    "voc": (
        lambda root, m: voc_tree(root, {"2007_000033": m}),
        [[0, 20], [255, 1]],
        [[0, 20], [255, 1]],
    ),
    "voc20": (
        lambda root, m: voc_tree(root, {"2007_000033": m}),
        [[0, 20], [255, 1]],
        [[255, 19], [255, 0]],
    ),
    "context": (
        lambda root, m: voc_tree(root, {"2008_000002": m}, "gray", "VOC2010"),
        [[0, 59]],
        [[0, 59]],
    ),
    "context59": (
        lambda root, m: voc_tree(root, {"2008_000002": m}, "gray", "VOC2010"),
        [[0, 59]],
        [[255, 58]],
    ),
    "coco-object": (
        lambda root, m: coco_tree(root, {"000000000139": m}),
        [[0, 89, 91, 255]],
        [[1, 80, 0, 0]],
    ),
    "coco-stuff": (
        lambda root, m: coco_tree(root, {"000000000139": m}),
        [[0, 89, 91, 255]],
        [[0, 79, 80, 255]],
    ),
    "ade20k": (
        lambda root, m: ade_tree(root, {"ADE_val_00000001": m}),
        [[0, 1, 150]],
        [[255, 0, 149]],
    ),
    "cityscapes": (lambda root, m: cityscapes_tree(root, {CITY: m}), [[0, 7, 33]], [[255, 0, 18]]),
}


@pytest.mark.parametrize("name", TREES)
def test_a_benchmark_is_read_from_its_layout(tmp_path, name):
    make, numbers, labels = TREES[name]
    make(tmp_path, numbers)
    dataset = MaskDataset(name, tmp_path)
    assert len(dataset.names) == len(dataset) == 1
    dataset.check([0])
    assert dataset.labels(0).tolist() == labels
    assert dataset.image(0).shape == (len(labels), len(labels[0]), 3)


@pytest.mark.parametrize("name", TREES)
def test_the_root_may_be_the_home_itself_or_above(tmp_path, name):
    make, numbers, _ = TREES[name]
    home = make(tmp_path / "data" / "ade" if name == "ade20k" else tmp_path / "data", numbers)
    roots = [home, home.parent, tmp_path / "data", tmp_path]
    assert [MaskDataset(name, root).names for root in roots] == [MaskDataset(name, home).names] * 4


@pytest.mark.parametrize("name", TREES)
def test_an_empty_root_is_refused_with_what_was_looked_for(tmp_path, name):
    with pytest.raises(
        DatasetError, match=r"expected the images of .* in one of .*(JPEGImages|images|leftImg8bit)"
    ):
        MaskDataset(name, tmp_path)
    with pytest.raises(DatasetError, match="there is no such folder"):
        MaskDataset(name, tmp_path / "nowhere")


@pytest.mark.parametrize("name", TREES)
def test_a_missing_mask_is_named(tmp_path, name):
    make, numbers, _ = TREES[name]
    home = make(tmp_path, numbers)
    kept = "instanceIds" if name == "cityscapes" else "nothing"
    for mask in [
        path
        for path in home.rglob("*.png")
        if "leftImg8bit" not in path.name and kept not in path.name
    ]:
        mask.unlink()
    with pytest.raises(DatasetError, match=r"expected the mask .*\.png .* does not exist"):
        MaskDataset(name, tmp_path)


@pytest.mark.parametrize("name", TREES)
def test_a_missing_image_is_named(tmp_path, name):
    make, numbers, _ = TREES[name]
    home = make(tmp_path, numbers)
    for image in [
        path for path in home.rglob("*") if path.suffix == ".jpg" or "leftImg8bit." in path.name
    ]:
        image.unlink()
    with pytest.raises(DatasetError, match="there is no such image"):
        MaskDataset(name, tmp_path)


@pytest.mark.parametrize("name", ["coco-stuff", "ade20k", "cityscapes"])
def test_an_empty_folder_is_refused(tmp_path, name):
    make, numbers, _ = TREES[name]
    home = make(tmp_path, numbers)
    for path in [path for path in home.rglob("*") if path.is_file()]:
        path.unlink()
    with pytest.raises(DatasetError, match="found none"):
        MaskDataset(name, tmp_path)


@pytest.mark.parametrize(("name", "year"), [("voc", "VOC2012"), ("context", "VOC2010")])
def test_a_missing_or_empty_split_file_is_named(tmp_path, name, year):
    home = voc_tree(tmp_path, {"a": [[0]]}, year=year)
    split = next(home.rglob("val.txt"))
    split.write_text("\n \n")
    with pytest.raises(DatasetError, match=r"val\.txt: expected the pictures of"):
        MaskDataset(name, tmp_path)
    split.write_text("a\na\n")
    with pytest.raises(DatasetError, match=r"val\.txt: 'a' is listed twice"):
        MaskDataset(name, tmp_path)
    split.unlink()
    with pytest.raises(DatasetError, match=r"val\.txt: there is no such file"):
        MaskDataset(name, tmp_path)


def test_only_pictures_of_the_split_count_in_its_order(tmp_path):
    home = voc_tree(tmp_path, {"b": [[0]], "a": [[0]]})
    write_image(home / "JPEGImages" / "train.jpg")
    assert MaskDataset("voc", tmp_path).names == ["b", "a"]


def test_a_missing_folder_of_masks_is_named(tmp_path):
    write_image(tmp_path / "images/validation/a.jpg")
    with pytest.raises(DatasetError, match=r"annotations/validation: there is no such folder"):
        MaskDataset("ade20k", tmp_path)


def test_converted_masks_come_before_raw_ones(tmp_path):
    home = coco_tree(tmp_path, {"1": [[89]]})
    masks = home / "annotations/val2017"
    write_mask(masks / "1_labelTrainIds.png", [[79]])
    write_mask(masks / "1_instanceTrainIds.png", [[80]])
    assert MaskDataset("coco-stuff", tmp_path).labels(0).tolist() == [[79]]
    assert MaskDataset("coco-object", tmp_path).labels(0).tolist() == [[80]]
    (masks / "1.png").unlink()
    assert MaskDataset("coco-stuff", tmp_path).labels(0).tolist() == [[79]]
    (masks / "1_instanceTrainIds.png").unlink()
    assert MaskDataset("coco-object", tmp_path).labels(0).tolist() == [[80]]


def test_train_ids_of_cityscapes_are_taken_where_they_are(tmp_path):
    cityscapes_tree(tmp_path, {CITY: [[0, 18, 255]]}, "labelTrainIds")
    assert MaskDataset("cityscapes", tmp_path).labels(0).tolist() == [[0, 18, 255]]


def test_the_archives_of_coco_are_read_as_they_unpack(tmp_path):
    plain_tree(tmp_path, "val2017", "stuffthingmaps/val2017", {"1": [[181]]})
    assert MaskDataset("coco-stuff", tmp_path).labels(0).tolist() == [[170]]


def test_hidden_files_and_other_endings_are_no_images(tmp_path):
    home = ade_tree(tmp_path, {"a": [[1]]})
    (home / "images/validation/._a.jpg").write_bytes(b"what macOS leaves")
    (home / "annotations/validation/._a.png").write_bytes(b"what macOS leaves")
    for name in ("images/validation/__MACOSX/b.jpg", "annotations/validation/.trash/c.png"):
        write_image(home / name)
    (home / "images/validation/notes.txt").write_text("")
    assert MaskDataset("ade20k", tmp_path).names == ["a"]


def test_a_mask_of_another_size_is_named_with_both_sizes_before_work_starts(tmp_path):
    home = voc_tree(tmp_path, {"a": [[0, 0]], "b": [[0, 0]]})
    write_mask(home / "SegmentationClass/b.png", [[0], [0]])
    dataset = MaskDataset("voc", tmp_path)
    dataset.check([0])
    with pytest.raises(
        DatasetError, match=r"b\.png: expected the 2x1 pixels of its image b\.jpg, received 1x2"
    ):
        dataset.check([0, 1])


def test_a_broken_image_is_left_to_the_evaluation(tmp_path):
    home = voc_tree(tmp_path, {"a": [[0, 0]]})
    (home / "JPEGImages/a.jpg").write_bytes(b"no image")
    MaskDataset("voc", tmp_path).check([0])


def test_an_unknown_benchmark_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(InputError, match="no dataset 'vok': choose from voc"):
        MaskDataset("vok", tmp_path)
