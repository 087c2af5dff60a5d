"""Names and layouts: Keras' and TensorFlow's to PyTorch's, and kernels there and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_groupvit.checkpoints.names import (
    batch_counters,
    checkpoint_name,
    checkpoint_shape,
    tensorflow_name,
    to_checkpoint_layout,
    to_keras_layout,
)

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
