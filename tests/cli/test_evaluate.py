"""tf-groupvit evaluate on small trees, with a small random model: what it prints is what its
segmenter labels.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "evaluation"))
from trees import ade_tree, voc_tree, write_image, write_mask

from tf_groupvit.cli import main
from tf_groupvit.config import GroupViTConfig
from tf_groupvit.evaluation.calibration import calibrate
from tf_groupvit.evaluation.datasets import BENCHMARKS, MaskDataset, open_dataset
from tf_groupvit.evaluation.evaluator import evaluate
from tf_groupvit.evaluation.scores import ConfusionMatrix
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.preprocessing.image import ImageProcessor
from tf_groupvit.scenes.scene import CLASSES, scenes
from tf_groupvit.segmentation.segmenter import Segmenter

pytestmark = pytest.mark.usefixtures("models_once")

TEXT = dict(
    vocab_size=514, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
)
TEXT |= dict(bos_token_id=512, eos_token_id=513, max_position_embeddings=77)
VISION = dict(
    hidden_size=24,
    intermediate_size=40,
    depths=[1, 1, 1],
    num_attention_heads=3,
    image_size=32,
    patch_size=8,
)
VISION |= dict(num_group_tokens=[8, 4, 0], num_output_groups=[8, 4, 4], num_hidden_layers=3)


def letters() -> list[str]:
    """The 256 characters that CLIP's vocabulary begins with: a printable one for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in printable] + [chr(256 + k) for k in range(256 - len(printable))]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a random model whose tokens are single letters; the processor names CLIP's
    statistics.
    """
    folder = tmp_path_factory.mktemp("model")
    keras.utils.set_random_seed(3)
    made = TFGroupViTModel(
        GroupViTConfig(TEXT, VISION, projection_dim=8, projection_intermediate_dim=20)
    )
    rng = np.random.default_rng(0)
    for weight in made.weights:  # larger than at the start of training: groups and classes differ
        if weight.dtype.startswith("float") and "norm" not in weight.path and len(weight.shape) > 1:
            weight.assign(rng.normal(0, 0.4, weight.shape))
    made.save_pretrained(folder)
    ImageProcessor().save_pretrained(folder)
    tokens = [
        *letters(),
        *(f"{letter}</w>" for letter in letters()),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    (folder / "vocab.json").write_text(json.dumps({token: k for k, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


def run(*arguments):
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def answer(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two pictures of VOC, of noise, so that a random model sees more than one class in them."""
    from PIL import Image

    root, rng = tmp_path_factory.mktemp("voc"), np.random.default_rng(1)
    home = voc_tree(
        root, {name: rng.choice([0, 1, 15, 255], (70, 90)).tolist() for name in ("a", "b")}
    )
    for name in ("a", "b"):
        noise = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize((90, 70))
        noise.save(home / "JPEGImages" / f"{name}.jpg")
    return root


def by_hand(segmenter, pairs, names):
    matrix = ConfusionMatrix(names)
    for image, labels in pairs:
        matrix.update(labels, segmenter(image).labels)
    return matrix.results()


def test_voc_is_segmented_as_published_unless_said_otherwise(model, root):
    content = answer("voc", "--root", root, "--model", model)
    dataset = MaskDataset("voc", root)
    names = BENCHMARKS["voc"].prompts
    segmenter = Segmenter.from_pretrained(
        model, names, mode="window", background=0.95, normalize="imagenet"
    )
    expected = by_hand(
        segmenter, [(dataset.image(k), dataset.labels(k)) for k in range(2)], dataset.class_names
    )
    assert {key: content[key] for key in expected} == expected
    assert 0 <= content["miou"] <= 1
    assert (content["dataset"], content["images"], content["failures"]) == ("voc", 2, [])
    settings = content["settings"]
    assert (settings["mode"], settings["protocol"], settings["background"]) == (
        "window",
        "paper",
        0.95,
    )
    assert (settings["normalize"], settings["templates"]) == ("imagenet", ["a photo of a {}."])


@pytest.mark.parametrize("normalize", [None, "checkpoint", "clip"])
def test_python_and_the_command_give_the_same_report(model, root, normalize):
    options = () if normalize is None else ("--normalize", normalize)
    content = answer("voc", "--root", root, "--model", model, *options)
    opened = open_dataset("voc", root)
    segmenter = Segmenter.from_pretrained(
        model,
        opened.prompts,
        mode=opened.mode,
        background=opened.background,
        normalize=None if normalize == "checkpoint" else normalize,
    )
    scores = evaluate(segmenter, opened.dataset, as_trained=normalize is None).to_dict()
    settings = content.pop("settings")
    assert {key: settings.pop(key) for key in ("model", "limit")} == {
        "model": str(model),
        "limit": None,
    }
    assert scores.pop("settings") == settings
    assert scores == content
    assert settings["normalize"] == (normalize or "imagenet")


def test_every_choice_reaches_the_segmenter(model, root):
    content = answer(
        "voc20", "--root", root, "--model", model, "--mode", "whole", "--protocol", "hf",
        "--templates", "subset", "--normalize", "clip", "--limit", "1",
    )  # fmt: skip
    dataset = MaskDataset("voc20", root)
    choices = dict(mode="whole", protocol="hf", templates="subset", normalize="clip")
    segmenter = Segmenter.from_pretrained(model, BENCHMARKS["voc20"].prompts, **choices)
    expected = by_hand(segmenter, [(dataset.image(0), dataset.labels(0))], dataset.class_names)
    assert {key: content[key] for key in expected} == expected
    assert content["images"] == content["settings"]["limit"] == 1


def test_a_background_can_be_given(model, root):
    content = answer(
        "voc", "--root", root, "--model", model, "--background", "0.0", "--mode", "whole"
    )
    assert content["settings"]["background"] == 0.0
    assert content["iou"]["background"] == 0.0


def test_a_background_can_be_calibrated(model, root, monkeypatch):
    monkeypatch.setattr(
        calibrate, "__kwdefaults__", {**calibrate.__kwdefaults__, "grid": (0.3, 0.9)}
    )
    content = answer("voc", "--root", root, "--model", model, "--calibrate", "1", "--mode", "whole")
    tried = content["calibration"]["miou"]
    assert list(tried) == ["0.3", "0.9"]
    assert tried[str(content["calibration"]["background"])] == max(tried.values())
    assert content["settings"]["background"] == content["calibration"]["background"]
    assert content["calibration"]["images"] == 1


def test_scenes_need_no_root_and_are_seen_whole_with_the_checkpoints_own_statistics(model):
    content = answer("scenes", "--seed", "4", "--count", "3", "--model", model)
    segmenter = Segmenter.from_pretrained(model, CLASSES, mode="whole")
    expected = by_hand(segmenter, [(drawn.image, drawn.mask) for drawn in scenes(4, 3)], CLASSES)
    assert {key: content[key] for key in expected} == expected
    assert list(content["iou"]) == list(CLASSES)
    assert content["images"] == 3
    assert content["settings"]["normalize"] == "checkpoint"


def test_without_json_a_table_is_printed(model):
    result = run("scenes", "--count", "1", "--model", model)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "scenes: 1 images"
    assert [line.split()[0] for line in lines[2:15]] == list(CLASSES)
    assert lines[-2].startswith("mIoU")
    assert lines[-1].startswith("pixel accuracy")


def test_an_image_that_fails_is_named_and_the_exit_code_is_two(model, tmp_path):
    home = ade_tree(tmp_path, {name: [[1, 2], [0, 3]] for name in ("a", "b")})
    (home / "images/validation/b.jpg").write_bytes(b"no image")
    result = run("ade20k", "--root", tmp_path, "--model", model, "--json")
    assert result.exit_code == 2
    content = json.loads(result.stdout)
    assert [failure["image"] for failure in content["failures"]] == ["b"]
    assert content["images"] == 1
    assert "Not in the scores, since they failed: b" in result.stderr


def test_a_run_goes_on_from_its_state_and_another_models_state_is_refused(model, root, tmp_path):
    state = tmp_path / "state.json"
    options = ("voc", "--root", root, "--model", model, "--resume", state, "--mode", "whole")
    assert answer(*options, "--limit", "1")["images"] == 1
    whole = answer(*options)
    assert whole["images"] == 2
    afresh = answer("voc", "--root", root, "--model", model, "--mode", "whole")
    assert {key: whole[key] for key in ("miou", "iou", "pixel_accuracy")} == {
        key: afresh[key] for key in ("miou", "iou", "pixel_accuracy")
    }
    content = json.loads(state.read_text())
    content["settings"]["weights"] = "0123456789abcdef"
    state.write_text(json.dumps(content))
    result = run(*options)
    assert result.exit_code == 2
    assert "belongs to another evaluation: weights was" in result.stderr


def test_scores_in_8_bits_say_so_and_are_not_mixed_with_others(model, tmp_path):
    options = ("scenes", "--count", "1", "--model", model, "--resume", tmp_path / "state.json")
    assert answer(*options, "--runtime", "lite_int8")["settings"]["runtime"] == "lite_int8"
    result = run(*options)
    assert result.exit_code == 2
    assert 'another evaluation: runtime was "lite_int8" and is null' in result.stderr


def test_scenes_are_drawn_at_any_size_and_measured_as_such(model, tmp_path):
    options = ("scenes", "--count", "2", "--model", model)
    state = ("--resume", tmp_path / "state.json")
    content = answer(*options, "--size", "40", *state)
    assert content["settings"]["scene_size"] == 40
    assert answer(*options)["settings"]["scene_size"] == 64
    result = run(*options, *state)
    assert result.exit_code == 2
    assert "belongs to another evaluation: scene_size was 40 and is 64 now" in result.stderr


def test_a_tree_with_a_folder_for_each_class_gives_top1_and_top5(model, tmp_path):
    for name in ("hot_dog/1.jpg", "hot_dog/2.jpg", "cat/1.jpg"):
        write_image(tmp_path / name, 40, 40)
    content = answer("folder", "--root", tmp_path, "--model", model)
    segmenter = Segmenter.from_pretrained(model, ["cat", "hot dog"], normalize="imagenet")
    right = [
        segmenter.classify(tmp_path / name).argmax() == k
        for name, k in (("cat/1.jpg", 0), ("hot_dog/1.jpg", 1))
    ]
    assert content["accuracy"] == {"cat": float(right[0]), "hot dog": float(right[1])}
    assert (content["top5"], content["images"]) == (1.0, 3)
    assert "top-5" in run("folder", "--root", tmp_path, "--model", model).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("vok",), "no dataset 'vok': choose from voc"),
        (("voc",), "give it with --root"),
        (("voc", "--root", "nowhere"), "nowhere: there is no such folder"),
        (("voc", "--root", ".", "--seed", "1"), "--seed, --count and --size belong to the scenes"),
        (("voc", "--root", ".", "--size", "64"), "--size belong to the scenes: leave them out for"),
        (("folder", "--root", ".", "--size", "64"), "belong to the scenes"),
        (("scenes", "--root", "."), "leave --root out"),
        (("scenes", "--count", "0"), "1 or more: received 0"),
        (("scenes", "--size", "0"), "received 0"),
        (("scenes", "--size", "10000000"), "received 10000000"),
        (("scenes", "--mask-orientation", "as-photo"), "leave it out for scenes"),
        (("scenes", "--resume", "/dev/full"), "'/dev/full' is a device"),
        (("scenes", "--resume", "."), "'.' is a folder"),
        (("scenes", "--resume", "no/state.json"), "There is no folder 'no'"),
        (("scenes", "--resume", "n" * 300), "File name too long"),
        (("scenes", "--background", "0.5"), "scenes has no background"),
        (("scenes", "--calibrate", "2"), "scenes has no background"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_ctrl_c_says_what_is_kept(tmp_path, monkeypatch):
    state = tmp_path / "state.json"

    def interrupted(*_, **__):
        state.write_text("counted")
        raise KeyboardInterrupt

    monkeypatch.setattr("tf_groupvit.cli.evaluate._segment", interrupted)
    result = run("scenes", "--resume", state)
    assert result.exit_code == 1
    first, *_, last = result.stderr.splitlines()
    assert (
        first
        == f"Stopped. What was counted is kept in {state}: the same command goes on from there."
    )
    assert last == "Aborted!"
    assert run("scenes").stderr.startswith("Stopped. Nothing is kept: with --resume FILE, ")


def test_options_about_masks_are_refused_for_a_tree_of_classes(tmp_path):
    write_image(tmp_path / "cat/1.jpg")
    result = run("folder", "--root", tmp_path, "--mode", "window")
    assert result.exit_code == 2
    assert "--mode is about masks" in result.stderr


def test_a_threshold_is_given_or_calibrated(root):
    result = run("voc", "--root", root, "--calibrate", "1", "--background", "0.5")
    assert result.exit_code == 2
    assert "take one of them" in result.stderr


def test_a_bad_mask_is_named_before_work_starts(model, tmp_path):
    home = voc_tree(tmp_path, {"a": [[0, 1]], "b": [[0, 1]]})
    write_mask(home / "SegmentationClass/b.png", [[0, 21]])
    result = run("voc", "--root", tmp_path, "--model", model)
    assert result.exit_code == 2
    assert "b.png: label 21 is beyond the class list" in result.stderr
    assert result.stdout == ""


def test_masks_that_may_lie_in_two_ways_are_refused_in_one_line_unless_it_is_said(model, tmp_path):
    from PIL import Image

    home, exif = voc_tree(tmp_path, {"a": [[0, 1]]}), Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (2, 1)).save(home / "JPEGImages/a.jpg", exif=exif)
    options = ("voc", "--root", tmp_path, "--model", model, "--mode", "whole")
    result = run(*options)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert "a.jpg" in line and "EXIF" in line and "--mask-orientation" in line
    assert (
        answer(*options, "--mask-orientation", "as-stored")["settings"]["mask_orientation"]
        == "as-stored"
    )


def test_the_protocol_without_background_is_refused_for_a_dataset_with_one(model, root):
    result = run("voc", "--root", root, "--model", model, "--protocol", "hf")
    assert result.exit_code == 2
    assert "background" in result.stderr


# Masks of one's own


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Five scenes as `tf-groupvit scenes` writes them."""
    from tf_groupvit.scenes.scene import write_scenes

    folder = tmp_path_factory.mktemp("drawn")
    write_scenes(folder, 4, 5, 64)
    return folder


def own(folder, *options):
    return ("masks", "--images", folder / "images", "--masks", folder / "masks", *options)


def test_own_masks_score_as_the_known_dataset_of_the_same_files(model, drawn):
    known = answer("scenes", "--seed", "4", "--count", "5", "--model", model)
    options = ("--model", model, "--mode", "whole", "--normalize", "checkpoint")
    content = answer(*own(drawn, "--classes", drawn / "classes.txt", *options))
    assert {key: content[key] for key in ("miou", "iou", "pixel_accuracy", "images")} == {
        key: known[key] for key in ("miou", "iou", "pixel_accuracy", "images")
    }
    assert content["settings"]["numbers"] == {name: [k] for k, name in enumerate(CLASSES)}


def test_own_masks_are_seen_by_windows_refined_and_resumed_as_known_ones(model, drawn, tmp_path):
    state = tmp_path / "state.json"
    options = ("--model", model, "--refine", "guided", "--resume", state)
    arguments = own(drawn, "--classes", f"@{drawn / 'classes.txt'}", *options)
    assert answer(*arguments, "--limit", "2")["images"] == 2
    content = answer(*arguments)
    settings = content["settings"]
    assert (content["images"], settings["mode"], settings["refine"]) == (5, "whole", "guided")
    assert settings["normalize"] == "checkpoint"
    result = run(*arguments, "--ignore", "254")
    assert result.exit_code == 2
    assert "another evaluation: ignore was [255] and is [254]" in result.stderr


def test_own_masks_with_a_table_and_a_background(model, drawn, tmp_path):
    lines = [f"{k},{name}" for k, name in enumerate(CLASSES)]
    (tmp_path / "table.csv").write_text("\n".join(["number,name", *lines]))
    options = ("--model", model, "--mode", "whole", "--table", tmp_path / "table.csv")
    assert list(answer(*own(drawn, *options))["iou"]) == list(CLASSES)
    two = f"{CLASSES[3]},{CLASSES[1]}"
    result = run(*own(drawn, *options, "--classes", two, "--json"))
    assert list(json.loads(result.stdout)["iou"]) == [CLASSES[3], CLASSES[1]]
    assert f"Not among the classes, so ignored: {CLASSES[0]}, {CLASSES[2]}" in result.stderr
    (tmp_path / "table.csv").write_text("\n".join(["0 background", *lines[1:]]).replace(",", " "))
    content = answer(*own(drawn, *options, "--classes", two, "--background", "0.5"))
    assert list(content["iou"]) == ["background", CLASSES[3], CLASSES[1]]
    assert content["settings"]["background"] == 0.5


def test_own_masks_calibrate_a_background(model, drawn, monkeypatch):
    monkeypatch.setattr(
        calibrate, "__kwdefaults__", {**calibrate.__kwdefaults__, "grid": (0.3, 0.9)}
    )
    names = ",".join(CLASSES[1:])
    content = answer(*own(drawn, "--classes", names, "--model", model, "--calibrate", "1"))
    assert content["settings"]["background"] in (0.3, 0.9)
    assert list(content["iou"]) == ["background", *CLASSES[1:]]


def test_own_masks_of_coco(model, tmp_path):
    write_image(tmp_path / "images/a.jpg", 40, 40)
    region = {"size": [40, 40], "counts": [400, 800, 400]}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 40}],
        "categories": [{"id": 3, "name": "dog"}, {"id": 7, "name": "sky"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "segmentation": region}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    arguments = ("masks", "--images", tmp_path / "images", "--masks", tmp_path / "coco.json")
    found = answer(*arguments, "--model", model, "--background", "0.0")
    assert list(found["iou"]) == ["background", "dog", "sky"]
    # Nothing is background at the threshold 0.
    assert found["pixel_accuracy"] <= 1 / 2 and found["iou"]["background"] == 0


def test_what_has_no_partner_is_named_first_and_last_and_the_exit_code_is_two(model, tmp_path):
    for name in ("a", "ä b"):
        write_image(tmp_path / f"images/{name}.jpg")
    for name in ("a", "c"):
        write_mask(tmp_path / f"masks/{name}.png", [[0, 1], [1, 1]])
    result = run(*own(tmp_path, "--classes", "dog,cat", "--model", model, "--json"))
    assert result.exit_code == 2
    first, second, *_, last = result.stderr.splitlines()
    assert first == "Pictures without a mask, 1 left out: ä b"
    assert second == "Masks without a picture, 1 left out: c"
    assert last == "Not in the scores, since they failed: ä b, c"
    content = json.loads(result.stdout)
    assert content["images"] == 1
    assert [failure["image"] for failure in content["failures"]] == ["ä b", "c"]


def test_the_confusion_matrix_is_drawn(model, drawn, tmp_path):
    from PIL import Image

    path = tmp_path / "confusion.png"
    arguments = ("scenes", "--count", "1", "--model", model, "--confusion", path)
    assert run(*arguments).exit_code == 0
    with Image.open(path) as picture:
        assert min(picture.size) > 13 * 14  # a cell for each of the 13 classes


OWN = ("masks", "--images", "images", "--masks", "masks")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("masks",), "--images is missing"),
        (("masks", "--images", "images"), "--masks is missing"),
        (OWN, "Class names are missing"),
        ((*OWN, "--classes", "dog", "--root", "."), "--root does not belong to masks"),
        ((*OWN, "--classes", "dog", "--seed", "0"), "--seed does not belong to masks"),
        ((*OWN, "--classes", "background,dog"), "'background' is among the classes"),
        ((*OWN, "--classes", "gone.txt"), "gone.txt: there is no such file"),
        ((*OWN, "--classes", "dog,names.txt"), "'names.txt', the name of a file"),
        ((*OWN, "--classes", "table.txt"), "given by --table"),
        (("masks", "--images", "masks", "--masks", "masks", "--classes", "dog"), "no masks"),
        ((*OWN, "--table", "gone.csv"), "gone.csv: there is no such file"),
        ((*OWN, "--classes", "dog", "--ignore", "0"), "0 is the number of 'dog'"),
        ((*OWN, "--classes", "dog"), "label 1 is beyond the class list: expected 0..0, 255"),
        (("masks", "--images", "empty", "--masks", "masks", "--classes", "dog"), "found none"),
        (("masks", "--images", "images", "--masks", "gone", "--classes", "dog"), "no such folder"),
        ((*OWN, "--classes", "dog,cat", "--background", "2"), "background"),
        ((*OWN, "--classes", "dog,cat", "--confusion", "c.jpg"), "name of a PNG"),
        ((*OWN, "--classes", "dog,cat", "--confusion", "no/c.png"), "There is no folder 'no'"),
        (("scenes", "--images", "images"), "--images belongs to masks, not to scenes"),
        (("voc", "--root", ".", "--classes", "dog"), "--classes belongs to masks, not to voc"),
        (("folder", "--root", ".", "--ignore", "0"), "--ignore belongs to masks, not to folder"),
        (("folder", "--root", "tree", "--confusion", "c.png"), "--confusion is about masks"),
    ],
)
def test_own_masks_that_do_not_go_together_are_refused_in_one_line(
    arguments, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "table.txt").write_text("0 dog\n1 cat\n")
    write_image(tmp_path / "images/a.jpg")
    write_image(tmp_path / "tree/dog/a.jpg")
    write_mask(tmp_path / "masks/a.png", [[0, 1], [1, 1]])
    result = run(*arguments)
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("Error: ") and words in lines[-1]
    assert sum(line.startswith("Error") for line in lines) == 1
