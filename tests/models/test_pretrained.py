"""Any checkpoint in, the right model out, and back to what transformers loads; what does not fit is
refused whole.
"""

import json
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_models import CLASSES, equal, inputs_of, joint_config, make, numbers, some_ids, tiny

from tf_groupvit.checkpoints.names import checkpoint_name
from tf_groupvit.config import GroupViTConfig
from tf_groupvit.errors import CheckpointError, ConfigError, HubError, InputError
from tf_groupvit.models import weights
from tf_groupvit.models.conversion import convert
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.models.text import TFGroupViTTextModel
from tf_groupvit.models.vision import TFGroupViTVisionModel
from tf_groupvit.models.weights import (
    as_tensors,
    expected_shapes,
    starting_from,
    variables_by_name,
)

CHECKPOINTS = Path(__file__).resolve().parents[1] / "golden" / "checkpoints"
CLASSES_BY_NAME: dict[str, Any] = {
    "joint": TFGroupViTModel,
    "text": TFGroupViTTextModel,
    "vision": TFGroupViTVisionModel,
}
FORMATS = {
    "safetensors": {"transformers/model.safetensors": "model.safetensors"},
    "shards": {f"shards/{file.name}": file.name for file in (CHECKPOINTS / "shards").iterdir()},
    "h5": {"tensorflow/joint/tf_model.h5": "tf_model.h5"},
    "tensorflow's safetensors": {"tensorflow/safetensors/model.safetensors": "model.safetensors"},
    "pickle": {"zip.bin": "pytorch_model.bin"},
    "old pickle": {"legacy.bin": "pytorch_model.bin"},
    "original": {"original.pth": "groupvit.pth"},
}


def folder_of(folder, kind="safetensors"):
    folder.mkdir()
    shutil.copyfile(CHECKPOINTS / "transformers" / "config.json", folder / "config.json")
    for file, name in FORMATS[kind].items():
        shutil.copyfile(CHECKPOINTS / file, folder / name)
    return folder / "groupvit.pth" if kind == "original" else folder


def spoiled(folder, change):
    """The checkpoint with ``change`` done to its arrays."""
    arrays = load_file(folder_of(folder) / "model.safetensors")
    change(arrays)
    save_file(arrays, folder / "model.safetensors")
    return folder


def reference():
    return load_file(CHECKPOINTS / "transformers" / "model.safetensors")


@pytest.mark.models
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_loads_into_every_class(kind, tmp_path):
    path, expected = folder_of(tmp_path / "a", kind), reference()
    prefixes = {"joint": "", "text": "text_model.", "vision": "vision_model."}
    for part, model_class in CLASSES_BY_NAME.items():
        held = as_tensors(model_class.from_pretrained(path))
        wanted = {name for name in expected if name.startswith(prefixes[part])}
        assert set(held) == {name for name in wanted if not name.endswith("num_batches_tracked")}
        for name in held:
            np.testing.assert_array_equal(held[name], expected[name], err_msg=name)


def test_flags_of_transformers_change_nothing(tmp_path):
    folder = folder_of(tmp_path / "a", "h5")
    choices: list[dict[str, Any]] = [
        {"from_pt": True},
        {"from_tf": True},
        {"from_pt": False, "from_tf": False},
    ]
    for flags in choices:
        assert TFGroupViTTextModel.from_pretrained(str(folder), **flags).config.vocab_size == 23


def test_an_original_file_takes_its_config_from_the_argument(caplog):
    config = GroupViTConfig.from_pretrained(CHECKPOINTS / "transformers")
    with caplog.at_level(logging.WARNING):
        model = TFGroupViTModel.from_pretrained(CHECKPOINTS / "original.pth", config=config)
    assert [record.name for record in caplog.records] == ["tf_groupvit.models.pretrained"]
    assert "multi_label_logit_scale was dropped" in caplog.text
    np.testing.assert_array_equal(numbers(model.logit_scale), reference()["logit_scale"])
    text = TFGroupViTTextModel.from_pretrained(CHECKPOINTS / "original.pth", config=config)
    assert text.config == config.text_config


def test_an_original_file_without_config_is_taken_for_the_published_size():
    with (
        pytest.warns(UserWarning, match="published sizes are assumed"),
        pytest.raises(CheckpointError, match=r"expected \(49408, 256\), got \(23, 6\)"),
    ):
        TFGroupViTTextModel.from_pretrained(CHECKPOINTS / "original.pth")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_files_load_into_float32_variables(dtype, tmp_path):
    make("text", dtype=dtype).save_pretrained(tmp_path)
    model = TFGroupViTTextModel.from_pretrained(tmp_path)
    assert {variable.dtype for variable in model.weights} == {"float32"}
    equal(model(some_ids()), tiny("text")(some_ids()), 2e-2)


@pytest.mark.models
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16"])
@pytest.mark.parametrize("kind", ["joint", "vision"])
def test_models_of_every_policy_are_saved_and_come_back(kind, dtype, tmp_path):
    model = make(kind, dtype=dtype)
    model.save_pretrained(tmp_path)
    again = CLASSES_BY_NAME[kind].from_pretrained(tmp_path, dtype=dtype)
    assert again.dtype_policy.name == dtype
    for one, other in zip(again.weights, model.weights, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(
            numbers(one).astype("float32"), numbers(other).astype("float32"), one.path
        )


@pytest.mark.models
@pytest.mark.parametrize("kind", CLASSES)
def test_what_is_saved_comes_back(kind, tmp_path):
    model = make(kind)
    model.save_pretrained(tmp_path / "new" / "folder")
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    again = CLASSES_BY_NAME[kind].from_pretrained(tmp_path / "new" / "folder")
    assert again.config == model.config
    equal(again(inputs_of(kind)), model(inputs_of(kind)), 1e-6)


def test_a_golden_checkpoint_is_saved_as_it_was(case, tmp_path):
    """Names, shapes, types and every bit, counters of batches included."""
    case.model.save_pretrained(tmp_path)
    found, expected = (
        load_file(tmp_path / "model.safetensors"),
        load_file(case.folder / "model.safetensors"),
    )
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_weights_that_do_not_fit_are_told_all_at_once(tmp_path):
    def change(arrays):
        del arrays["logit_scale"], arrays["text_model.final_layer_norm.bias"]
        arrays["stranger"] = np.zeros(1)
        arrays["vision_model.layernorm.bias"] = np.zeros(3)

    with pytest.raises(CheckpointError) as caught:
        TFGroupViTModel.from_pretrained(spoiled(tmp_path / "a", change))
    told = str(caught.value)
    assert (
        "2 missing: logit_scale, text_model.final_layer_norm.bias; 1 unexpected: stranger; 1"
        " misshapen:" in told
    )
    assert "vision_model.layernorm.bias (expected (8,), got (3,))" in told and "\n" not in told


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 10**12),
        ("max_position_embeddings", 10**30),
        ("num_hidden_layers", 10**9),
    ],
)
@pytest.mark.parametrize("load", [TFGroupViTModel.from_pretrained, convert])
def test_a_config_of_absurd_sizes_takes_no_memory(load, field, value, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "LEAST", 2**23)  # of layers, so many fewer are made
    folder = folder_of(tmp_path / "a")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"][field] = value
    (folder / "config.json").write_text(json.dumps(config))
    arguments = [folder] if load is not convert else [folder, tmp_path / "b"]
    with pytest.raises(CheckpointError, match=r"far more weights are missing than it has, [^\n]*$"):
        load(*arguments)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(value, tmp_path):
    def change(arrays):
        arrays["vision_model.encoder.stages.0.group_token"][0, 1, 2] = value

    with pytest.raises(CheckpointError, match=r"'vision_model.encoder.stages.0.group_token' holds"):
        TFGroupViTModel.from_pretrained(spoiled(tmp_path / "a", change))


def test_what_older_files_have_beside_is_ignored(tmp_path):
    def change(arrays):
        arrays["text_model.embeddings.position_ids"] = np.arange(7)[None]

    folder = spoiled(tmp_path / "a", change)
    assert TFGroupViTModel.from_pretrained(folder) and TFGroupViTVisionModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("path", "error", "told"),
    [
        ("gone", HubError, "neither a folder on this disk nor a hub id"),
        ("./gone", HubError, "is not there"),
        ("some/model", HubError, "not in the cache"),
        ("a/b/c", HubError, "is not there"),
        ("", HubError, "is empty"),
        (".", ConfigError, "config.json cannot be read"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(path, error, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=told) as caught:
        TFGroupViTModel.from_pretrained(path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_config_or_weights_is_told(tmp_path):
    folder = folder_of(tmp_path / "a")
    (folder / "model.safetensors").rename(folder / "other.txt")
    with pytest.raises(CheckpointError, match="holds no weights"):
        TFGroupViTModel.from_pretrained(folder)
    (folder / "other.txt").rename(folder / "model.safetensors")
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"config.json cannot be read"):
        TFGroupViTModel.from_pretrained(folder)
    with pytest.raises(ConfigError, match=r"takes a GroupViTConfig, but got a dict"):
        TFGroupViTModel.from_pretrained(folder, config={})
    with pytest.raises(InputError, match="float13"):
        TFGroupViTModel.from_pretrained(CHECKPOINTS / "transformers", dtype="float13")


def test_a_failed_save_leaves_the_older_checkpoint_whole(tmp_path, monkeypatch):
    tiny("text").save_pretrained(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    other = make("text")

    def fail(self, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(CheckpointError, match="No space left"):
        other.save_pretrained(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(CheckpointError, match="cannot be made"):
        tiny("text").save_pretrained(tmp_path / "taken")


@pytest.mark.models
def test_lora_is_merged_into_what_is_saved(tmp_path):
    """A checkpoint has no place for its factors; the merged weights answer alike."""
    model, ids = make("text"), some_ids()
    plain = numbers(model(ids).pooler_output)
    layer = model.text_model.blocks[0].self_attn.q_proj
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    table = model.text_model.token_embedding
    table.enable_lora(2)
    table.lora_embeddings_b.assign(np.ones(table.lora_embeddings_b.shape) * 0.1)
    assert np.abs(numbers(model(ids).pooler_output) - plain).max() > 1e-4
    model.save_pretrained(tmp_path)
    again = TFGroupViTTextModel.from_pretrained(tmp_path)
    assert expected_shapes(again) == expected_shapes(model)
    equal(again(ids), model(ids))


def test_a_quantized_model_is_refused_before_anything_is_written(tmp_path):
    model = make("text")
    with warnings.catch_warnings(
        action="ignore"
    ):  # Keras warns about every layer that it cannot quantize
        model.quantize("int8")
    with pytest.raises(CheckpointError, match=r"is quantized \(int8\)"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_saved_config_is_that_of_the_file(tmp_path):
    content = json.loads((CHECKPOINTS / "transformers" / "config.json").read_text())
    TFGroupViTModel.from_pretrained(CHECKPOINTS / "transformers").save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert content.keys() <= written.keys() and written["architectures"] == ["GroupViTModel"]


def test_a_new_model_starts_from_random_weights():
    """Zeros are only for models that a checkpoint fills at once."""
    kernels = [v for v in TFGroupViTModel(joint_config()).weights if v.path.endswith("/kernel")]
    assert all(np.abs(numbers(kernel)).max() > 0 for kernel in kernels)


def test_loading_draws_no_numbers_and_fills_no_memory_before_the_weights_come(
    tmp_path, monkeypatch
):
    def refuse(*arguments, **keywords):
        raise AssertionError("an initializer ran")

    make().save_pretrained(tmp_path)
    for initializer in ("RandomNormal", "TruncatedNormal", "Constant", "Zeros", "Ones"):
        monkeypatch.setattr(getattr(keras.initializers, initializer), "__call__", refuse)
    monkeypatch.setattr("tf_groupvit.models.weights.ops.zeros", refuse)
    TFGroupViTModel.from_pretrained(tmp_path)


def test_weights_of_a_model_are_its_own(tmp_path):
    """What is trained in one model stays out of another from the same file."""
    make().save_pretrained(tmp_path)
    one, other = (
        TFGroupViTModel.from_pretrained(tmp_path),
        TFGroupViTModel.from_pretrained(tmp_path),
    )
    before = [numbers(variable).copy() for variable in other.weights]
    for variable in one.weights:
        variable.assign(variable * 0 + 7)
    equal(list(other.weights), before)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_arrays_that_a_model_starts_from_stay_apart_from_its_variables(dtype):
    """Of either order in memory, and wherever they begin in it."""
    arrays: dict[str, np.ndarray] = {}

    def source(path, shape):
        values = np.random.default_rng(len(arrays)).normal(size=(*shape, 2)).astype("float32")
        values = values[..., 1] if len(arrays) % 2 else values[..., 0].T.copy().T
        return arrays.setdefault(checkpoint_name(path), values)

    with starting_from(source):
        model = TFGroupViTModel(joint_config(), dtype=dtype)
    before = {name: values.copy() for name, values in arrays.items()}
    variables = variables_by_name(model)
    equal(variables, {name: values.astype(dtype) for name, values in before.items()})
    for variable in variables.values():
        variable.assign_add(variable * 0 + 1)
    equal(arrays, before, 0)
    for values in arrays.values():
        values[...] = 0
    equal(variables, {name: values.astype(dtype) + 1 for name, values in before.items()}, 1e-3)
