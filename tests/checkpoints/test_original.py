"""The original repository's .pth: every weight arrives under transformers' name with transformers'
numbers.
"""

import numpy as np
import pytest
from checkpoint_files import GOLDEN, reference

from tf_groupvit.checkpoints.names import from_original, is_original
from tf_groupvit.checkpoints.reading import read_checkpoint
from tf_groupvit.checkpoints.tensors import Tensors
from tf_groupvit.errors import CheckpointError


def renamed(**arrays):
    return from_original(
        Tensors.of({name.replace("__", "."): array for name, array in arrays.items()})
    )[0]


def test_the_training_file_gives_the_weights_of_the_transformers_file():
    """The file holds an OmegaConf object, an optimiser and numpy numbers beside the weights."""
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
