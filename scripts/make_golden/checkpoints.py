"""One tiny seeded GroupViT -> tests/golden/checkpoints: the same weights in every file format that
we read.

Run with an interpreter that has torch, transformers 5 and omegaconf; the files of transformers'
TensorFlow class are written by a second interpreter (``--tensorflow-python``) that has transformers
4.57 with TensorFlow 2.19:

    python scripts/make_golden/checkpoints.py --tensorflow-python /path/to/other/python
"""

import argparse
import subprocess
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "golden" / "checkpoints"

# No two sizes are alike, so that a wrong transpose or a wrong split cannot pass.
TEXT: dict = {
    "vocab_size": 23,
    "hidden_size": 6,
    "intermediate_size": 10,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 7,
    "bos_token_id": 21,
    "eos_token_id": 22,
    "pad_token_id": 1,
}
VISION: dict = {
    "hidden_size": 8,
    "intermediate_size": 20,
    "depths": [1, 2, 1],
    "num_hidden_layers": 4,
    "num_group_tokens": [5, 3, 0],
    "num_output_groups": [5, 3, 3],
    "num_attention_heads": 4,
    "image_size": 12,
    "patch_size": 4,
    "assign_mlp_ratio": [0.5, 4],
}
JOINT = {"projection_dim": 9, "projection_intermediate_dim": 14}

TENSORFLOW_PART = """
import sys
from pathlib import Path
import transformers
from safetensors.tensorflow import load_file
from transformers.modeling_tf_pytorch_utils import load_pytorch_state_dict_in_tf2_model as fill
folder = Path(sys.argv[1])
weights = load_file(folder / "transformers" / "model.safetensors")
joint = transformers.GroupViTConfig.from_pretrained(folder / "transformers")
kinds = {"joint": "TFGroupViTModel", "text": "TFGroupViTTextModel", "vision": "TFGroupViTVisionModel"}
for part, kind in kinds.items():
    model = getattr(transformers, kind)(joint if part == "joint" else getattr(joint, part + "_config"))
    model.build_in_name_scope()
    fill(model, {key: value for key, value in weights.items() if part == "joint" or key.startswith(part)})
    model.save_pretrained(folder / "tensorflow" / part, safe_serialization=False)
    if part == "joint":
        model.save_pretrained(folder / "tensorflow" / "safetensors", safe_serialization=True)
"""


def seeded_model():
    """A model whose every weight, batch-norm statistic included, is a random number of its own."""
    import torch
    from transformers import GroupViTConfig, GroupViTModel

    model = GroupViTModel(GroupViTConfig(text_config=TEXT, vision_config=VISION, **JOINT)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.05)
            else:
                tensor.fill_(4)
    return model


def write_transformers_files(model) -> None:
    import torch

    model.save_pretrained(FOLDER / "transformers")
    model.save_pretrained(FOLDER / "shards", max_shard_size="15KB")
    torch.save(model.state_dict(), FOLDER / "zip.bin")
    torch.save(model.state_dict(), FOLDER / "legacy.bin", _use_new_zipfile_serialization=False)


def write_odd_tensors() -> None:
    """Every dtype, shared storages, strides, offsets, parameters: in both of torch's formats, with
    the answer.
    """
    import numpy as np
    import torch

    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "base": base,
        "transposed": base.t(),
        "column": base[1:, 2],
        "steps": base[::2, 1::3],
        "expanded": torch.tensor([[7.0], [8.0]]).expand(2, 3),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.tensor([1.0, 2.0])),
        "half": torch.tensor([0.5, 65504.0], dtype=torch.float16),
        "double": torch.tensor([1e300], dtype=torch.float64),
        "long": torch.tensor([-(2**40), 3]),
        "int": torch.tensor([-5], dtype=torch.int32),
        "short": torch.tensor([-300], dtype=torch.int16),
        "char": torch.tensor([-7], dtype=torch.int8),
        "byte": torch.tensor([250], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
    }
    tagged = torch.nn.Parameter(torch.tensor([3.0]))
    tagged.remark = "an attribute of its own"
    np.savez(
        FOLDER / "odd.npz",
        **{name: tensor.detach().numpy() for name, tensor in {**tensors, "tagged": tagged}.items()},
    )
    tensors |= {"tagged": tagged, "brain": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)}
    torch.save(tensors, FOLDER / "odd_zip.bin")
    torch.save(tensors, FOLDER / "odd_legacy.bin", _use_new_zipfile_serialization=False)


BLOCK = (
    ("layer_norm1", "norm1"),
    ("layer_norm2", "norm2"),
    ("mlp.fc1", "mlp.fc1"),
    ("mlp.fc2", "mlp.fc2"),
)
TEXT_BLOCK = (
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
)


def original_weights(state: dict) -> dict:
    """The names of the original repository, built up module by module from the layers that its code
    declares.
    """
    import torch

    weights: dict = {
        "logit_scale": state["logit_scale"],
        "multi_label_logit_scale": torch.tensor(2.0),
    }

    def copy(ours: str, theirs: str, leaves=("weight", "bias")) -> None:
        for leaf in leaves:
            weights[f"{theirs}.{leaf}"] = state[f"{ours}.{leaf}"]

    def fuse(ours: str, leaf: str):
        return torch.cat([state[f"{ours}.{letter}_proj.{leaf}"] for letter in "qkv"])

    weights["img_encoder.pos_embed"] = state["vision_model.embeddings.position_embeddings"]
    copy("vision_model.embeddings.patch_embeddings.projection", "img_encoder.patch_embed.proj")
    copy("vision_model.embeddings.layernorm", "img_encoder.patch_embed.norm")
    copy("vision_model.layernorm", "img_encoder.norm")
    for stage, depth in enumerate(VISION["depths"]):
        ours, theirs = f"vision_model.encoder.stages.{stage}", f"img_encoder.layers.{stage}"
        for block in range(depth):
            mine, other = f"{ours}.layers.{block}", f"{theirs}.blocks.{block}"
            for name, old in BLOCK:
                copy(f"{mine}.{name}", f"{other}.{old}")
            for leaf in ("weight", "bias"):
                weights[f"{other}.attn.qkv.{leaf}"] = fuse(f"{mine}.self_attn", leaf)
            copy(f"{mine}.self_attn.out_proj", f"{other}.attn.proj")
        if VISION["num_group_tokens"][stage]:
            weights[f"{theirs}.group_token"] = state[f"{ours}.group_token"]
            mine, other = f"{ours}.downsample", f"{theirs}.downsample"
            same = ["norm_tokens", "norm_post_tokens", "norm_x", "norm_new_x", "assign.proj"]
            same += [
                f"{mlp}.{layer}"
                for mlp in ("mlp_inter", "mlp_channels", "pre_assign_attn.mlp")
                for layer in ("fc1", "fc2")
            ]
            same += [
                f"{where}.{letter}_proj"
                for where in ("assign", "pre_assign_attn.attn")
                for letter in "qkv"
            ]
            same += ["pre_assign_attn.norm2", "pre_assign_attn.norm_post"]
            for name in same:
                copy(f"{mine}.{name}", f"{other}.{name}")
            copy(f"{mine}.pre_assign_attn.attn.out_proj", f"{other}.pre_assign_attn.attn.proj")
        if stage and VISION["num_group_tokens"][stage]:
            for name in ("0", "1.fc1", "1.fc2"):
                copy(f"{ours}.group_projector.{name}", f"{theirs}.group_projector.{name}")
    copy("text_model.embeddings.token_embedding", "text_encoder.token_embedding", ("weight",))
    weights["text_encoder.positional_embedding"] = state[
        "text_model.embeddings.position_embedding.weight"
    ]
    copy("text_model.final_layer_norm", "text_encoder.ln_final")
    for layer in range(TEXT["num_hidden_layers"]):
        mine, other = (
            f"text_model.encoder.layers.{layer}",
            f"text_encoder.transformer.resblocks.{layer}",
        )
        for name, old in TEXT_BLOCK:
            copy(f"{mine}.{name}", f"{other}.{old}")
        for leaf in ("weight", "bias"):
            weights[f"{other}.attn.in_proj_{leaf}"] = fuse(f"{mine}.self_attn", leaf)
        copy(f"{mine}.self_attn.out_proj", f"{other}.attn.out_proj")
    statistics = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    for mine, other in (
        ("visual_projection", "img_projector"),
        ("text_projection", "text_projector"),
    ):
        for ours, theirs in (("0", "linear_hidden.0"), ("3", "linear_out")):
            weights[f"{other}.{theirs}.weight"] = state[f"{mine}.{ours}.weight"][
                :, :, None
            ]  # Conv1d, kernel of one
            weights[f"{other}.{theirs}.bias"] = state[f"{mine}.{ours}.bias"]
        copy(f"{mine}.1", f"{other}.linear_hidden.1", statistics)
    return weights


def write_original_file(state: dict) -> None:
    """What the original's training loop saves: weights, optimiser, schedule, numpy metrics, an
    OmegaConf object.
    """
    import numpy as np
    import torch
    from omegaconf import OmegaConf

    config = OmegaConf.create(
        {
            "model": {"type": "MultiLabelContrastive", "depths": [1, 2, 1]},
            "lr": 1.6e-3,
            "seed": None,
        }
    )
    torch.save(
        {
            "model": original_weights(state),
            "optimizer": {
                "state": {0: {"step": 3, "exp_avg": torch.zeros(2)}},
                "param_groups": [{"lr": 0.1, "params": [0]}],
            },
            "lr_scheduler": {"base_values": [0.1], "t_in_epochs": False},
            "metrics": {
                "max_accuracy": np.float64(43.7),
                "max_miou": np.float32(52.3),
                "count": np.int64(3),
            },
            "epoch": 29,
            "config": config,
            "amp": {"loss_scaler0": {"loss_scale": 65536.0, "unskipped": 10}},
        },
        FOLDER / "original.pth",
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tensorflow-python", help="interpreter with transformers 4.57 and TensorFlow 2.19"
    )
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    model = seeded_model()
    write_transformers_files(model)
    write_odd_tensors()
    write_original_file(model.state_dict())
    if arguments.tensorflow_python:
        subprocess.run(
            [arguments.tensorflow_python, "-c", TENSORFLOW_PART, str(FOLDER)], check=True
        )
        for config in FOLDER.glob("tensorflow/*/config.json"):
            config.unlink()


if __name__ == "__main__":
    main()
