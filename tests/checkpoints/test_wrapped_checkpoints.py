"""Checkpoints as training tools leave them: the model's own names come out, and what was removed is
said.
"""

import numpy as np
import pytest
from checkpoint_files import Call, Global, pickled, reference, tensor, torch_zip
from safetensors.numpy import save_file

from tf_groupvit.checkpoints.matching import match
from tf_groupvit.checkpoints.reading import read_checkpoint
from tf_groupvit.errors import CheckpointError

FOUR = np.array([0.5, 1, 2, 3], "<f4")
WEIGHTS = {"text_model.a": tensor(), "vision_model.b": tensor(), "logit_scale": tensor()}


@pytest.fixture
def read(tmp_path):
    """Save named arrays, or a pickled object, and read them back."""

    def read(content, name=None):
        if name is None:
            save_file(content, tmp_path / "model.safetensors")
            return read_checkpoint(tmp_path)
        (tmp_path / name).write_bytes(torch_zip(pickled(content), {"0": FOUR.tobytes()}))
        return read_checkpoint(tmp_path / name)

    return read


def refused(read, content, match, name=None):
    with pytest.raises(CheckpointError, match=match) as caught:
        read(content, name)
    assert "\n" not in str(caught.value)


PREFIXES = [
    "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "base_model.model.", "net.groupvit.",
    "_checkpoint_wrapped_module.", "_forward_module.model.", "ema.module.",
]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_that_all_names_share_is_removed_and_said(read, prefix):
    expected = reference()
    found = read({prefix + name: array for name, array in expected.items()})
    assert set(found.tensors) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found.tensors[name], array)
    assert found.notes == (f"The prefix '{prefix}' was removed from the names of 214 tensors.",)
    shapes = {name: array.shape for name, array in expected.items()}
    assert set(match(found.tensors, shapes).shapes) == set(expected)


def test_wrappers_inside_names_are_removed_and_said(read):
    wrapped = {}
    for name, array in reference().items():
        name = name.replace(".layers.0.", ".layers.0._checkpoint_wrapped_module.")
        wrapped[name.replace("vision_model.", "vision_model._orig_mod.")] = array
    found = read(wrapped)
    assert set(found.tensors) == set(reference())
    inside = sum(".layers.0." in name for name in reference())
    assert (
        f"'_checkpoint_wrapped_module.' was removed inside the names of {inside} tensors."
        in found.notes
    )


def test_names_without_a_wrapper_stay_as_they_are(read):
    content = {**reference(), "extra.text_head": np.zeros(2, np.float32)}
    found = read(content)
    assert set(found.tensors) == set(content) and found.notes == ()


def test_what_is_outside_the_models_prefix_is_left_out_and_said(read):
    others = {
        "n_averaged": np.array(3),
        "loss.queue": np.zeros(2),
        "val_iou.confusion": np.zeros((2, 2)),
    }
    found = read({**{f"module.{name}": array for name, array in reference().items()}, **others})
    assert set(found.tensors) == set(reference())
    assert (
        "Left out, since they are no part of the model: loss.queue, n_averaged, val_iou.confusion."
        in found.notes
    )


def test_a_strange_tensor_inside_the_model_is_kept_for_the_report(read):
    found = read(
        {
            **{f"model.{name}": array for name, array in reference().items()},
            "model.extra": np.zeros(1),
        }
    )
    assert set(found.tensors) == {*reference(), "extra"}


def test_two_models_in_one_file_are_refused_by_name(read):
    names = list(reference())
    both = {f"{who}.{name}": np.zeros(1) for who in ("student", "teacher") for name in names}
    refused(read, both, r"2 models, their names under 'student\.', 'teacher\.'")


def test_the_originals_names_are_known_behind_a_prefix(read):
    found = read(
        {
            "model.module.img_encoder.norm.weight": np.ones(2),
            "model.module.logit_scale": np.ones(()),
        }
    )
    assert set(found.tensors) == {"vision_model.layernorm.weight", "logit_scale"}
    assert found.format == "safetensors, original"


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.vision_model.layernorm.lora_A.default.weight",
        "base_model.model.vision_model.layernorm.base_layer.weight",
        "base_model.model.text_projection.modules_to_save.default.weight",
    ],
)
def test_lora_that_is_not_merged_is_refused_with_what_to_do(read, name):
    refused(read, {name: np.zeros(1)}, "merge_and_unload")


def test_a_folder_with_an_adapter_alone_is_told(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="merge_and_unload"):
        read_checkpoint(tmp_path)


# --- Containers
# ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["best.pth", "last.ckpt", "pytorch_model.bin", "a.pt", "checkpoint.pth.tar"]
)
@pytest.mark.parametrize("place", ["model_state_dict", "state_dict", "model", "net", "weights"])
def test_a_container_of_one_state_dict_is_opened(read, name, place):
    optimizer = {"state": {0: {"step": 3, "exp_avg": tensor()}}, "param_groups": [{"lr": 0.1}]}
    content = {
        "epoch": 3,
        place: WEIGHTS,
        "optimizer_state_dict": optimizer,
        "scaler": {"scale": tensor()},
    }
    found = read(content, name)
    assert set(found.tensors) == set(WEIGHTS)
    np.testing.assert_array_equal(found.tensors["text_model.a"], FOUR)
    unusual = place in ("net", "weights")
    assert found.notes == ((f"The weights under '{place}' were taken.",) if unusual else ())


def test_a_lightning_checkpoint_is_read(read):
    settings = Call(Global("lightning.fabric.utilities.data", "AttributeDict"))
    options = Call(Global("argparse", "Namespace"), state={"lr": 0.1})
    content = {
        "epoch": 1,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {f"model.{name}": value for name, value in WEIGHTS.items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {
            "ModelCheckpoint{'monitor': None}": {"best_model_score": tensor(), "dirpath": "x"}
        },
        "optimizer_states": [{"state": {0: {"exp_avg": tensor()}}}],
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "all": settings,
            "options": options,
            "at": Call(Global("pathlib", "PosixPath"), "a", "b"),
        },
    }
    found = read(content, "last.ckpt")
    assert set(found.tensors) == set(WEIGHTS)
    assert found.notes == ("The prefix 'model.' was removed from the names of 3 tensors.",)


def test_several_state_dicts_are_refused_by_name(read):
    content = {"model": WEIGHTS, "model_ema": dict(WEIGHTS), "epoch": 3}
    refused(
        read,
        content,
        r"2 state dicts, 'model' \(3 tensors\), 'model_ema' \(3 tensors\)",
        "best.pth",
    )


def test_what_to_save_alone_is_written_out_for_containers_in_containers(read):
    content = {"ema": {"module": WEIGHTS}, "online": {"module": dict(WEIGHTS)}}
    refused(read, content, r"torch\.load\(file\)\['ema'\]\['module'\]", "best.pth")


def test_averaged_weights_that_are_alone_are_taken_and_named(read):
    found = read({"ema": {"module": {**WEIGHTS}}, "epoch": 3}, "best.pth")
    assert found.notes == ("The weights under 'ema.module' were taken.",)


def test_dicts_of_other_tensors_do_not_stand_in_the_way(read):
    content = {
        "state_dict": WEIGHTS,
        "random": {"cpu": tensor(), "gpu": tensor()},
        "buffers": {"mean": tensor()},
    }
    assert set(read(content, "best.pth").tensors) == set(WEIGHTS)


def test_a_dict_that_holds_itself_ends(read):
    content = {"a": 1}
    content["b"] = content
    refused(read, content, "no state dict", "best.pth")


def test_weights_of_another_model_get_no_hint_at_the_config(read):
    found = read({"backbone.conv.weight": np.zeros(1)})
    with pytest.raises(CheckpointError, match="No name is the same") as caught:
        match(found.tensors, {"text_model.a": (1,)}, source="x")
    assert "config.json" not in str(caught.value)
