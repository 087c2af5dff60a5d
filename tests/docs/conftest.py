"""What the pages take for granted: a folder with a checkpoint, small and seeded, and a photo in it."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = ROOT / "tests" / "golden" / "tokenizer" / "vocabularies" / "trained"


@pytest.fixture(scope="session")
def workplace(tmp_path_factory) -> Path:
    """A folder with `checkpoint/` and `photo.jpg`, as the reader of the pages has one."""
    folder = tmp_path_factory.mktemp("reader")
    make_checkpoint(folder / "checkpoint")
    make_photo(folder / "photo.jpg")
    return folder


def make_checkpoint(folder: Path) -> None:
    import keras

    from tf_groupvit import (
        GroupViTConfig,
        GroupViTTextConfig,
        GroupViTVisionConfig,
        ImageProcessor,
        TFGroupViTModel,
        Tokenizer,
    )

    shutil.copytree(VOCABULARY, folder)
    end = int(Tokenizer.from_pretrained(folder)(["a"])["input_ids"][0, -1])
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    text = GroupViTTextConfig(
        vocab_size=606, num_hidden_layers=1, max_position_embeddings=16, eos_token_id=end, **sizes
    )
    stages = {"depths": (1, 1, 1), "num_group_tokens": (6, 4, 0), "num_output_groups": (6, 4, 4)}
    vision = GroupViTVisionConfig(image_size=64, **stages, **sizes)
    keras.utils.set_random_seed(7)
    config = GroupViTConfig.from_text_vision_configs(
        text, vision, projection_dim=8, projection_intermediate_dim=16
    )
    TFGroupViTModel(config).save_pretrained(folder)
    ImageProcessor().save_pretrained(folder)


def make_photo(path: Path) -> None:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((160, 120)).save(path)
