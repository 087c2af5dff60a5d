"""Golden checkpoints as folders that a user would have: weights of one format, config and the files
beside them.
"""

import json
import shutil
from pathlib import Path

CHECKPOINTS = Path(__file__).resolve().parents[1] / "golden" / "checkpoints"
CONFIG = CHECKPOINTS / "transformers" / "config.json"

# Name of a format -> files of the golden folder, and what they are called in a user's.
FORMATS = {
    "safetensors": {"transformers/model.safetensors": "model.safetensors"},
    "safetensors shards": {
        f"shards/{file.name}": file.name for file in (CHECKPOINTS / "shards").iterdir()
    },
    "h5": {"tensorflow/joint/tf_model.h5": "tf_model.h5"},
    "tf safetensors": {"tensorflow/safetensors/model.safetensors": "model.safetensors"},
    "pickle": {"zip.bin": "pytorch_model.bin"},
    "old pickle": {"legacy.bin": "pytorch_model.bin"},
    "original": {"original.pth": "groupvit.pth"},
}


def checkpoint(folder: Path, kind: str = "safetensors", beside: tuple[str, ...] = ()) -> Path:
    """A folder with the checkpoint of that format; the path to give to a command."""
    folder.mkdir(parents=True)
    shutil.copyfile(CONFIG, folder / "config.json")
    for file, name in FORMATS[kind].items():
        shutil.copyfile(CHECKPOINTS / file, folder / name)
    for name in beside:
        (folder / name).write_text(
            json.dumps(CONTENT[name]) if name.endswith(".json") else CONTENT[name]
        )
    return folder / "groupvit.pth" if kind == "original" else folder


CONTENT: dict = {
    "vocab.json": {
        "a</w>": 0,
        "b</w>": 1,
        "a": 2,
        "b": 3,
        "<|startoftext|>": 21,
        "<|endoftext|>": 22,
    },
    "merges.txt": "#version: 0.2\n",
    "tokenizer_config.json": {"model_max_length": 7},
    "preprocessor_config.json": {
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "size": 12,
    },
}
TOKENIZER = ("vocab.json", "merges.txt", "tokenizer_config.json")
EVERYTHING = (*TOKENIZER, "preprocessor_config.json")
