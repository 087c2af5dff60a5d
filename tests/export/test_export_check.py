"""Exports that a server could not run, or that answer otherwise, in; an ExportError that says so
out.
"""

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
from tf_groupvit.export.check import replay
from tf_groupvit.export.replay import __file__ as replay_file

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


@pytest.mark.parametrize("kind", ODD)
def test_what_a_stock_server_does_not_have_is_found(tmp_path, kind):
    (function, words), module = ODD[kind], tf.Module()
    module.odd = tf.function(lambda x: {"y": function(x)}, input_signature=FLOATS)
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.odd})
    found = replay(tmp_path, [])
    assert any(words in fault for fault in found["faults"]) if words else not found["faults"]


def test_the_replaying_process_cannot_import_the_package(tmp_path):
    code = (
        Path(replay_file).read_text().replace("    main(*sys.argv[1:])", "    import tf_groupvit")
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert done.returncode and "import of tf_groupvit halted" in done.stderr


def test_a_row_with_an_error_is_a_refusal(monkeypatch, tmp_path):
    answer = {
        "signature": "segment",
        "error": None,
        "outputs": {"error": strings("", "Expected a whole PNG.")},
    }
    monkeypatch.setattr(
        "tf_groupvit.export.check.replay", lambda folder: {"faults": [], "answers": [answer]}
    )
    with pytest.raises(
        ExportError, match=r"refuses its own warm-up request of segment: Expected a whole PNG\."
    ):
        check_export(tmp_path, None)


def test_a_folder_that_is_no_export_is_one_line(tmp_path):
    with pytest.raises(ExportError, match="cannot be replayed") as refused:
        check_export(tmp_path, None)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_sound_export_passes_and_tells_how_near_it_is(export):
    report = check_export(export.path, export.segmenter)
    assert all(difference.passes for difference in report.differences)
    assert "serving_default, batch 8: 100.00% of labels agree" in str(report)
    assert "ScaleAndTranslate" in report.operations and "EagerPyFunc" not in report.operations


@pytest.mark.slow
def test_answers_of_another_model_are_noticed(export):
    other = tiny_segmenter(classes="moon, sea, road")
    with pytest.raises(ExportError, match="does not answer as the segmenter does"):
        check_export(export.path, other)


@pytest.mark.slow
def test_a_failed_check_leaves_no_version_behind(tmp_path, monkeypatch):
    from tf_groupvit.export import check

    def differs(folder, segmenter):
        assert (folder / "saved_model.pb").exists()
        raise ExportError("no")

    monkeypatch.setattr(check, "check_export", differs)
    with pytest.raises(ExportError, match="no"):
        export_saved_model(tiny_segmenter(), tmp_path, check=True)
    assert not list(tmp_path.iterdir())


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
    report = check_export(export.path, export.segmenter)
    assert min(d.agreement for d in report.differences if d.agreement is not None) >= 0.98


@pytest.mark.slow
def test_in_mode_window_too_a_bad_image_is_a_row_with_an_error():
    inputs = {
        "image_bytes": strings(b"no picture", as_file(drawn(40, 56)), as_file(drawn(40, 56))[:90])
    }
    one = {"image_bytes": strings(b"no picture")}
    mixed, bad = replay(export_of(mode="window").path, [("segment", inputs), ("segment", one)])[
        "answers"
    ]
    assert [bool(words) for words in mixed["outputs"]["error"]] == [True, False, True]
    assert labels_of(mixed["outputs"]["mask_bytes"][1]).shape == (40, 56)
    assert (
        mixed["outputs"]["mask_bytes"][0] == b"" and not mixed["outputs"]["class_scores"][2].any()
    )
    assert bad["error"][0] == 3 and "got 10 bytes of another kind" in bad["error"][1]


@pytest.mark.slow
def test_a_segmenter_without_tokenizer_leaves_out_what_reads_text(tmp_path):
    segmenter = tiny_segmenter()
    segmenter.tokenizer = None
    with pytest.warns(UserWarning, match="segment_open and encode_text are left out"):
        path = export_saved_model(segmenter, tmp_path)
    found = replay(path)
    names = [answer["signature"] for answer in found["answers"]]
    assert (
        "segment_open" not in names
        and "logits" in names
        and all(a["error"] is None for a in found["answers"])
    )


@pytest.mark.slow
def test_an_export_runs_where_it_is_moved_to(export, tmp_path):
    """Vocabulary and merges travel in the folder."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(export.path, moved)
    answer = replay(moved, [("encode_text", {"text": np.array([b"a dog"], object)})])["answers"][0]
    assert answer["error"] is None and answer["outputs"]["text_embeds"].shape == (1, 8)
