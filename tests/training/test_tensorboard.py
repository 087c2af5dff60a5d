"""What is shown on the way: the event file holds each round's numbers, and pictures of groups and
masks that decode.
"""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tiny_recipe import tiny_recipe

from tf_groupvit.errors import DatasetError, TrainingError
from tf_groupvit.scenes.scene import CLASSES, scene
from tf_groupvit.segmentation.palette import group_colors
from tf_groupvit.training.callbacks import History, TensorBoard
from tf_groupvit.training.caption_shards import Record
from tf_groupvit.training.caption_sources import first_images
from tf_groupvit.training.trainer import HISTORY, PICTURES, build, train
from tf_groupvit.training.validation import SHOWN_AT

RECIPE = dict(steps=4, save_every=2, validate_every=4, validation_scenes=2)


def events(folder: Path) -> dict[str, dict[int, list[bytes] | float]]:
    """Name -> step -> number, or the fields of an image summary."""
    found: dict[str, dict[int, list[bytes] | float]] = {}
    for file in sorted(folder.iterdir()):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                array = tf.make_ndarray(value.tensor)
                number = value.metadata.plugin_data.plugin_name == "scalars"
                found.setdefault(value.tag, {})[event.step] = (
                    float(array) if number else array.tolist()
                )
    return found


@pytest.mark.slow
def test_a_run_writes_its_numbers_each_round_and_its_pictures_when_it_measures(tmp_path):
    lines = train(tiny_recipe(**RECIPE), tmp_path / "run", seed=3, tensorboard=tmp_path / "shown")
    found = events(tmp_path / "shown")
    for name in ("loss", "caption_loss", "group_word_loss", "images_per_second"):
        assert found[name] == pytest.approx({line["step"]: line[name] for line in lines}, rel=1e-5)
    assert found["val_miou"] == pytest.approx({4: lines[-1]["val_miou"]}, rel=1e-5)
    assert found["learning_rate"].keys() == {2, 4} and found["learning_rate"][4] < 3e-3
    for name in ("images", "groups of stage 1", "masks"):
        width, height, *files = found[name][4]
        assert found[name].keys() == {4} and len(files) == PICTURES
        for file in files:
            assert (
                tf.io.decode_png(file).shape
                == (int(height), int(width), 3)
                == (SHOWN_AT, SHOWN_AT, 3)
            )
    assert lines == train(
        tiny_recipe(**RECIPE), tmp_path / "run", seed=3
    )  # it is no part of the recipe


def test_pictures_are_held_out_scenes_with_every_patch_in_its_groups_colour(tmp_path):
    pictures = build(tiny_recipe(), tmp_path).make_pictures().draw()
    image, groups = (np.asarray(pictures[name][1]) for name in ("images", "groups of stage 1"))
    from tf_groupvit.training.validation import SEED

    assert np.array_equal(image[::4, ::4], scene(SEED, 1, 64).image)
    paint = np.abs(2 * groups.astype(int) - image)  # half of each, rounded
    near = np.abs(paint[:, :, None] - group_colors(4)).max(axis=-1).min(axis=-1)
    assert near.max() <= 1
    assert len(pictures["masks"]) == PICTURES and not np.array_equal(pictures["masks"][1], image)


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    watcher = TensorBoard(
        tmp_path / "file" / "shown", History(tmp_path / HISTORY, 1, dict, 1), dict
    )
    with pytest.raises(TrainingError, match="cannot be written for TensorBoard") as caught:
        watcher.on_train_begin()
    assert "\n" not in str(caught.value)


def test_images_that_cannot_be_read_are_passed_over(tmp_path):
    class Source:
        shards = (tmp_path,)

        def read(self, shard):
            file = tf.io.encode_png(np.full((2, 3, 3), 7, np.uint8)).numpy()
            yield from (
                Record("a", lambda: (b"no picture", "a caption")),
                Record("b", lambda: (file, "a caption")),
            )

    (image,) = first_images(Source(), 2)
    assert image.shape == (2, 3, 3) and (image == 7).all()
    broken = Source()
    broken.read = lambda shard: iter([Record("a", lambda: (b"no picture", "a caption"))])
    with pytest.raises(DatasetError, match="nothing to show"):
        first_images(broken, 2)


def test_the_scenes_words_are_the_classes_of_the_masks(tmp_path):
    assert build(tiny_recipe(), tmp_path).make_pictures().words == list(CLASSES)
