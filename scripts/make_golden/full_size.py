"""A seed in, a checkpoint folder of the published size out: 55,726,609 parameters, 223 MB, made by
transformers.

    python scripts/make_golden/full_size.py FOLDER [VOCABULARY_FOLDER]

Needs torch and transformers. The weights are random, so its masks mean nothing; what is proved with
it is that a real photo goes all the way through at full size, and how fast. VOCABULARY_FOLDER holds
CLIP's vocab.json and merges.txt.
"""

import sys
from pathlib import Path

import torch
from models import draw_weights
from transformers import CLIPImageProcessor, CLIPTokenizer, GroupViTConfig, GroupViTModel


@torch.no_grad()
def centre(projection: torch.nn.Sequential, features: torch.Tensor) -> None:
    """Fit the batch norm's statistics and the last bias to features (N, C), as training would: so
    that embeddings of different inputs point in different directions, and the masks of random
    weights show more than one class.
    """
    hidden = projection[0](features)
    projection[1].running_mean.copy_(hidden.mean(0))
    projection[1].running_var.copy_(hidden.var(0))
    projection[3].bias.sub_(projection(features).mean(0))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.manual_seed(0)
    model = GroupViTModel(GroupViTConfig()).eval()
    draw_weights(model, seed=0)
    ids = torch.randint(1000, 40000, (64, 8))
    ids[:, -1] = model.config.text_config.eos_token_id
    with torch.no_grad():
        centre(model.text_projection, model.text_model(ids).pooler_output)
        groups = model.vision_model(torch.randn(8, 3, 224, 224), return_dict=True).last_hidden_state
        centre(model.visual_projection, groups.flatten(0, 1))
    model.save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    if len(sys.argv) > 2:
        CLIPTokenizer.from_pretrained(sys.argv[2]).save_pretrained(folder)
    print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(model.state_dict())}"
        f" tensors in {folder}"
    )
