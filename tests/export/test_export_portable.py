"""Files that run without TensorFlow: each format's own runtime answers as the segmenter does."""

import json
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_groupvit.cli import export as export_command
from tf_groupvit.errors import ExportError
from tf_groupvit.export import export_model, portable
from tf_groupvit.export.portable import FORMATS
from tf_groupvit.export.saving import SAVED_MODEL
from tf_groupvit.export.version_folder import class_tables
from tf_groupvit.hub import demo_checkpoint
from tf_groupvit.preprocessing.image_reading import read_image
from tf_groupvit.scenes.scene import scene
from tf_groupvit.segmentation.segmenter import Segmenter
from tf_groupvit.segmentation.upsampling import LowResScores

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["apple", "grass", "sky|clouds", "sand", "water"]
RUNTIMES = {"litert": "ai_edge_litert", "onnx": "onnxruntime", "openvino": "openvino"}
WITHOUT = "import sys; sys.modules['tensorflow'] = sys.modules['tf_groupvit'] = None;"
RUN = "import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


def segmenter_of(classes=CLASSES, **choices) -> Segmenter:
    return Segmenter.from_pretrained(demo_checkpoint(), classes, **choices)


@pytest.fixture(scope="module")
def plain() -> Segmenter:
    return segmenter_of()


@pytest.fixture(params=FORMATS)
def kind(request) -> str:
    if missing := [name for name in FORMATS[request.param].packages if find_spec(name) is None]:
        pytest.skip(f"{', '.join(missing)}: not installed; extras bring them")
    return request.param


def open_vision(folder: Path):
    settings = json.loads((folder / "settings.json").read_text())
    row = FORMATS[settings["format"]]
    return row.open(folder / settings["files"]["vision"]["file"])


def squares(count: int, side: int) -> np.ndarray:
    return np.stack([scene(991, number, side).image for number in range(count)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"refine": "pamr", "background": 0.4},
        {"refine": "guided", "protocol": "hf"},
    ],
    ids=str,
)
def test_labels_and_scores_are_those_of_the_segmenter(kind, choices, tmp_path):
    segmenter = segmenter_of(**choices)
    folder = export_model(segmenter, tmp_path / "export", kind)
    run, images = open_vision(folder), squares(4, segmenter.settings.size[0])
    found = [run({"pixels": image[None]}) for image in images]
    expected = [segmenter(image) for image in images]
    labels = np.concatenate([answer["labels"] for answer in found])
    assert labels.dtype == np.uint8
    assert (labels == np.stack([result.labels for result in expected])).mean() >= 0.999
    scores = np.concatenate([answer["class_scores"] for answer in found])
    np.testing.assert_allclose(
        scores, [list(result.class_scores.values()) for result in expected], rtol=1e-3, atol=1e-3
    )
    if FORMATS[kind].batch is None:
        together = run({"pixels": images})
        np.testing.assert_array_equal(together["labels"], labels)
    # which does not read the loop of a refinement
    if kind == "onnx" and not choices and find_spec("openvino"):
        other = FORMATS["openvino"].open(folder / "vision.onnx")({"pixels": images})
        assert (other["labels"] == labels).mean() >= 0.999
        np.testing.assert_allclose(other["class_scores"], scores, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_file_of_open_classes_takes_any_number_of_them(kind, plain, tmp_path):
    options = {"is_open": True, "maps": True, "check": True}
    run = open_vision(export_model(plain, tmp_path / "export", kind, **options))
    image = squares(1, plain.settings.size[0])
    for classes in (["moon"], ["grass", "sky"], [*CLASSES, "ring", "box", "tree"]):
        other = plain.with_classes(classes)
        answer = run({"pixels": image, "text_embeds": other.text_embeds})
        assert (answer["labels"][0] == other(image[0]).labels).mean() >= 0.999
        assert answer["class_scores"].shape == (1, len(classes))
        result = other(image[0])
        np.testing.assert_allclose(answer["scores"][0].transpose(2, 0, 1), result.scores, atol=1e-3)
        np.testing.assert_allclose(answer["group_scores"][0], result.group_scores, atol=1e-3)
        (groups,) = (LowResScores(maps).labels(*image.shape[1:3]) for maps in answer["groups_1"])
        assert (groups == result.final_group).mean() >= 0.999
        # lengths of embeddings do not count: a host need not normalize them
        longer = run({"pixels": image, "text_embeds": other.text_embeds * 7})
        np.testing.assert_allclose(longer["class_scores"], answer["class_scores"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
def test_the_example_names_pixels_in_a_process_without_tensorflow(kind, is_open, plain, tmp_path):
    if find_spec(RUNTIMES[kind]) is None:
        pytest.skip(f"{RUNTIMES[kind]} is not installed: an extra brings it")
    export = export_model(plain, tmp_path / "export", kind, is_open=is_open)
    image = squares(1, plain.settings.size[0])[0]
    Image.fromarray(image).save(tmp_path / "image.png")
    classes = ["water", "grass", "sky|clouds"] if is_open else CLASSES
    script, labels = ROOT / "serving/edge/segment.py", tmp_path / "labels.png"
    arguments = [script, export, tmp_path / "image.png", labels]
    arguments += ["--classes", ",".join(classes)] if is_open else []
    command = [sys.executable, "-I", "-c", WITHOUT + RUN, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = plain.with_classes(classes)(image)
    with Image.open(labels) as written:
        assert (np.asarray(written) == expected.labels).mean() >= 0.999
        assert len(written.getpalette()) // 3 == (256 if is_open else len(CLASSES))
    if not is_open:
        file = export / FORMATS[kind].file.format("vision")
        file.write_bytes(b"of another time")
        done = subprocess.run(command, capture_output=True, text=True)
        said = done.stderr.splitlines()[-1]
        assert said.startswith(f"{file} cannot be opened: it is damaged, or this runtime is older")
        assert "Traceback" not in done.stderr and "tensorflow 2." in said


@pytest.fixture
def example(monkeypatch, tmp_path):
    """serving/edge/segment.py on an export, without its files, that is open or not."""

    def run(is_open: bool, *arguments: str) -> None:
        files = {"vision": {"file": "none"}} | ({"text": {"file": "none"}} if is_open else {})
        settings = {"files": files, "size": [8, 8], "settings": {"background": 0.5}}
        settings["format"] = "onnx"
        (tmp_path / "settings.json").write_text(json.dumps(settings))
        (tmp_path / "palette.json").write_text(json.dumps([{"rgb": [0, 0, 0]}] * 256))
        monkeypatch.setattr(sys, "argv", ["segment.py", str(tmp_path), *arguments])
        runpy.run_path(str(ROOT / "serving/edge/segment.py"), run_name="__main__")

    return run


@pytest.mark.parametrize(
    ("is_open", "arguments", "words"),
    [
        (True, [], "--classes is needed with open classes, and with no others"),
        (False, ["--classes", "a,b"], "--classes is needed with open classes, and with no others"),
        (True, ["--classes", "a,,b"], "--classes takes 1 to 255 names, none of them empty"),
        (True, ["--classes", "a|,b"], "--classes takes 1 to 255 names, none of them empty"),
        (True, ["--classes", ",".join(map(str, range(256)))], "--classes takes 1 to 255 names"),
    ],
)
def test_the_example_refuses_what_would_give_other_labels(
    is_open, arguments, words, example, tmp_path, capsys
):
    Image.new("RGB", (9, 9)).save(tmp_path / "image.png")
    with pytest.raises(SystemExit):
        example(is_open, str(tmp_path / "image.png"), "labels.png", *arguments)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"", b"no picture"], ids=["none", "empty", "other"])
def test_the_example_ends_with_a_line_for_a_picture_that_it_cannot_read(content, example, tmp_path):
    if content is not None:
        (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(SystemExit, match=r"image\.png"):
        example(False, str(tmp_path / "image.png"), "labels.png")


@pytest.mark.parametrize("value", [np.float32(0.5), np.int32(2**20), np.int32(-1)])
def test_the_example_refuses_a_picture_whose_range_is_not_known(value, example, tmp_path):
    Image.fromarray(np.full((9, 9), value)).save(tmp_path / "image.tiff")
    with pytest.raises(SystemExit, match=r"image\.tiff: its numbers have no known range"):
        example(False, str(tmp_path / "image.tiff"), "labels.png")


def test_the_example_refuses_the_settings_of_something_else(tmp_path, monkeypatch, capsys):
    (tmp_path / "settings.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["segment.py", str(tmp_path), "image.png", "labels.png"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "serving/edge/segment.py"), run_name="__main__")
    assert "its settings.json names no files" in capsys.readouterr().err


def test_the_example_names_a_runtime_that_is_not_installed(example, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    Image.new("RGB", (9, 9)).save(tmp_path / "image.png")
    with pytest.raises(SystemExit, match=r"^(?!.*damaged).*onnxruntime"):
        example(False, str(tmp_path / "image.png"), "labels.png")


def test_the_example_reads_16_bits_as_the_package_does(tmp_path):
    read = runpy.run_path(str(ROOT / "serving/edge/segment.py"))["read"]
    numbers = np.array([[0, 255, 256], [30000, 65279, 65535]], np.uint16)
    Image.fromarray(numbers).save(tmp_path / "image.png")
    found = np.asarray(read(tmp_path / "image.png"))
    np.testing.assert_array_equal(found, read_image(tmp_path / "image.png"))


def test_a_palette_of_open_classes_has_a_color_for_every_label(plain):
    classes = segmenter_of([f"class {n}" for n in range(256)])
    rows = class_tables(plain, 256)["palette.json"]
    assert [row["class"] for row in rows] == [*plain.class_names, *[None] * 251]
    colors = [row["rgb"] for row in class_tables(classes)["palette.json"]]
    assert [row["rgb"] for row in rows] == colors


@pytest.mark.slow
def test_8_bits_are_smaller_and_nearly_the_same(kind, plain, tmp_path):
    if missing := [name for name in FORMATS[kind].int8_packages if find_spec(name) is None]:
        pytest.skip(f"{', '.join(missing)}: not installed")
    sizes = []
    # Of few classes each patch that moves counts more.
    for classes, int8 in ((CLASSES, False), (CLASSES, True), (["sand", "water"], True)):
        segmenter, folder = plain.with_classes(classes), tmp_path / f"{len(classes)}-{int8}"
        export_model(segmenter, folder, kind, int8=int8, check=True)
        files = [file for file in folder.rglob("vision*") if file.is_file()]
        sizes.append(sum(file.stat().st_size for file in files))
    assert max(sizes[1:]) < 0.6 * sizes[0]


@pytest.mark.slow
def test_8_bits_are_calibrated_on_pictures_of_any_size(kind, plain, tmp_path, capsys):
    if missing := [p for p in FORMATS[kind].calibrated_packages if find_spec(p) is None]:
        pytest.skip(f"{', '.join(missing)}: not installed")
    pictures = [scene(7, number, 40 + number).image for number in range(16)]
    folder, said = tmp_path / "export", []
    # Open: the vision file has two inputs then, and the text encoder does without.
    options = dict(int8=True, is_open=True, calibration=pictures, check=True, say=said.append)
    export_model(plain, folder, kind, **options)
    assert [line for line in said if line.endswith("% of labels agree with the segmenter's")]
    assert capsys.readouterr().out == ""  # where a command prints the path alone
    settings = json.loads((folder / "settings.json").read_text())
    assert (settings["int8"], settings["calibrated_on"]) == (True, 16)


def test_of_many_pictures_some_are_taken_evenly(plain, monkeypatch):
    monkeypatch.setattr(portable, "MOST_CALIBRATED", 3)
    for count, wanted in ((0, []), (1, [0]), (3, [0, 1, 2]), (4, [0, 2]), (7, [0, 3, 6])):
        pictures = [np.full((9, 9, 3), number, np.uint8) for number in range(count)]
        taken = portable._examples(plain, pictures, is_open=False)
        assert [one["pixels"][0, 0, 0, 0] for one in taken] == wanted
        assert all(one["pixels"].shape == (1, *plain.settings.size, 3) for one in taken)


def test_an_export_says_what_a_host_has_to_know(plain, tmp_path):
    folder = export_model(plain, tmp_path / "new" / "export", "litert")
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["format"], settings["size"] == ("litert", list(plain.settings.size))
    assert settings["files"]["vision"] == {
        "file": "vision.tflite",
        "inputs": {"pixels": {"dtype": "uint8", "shape": [1, *plain.settings.size, 3]}},
        "outputs": {
            "labels": {"dtype": "uint8", "shape": [1, *plain.settings.size]},
            "class_scores": {"dtype": "float32", "shape": [1, len(CLASSES)]},
        },
    }
    names = json.loads((folder / "classes.json").read_text())["class_names"]
    assert names == plain.class_names
    palette = json.loads((folder / "palette.json").read_text())
    assert [row["class"] for row in palette] == names
    assert [*folder.parent.iterdir()] == [folder]


@pytest.mark.parametrize(
    ("choices", "options", "words"),
    [
        ({}, {"calibration": ["a.png"]}, "Calibration is about 8 bits: ask for int8"),
        ({}, {"format": "onyx"}, "no format 'onyx': choose from litert, onnx, openvino"),
        ({"mode": "window"}, {}, "export with mode 'whole'"),
        ({"classes": [f"class {n}" for n in range(257)]}, {}, "257 labels, background included"),
    ],
)
def test_what_no_file_can_hold_is_refused_before_work_starts(choices, options, words, tmp_path):
    segmenter = segmenter_of(**choices)
    with pytest.raises(ExportError, match=words):
        export_model(segmenter, tmp_path / "export", **{"format": "litert", **options})
    assert not [*tmp_path.iterdir()]


def test_a_folder_that_holds_something_stays_as_it_is(plain, tmp_path):
    (tmp_path / "mine").write_text("mine")
    for place in (tmp_path, tmp_path / "mine"):
        with pytest.raises(ExportError, match="holds something already"):
            export_model(plain, place, "litert")
    assert (tmp_path / "mine").read_text() == "mine"


def test_the_command_knows_every_format():
    assert (SAVED_MODEL, *FORMATS) == export_command.FORMATS


def test_packages_that_are_missing_are_named(plain, tmp_path, monkeypatch):
    monkeypatch.setattr("tf_groupvit.export.portable.find_spec", lambda _: None)
    with pytest.raises(
        ExportError, match=r"ONNX needs tf2onnx and onnxruntime, which are not.*tf-groupvit\[onnx\]"
    ):
        export_model(plain, tmp_path / "export", "onnx")
    wanted = r"LiteRT in 8 bits, calibrated, needs ai_edge_quantizer.*tf-groupvit\[quantizer\]"
    with pytest.raises(ExportError, match=wanted):
        export_model(plain, tmp_path / "export", "litert", int8=True, calibration=["a.png"])


def test_a_converter_that_refuses_leaves_nothing_behind(plain, tmp_path, monkeypatch):
    def write(*_):
        raise ValueError("no such operation: Cross\nand much more")

    refusing = FORMATS["litert"]._replace(write=write)
    monkeypatch.setitem(FORMATS, "litert", refusing)
    with pytest.raises(ExportError, match="LiteRT refuses vision: no such operation: Cross"):
        export_model(plain, tmp_path / "export", "litert")
    assert not [*tmp_path.iterdir()]


def test_an_operation_that_a_converter_refuses_is_named_with_its_layer(
    plain, tmp_path, monkeypatch
):
    def write(*_):
        raise ValueError("no conversion for Softmax")

    monkeypatch.setitem(FORMATS, "litert", FORMATS["litert"]._replace(write=write))
    with pytest.raises(ExportError, match=r"for Softmax in vision_model\S*self_attn\S*: no conv"):
        export_model(plain, tmp_path / "export", "litert")


def test_a_file_that_its_runtime_does_not_take_is_not_kept(plain, tmp_path, monkeypatch):
    def broken(_):
        raise RuntimeError("no implementation\nof this")

    monkeypatch.setitem(FORMATS, "litert", FORMATS["litert"]._replace(open=broken))
    with pytest.raises(ExportError, match=r"wrote vision.tflite and cannot run it: no implem"):
        export_model(plain, tmp_path / "export", "litert", check=True)
    assert not [*tmp_path.iterdir()]


def test_litert_sharpens_scores_of_any_number_of_classes(plain, tmp_path, monkeypatch):
    """As those of protocol hf are where the classes are open."""
    monkeypatch.setattr(portable, "SHARPENING", "guided")
    function = portable.Portable(plain, batch=1).sharpening()
    portable.write_file(FORMATS["litert"], function, tmp_path / "sharpen.tflite", int8=False)
    run = FORMATS["litert"].open(tmp_path / "sharpen.tflite")
    (side, _), rng = plain.settings.size, np.random.default_rng(3)
    for count in (1, 3):
        scores = rng.uniform(size=(1, side, side, count)).astype("float32")
        inputs = {"pixels": squares(1, side), "scores": scores}
        expected = function(**{name: tf.constant(rows) for name, rows in inputs.items()})
        np.testing.assert_allclose(run(inputs)["sharp_scores"], expected["sharp_scores"], atol=1e-4)


def test_an_operation_that_onnx_has_not_is_refused(tmp_path):
    pytest.importorskip("tf2onnx")

    def encoded(pixels):
        with tf.name_scope("layer"):
            return {"length": tf.strings.length(tf.io.encode_jpeg(pixels))}

    signature = [tf.TensorSpec((8, 8, 3), tf.uint8, "pixels")]
    graph = tf.function(encoded, input_signature=signature).get_concrete_function()
    with pytest.raises(ExportError, match="refuses vision for EncodeJpeg in layer/EncodeJpeg: "):
        portable.write_file(FORMATS["onnx"], graph, tmp_path / "vision.onnx", False)


def test_files_that_label_in_another_way_are_not_kept(plain, tmp_path, monkeypatch):
    wrong = FORMATS["litert"]._replace(
        open=lambda _: lambda inputs: {"labels": np.full(inputs["pixels"].shape[:3], 4, np.uint8)}
    )
    monkeypatch.setitem(FORMATS, "litert", wrong)
    with pytest.raises(
        ExportError, match=r"to \d+\.\d\d% of the pixels at batch 1: expected 99.9%"
    ):
        export_model(plain, tmp_path / "export", "litert", check=True)
    assert not [*tmp_path.iterdir()]
