"""A segmenter saved with its classes and settings, and loaded: what comes back, and what is refused."""

import json
import shutil

import pytest
from pictures import noise

from tf_groupvit.errors import GroupViTError, InputError
from tf_groupvit.segmentation.segmenter import Segmenter


@pytest.mark.slow
def test_a_saved_segmenter_comes_back_with_its_classes_and_settings(make, tmp_path):
    saved = make(background=0.3, mode="window", protocol="paper")
    saved.save_pretrained(tmp_path / "saved")
    found = Segmenter.from_pretrained(tmp_path / "saved")
    assert found.class_names == saved.class_names
    assert found.settings == saved.settings
    pixels = noise(40, 70)
    assert (found(pixels).labels == saved(pixels).labels).all()
    assert found.with_classes("cat").class_names == ["background", "cat"]
    whole = Segmenter.from_pretrained(tmp_path / "saved", mode="whole", background=None)
    assert (whole.settings.mode, whole.settings.background) == ("whole", None)
    other = Segmenter.from_pretrained(tmp_path / "saved", classes=["cat"])
    assert other.settings.mode == "whole"  # classes of one's own: settings of one's own


def test_a_saved_segmenter_without_tokenizer_comes_back(segmenter, tmp_path):
    Segmenter(segmenter.model, None, segmenter.processor, segmenter.classes).save_pretrained(tmp_path / "saved")
    found = Segmenter.from_pretrained(tmp_path / "saved")
    assert found.tokenizer is None
    assert found.class_names == segmenter.class_names


def test_a_folder_without_classes_asks_for_them(folder):
    with pytest.raises(InputError, match="Class names are missing"):
        Segmenter.from_pretrained(folder)


@pytest.fixture
def saved(folder, segmenter, tmp_path):
    """A folder as save_pretrained leaves it."""
    shutil.copytree(folder, tmp_path / "saved")
    segmenter.classes.save(tmp_path / "saved" / "classes.npz")
    settings = {"classes": "classes.npz", "protocol": "paper", "mode": "whole"}
    settings |= {"background": None, "size": None, "normalize": None}
    (tmp_path / "saved" / "segmenter.json").write_text(json.dumps(settings))
    return tmp_path / "saved"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"null",
        b'{"classes": 3}',
        b'{"classes": "classes.npz"}',
        b'{"classes": "../../other.npz", "protocol": "paper", "mode": "whole", "background": null, "size": null, '
        b'"normalize": null}',
        b'{"classes": "classes.npz", "protocol": "paper", "mode": "whole", "background": null, "size": null, '
        b'"normalize": null, "crop": 3}',
        b'{"classes": "classes.npz", "protocol": 3, "mode": [], "background": null, "size": null, "normalize": null}',
    ],
)
def test_damaged_settings_are_refused_in_one_line(saved, content):
    (saved / "segmenter.json").write_bytes(content)
    with pytest.raises(InputError) as caught:
        Segmenter.from_pretrained(saved)
    assert "\n" not in str(caught.value)


def test_templates_do_not_go_with_the_folders_classes(saved):
    assert Segmenter.from_pretrained(saved).class_names[0] == "dog"
    with pytest.raises(InputError, match="templates= needs classes="):
        Segmenter.from_pretrained(saved, templates="{}")


def test_a_folder_without_weights_and_a_file_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    with pytest.raises(GroupViTError, match="bare"):
        Segmenter.from_pretrained(tmp_path / "bare", ["dog"])
    with pytest.raises(InputError, match="is a file"):
        Segmenter.from_pretrained(folder / "config.json", ["dog"])
