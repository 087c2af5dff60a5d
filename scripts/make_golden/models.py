"""Seeds in, small transformers checkpoints and what its PyTorch class computes with them out.

    python scripts/make_golden/models.py tests/golden/models
    python scripts/make_golden/models.py --state-dict > tests/golden/models_state_dict.txt

Needs torch and transformers, which nothing else here does (but the benchmark). Weights are drawn so
that assignments are sharp and use several groups; a collapsed random model would hide mistakes.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GroupViTConfig, GroupViTModel
from transformers.activations import ACT2FN
from transformers.models.groupvit.modeling_groupvit import GroupViTMixerMLP

ACT2FN.setdefault("selu", torch.nn.SELU)  # its documentation names selu, its table does not

TEXT = dict(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_attention_heads=2,
    max_position_embeddings=10,
)

# Unlike each other and unlike the default: stages, groups, activations, epsilons, end-of-text rule.
CONFIGS = {
    "three_stages": dict(
        text_config=dict(TEXT, num_hidden_layers=2, bos_token_id=38, eos_token_id=39),
        vision_config=dict(
            hidden_size=24,
            intermediate_size=40,
            num_attention_heads=3,
            depths=[2, 1, 1],
            num_hidden_layers=4,
            num_group_tokens=[8, 4, 0],
            num_output_groups=[8, 4, 4],
            image_size=32,
            patch_size=8,
        ),
        projection_dim=8,
        projection_intermediate_dim=20,
    ),
    "legacy_end": dict(
        text_config=dict(
            TEXT,
            num_hidden_layers=1,
            hidden_act="relu",
            layer_norm_eps=1e-3,
            bos_token_id=0,
            eos_token_id=2,
        ),
        vision_config=dict(
            hidden_size=16,
            intermediate_size=20,
            num_attention_heads=4,
            depths=[2],
            num_hidden_layers=2,
            num_group_tokens=[6],
            num_output_groups=[6],
            image_size=24,
            patch_size=4,
            hidden_act="gelu_new",
            layer_norm_eps=1e-6,
            assign_eps=0.25,
            assign_mlp_ratio=[1.0, 2.0],
        ),
        projection_dim=12,
        projection_intermediate_dim=10,
        logit_scale_init_value=1.5,
        output_segmentation=True,
    ),
    # More group tokens than output groups, which transformers builds a projector of the wrong size
    # for.
    "fewer_outputs": dict(
        text_config=dict(
            TEXT, num_hidden_layers=1, hidden_act="selu", bos_token_id=1, eos_token_id=5
        ),
        vision_config=dict(
            hidden_size=20,
            intermediate_size=24,
            num_attention_heads=2,
            depths=[1, 1, 0],
            num_hidden_layers=3,
            num_group_tokens=[10, 6, 0],
            num_output_groups=[7, 5, 5],
            image_size=[16, 32],
            patch_size=4,
            hidden_act="quick_gelu",
            layer_norm_eps=1e-4,
            assign_eps=2.0,
            assign_mlp_ratio=[0.5, 3],
        ),
        projection_dim=6,
        projection_intermediate_dim=14,
    ),
}


def build(values: dict) -> GroupViTModel:
    model = GroupViTModel(GroupViTConfig(**values)).eval()
    vision = model.config.vision_config
    for i, stage in enumerate(model.vision_model.encoder.stages):
        if stage.group_projector is not None:
            before, tokens = vision.num_group_tokens[i - 1], vision.num_group_tokens[i]
            stage.group_projector[1] = GroupViTMixerMLP(
                vision, before, vision.hidden_size // 2, tokens
            )
    return model


@torch.no_grad()
def draw_weights(model: GroupViTModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name == "logit_scale":
            continue
        if "group_token" in name or "embed" in name:
            parameter.copy_(noise)
        elif "assign.q_proj.weight" in name or "assign.k_proj.weight" in name:
            parameter.copy_(noise * 3 / parameter.shape[-1] ** 0.5)
        elif parameter.ndim > 1:
            parameter.copy_(noise * 1.2 / parameter[0].numel() ** 0.5)
        else:
            parameter.add_(0.1 * noise)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
        elif name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))


def draw_inputs(model: GroupViTModel, seed: int) -> dict[str, torch.Tensor]:
    """Three texts of several lengths, padded on the right, and two images."""
    generator = torch.Generator().manual_seed(seed)
    text, vision = model.config.text_config, model.config.vision_config
    end = text.vocab_size - 1 if text.eos_token_id == 2 else text.eos_token_id
    ids = torch.randint(6, text.vocab_size - 2, (3, 9), generator=generator)
    mask = torch.ones_like(ids)
    for row, length in enumerate((6, 9, 4)):
        ids[row, length - 1 :] = end
        mask[row, length:] = 0
    size = (
        vision.image_size
        if isinstance(vision.image_size, list | tuple)
        else [vision.image_size] * 2
    )
    pixels = torch.randn((2, 3, *size), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}


def is_sharp(attentions: tuple[torch.Tensor, ...]) -> bool:
    """Several groups are used, and no token is in doubt: rounding must not decide an assignment."""
    for soft in attentions:
        best, second = soft.topk(2, dim=1).values.unbind(1)
        used = [len(set(image.argmax(0).tolist())) for image in soft]
        if (best - second).min() < 1e-3 or min(used) < max(2, min(soft.shape[1:]) // 3):
            return False
    return True


def outputs_of(model: GroupViTModel, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    flags = dict(output_segmentation=True, output_hidden_states=True, output_attentions=True)
    joint = model(**inputs, **flags)
    masked = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    text = model.text_model(**masked, output_hidden_states=True, output_attentions=True)
    vision = joint.vision_model_output
    named = {
        name: joint[name]
        for name in ("logits_per_image", "segmentation_logits", "text_embeds", "image_embeds")
    }
    for tower, output in (("text", text), ("vision", vision)):
        named[f"{tower}.last_hidden_state"] = output.last_hidden_state
        named[f"{tower}.pooler_output"] = output.pooler_output
        for kind in ("hidden_states", "attentions"):
            named |= {f"{tower}.{kind}.{i}": value for i, value in enumerate(getattr(output, kind))}
    named["text_features"] = model.get_text_features(**masked).pooler_output
    named["image_features"] = model.get_image_features(inputs["pixel_values"]).pooler_output
    named["unmasked.logits_per_image"] = model(
        inputs["input_ids"], inputs["pixel_values"]
    ).logits_per_image
    positions = torch.arange(9).flip(0)[None]
    named["flipped_positions.text_embeds"] = model(**inputs, position_ids=positions).text_embeds
    return named


def resized(model: GroupViTModel, seed: int) -> dict[str, torch.Tensor]:
    """A taller and wider image than the position embeddings were made for, and a smaller one."""
    generator = torch.Generator().manual_seed(seed)
    vision, found = model.vision_model, {}
    patch = vision.config.patch_size
    for name, (rows, columns) in {"larger": (6, 9), "smaller": (2, 3)}.items():
        pixels = torch.randn((1, 3, rows * patch, columns * patch), generator=generator)
        x = vision.embeddings(pixels, interpolate_pos_encoding=True)
        found[f"{name}.pixel_values"] = pixels
        found[f"{name}.embeddings"] = x
        found[f"{name}.last_hidden_state"] = vision.layernorm(
            vision.encoder(x, return_dict=True)[0]
        )
    return found


def gradients(model: GroupViTModel, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of the contrastive loss of the first two pairs, in inference mode: no noise, fixed
    statistics.
    """
    model.zero_grad()
    pairs = {name: value[:2] for name, value in inputs.items()}
    loss = model(**pairs, return_loss=True).loss
    loss.backward()
    named = {
        f"gradient.{name}": p.grad for name, p in model.named_parameters() if p.grad is not None
    }
    return {"loss": loss, **named}


def make(name: str, folder: Path) -> None:
    model = build(CONFIGS[name])
    for seed in range(200):
        draw_weights(model, seed)
        inputs = draw_inputs(model, seed)
        if is_sharp(model(**inputs, output_attentions=True).vision_model_output.attentions):
            break
    else:
        raise SystemExit(f"{name}: no seed gives sharp assignments")
    found = {**inputs, **outputs_of(model, inputs), **gradients(model, inputs)}
    if name == "three_stages":
        found |= resized(model, seed)
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    np.savez_compressed(folder / "outputs.npz", **{k: v.detach().numpy() for k, v in found.items()})
    print(
        f"{name}: seed {seed}, {sum(p.numel() for p in model.parameters()):,} parameters,"
        f" {len(found)} arrays"
    )


def print_state_dict() -> None:
    """Name, shape and dtype of each entry of the default model; no weights are made."""
    with torch.device("meta"):
        entries = GroupViTModel(GroupViTConfig()).state_dict()
    for key, value in entries.items():
        print(key, tuple(value.shape), value.dtype)


if __name__ == "__main__" and "--state-dict" in sys.argv:
    print_state_dict()
elif __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/models")
    for config_name in CONFIGS:
        make(config_name, target / config_name)
