"""``runtime="auto"``: which runtime is taken, what is remembered, and when it is measured again."""

import json
import pickle

import numpy as np
import pytest
from pictures import noise

from tf_groupvit.errors import InputError
from tf_groupvit.models import base_model
from tf_groupvit.runtimes import RUNTIMES
from tf_groupvit.segmentation import fastest
from tf_groupvit.segmentation.segmenter import Segmenter


@pytest.fixture
def times(monkeypatch, tmp_path):
    """Seconds that measuring finds; what was asked for is in ``asked``. The cache is a new one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fastest, "_is_installed", lambda name: name in ("graph", "lite"))
    found = {"graph": 0.06, "lite": 0.04}
    asked = []

    def measured(model, names, size):
        asked.append((names, size))
        return dict(found)

    monkeypatch.setattr(fastest, "measured", measured)
    return found, asked


def files(tmp_path):
    return sorted((tmp_path / "cache").rglob("*"))[1:]


def test_the_fastest_is_taken_said_and_remembered(make, times, tmp_path, capsys):
    found, asked = times
    assert make(runtime="auto").runtime == "lite"
    said = capsys.readouterr().err
    assert said == (
        "Runtime 'lite' is taken, measured for one image of 32 x 32: graph 60 ms, lite 40 ms; it"
        " keeps the weights as they are now until refresh().\n"
    )
    found["graph"] = 0.01  # would be taken if it were measured again
    assert make(runtime="auto").runtime == "lite"
    assert "'lite' is taken, remembered" in capsys.readouterr().err
    assert asked == [(["graph", "lite"], (32, 32))]
    assert len(files(tmp_path)) == 1


def test_graph_is_taken_where_it_is_fastest_and_stays_live(make, times, capsys):
    times[0]["lite"] = 0.07
    segmenter = make(runtime="auto")
    assert segmenter.runtime == "graph" and segmenter.pipeline.model is segmenter.model
    assert "refresh" not in capsys.readouterr().err


OTHER = {
    "size": {"size": 48},
    "mode": {"mode": "window"},
    "versions": ("_version", lambda name: "0.0"),
    "processor": ("_processor", lambda: ["another"]),
    "share": ("_lines", lambda file: ["50000 100000"]),
    "devices": ("tf.config.get_visible_devices", list),
    "compiler": ("tf.config.optimizer.get_jit", lambda: "autoclustering"),
}


@pytest.mark.parametrize("other", ["variable", *OTHER])
def test_other_circumstances_are_measured_anew(make, times, monkeypatch, other):
    make(runtime="auto")
    changed = OTHER.get(other, {})
    choices = changed if isinstance(changed, dict) else {}
    if other == "variable":
        monkeypatch.setenv("TF_ONEDNN_OTHER", "1")
    elif not choices:
        name, value = changed
        monkeypatch.setattr(f"{fastest.__name__}.{name}", value)
    make(runtime="auto", **choices)
    assert len(times[1]) == 2
    make(runtime="auto", **choices)
    assert len(times[1]) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff{",
        b"[]",
        b"{}",
        b"[" * 100_000,
        lambda whole: whole | {"facts": {"size": [1, 1]}},
        lambda whole: whole | {"facts": whole["facts"][:-1]},
        lambda whole: whole | {"seconds": {}},
        lambda whole: whole | {"seconds": {"lite_int8": 0.1}},
        lambda whole: whole | {"seconds": {"lite": "0.1"}},
        lambda whole: whole | {"seconds": {"lite": float("nan")}},
        lambda whole: whole | {"seconds": ["lite"]},
    ],
)
def test_a_broken_file_is_measured_again_and_written_anew(make, times, tmp_path, content):
    make(runtime="auto")
    (file,) = files(tmp_path)
    whole = json.loads(file.read_text())
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content(whole)).encode())
    assert make(runtime="auto").runtime == "lite"
    assert len(times[1]) == 2 and json.loads(file.read_text()) == whole


def test_a_cache_that_cannot_be_written_is_no_error(make, times, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    for _ in range(2):
        assert make(runtime="auto").runtime == "lite"
    assert len(times[1]) == 2


@pytest.mark.parametrize("cache", ["relative", "~nobody-of-this-name/cache"])
def test_without_a_folder_of_the_users_nothing_is_written_where_one_works(
    make, times, monkeypatch, tmp_path, cache
):
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.chdir(tmp_path)
    make(runtime="auto")
    assert not [*tmp_path.iterdir()]


def test_values_of_variables_which_may_be_secrets_are_not_written(
    make, times, monkeypatch, tmp_path
):
    monkeypatch.setenv("TF_VAR_password", "a-secret-of-Terraform")
    make(runtime="auto")
    (file,) = files(tmp_path)
    assert set(json.loads(file.read_text())) == {"facts", "seconds"}
    assert "secret" not in file.read_text()


def test_what_was_taken_is_pickled_copied_and_renewed_under_its_name(folder, make, times):
    segmenter = Segmenter.from_pretrained(
        folder, make().classes, normalize="imagenet", runtime="auto"
    )
    other = pickle.loads(pickle.dumps(segmenter))
    assert other.runtime == segmenter.with_background(0.3).runtime == "lite"
    held = segmenter.pipeline.model
    segmenter.refresh()
    assert segmenter.pipeline.model is not held and segmenter.runtime == "lite"
    assert len(times[1]) == 1


def test_a_model_that_only_tensorflow_runs_is_run_by_it(folder, make, times, capsys):
    classes = make().classes
    segmenter = Segmenter.from_pretrained(folder, classes, dtype="bfloat16", runtime="auto")
    assert segmenter.runtime == "graph" and not times[1]
    assert "no other runtime can run this model" in capsys.readouterr().err


def test_measuring_runs_each_runtime_as_often_and_leaves_out_one_that_fails(
    make, monkeypatch, capsys
):
    segmenter, ran = make(), []

    class Model:
        config = segmenter.model.config

        def __init__(self, name):
            self.name = name

    def snapshot(model, name):
        if name == "openvino":
            raise RuntimeError("no such\ninstruction")
        return Model(name)

    clock = iter(range(100))
    monkeypatch.setattr(fastest, "optimized", snapshot)
    monkeypatch.setattr(fastest.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(
        fastest,
        "encode_values",
        lambda model, _, pixels: ran.append(model.name) or {"group_embeds": np.zeros(1)},
    )
    graph = Model("graph")
    assert fastest.measured(graph, ["graph", "lite", "openvino"], (32, 32)) == {
        "graph": 1.0,
        "lite": 1.0,
    }
    assert ran == ["graph"] * 2 + ["lite"] * 2 + ["graph", "lite"] * fastest.CALLS
    assert "'openvino' is left out: " in capsys.readouterr().err


@pytest.mark.slow
def test_measured_for_once_labels_are_those_of_the_default(make, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    segmenter, image = make(runtime="auto"), noise(50, 60)
    assert segmenter.runtime in set(RUNTIMES) - {"lite_int8"}
    assert (segmenter(image).labels == make()(image).labels).mean() > 0.999


def test_nothing_is_measured_in_a_process_that_was_forked(make, times, monkeypatch):
    plain = make()
    monkeypatch.setattr(base_model, "_first_process", [-1])
    with pytest.raises(InputError, match="This process was forked"):
        Segmenter(plain.model, None, plain.processor, plain.classes, runtime="auto")
    assert not times[1]


def test_only_a_segmenter_chooses(make, times):
    with pytest.raises(InputError, match=r"runtime is 'auto': expected one of 'graph'"):
        make().model.optimized("auto")
    with pytest.raises(InputError, match=r"expected one of 'graph', .*'auto'"):
        make(runtime="fast")
