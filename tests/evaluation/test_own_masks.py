"""Pictures and masks of one's own: pairs by name, and IoU that was worked out by hand."""

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image
from trees import Answers, voc_tree, write_image, write_mask

from tf_groupvit.errors import DatasetError, InputError
from tf_groupvit.evaluation.datasets import BENCHMARKS, MaskDataset, OwnMaskDataset, open_dataset
from tf_groupvit.evaluation.evaluator import evaluate
from tf_groupvit.segmentation.class_names import BACKGROUND

MASK = [[0, 0, 1, 1], [0, 2, 2, 255]]
# Of class 0 two of three pixels, and one too many; of class 1 one of two, and one too many; class 2
# but for one.
ANSWER = [[0, 0, 1, 0], [1, 2, 2, 2]]
IOU = [2 / 4, 1 / 3, 2 / 2]


def pair(root, name="a", numbers=MASK, kind="gray", suffix=".jpg"):
    write_image(root / f"images/{name}{suffix}", len(numbers), len(numbers[0]))
    write_mask(root / f"masks/{name}.png", numbers, kind)


def own(root, classes="dog,cat,sky", **options):
    return OwnMaskDataset(root / "images", root / "masks", classes, **options)


@pytest.mark.parametrize("kind", ["gray", "palette", "sixteen"])
def test_iou_by_hand(tmp_path, kind):
    pair(tmp_path, kind=kind)
    scores = evaluate(Answers(ANSWER), own(tmp_path))
    assert list(scores.iou) == ["dog", "cat", "sky"]
    assert list(scores.iou.values()) == pytest.approx(IOU, abs=1e-12)
    assert scores.miou == pytest.approx(sum(IOU) / 3, abs=1e-12)
    assert scores.pixel_accuracy == 5 / 7
    assert scores.counts.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 2]]
    assert (scores.images, scores.failures) == (1, {})
    assert scores.settings == {
        "images": str(tmp_path / "images"),
        "masks": str(tmp_path / "masks"),
        "numbers": {"dog": [0], "cat": [1], "sky": [2]},
        "ignore": [255],
    }


def test_with_a_background_0_is_the_background(tmp_path):
    pair(tmp_path)
    dataset = own(tmp_path, "cat,sky", background=True)
    assert dataset.class_names == (BACKGROUND, "cat", "sky")
    assert dataset.prompts == ("cat", "sky")
    assert list(evaluate(Answers(ANSWER), dataset).iou.values()) == pytest.approx(IOU)


def test_labels_are_those_of_the_known_datasets(tmp_path):
    home = voc_tree(tmp_path, {"a": [[0, 1, 20], [255, 15, 0]]})
    folders, prompts = (home / "JPEGImages", home / "SegmentationClass"), BENCHMARKS["voc"].prompts
    (tmp_path / "table.txt").write_text(
        "\n".join(f"{k} {name}" for k, name in enumerate(prompts, 1))
    )
    for name, dataset in (
        ("voc", OwnMaskDataset(*folders, prompts, background=True)),
        ("voc20", OwnMaskDataset(*folders, table=tmp_path / "table.txt", ignore=[0, 255])),
    ):
        known = MaskDataset(name, tmp_path)
        assert tuple(dataset.class_names) == tuple(known.class_names)
        assert dataset.labels(0).tolist() == known.labels(0).tolist()


def test_a_table_gives_numbers_to_names(tmp_path):
    (tmp_path / "table.csv").write_text("number,name\n10,sky\n40000,dog\n7,dog\n3,unsure\n")
    pair(tmp_path, numbers=[[10, 40000], [7, 3]], kind="sixteen")
    dataset = own(tmp_path, "dog|puppy,sky", table=tmp_path / "table.csv")
    assert dataset.labels(0).tolist() == [[1, 0], [0, 255]]
    assert dataset.numbering.left_out == ("unsure",)
    assert own(tmp_path, None, table=tmp_path / "table.csv").class_names == ("sky", "dog", "unsure")


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_colors_are_classes_by_the_labelmap_of_cvat(tmp_path, mode):
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::", "dog:255,0,0::"]
    (tmp_path / "labelmap.txt").write_text(
        "\n".join([*lines, "cat:0, 10, 200::a,b", "ignored:9,9,9::"])
    )
    write_image(tmp_path / "images/a.jpg", 2, 3)
    (tmp_path / "masks").mkdir()
    red, blue, black, void = [255, 0, 0], [0, 10, 200], [0, 0, 0], [9, 9, 9]
    colors = np.array([[red, blue, black], [void, red, red]], np.uint8)
    Image.fromarray(colors).convert(mode, palette=1).save(tmp_path / "masks/a.png")
    dataset = own(tmp_path, None, table=tmp_path / "labelmap.txt")
    assert dataset.class_names == ("dog", "cat")
    assert dataset.labels(0).tolist() == [[0, 1, 255], [255, 0, 0]]
    dataset = own(tmp_path, "cat", table=tmp_path / "labelmap.txt", background=True)
    assert dataset.labels(0).tolist() == [[0, 1, 0], [255, 0, 0]]
    with pytest.raises(InputError, match=r"has colors, not numbers"):
        own(tmp_path, None, table=tmp_path / "labelmap.txt", ignore=[0])
    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "masks/a.png")
    with pytest.raises(DatasetError, match=r"the color 1,2,3, is not in the table of colors"):
        own(tmp_path, None, table=tmp_path / "labelmap.txt").check([0])


def test_numbers_that_do_not_count_are_chosen(tmp_path):
    pair(tmp_path, numbers=[[0, 1, 2, 9]])
    with pytest.raises(DatasetError, match=r"a\.png: label 2 .*0\.\.1, 255 where .*--ignore"):
        evaluate(Answers(), own(tmp_path, "dog,cat"))
    dataset = own(tmp_path, "dog,cat", ignore=[2, 9])
    assert dataset.labels(0).tolist() == [[0, 1, 255, 255]]
    with pytest.raises(DatasetError, match=r"label 9 .*, 2 where nothing counts"):
        own(tmp_path, "dog,cat", ignore=[2]).check([0])


def test_over_255_classes_are_counted(tmp_path):
    pair(tmp_path, numbers=[[0, 255, 299, 65535]], kind="sixteen")
    dataset = own(tmp_path, [f"class {k}" for k in range(300)], ignore=[65535])
    assert dataset.labels(0).tolist() == [[0, 255, 299, 65535]]
    assert own(tmp_path, [f"class {k}" for k in range(300)]).labels(0).max() == 65535
    pair(tmp_path, "b", [[300]], "sixteen")
    with pytest.raises(DatasetError, match=r"label 300 .*expected 0\.\.299, 65535 where nothing"):
        own(tmp_path, [f"class {k}" for k in range(300)]).check([1])
    scores = evaluate(Answers([[0, 255, 255, 1]]), dataset)
    assert [scores.iou[f"class {k}"] for k in (0, 255, 299, 1)] == [1, 1 / 2, 0, None]


# Pairs


def test_pairs_have_one_path_but_for_the_suffix(tmp_path):
    for name, suffix in (
        ("a.b", ".JPG"),
        ("day/one", ".png"),
        ("day/two", ".webp"),
        ("ü狗 1", ".jpg"),
    ):
        pair(tmp_path, name, suffix=suffix)
    write_image(tmp_path / "images/.hidden.jpg")
    (tmp_path / "masks/notes.txt").write_text("no mask")
    dataset = own(tmp_path)
    assert dataset.names == ["a.b", "day/one", "day/two", "ü狗 1"]
    assert dataset.unpaired == {}
    dataset.check(range(4))


def test_accents_may_be_written_apart(tmp_path):
    composed, apart = (unicodedata.normalize(form, "Bäume/ö") for form in ("NFC", "NFD"))
    assert composed != apart
    write_image(tmp_path / f"images/{composed}.jpg")
    write_mask(tmp_path / f"masks/{apart}.png", [[0, 1], [1, 1]])
    assert own(tmp_path).names == [composed]


def write_segmented(folder, name, numbers=MASK):
    """What ``segment`` writes of a picture, as far as it is pictures."""
    write_mask(folder / f"{name}.labels.png", numbers)
    for view in ("overlay", "colors", "side-by-side"):
        write_image(folder / f"{name}.{view}.png", len(numbers), len(numbers[0]))


def test_what_segment_writes_are_masks(tmp_path):
    for name, suffix in (("a", ".jpg"), ("day/b.c", ".png"), ("x.labels", ".jpg")):
        write_image(tmp_path / f"images/{name}{suffix}", 2, 4)
    for name in ("a", "day/b.c"):
        write_segmented(tmp_path / "masks", name)
    write_mask(tmp_path / "masks/x.labels.png", MASK)  # of a picture of that name
    dataset = own(tmp_path)
    assert (dataset.names, dataset.unpaired) == (["a", "day/b.c", "x.labels"], {})
    assert dataset.labels(1).tolist() == MASK
    write_mask(tmp_path / "masks/a.png", MASK)
    with pytest.raises(DatasetError, match=r"a\.png and a\.labels\.png have one name"):
        own(tmp_path)


def test_segment_may_have_written_beside_the_pictures(tmp_path):
    for name in ("a.jpg", "b.png", "c.png"):
        write_image(tmp_path / name, 2, 4)
    for name in ("a", "b"):
        write_segmented(tmp_path, name)
    dataset = OwnMaskDataset(tmp_path, tmp_path, "dog,cat,sky")
    assert (dataset.names, dataset.unpaired) == (["a", "b"], {"c": "it has no mask"})
    assert dataset.labels(1).tolist() == MASK


def test_one_folder_may_hold_both_or_one_the_other(tmp_path):
    write_image(tmp_path / "a.jpg")
    write_mask(tmp_path / "a.png", [[0, 1], [1, 1]])
    assert OwnMaskDataset(tmp_path, tmp_path, "dog,cat").names == ["a"]
    write_mask(tmp_path / "masks/a.png", [[0, 1], [1, 1]])
    (tmp_path / "a.png").unlink()
    dataset = OwnMaskDataset(tmp_path, tmp_path / "masks", "dog,cat")
    assert (dataset.names, dataset.unpaired) == (["a"], {})
    write_image(tmp_path / "masks/photos/a.png")
    dataset = OwnMaskDataset(tmp_path / "masks/photos", tmp_path / "masks", "dog,cat")
    assert (dataset.names, dataset.unpaired) == (["a"], {})


def test_what_has_no_partner_is_named_and_the_rest_is_measured(tmp_path):
    pair(tmp_path)
    write_image(tmp_path / "images/b.jpg")
    write_mask(tmp_path / "masks/c.png", MASK)
    scores = evaluate(Answers(ANSWER), own(tmp_path))
    assert scores.images == 1
    assert scores.failures == {"b": "it has no mask", "c": "its mask has no picture"}


@pytest.mark.parametrize(
    ("images", "masks", "words"),
    [
        ([], ["a.png"], "images: there is no such folder"),
        (["a.jpg"], [], "masks: there is no such folder"),
        (["a.txt"], ["a.png"], "images: expected pictures .*found none"),
        (["a.jpg"], ["a.txt"], r"masks: expected masks \(.bmp, .png.*found none"),
        (["a.jpg"], ["a.json"], "found none: COCO annotations are given as the file itself"),
        (["a.jpg"], ["deep/a.json"], "found none: COCO annotations are given as the file itself"),
        (["a.jpg", "a.png"], ["a.png"], r"a\.jpg and a\.png have one name"),
        (["a.jpg"], ["a.png", "a.tif"], r"a\.png and a\.tif have one name"),
        (["a1.jpg", "a2.jpg"], ["b.png"], "the pictures are a1, a2, and the masks b"),
    ],
)
def test_folders_that_do_not_fit_are_refused_in_one_line(tmp_path, images, masks, words):
    for folder, names in (("images", images), ("masks", masks)):
        for name in names:
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).touch()
    with pytest.raises(DatasetError, match=words) as caught:
        own(tmp_path)
    assert "\n" not in str(caught.value)


def test_masks_that_cannot_be_used_are_named_before_work_starts(tmp_path):
    pair(tmp_path)
    for write, words in (
        (lambda path: Image.new("RGB", (4, 2)).save(path), r"a\.png: expected one class number"),
        (lambda path: Image.new("L", (3, 2)).save(path), r"a\.png: expected the 4x2 pixels"),
        (lambda path: path.write_bytes(b"no picture"), r"a\.png: expected an image file"),
    ):
        write(tmp_path / "masks/a.png")
        with pytest.raises(DatasetError, match=words):
            evaluate(Answers(), own(tmp_path))


def test_masks_of_turned_photos_are_turned_as_those_of_the_known_datasets(tmp_path):
    pair(tmp_path, numbers=[[0, 1], [2, 2]])
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (2, 2)).save(tmp_path / "images/a.jpg", exif=exif)
    with pytest.raises(DatasetError, match="--mask-orientation"):
        evaluate(Answers(), own(tmp_path))
    assert own(tmp_path, mask_orientation="as-stored").labels(0).tolist() == [[2, 2], [1, 0]]
    scores = evaluate(Answers([[0, 1], [2, 2]]), own(tmp_path), mask_orientation="as-photo")
    assert scores.miou == 1
    with pytest.raises(InputError, match="expected one of as-photo, as-stored"):
        own(tmp_path, mask_orientation="upright")


def test_a_state_belongs_to_its_masks_and_numbers(tmp_path):
    pair(tmp_path)
    state = tmp_path / "state.json"
    first = evaluate(Answers(ANSWER), own(tmp_path), state=state)
    again = evaluate(Answers(), own(tmp_path), state=state)
    assert (again.iou, again.counts.tolist()) == (first.iou, first.counts.tolist())
    with pytest.raises(InputError, match="another evaluation: ignore was"):
        evaluate(Answers(), own(tmp_path, ignore=[255, 9]), state=state)


def test_the_known_datasets_are_opened_and_these_are_made():
    with pytest.raises(InputError, match=r"OwnMaskDataset\(images, masks, classes\)"):
        open_dataset("masks")


# COCO


def coco(root, annotations, size=(4, 3), categories=((1, "dog"), (5, "cat")), name="a.jpg"):
    """One picture (width, height) with its annotations."""
    width, height = size
    write_image(root / "images" / name, height, width)
    content = {
        "images": [{"id": 7, "file_name": name, "width": width, "height": height}],
        "categories": [{"id": number, "name": called} for number, called in categories],
        "annotations": [
            {"id": k, "image_id": 7, "category_id": number, "segmentation": segmentation}
            for k, (number, segmentation) in enumerate(annotations)
        ],
    }
    (root / "coco.json").write_text(json.dumps(content))
    return root / "coco.json"


def labels_of(root, file, **options):
    return OwnMaskDataset(root / "images", file, **options).labels(0).tolist()


SQUARE = [[1, 0, 3, 0, 3, 2, 1, 2]]  # the columns 1 and 2 of the first two rows
RUNS = {"size": [3, 4], "counts": [1, 4, 7]}  # down the columns: one left out, then four


def test_regions_by_hand(tmp_path):
    file = coco(tmp_path, [(1, SQUARE)])
    assert labels_of(tmp_path, file) == [[255, 0, 0, 255], [255, 0, 0, 255], [255] * 4]
    assert labels_of(tmp_path, file, background=True) == [[0, 1, 1, 0], [0, 1, 1, 0], [0] * 4]
    file = coco(tmp_path, [(5, RUNS)])
    assert labels_of(tmp_path, file) == [[255, 1, 255, 255], [1, 1, 255, 255], [1, 255, 255, 255]]
    # The smaller region lies over the larger one, whatever their order.
    for annotations in ([(5, SQUARE), (1, {"size": [3, 4], "counts": [3, 1, 8]})],) * 2:
        annotations.reverse()
        file = coco(tmp_path, annotations)
        assert labels_of(tmp_path, file)[:2] == [[255, 0, 1, 255], [255, 1, 1, 255]]


def test_numbers_of_polygons_may_be_texts_and_a_region_may_lie_outside(tmp_path):
    file = coco(tmp_path, [(1, [[str(number) for number in SQUARE[0]]])])
    assert labels_of(tmp_path, file)[0] == [255, 0, 0, 255]
    file = coco(tmp_path, [(1, [[-3, -3, -1, -3, -1, -1]])])
    assert labels_of(tmp_path, file) == [[255] * 4] * 3


def test_scores_of_regions_by_hand(tmp_path):
    file = coco(tmp_path, [(1, SQUARE), (5, {"size": [3, 4], "counts": [9, 3]})])
    answer = [[0, 1, 1, 2], [0, 1, 0, 1], [0, 0, 0, 2]]
    dataset = OwnMaskDataset(tmp_path / "images", file, "dog,cat", background=True)
    scores = evaluate(Answers(answer), dataset)
    assert scores.iou == {BACKGROUND: 5 / 6, "dog": 3 / 5, "cat": 2 / 3}


def test_run_lengths_are_those_of_pycocotools(tmp_path):
    mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    from tf_groupvit.evaluation.coco import region_of

    for _ in range(50):
        height, width = rng.integers(1, 60, 2)
        drawn = (rng.random((height, width)) < rng.random()).astype(np.uint8)
        drawn = drawn.repeat(rng.integers(1, 40), 1)
        packed = mask.encode(np.asfortranarray(drawn))
        packed["counts"] = packed["counts"].decode()
        assert (region_of(packed, drawn.shape[::-1]) == drawn).all()


def test_only_the_classes_that_are_asked_for_count(tmp_path):
    file = coco(tmp_path, [(1, SQUARE), (5, RUNS)])
    dataset = OwnMaskDataset(tmp_path / "images", file, "cat")
    assert (dataset.class_names, dataset.numbering.left_out) == (("cat",), ("dog",))
    assert dataset.labels(0)[0].tolist() == [255, 0, 255, 255]
    with pytest.raises(InputError, match=r"coco\.json: .* no number of the class 'dogs': did you"):
        OwnMaskDataset(tmp_path / "images", file, "dogs")


def test_pictures_of_annotations_are_found_by_path(tmp_path):
    file = coco(tmp_path, [(1, SQUARE)], name="day/ä.jpg")
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = "day\\" + unicodedata.normalize("NFD", "ä") + ".png"
    content["images"].append({"id": 8, "file_name": "gone.jpg", "width": 1, "height": 1})
    file.write_text(json.dumps(content))
    dataset = OwnMaskDataset(tmp_path / "images", file)
    assert (dataset.names, dataset.unpaired) == (["day/ä"], {"gone": "its mask has no picture"})
    dataset.check([0])


def test_regions_of_turned_photos_lie_as_their_size_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored pixels are turned clockwise to be seen upright
    for size, expected in (
        ((4, 3), [[255] * 3, [255, 0, 0], [255, 0, 0], [255] * 3]),  # of the stored pixels
        ((3, 4), [[255, 0, 0], [255, 0, 0], [255] * 3, [255] * 3]),  # of the upright photo
    ):
        file = coco(tmp_path, [(1, SQUARE)], size)
        Image.new("RGB", (4, 3)).save(tmp_path / "images/a.jpg", exif=exif)
        assert labels_of(tmp_path, file) == expected


def panoptic(root, segments, colors, folder="panoptic"):
    """Panoptic annotations of one picture; ``segments``: {number: category}, ``colors`` (H, W)."""
    write_image(root / "images/a.jpg", len(colors), len(colors[0]))
    numbers = np.array(colors)
    rgb = np.stack([numbers & 255, numbers >> 8 & 255, numbers >> 16], -1).astype(np.uint8)
    (root / folder).mkdir(exist_ok=True)
    Image.fromarray(rgb).save(root / folder / "7.png")
    size = {"width": len(colors[0]), "height": len(colors)}
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", **size}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 5, "name": "cat"}],
        "annotations": [
            {
                "image_id": 7,
                "file_name": "7.png",
                "segments_info": [{"id": k, "category_id": of} for k, of in segments.items()],
            }
        ],
    }
    (root / "panoptic.json").write_text(json.dumps(content))
    return root / "panoptic.json"


@pytest.mark.parametrize("folder", ["panoptic", "."])
def test_panoptic_pictures_by_hand(tmp_path, folder):
    colors = [[0, 3, 3, 70000], [300, 300, 3, 70000]]
    file = panoptic(tmp_path, {3: 5, 300: 1, 70000: 5}, colors, folder)
    assert labels_of(tmp_path, file) == [[255, 1, 1, 1], [0, 0, 1, 1]]
    # What nobody has labeled does not count, and other categories are background.
    labels = labels_of(tmp_path, file, classes="dog", background=True)
    assert labels == [[255, 0, 0, 0], [1, 1, 0, 0]]


def test_panoptic_pictures_that_cannot_be_used_are_named(tmp_path):
    file = panoptic(tmp_path, {3: 5}, [[0, 3], [3, 4]])
    with pytest.raises(DatasetError, match=r"7\.png: 4, the color 4,0,0, is no segment of"):
        OwnMaskDataset(tmp_path / "images", file).check([0])
    Image.new("L", (2, 2)).save(tmp_path / "panoptic/7.png")
    with pytest.raises(DatasetError, match=r"7\.png: expected a PNG with the colors"):
        OwnMaskDataset(tmp_path / "images", file).check([0])
    (tmp_path / "panoptic/7.png").unlink()
    with pytest.raises(DatasetError, match=r"panoptic/7\.png: there is no such file"):
        OwnMaskDataset(tmp_path / "images", file).check([0])
    content = json.loads(file.read_text())
    for change, words in (
        ({"annotations": content["annotations"] * 2}, "a.jpg has two panoptic annotations"),
        ({"categories": content["categories"][:1]}, "annotation 3 is of picture 7 and category 5"),
        ({"annotations": [*content["annotations"], {"image_id": 7}]}, "expected COCO annotations"),
    ):
        file.write_text(json.dumps({**content, **change}))
        with pytest.raises(DatasetError, match=words):
            OwnMaskDataset(tmp_path / "images", file)


def test_a_picture_without_a_panoptic_annotation_has_no_mask(tmp_path):
    file = panoptic(tmp_path, {3: 5}, [[3, 3]])
    content = json.loads(file.read_text())
    content["images"].append({"id": 8, "file_name": "b.jpg", "width": 2, "height": 1})
    file.write_text(json.dumps(content))
    write_image(tmp_path / "images/b.jpg")
    assert OwnMaskDataset(tmp_path / "images", file).unpaired == {"b": "it has no mask"}


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        (None, "boxes alone"),
        ([], "boxes alone"),
        ([[1, 2, 3, 4]], "expected polygons"),
        ([[1, 2, 3, 4, 5]], "expected polygons"),
        ([["a"] * 6], "could not convert"),
        ([[1, 1, 2, 1, 1e9, 2]], "far outside"),
        ([[1, 1, 2, 1, float("nan"), 2]], "far outside"),
        ([1, 2, 3, 4, 5, 6], "expected polygons"),
        ({"counts": [12]}, "its size is None"),
        ({"size": [4, 3], "counts": [12]}, r"its size is \[4, 3\], and the picture's \[3, 4\]"),
        ({"size": [3, 4]}, "counts"),
        ({"size": [3, 4], "counts": [1, 4]}, "do not add up to 12"),
        ({"size": [3, 4], "counts": [-1, 13]}, "do not add up"),
        ({"size": [3, 4], "counts": "1"}, "do not add up"),
        ({"size": [3, 4], "counts": ""}, "do not add up"),
        ({"size": [3, 4], "counts": "o"}, "cut short"),
        ({"size": [3, 4], "counts": "o" * 99}, "no text of COCO"),
        ({"size": [3, 4], "counts": "é"}, "no text of COCO"),
    ],
)
def test_a_region_that_cannot_be_drawn_is_named(tmp_path, segmentation, words):
    file = coco(tmp_path, [(1, segmentation)])
    with pytest.raises(DatasetError, match=rf"coco\.json: a\.jpg: annotation 0: .*{words}"):
        OwnMaskDataset(tmp_path / "images", file).check([0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: "no JSON", "cannot be read as JSON"),
        (lambda content: [], "expected COCO annotations"),
        (lambda content: {"images": []}, "expected COCO annotations"),
        (lambda content: {**content, "categories": []}, "annotation 0 is of picture 7"),
        (lambda content: {**content, "images": [1]}, "expected COCO annotations"),
        (lambda content: {**content, "images": content["images"] * 2}, "two pictures"),
        (lambda content: {**content, "categories": content["categories"] * 2}, "of its own"),
        (
            lambda content: {**content, "images": [{**content["images"][0], "width": 10**9}]},
            "1000000000x3 pixels",
        ),
        (
            lambda content: {**content, "images": [{**content["images"][0], "width": 3}]},
            r"a\.jpg: expected the 4x3 pixels of its image a\.jpg, received 3x3",
        ),
    ],
)
def test_annotations_that_cannot_be_used_are_refused_in_one_line(tmp_path, change, words):
    file = coco(tmp_path, [(1, SQUARE)])
    content = change(json.loads(file.read_text()))
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DatasetError, match=words) as caught:
        OwnMaskDataset(tmp_path / "images", file).check([0])
    assert "\n" not in str(caught.value)


def test_without_pycocotools_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    file = coco(tmp_path, [(1, RUNS)])
    OwnMaskDataset(tmp_path / "images", file).check([0])  # run lengths need no drawing
    file = coco(tmp_path, [(1, SQUARE)])
    with pytest.raises(DatasetError, match=r"pip install 'tf-groupvit\[annotate\]'"):
        OwnMaskDataset(tmp_path / "images", file).check([0])


def test_annotations_take_no_table_and_other_files_are_no_masks(tmp_path):
    file = coco(tmp_path, [(1, SQUARE)])
    with pytest.raises(InputError, match="numbers its categories itself"):
        OwnMaskDataset(tmp_path / "images", file, ignore=[3])
    (tmp_path / "masks.zip").touch()
    with pytest.raises(DatasetError, match=r"masks\.zip: expected a folder of masks, or COCO"):
        OwnMaskDataset(tmp_path / "images", tmp_path / "masks.zip", "dog")
