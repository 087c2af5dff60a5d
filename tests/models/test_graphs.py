"""TensorFlow's own: graphs with every size unknown, XLA, one trace for one shape, SavedModels of
the bare call.
"""

import keras
import numpy as np
import pytest
from tiny_models import (
    EVERYTHING,
    equal,
    inputs_of,
    make,
    some_ids,
    some_pixels,
    text_config,
    tiny,
    vision_config,
)

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="about TensorFlow's graphs"
)

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    IDS = tf.TensorSpec((None, None), tf.int64)
    MASK = tf.TensorSpec((None, None), tf.int32)
    PIXELS = tf.TensorSpec((None, 3, None, None), tf.float32)


def test_a_graph_with_every_size_unknown_gives_what_eager_gives(case):
    """One trace for all sizes: other batches, numbers of texts, lengths, heights and widths."""
    flags = {"output_segmentation": True, **EVERYTHING}
    traced = tf.function(
        lambda ids, mask, pixels: case.model(ids, pixels, mask, **flags),
        input_signature=[IDS, MASK, PIXELS],
    )
    patch = case.config.vision_config.patch_height_width
    sizes = [
        (ids, mask, case.pixels)
        for ids, mask in ((case.ids, case.mask), (case.ids[:1], case.mask[:1]))
    ]
    other = (
        np.random.default_rng(0).normal(size=(1, 3, 3 * patch[0], 5 * patch[1])).astype("float32")
    )
    sizes.append(
        (np.concatenate([case.ids] * 2)[:, :-1], np.concatenate([case.mask] * 2)[:, :-1], other)
    )
    for ids, mask, pixels in sizes:
        ids = np.concatenate([ids[:, :-1], case.ids[0, -1:].repeat(len(ids))[:, None]], axis=1)
        found = traced(ids.astype("int64"), mask, pixels)
        assert type(found) is type(case.model(ids, pixels, mask))
        equal(found, case.model(ids, pixels, mask, **flags))
    assert traced.experimental_get_tracing_count() == 1


def test_the_loss_and_its_gradients_are_the_same_in_a_graph(case):
    variables = [case.model.logit_scale, case.model.text_projection.outer.kernel]

    def gradients(ids, mask, pixels):
        with tf.GradientTape() as tape:
            loss = case.model(ids, pixels, mask, return_loss=True).loss
        return loss, tape.gradient(loss, [variable.value for variable in variables])

    traced = tf.function(gradients, input_signature=[IDS, MASK, PIXELS])
    pairs = (
        case.pairs["input_ids"].astype("int64"),
        case.pairs["attention_mask"],
        case.pairs["pixel_values"],
    )
    equal(traced(*pairs), gradients(*pairs), 1e-4)


@pytest.mark.parametrize("changed", ["none", "lora", "half"])
def test_blocks_keep_what_they_alone_have_in_a_graph(changed):
    model = make("text", text_config(num_hidden_layers=3))
    layer = model.text_model.blocks[1].mlp.fc1
    if changed == "lora":
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    if changed == "half":
        layer.dtype_policy = keras.DTypePolicy("mixed_float16")
    inputs = inputs_of("text")
    function = tf.function(lambda: model(inputs), autograph=False).get_concrete_function()
    equal(function(), model(inputs))
    calls = [node for node in function.graph.as_graph_def().node if "Partitioned" in node.op]
    assert len(calls) == (len(model.text_model.blocks) if changed == "none" else 0)


@pytest.mark.parametrize("kind", ["text", "vision"])
def test_a_model_that_is_made_under_a_strategy_predicts_what_it_computes(kind):
    changes = {"text": dict(num_hidden_layers=3), "vision": dict(depths=(3, 0))}
    config = {"text": text_config, "vision": vision_config}[kind](**changes[kind])
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = make(kind, config)
    inputs = inputs_of(kind)
    equal(model.predict(inputs, verbose=0), model(inputs))
    equal(tf.function(lambda: model(inputs), autograph=False)(), model(inputs))


@pytest.mark.parametrize("kind", ["joint", "text", "vision"])
def test_xla_gives_what_eager_gives(kind):
    inputs = inputs_of(kind)
    compiled = tf.function(tiny(kind), jit_compile=True)
    equal(compiled(inputs), tiny(kind)(inputs))


def test_sizes_that_cannot_be_right_are_refused_while_tracing():
    from tf_groupvit.errors import InputError

    traced = tf.function(
        tiny("vision"), input_signature=[tf.TensorSpec((None, 3, 7, None))], autograph=False
    )
    with pytest.raises(InputError, match="height 7"):
        traced.get_concrete_function()
    traced = tf.function(
        tiny("text"), input_signature=[tf.TensorSpec((None, 8), tf.int32)], autograph=False
    )
    with pytest.raises(InputError, match="8 tokens long"):
        traced.get_concrete_function()


def test_a_text_without_an_end_token_is_pooled_at_the_start_in_a_graph():
    """As PyTorch does it; eagerly it is refused."""
    traced = tf.function(tiny("text"), input_signature=[tf.TensorSpec((None, None), tf.int32)])
    result = traced(np.ones((2, 4), "int32"))
    equal(result.pooler_output, result.last_hidden_state[:, 0])


def test_predicting_twice_traces_once():
    model = make("vision")
    traces = []
    inner = model.call

    def counted(*arguments, **keywords):
        traces.append(1)
        return inner(*arguments, **keywords)

    model.call = counted
    for seed in range(3):
        model.predict(some_pixels(4, seed=seed), batch_size=4, verbose=0)
    assert len(traces) == 1


@pytest.mark.parametrize("kind", ["joint", "text", "vision"])
def test_an_exported_model_answers_as_the_model_at_other_sizes_too(kind, tmp_path):
    model = tiny(kind)
    model.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    for inputs in (inputs_of(kind), inputs_of(kind, 5)):
        if "pixel_values" in inputs:
            inputs["pixel_values"] = np.tile(inputs["pixel_values"], (1, 1, 2, 3))
        found = served(**{name: tf.constant(value) for name, value in inputs.items()})
        expected = {
            name: value for name, value in model(inputs).items() if not isinstance(value, dict)
        }
        assert found.keys() == expected.keys()
        equal(found, expected)


def test_images_against_texts_are_exported_too(tmp_path):
    fixed = tiny().with_text_embeds(np.eye(2, 6))
    fixed.export(str(tmp_path / "saved"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    pixels = some_pixels(3, 12, 8)
    equal(dict(served(pixel_values=tf.constant(pixels))), dict(fixed(pixels)))


def test_a_signature_of_ones_own_is_exported(tmp_path):
    signature = [
        {
            "pixel_values": keras.InputSpec(
                shape=(None, 3, 8, 8), dtype="float32", name="pixel_values"
            )
        }
    ]
    tiny("vision").export(tmp_path / "saved", input_signature=signature, verbose=False)
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    assert served.structured_input_signature[1]["pixel_values"].shape.as_list() == [None, 3, 8, 8]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")  # Keras' own
@pytest.mark.parametrize(
    ("kind", "format", "suffix"),
    [("vision", "onnx", "onnx"), ("text", "litert", "tflite"), ("text", "openvino", "xml")],
)
def test_a_model_is_exported_in_the_other_formats_of_keras(kind, format, suffix, tmp_path):
    from tf_groupvit.export.portable import FORMATS

    pytest.importorskip({"onnx": "tf2onnx", "litert": "ai_edge_litert"}.get(format, format))
    model, inputs, file = tiny(kind), inputs_of(kind), tmp_path / f"model.{suffix}"
    signature = {
        name: keras.InputSpec(shape=value.shape, dtype=str(value.dtype), name=name)
        for name, value in inputs.items()
    }
    model.export(file, format=format, input_signature=[signature], verbose=False)
    found = FORMATS[format].open(file)(inputs).values()
    expected = [np.asarray(model(inputs)[name]) for name in ("last_hidden_state", "pooler_output")]
    for value in expected:  # a runtime may call them otherwise
        assert any(one.shape == value.shape and np.allclose(one, value, atol=1e-5) for one in found)


def test_a_ragged_tensor_is_refused():
    from tf_groupvit.errors import InputError

    with pytest.raises(InputError, match="is ragged"):
        tiny("text")(tf.ragged.constant([[1, 9], [9]]))


@pytest.mark.slow
def test_a_model_of_ones_own_is_built_around_ours():
    """As a user's classifier would: pixels to group features to ten classes, trained for a step."""
    pixels = keras.Input((3, None, None))
    scores = keras.layers.Dense(10)(make("vision")(pixels)["pooler_output"])
    around = keras.Model(pixels, scores)
    around.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    history = around.fit(some_pixels(4), np.arange(4), verbose=0).history
    assert np.isfinite(history["loss"]).all() and some_ids().size
