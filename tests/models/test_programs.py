"""What runs the vision tower in TensorFlow's place: a program for each image size, made when it is
seen first.
"""

import gc
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_models import numbers, some_pixels, tiny

from tf_groupvit import runtimes
from tf_groupvit.errors import InputError
from tf_groupvit.models.layers import LayerNorm, gelu, subtract_mean
from tf_groupvit.models.operations import first_argmax
from tf_groupvit.runtimes import compiled

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="runtimes take the place of TensorFlow"
)


def test_programs_are_kept_for_the_last_sizes_and_take_no_image_too(other_runtime):
    tower = tiny().optimized(other_runtime).vision_model
    for side in (4, 8, 12, 16, 8):
        assert tower(np.zeros((1, 3, side, side), "float32"))[0].shape[0] == 1
    assert [shape[1] for shape in tower.run.programs] == [12, 16, 8]
    assert len(tower.run.programs) == compiled.SIZES
    assert (
        tower(np.zeros((0, 3, 8, 8), "float32"))[0].shape
        == tower(np.zeros((1, 3, 8, 8), "float32"))[0][:0].shape
    )


def test_onnx_runtime_gives_what_tensorflow_gives():
    for package in runtimes.RUNTIMES["onnx"].packages:
        pytest.importorskip(package)
    model, images = tiny(), some_pixels(3, 8, 8)
    run = model.optimized("onnx").vision_model.run
    expected = model.optimized().vision_model(images, output_attentions=True)
    wanted = [expected["last_hidden_state"], *expected["attentions"]]
    for count in (3, 1):
        for found, one in zip(run.run(images[:count]), wanted, strict=True):
            np.testing.assert_allclose(found, one[:count], atol=1e-5)
    assert run.run(images[:0])[0].shape[0] == 0


def onnx_program(function, shape):
    """The program of a function, and the kinds of its operations."""
    for package in runtimes.RUNTIMES["onnx"].packages:
        pytest.importorskip(package)
    import onnx

    from tf_groupvit.runtimes.onnx import OnnxProgram, converted

    graph = compiled.traced(function, shape)
    content = converted(graph)
    kinds = Counter(node.op_type for node in onnx.load_from_string(content).graph.node)
    return OnnxProgram(content, [result.name for result in graph.outputs]), kinds


@pytest.mark.parametrize("length", [3, None], ids=["known", "open"])
def test_the_first_of_equal_values_is_one_operation_of_onnx(length):
    run, kinds = onnx_program(lambda x: [first_argmax(x, 1)], (None, length))
    assert kinds["ArgMax"] == 1 and not {"ReduceMin", "ReduceMax", "Where"} & {*kinds}
    rows = np.array([[1, 2, 2], [5, 5, 5], [-1, -2, 0], [-np.inf] * 3], "float32")
    assert run(rows)[0].tolist() == [[1], [0], [2], [0]]


def test_norms_and_gelus_are_whole_operations_of_onnx():
    norm = LayerNorm("norm", 4, 1e-5, None)
    norm.gamma.assign([1.0, 2.0, -1.0, 0.5])
    norm.beta.assign([0.5, 0.0, 3.0, -1.0])
    folded = LayerNorm("folded", 4, 1e-5, None, folded=True)
    functions = [norm, lambda x: folded(subtract_mean(x)), gelu]
    run, kinds = onnx_program(lambda x: [one(x) for one in functions], (None, 4))
    # ONNX Runtime makes a GELU of Div, Erf, Add, Mul and Mul
    assert kinds == {"LayerNormalization": 2, "Div": 1, "Erf": 1, "Add": 1, "Mul": 2}
    rows = np.array([[1, 2, 3, 5], [-3, 0.5, 0, 100]], "float32")
    for found, one in zip(run(rows), functions, strict=True):
        np.testing.assert_allclose(found, numbers(one(rows)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_batch_is_answered_as_each_image_is(monkeypatch, threads, other_runtime):
    monkeypatch.setattr(
        compiled.tf.config.threading, "get_intra_op_parallelism_threads", lambda: threads
    )
    run = tiny().optimized(other_runtime).vision_model.run
    images = some_pixels(5, 8, 8)
    alone = [run.run(image[None]) for image in images]
    for count in (2, 3, 5):
        for found, expected in zip(
            run.run(images[:count]), zip(*alone[:count], strict=True), strict=True
        ):
            np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-6)
    (program,) = run.programs.values()
    assert ("_shared" in vars(program)) == (threads > 1)


@pytest.mark.parametrize("shape", [(2, 5), (3,), (0, 5), (0,)])
def test_every_runtime_projects_groups_and_images(runtime, shape):
    model = tiny()
    features = (
        np.random.default_rng(0)
        .normal(size=(*shape, model.config.vision_config.hidden_size))
        .astype("float32")
    )
    found = numbers(model.optimized(runtime).visual_projection(features))
    np.testing.assert_allclose(
        found, numbers(model.visual_projection(features, training=False)), atol=1e-5
    )


def test_results_are_told_apart_by_their_names(other_runtime):
    """Eleven of one shape, in another order than they are computed in, one of them twice."""
    order = [7, 0, 10, 3, 9, 1, 4, 8, 2, 6, 5, 7]
    weights = tf.Variable(np.random.default_rng(0).normal(size=(4, 4)).astype("float32") / 2)

    def function(x):
        found = [x]
        for _ in range(11):
            found.append(tf.tanh(found[-1] @ weights) + 1)
        return [found[number + 1] for number in order]

    rows = some_pixels(2, 2, 1).reshape(-1, 4)
    run = runtimes.load(other_runtime)(function, (4,))
    for given in (rows[:1], rows):
        for found, wanted in zip(run(given), function(given), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_threads_are_answered_as_one_is(other_runtime):
    tower, images = (
        tiny().optimized(other_runtime).vision_model,
        [some_pixels(1, 8, 8) * k for k in range(8)],
    )
    expected = [numbers(tower(image)[0]) for image in images]
    with ThreadPoolExecutor(4) as threads:
        for found, wanted in zip(
            threads.map(lambda image: numbers(tower(image)[0]), images), expected, strict=True
        ):
            np.testing.assert_array_equal(found, wanted)


def test_programs_hold_their_weights_themselves(other_runtime):
    """The memory of what they were made from is others' once that has gone."""
    program, pixels = tiny().optimized(other_runtime).vision_model.run, some_pixels(3, 8, 8)
    expected = [program.run(pixels[:1]), program.run(pixels)]
    program.function = None
    gc.collect()
    others = [np.full(2**12, np.nan, "float32") for _ in range(2**10)]  # take what was freed
    for found, wanted in zip([program.run(pixels[:1]), program.run(pixels)], expected, strict=True):
        np.testing.assert_array_equal(
            np.concatenate([x.ravel() for x in found]), np.concatenate([x.ravel() for x in wanted])
        )
    assert others


def test_a_runtime_that_is_not_installed_is_refused_and_told_how_to_get(monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"needs OpenVINO, .*: pip install 'tf-groupvit\[openvino\]'"
    ):
        tiny().optimized("openvino")
    tiny().optimized("lite")


@pytest.mark.parametrize("content", ['raise ImportError("libtbb.so:\\nnone")', ""])
def test_a_package_that_is_broken_or_another_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "__init__.py").write_text(content)
    code = (
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom tf_groupvit.runtimes import"
        " check_runtime, load\ncheck_runtime('openvino')\nload('openvino')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and "InputError: runtime 'openvino': OpenVINO is there" in line
    assert line.endswith("): install it again.")


def test_openvino_is_loaded_when_it_is_asked_for_and_tells_nobody():
    if runtimes.find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed: the extra openvino brings it")
    code = (
        "import sys, tf_groupvit.models.optimized\nfrom tf_groupvit.runtimes import load\nassert"
        " 'openvino' not in sys.modules\nload('openvino')\nassert 'openvino' in"
        " sys.modules\nassert 'openvino_telemetry' not in sys.modules\nassert"
        " sys.modules['openvino.tools.ovc.telemetry_utils'].tm.__name__.endswith('telemetry_stub')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
