"""What stands behind a row of `scripts/bench tower`, and what its aims compare."""

from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS, DEMO = ROOT / "scripts/benchmarks", ROOT / "tf_groupvit/assets/demo"


@pytest.fixture(autouse=True)
def scripts_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)


@pytest.mark.parametrize(
    ("name", "runtime", "end"),
    [
        ("ours", "graph", ""),
        ("ours, not folded", "graph", "not folded"),
        ("ours, before", "graph", "before"),
        ("ours, in a Session, before", "graph", "before"),
        ("ours, LiteRT", "lite", ""),
        ("ours, LiteRT in int8", "lite_int8", ""),
        ("ours, LiteRT, bare", "lite", "bare"),
        ("ours, OpenVINO", "openvino", ""),
        ("ours, OpenVINO, not folded", "openvino", "not folded"),
    ],
)
def test_a_row_is_run_by_what_its_name_says(name, runtime, end):
    from engines.on_tensorflow import KINDS, kind_of

    for given in (name, name.replace(",", "")):  # an engine's process gets the second
        kind, found = kind_of(given)
        assert (KINDS[kind], found) == (runtime, end)


def test_every_row_of_ours_is_known():
    from engines.on_tensorflow import KINDS, kind_of
    from tower import ENGINES

    ours = [name.replace(",", "") for name in ENGINES if name.startswith("ours")]
    assert {kind_of(name)[0] for name in ours} == set(KINDS)
    sessions = [name for name in ours if "Session" in name]
    assert {kind_of(name)[0] for name in sessions} == {"in a Session"}


def rows(**seconds):
    """Engines -> rows of two rounds that took so long."""
    return {name: {"rounds": [{"seconds": s, "cpu": s}] * 2} for name, s in seconds.items()}


def test_a_session_is_compared_with_the_one_before(capsys):
    from engines.report import BEFORE, SESSION, aims

    found = aims({"tower": {"1": rows(**{SESSION: 2.0, BEFORE[SESSION]: 3.0})}})
    assert found["tower 1, Session: times before"] == (1.5, ">=", 1.25)


def test_a_runtime_is_compared_with_its_engine_alone(capsys):
    from engines.report import BARE, LITE, aims

    found = aims({"tower": {"1": rows(**{LITE: 2.0, BARE[LITE]: 1.0})}})
    assert found[f"tower 1, {LITE}: times {BARE[LITE]}"] == (0.5, ">=", 0.95)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
def test_an_engine_alone_gives_what_the_tower_gives():
    from engines.on_tensorflow import Bare, looking

    from tf_groupvit import TFGroupViTModel

    model = TFGroupViTModel.from_pretrained(DEMO).optimized()
    side = model.config.vision_config.image_size
    pixels = np.random.default_rng(0).normal(size=(1, 3, side, side)).astype("float32")
    found, wanted = Bare(model, "lite", 1).tower(pixels), looking(model)(pixels)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=1e-4)


def test_requests_of_several_photos_are_not_to_be_slower_than_before(capsys):
    from engines.report import BEFORE, SESSION, aims

    found = aims({"batch": {"8": rows(**{SESSION: 2.0, BEFORE[SESSION]: 2.0})}})
    assert found == {"batch 8, Session: times before": (1.0, ">=", 0.97)}


@pytest.mark.slow
def test_an_engine_answers_from_a_process_of_its_own(tmp_path):
    pytest.importorskip("openvino")
    from engines.process import Engine

    inputs, output = tmp_path / "inputs.npz", tmp_path / "output.npz"
    np.savez(inputs, pixels=np.zeros((1, 3, 60, 60), np.float32))
    engine = Engine("ours, OpenVINO, bare", DEMO, 1, {})
    try:
        assert set(engine.ask("tower", inputs, output)) == {"seconds", "cpu"}
    finally:
        engine.close()
    assert set(np.load(output)) == {"groups", "assignment"}
