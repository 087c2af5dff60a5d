"""The check of an export finds what a server could not run, and answers that differ."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from exported import as_file, drawn, export_of, labels_of, strings, tiny_segmenter

from tf_groupvit.errors import ExportError
from tf_groupvit.export import check_export, export_saved_model
from tf_groupvit.export import replay as replay_module
from tf_groupvit.export.check import compare, judge, replay
from tf_groupvit.export.signatures import SIGNATURES
from tf_groupvit.export.version_folder import WARMUP, check_requests, read_warmup, write_warmup

FLOATS = [tf.TensorSpec([None], tf.float32, name="x")]

# Exported without complaint; no stock server can run the first two.
ODD = {
    "python": (lambda x: tf.py_function(lambda x: x, [x], tf.float32), "EagerPyFunc needs Python"),
    "compiled": (
        lambda x: tf.function(lambda x: x + 1, jit_compile=True)(x),
        "must be compiled by XLA",
    ),
    "plain": (lambda x: x + 1, ""),
}


def signatures_of(path):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        return tf.compat.v1.saved_model.load(session, ["serve"], str(path))


@pytest.mark.parametrize("kind", ODD)
def test_what_a_stock_server_does_not_have_is_found(tmp_path, kind):
    (function, message), module = ODD[kind], tf.Module()
    module.odd = tf.function(lambda x: {"y": function(x)}, input_signature=FLOATS)
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.odd})
    found = replay_module.faults(signatures_of(tmp_path))
    assert any(message in fault for fault in found) if message else not found


def test_the_replaying_process_cannot_import_the_package():
    guard, main, _ = (
        Path(replay_module.__file__)
        .read_text()
        .partition('if __name__ == "__main__":')[2]
        .partition("    main(*sys.argv[1:])")
    )
    assert main
    code = f"import sys\nif True:{guard}    import tf_groupvit"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert done.returncode and "import of tf_groupvit halted" in done.stderr


def test_a_row_with_an_error_is_a_refusal(tmp_path):
    outputs = {"error": strings("", "Expected a whole PNG.")}
    answer = {"signature": "segment", "error": None, "outputs": outputs}
    with pytest.raises(
        ExportError, match=r"refuses a sound request of segment: Expected a whole PNG\."
    ):
        judge(tmp_path, {"faults": [], "signatures": [], "answers": [answer]}, tiny_segmenter())


def test_a_folder_that_is_no_export_is_one_line(tmp_path):
    for check in (replay, check_export):
        with pytest.raises(ExportError, match="cannot be replayed") as refused:
            check(tmp_path, [])
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kept", ["all", "some", "none"])
def test_whatever_the_warm_up_holds_every_signature_is_asked(export, tmp_path, kept):
    (tmp_path / "assets.extra").mkdir()
    shutil.copy(export.path / "saved_model.pb", tmp_path)
    every = [
        (name, rows_of(inputs)) for name, inputs in check_requests(export.path, export.segmenter)
    ]
    requests = {"all": 9, "some": 1, "none": 0}[kept]
    if requests:
        write_warmup(tmp_path, read_warmup(export.path)[:requests])
    found = check_requests(tmp_path, export.segmenter)
    assert [(name, rows_of(inputs)) for name, inputs in found] == every
    assert every[-2:] == [("serving_default", 4), ("serving_default", 8)]
    assert len(dict(every)) == len(SIGNATURES) + 1 and len(every) == len(SIGNATURES) + 3


def rows_of(inputs):
    return len(next(iter(inputs.values())))


def test_a_warm_up_that_no_server_reads_is_an_export_error(export, tmp_path):
    shutil.copytree(export.path / "assets.extra", tmp_path / "assets.extra")
    shutil.copy(export.path / "saved_model.pb", tmp_path)
    with (tmp_path / WARMUP).open("r+b") as file:
        file.seek(20)
        file.write(b"\xff" * 9)
    with pytest.raises(ExportError, match=r"cannot be replayed: .*corrupted record"):
        check_export(tmp_path, export.segmenter)


@pytest.fixture(scope="module")
def replayed(export):
    return replay(export.path, check_requests(export.path, export.segmenter))


@pytest.mark.slow
def test_a_sound_export_passes_and_tells_how_near_it_is(export, replayed):
    report = judge(export.path, replayed, export.segmenter)
    assert all(difference.passes for difference in report.differences)
    assert "serving_default, batch 8: 100.00% of labels agree" in str(report)
    assert "ScaleAndTranslate" in report.operations and "EagerPyFunc" not in report.operations


@pytest.mark.slow
def test_answers_of_another_model_are_noticed(export, replayed):
    other = tiny_segmenter(classes="moon, sea, road")
    with pytest.raises(ExportError, match="does not answer as the segmenter does"):
        judge(export.path, replayed, other)


# What is done to the first answer; each output has a row for each of its images.
TAMPERED = {
    "other class names": lambda outputs: {"class_names": outputs["class_names"][:, ::-1]},
    "KeyError: 'class_scores'": lambda outputs: {"class_scores": None},
    "could not be broadcast": lambda outputs: {"class_scores": outputs["class_scores"][:, :2]},
    "cannot identify image": lambda outputs: {"mask_bytes": np.array([b"no PNG"], object)},
    "ValueError: zip": lambda outputs: {"mask_bytes": outputs["mask_bytes"][:0]},
    "class_scores within nan": lambda outputs: {"class_scores": outputs["class_scores"] * np.nan},
}


@pytest.mark.slow
@pytest.mark.parametrize("words", TAMPERED)
def test_answers_that_were_tampered_with_are_an_export_error(export, replayed, words):
    first, *others = replayed["answers"]
    outputs = first["outputs"] | TAMPERED[words](first["outputs"])
    kept = {name: value for name, value in outputs.items() if value is not None}
    found = replayed | {"answers": [first | {"outputs": kept}, *others]}
    with pytest.raises(ExportError, match=words):
        judge(export.path, found, export.segmenter)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0, 1])
def test_a_signature_that_was_not_asked_is_noticed(export, replayed, kept):
    found = replayed | {"answers": replayed["answers"][:kept]}
    with pytest.raises(ExportError, match=r"has been asked nothing of .*segment_open"):
        judge(export.path, found, export.segmenter)


@pytest.mark.slow
def test_a_failed_check_leaves_no_version_behind(tmp_path, monkeypatch):
    from tf_groupvit.export import check, version_folder

    def write(segmenter, folder, *_):
        folder.mkdir()
        (folder / "saved_model.pb").write_bytes(b"graph")

    def differs(folder, segmenter):
        assert (folder / "saved_model.pb").exists()
        raise ExportError("no")

    monkeypatch.setattr(version_folder, "write_version", write)
    monkeypatch.setattr(check, "check_export", differs)
    with pytest.raises(ExportError, match="no"):
        export_saved_model(tiny_segmenter(), tmp_path, check=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_a_killed_export_left_is_in_no_version(tmp_path, monkeypatch):
    from tf_groupvit.export import version_folder

    def write(segmenter, folder, *_):
        folder.mkdir(exist_ok=True)
        (folder / "saved_model.pb").write_bytes(b"graph")

    monkeypatch.setattr(version_folder, "write_version", write)
    left = tmp_path / f"exporting-{os.getpid()}"
    (left / "assets").mkdir(parents=True)
    path = export_saved_model(tiny_segmenter(), tmp_path)
    assert [child.name for child in path.iterdir()] == ["saved_model.pb"]


# What a mode or a protocol changes; every other signature takes one of the same ways.
CHANGED = ("serving_default", "segment_open", "segment_pixels", "classify")


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    [
        {"mode": "window"},
        {"protocol": "hf", "background": None},
        {"protocol": "hf", "background": None, "mode": "window"},
        {"size": 48, "background": None, "normalize": "imagenet", "templates": "subset"},
    ],
    ids=lambda choices: "-".join(map(str, choices.values())),
)
def test_every_mode_and_protocol_answers_as_in_python(choices):
    export = export_of(**choices)
    warmup = dict(read_warmup(export.path))
    found = replay(export.path, [(name, warmup[name]) for name in CHANGED])
    assert not found["faults"]
    for answer in found["answers"]:
        difference = compare(answer, export.segmenter)
        assert difference.passes, str(difference)
        assert difference.agreement is None or difference.agreement >= 0.98


@pytest.mark.slow
def test_in_mode_window_too_a_bad_image_is_a_row_with_an_error():
    inputs = {
        "image_bytes": strings(b"no picture", as_file(drawn(40, 56)), as_file(drawn(40, 56))[:90])
    }
    one = {"image_bytes": strings(b"no picture")}
    found = replay(export_of(mode="window").path, [("segment", inputs), ("segment", one)])
    mixed, bad = found["answers"]
    outputs = mixed["outputs"]
    assert [bool(error) for error in outputs["error"]] == [True, False, True]
    assert labels_of(outputs["mask_bytes"][1]).shape == (40, 56)
    assert outputs["mask_bytes"][0] == b"" and not outputs["class_scores"][2].any()
    assert bad["error"][0] == 3 and "got 10 bytes of another kind" in bad["error"][1]


@pytest.mark.slow
def test_a_segmenter_without_tokenizer_leaves_out_what_reads_text(tmp_path):
    segmenter = tiny_segmenter()
    segmenter.tokenizer = None
    with pytest.warns(UserWarning, match="segment_open and encode_text are left out"):
        path = export_saved_model(segmenter, tmp_path)
    served = {name for name in signatures_of(path).signature_def if not name.startswith("__")}
    assert not {"segment_open", "encode_text"} & served
    assert {"serving_default", "logits"} <= served == {name for name, _ in read_warmup(path)}


@pytest.mark.slow
def test_an_export_runs_where_it_is_moved_to(export, tmp_path):
    """Vocabulary and merges travel in the folder."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(export.path, moved)
    answer = replay(moved, [("encode_text", {"text": np.array([b"a dog"], object)})])["answers"][0]
    assert answer["error"] is None and answer["outputs"]["text_embeds"].shape == (1, 8)
