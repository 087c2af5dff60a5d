"""Masks beside photos that EXIF turns: scores are the same whether they lie as the photo is seen or
as it is stored.
"""

import io

import numpy as np
import pytest
from PIL import Image
from trees import voc_tree

from tf_groupvit.errors import DatasetError, InputError
from tf_groupvit.evaluation.calibration import calibrate
from tf_groupvit.evaluation.datasets import MaskDataset, SceneDataset
from tf_groupvit.evaluation.evaluator import evaluate
from tf_groupvit.evaluation.masks import size_and_orientation

ORIENTATION = 0x0112
# EXIF orientation -> from what a person sees to what the file holds, by Pillow's own names: not our
# code.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
BLOCK = 16  # pixels that JPEG codes at once


def seen(square):
    """Labels of VOC (H, W) that no turn leaves alone, in blocks; their picture is ``50 * label``."""
    labels = np.array(
        [[0, 1, 2], [3, 4, 1], [2, 0, 4]] if square else [[0, 1, 2], [3, 4, 1]], np.uint8
    )
    return labels.repeat(BLOCK, 0).repeat(BLOCK, 1)


def exif_of(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def stored(labels, orientation):
    picture = Image.fromarray(labels)
    return picture if STORED[orientation] is None else picture.transpose(STORED[orientation])


def tree(root, orientation, square, lies):
    """One photo with its orientation, and its mask, which lies as said."""
    home = voc_tree(root, {"a": [[0]]})
    labels = seen(square)
    photo = stored(labels, orientation).point(lambda label: 50 * label).convert("RGB")
    photo.save(home / "JPEGImages/a.jpg", quality=95, exif=exif_of(orientation))
    mask = stored(labels, orientation) if lies == "as-stored" else Image.fromarray(labels)
    mask.save(home / "SegmentationClass/a.png")
    return home


def perfect(image):
    """What a segmenter that is never wrong makes of such a picture."""
    return np.round(image[..., 0] / 50).astype(int)


def told(orientation, square):
    """Whether the sizes tell how the mask lies."""
    return orientation >= 5 and not square


@pytest.mark.parametrize("lies", ["as-photo", "as-stored"])
@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("orientation", STORED)
def test_a_mask_scores_1_however_it_lies(tmp_path, orientation, square, lies):
    tree(tmp_path, orientation, square, lies)
    scores = evaluate(perfect, MaskDataset("voc", tmp_path), mask_orientation=lies)
    assert (scores.miou, scores.pixel_accuracy) == (1.0, 1.0)
    assert scores.settings == {"mask_orientation": lies}
    dataset, shown = MaskDataset("voc", tmp_path), []
    if orientation == 1 or told(orientation, square):
        assert evaluate(perfect, dataset).miou == 1.0
    else:
        with pytest.raises(
            DatasetError, match=rf"a\.png.* a\.jpg .*EXIF.*{orientation}.*--mask-orientation"
        ) as caught:
            evaluate(shown.append, dataset)
        assert not shown and "\n" not in str(caught.value)


@pytest.mark.parametrize(("lies", "said"), [("as-photo", "as-stored"), ("as-stored", "as-photo")])
def test_the_option_decides_only_where_sizes_do_not_tell(tmp_path, lies, said):
    tree(tmp_path, 6, False, lies)
    assert evaluate(perfect, MaskDataset("voc", tmp_path, said)).miou == 1.0


def test_the_headers_of_all_pictures_are_read_before_any_mask_is(tmp_path):
    home = tree(tmp_path, 3, True, "as-photo")
    (home / "ImageSets/Segmentation/val.txt").write_text("b\na\n")
    Image.new("RGB", (2, 1)).save(home / "JPEGImages/b.jpg")
    Image.new("L", (2, 1), 77).save(home / "SegmentationClass/b.png")
    with pytest.raises(DatasetError, match=r"a\.png: its photo"):
        MaskDataset("voc", tmp_path).check([0, 1])
    with pytest.raises(DatasetError, match=r"b\.png: label 77"):
        MaskDataset("voc", tmp_path, "as-photo").check([0, 1])


def test_a_mask_that_says_itself_how_it_lies_is_turned_so(tmp_path):
    home = tree(tmp_path, 6, True, "as-stored")
    with Image.open(home / "SegmentationClass/a.png") as mask:
        mask.save(home / "SegmentationClass/a.png", exif=exif_of(6))
    for said in (None, "as-photo", "as-stored"):
        assert evaluate(perfect, MaskDataset("voc", tmp_path, said)).miou == 1.0


def test_calibration_turns_masks_as_well(tmp_path):
    tree(tmp_path, 8, True, "as-stored")

    class Segmenter:
        def labels_by_threshold(self, image, thresholds):
            return [perfect(image) for _ in thresholds]

    calibration = calibrate(Segmenter(), MaskDataset("voc", tmp_path, "as-stored"), 1)
    assert set(calibration.miou.values()) == {1.0}
    with pytest.raises(DatasetError, match="--mask-orientation"):
        calibrate(Segmenter(), MaskDataset("voc", tmp_path), 1)


def test_a_run_does_not_go_on_with_masks_that_lie_otherwise(tmp_path):
    tree(tmp_path / "voc", 3, False, "as-photo")
    state = tmp_path / "state.json"
    evaluate(perfect, MaskDataset("voc", tmp_path / "voc", "as-photo"), state=state)
    with pytest.raises(InputError, match='mask_orientation was "as-photo" and is "as-stored" now'):
        evaluate(perfect, MaskDataset("voc", tmp_path / "voc", "as-stored"), state=state)


def test_another_word_and_datasets_without_such_masks_are_refused(tmp_path):
    tree(tmp_path, 1, True, "as-photo")
    with pytest.raises(InputError, match="expected one of as-photo, as-stored"):
        MaskDataset("voc", tmp_path, "upright")
    with pytest.raises(InputError, match="leave it out for scenes"):
        evaluate(perfect, SceneDataset(0, 1), mask_orientation="as-photo")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "behind.png", "a.webp"])
def test_size_and_orientation_are_told_by_headers_alone(tmp_path, name, monkeypatch):
    Image.new("RGB", (3, 2)).save(tmp_path / name, exif=exif_of(6))
    if name == "behind.png":  # where some programs write it
        content = (tmp_path / name).read_bytes()
        start = content.index(b"eXIf") - 4
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        (tmp_path / name).write_bytes(
            content[:start] + content[end:-12] + content[start:end] + content[-12:]
        )
    else:
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)  # no pixel is decoded
    assert size_and_orientation(tmp_path / name) == ((3, 2), 6)


def test_broken_exif_and_an_unknown_orientation_turn_nothing(tmp_path):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.jpg", exif=b"Exif\0\0nonsense")
    Image.new("RGB", (3, 2)).save(tmp_path / "b.jpg", exif=exif_of(9))
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, "PNG")
    (tmp_path / "cut.png").write_bytes(file.getvalue()[:-20])
    for name in ("a.jpg", "b.jpg", "cut.png"):
        assert size_and_orientation(tmp_path / name) == ((3, 2), 1)
