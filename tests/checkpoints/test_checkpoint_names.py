"""Names and layouts: Keras', TensorFlow's and the original's to PyTorch's; kernels there and back."""

import numpy as np
import pytest
from checkpoint_files import GOLDEN, reference
from hypothesis import given
from hypothesis import strategies as st

from tf_groupvit.checkpoints.names import (
    batch_counters,
    checkpoint_name,
    checkpoint_shape,
    from_original,
    is_original,
    tensorflow_name,
    to_checkpoint_layout,
    to_keras_layout,
)
from tf_groupvit.checkpoints.reading import read_checkpoint
from tf_groupvit.checkpoints.tensors import Tensors
from tf_groupvit.errors import CheckpointError

STAGE = "vision_model.encoder.stages.0"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("model/text_model.final_layer_norm/gamma", "text_model.final_layer_norm.weight"),
        ("model/text_model.final_layer_norm/beta", "text_model.final_layer_norm.bias"),
        (
            f"a/b/{STAGE}/{STAGE}.downsample.assign.proj/kernel",
            f"{STAGE}.downsample.assign.proj.weight",
        ),
        (f"a/{STAGE}.layers.2.mlp.fc1/bias", f"{STAGE}.layers.2.mlp.fc1.bias"),
        (
            "m/text_model.embeddings.token_embedding/embeddings",
            "text_model.embeddings.token_embedding.weight",
        ),
        ("visual_projection.1/moving_mean", "visual_projection.1.running_mean"),
        ("m/text_projection.1/moving_variance", "text_projection.1.running_var"),
        (f"m/{STAGE}/group_token", f"{STAGE}.group_token"),
        (
            "m/vision_model.embeddings/position_embeddings",
            "vision_model.embeddings.position_embeddings",
        ),
        ("my_model/logit_scale", "logit_scale"),
        ("vision_model/logit_scale", "logit_scale"),
        ("logit_scale", "logit_scale"),
    ],
)
def test_a_keras_path_gives_its_checkpoint_name(path, name):
    assert checkpoint_name(path) == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("groupvit/tf_group_vi_t_model/groupvit/logit_scale:0", "logit_scale"),
        ("groupvit/text_model/embeddings/token_embedding/weight:0", "text_model.embeddings.token_embedding.weight"),
        ("x/text_model/embeddings/position_embedding/embeddings:0", "text_model.embeddings.position_embedding.weight"),
        ("vision_model/encoder/stages_._1/group_projector.1/fc1/kernel:0",
         "vision_model.encoder.stages.1.group_projector.1.fc1.weight"),
        ("x/visual_projection.1/moving_variance:0", "visual_projection.1.running_var"),
        ("x/y/text_model/encoder/layers_._11/layer_norm1/gamma", "text_model.encoder.layers.11.layer_norm1.weight"),
        ("unknown/kernel:0", "unknown.weight"),
    ],
)  # fmt: skip
def test_a_tensorflow_name_gives_its_checkpoint_name(path, name):
    assert tensorflow_name(path) == name


def test_a_dense_kernel_is_transposed():
    np.testing.assert_array_equal(
        to_checkpoint_layout(np.array([[1, 2, 3]]), "m/text_model.x/kernel"), [[1], [2], [3]]
    )


def test_a_convolution_goes_from_hwio_to_oihw():
    H, W, I, O = 2, 3, 4, 5  # noqa: E741
    kernel = np.arange(H * W * I * O).reshape(H, W, I, O)
    turned = to_checkpoint_layout(kernel, "kernel")
    assert turned.shape == (O, I, H, W) == checkpoint_shape(kernel.shape, "kernel:0")
    assert turned[4, 3, 1, 2] == kernel[1, 2, 3, 4]


@given(
    shape=st.lists(st.integers(1, 4), max_size=5),
    leaf=st.sampled_from(["kernel", "a/b/kernel", "gamma", "embeddings"]),
)
def test_a_layout_there_and_back_is_the_same(shape, leaf):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    turned = to_checkpoint_layout(array, leaf)
    assert turned.shape == checkpoint_shape(tuple(shape), leaf)
    np.testing.assert_array_equal(to_keras_layout(turned, leaf), array)


def test_embeddings_stay_as_they_are():
    assert to_checkpoint_layout(np.zeros((2, 3)), "m/token_embedding/embeddings").shape == (2, 3)


def test_each_batch_norm_has_a_counter():
    names = ["visual_projection.1.running_mean", "visual_projection.1.running_var", "logit_scale"]
    assert batch_counters(names) == ["visual_projection.1.num_batches_tracked"]


# ---- The original repository's .pth ----


def renamed(**arrays):
    return from_original(
        Tensors.of({name.replace("__", "."): array for name, array in arrays.items()})
    )[0]


def test_the_training_file_gives_the_weights_of_the_transformers_file():
    """The file holds an OmegaConf object, an optimizer and NumPy numbers besides the weights."""
    found, expected = read_checkpoint(GOLDEN / "original.pth"), reference()
    assert found.format == "pickle, original"
    assert set(found.tensors) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found.tensors[name], array, err_msg=name)
        assert found.tensors.shapes()[name] == array.shape
    assert len(found.notes) == 1
    assert "multi_label_logit_scale" in found.notes[0]


def test_fused_projections_are_split_in_the_order_q_k_v():
    weight = np.arange(12.0).reshape(6, 2)
    split = renamed(**{"text_encoder.transformer.resblocks.4.attn.in_proj_weight": weight})
    prefix = "text_model.encoder.layers.4.self_attn"
    np.testing.assert_array_equal(split[f"{prefix}.q_proj.weight"], [[0, 1], [2, 3]])
    np.testing.assert_array_equal(split[f"{prefix}.k_proj.weight"], [[4, 5], [6, 7]])
    np.testing.assert_array_equal(split[f"{prefix}.v_proj.weight"], [[8, 9], [10, 11]])


def test_the_wrapper_of_several_gpus_is_taken_off():
    tensors = Tensors.of(
        {"module.img_encoder.norm.weight": np.ones(2), "module.logit_scale": np.ones(())}
    )
    assert is_original(tensors)
    assert set(from_original(tensors)[0]) == {"vision_model.layernorm.weight", "logit_scale"}


def test_transformers_names_are_not_taken_for_the_originals():
    assert not is_original(reference())


def test_a_name_that_no_rule_knows_is_kept_for_the_report():
    assert set(renamed(**{"img_encoder.extra.weight": np.ones(2)})) == {"img_encoder.extra.weight"}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("img_encoder.layers.0.blocks.0.attn.qkv.weight", (7, 2)),
        ("img_encoder.layers.0.blocks.0.attn.qkv.bias", ()),
        ("img_projector.linear_out.weight", (2, 2, 3)),
        ("text_projector.linear_hidden.0.weight", (2,)),
    ],
)
def test_a_tensor_that_cannot_be_split_or_squeezed_is_named(name, shape):
    with pytest.raises(CheckpointError, match=name):
        renamed(**{name: np.zeros(shape)})


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(CheckpointError, match="both 'logit_scale'"):
        renamed(**{"logit_scale": np.ones(()), "module.logit_scale": np.ones(())})
