"""Name the pixels of an image with an export in LiteRT, ONNX or OpenVINO, without TensorFlow.

Needs NumPy, Pillow and the runtime of the format (ai-edge-litert, onnxruntime or openvino); with
--classes, of an export with open classes, tokenizers too. Writes a palette PNG of class numbers.

    python segment.py EXPORT IMAGE LABELS.png [--classes "sheep,grass"]
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def open_file(path, kind):
    """A function of inputs by name that gives outputs by name."""
    if kind == "litert":
        from ai_edge_litert.interpreter import Interpreter

        run = Interpreter(str(path)).get_signature_runner()
        return lambda **inputs: run(**inputs)
    if kind == "onnx":
        from onnxruntime import InferenceSession

        session = InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda **inputs: dict(zip(names, session.run(names, inputs), strict=True))
    from openvino import Core

    # Else bfloat16 where the processor has it, which moves a border by some pixels.
    compiled = Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda **inputs: {out.any_name: rows for out, rows in compiled(inputs).items()}


def opened(name, folder, settings):
    """A file of the export; ends with one line where the runtime does not take it."""
    path = folder / settings["files"][name]["file"]
    try:
        return open_file(path, settings["format"])
    except ImportError:
        raise
    except Exception as error:  # each runtime has kinds of its own
        made = ", ".join(f"{package} {number}" for package, number in settings["versions"].items())
        raise SystemExit(
            f"{path} cannot be opened: it is damaged, or this runtime is older than it (written"
            f" with {made}): {' '.join(str(error).split())[:300]}"
        ) from None


def encode(names, folder, settings):
    """One embedding for each class: the mean over its synonyms in all templates."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    start, end, pad, length = (settings["tokens"][key] for key in ("start", "end", "pad", "length"))
    encoder = opened("text", folder, settings)

    def embedding(prompt):
        words = tokenizer.encode(prompt, add_special_tokens=False).ids[: length - 2]
        ids = np.full((1, length), pad, np.int32)
        ids[0, : len(words) + 2] = [start, *words, end]
        return encoder(input_ids=ids)["text_embeds"][0]

    prompts = [
        [text.replace("{}", word) for word in name.split("|") for text in settings["templates"]]
        for name in names
    ]
    return np.stack([np.mean([embedding(text) for text in row], axis=0) for row in prompts])


def read(path):
    """An image as people see it, RGB."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith(("I", "F")):  # 16 bits, which Pillow would cut off at 255
        numbers = np.asarray(image)
        if image.mode == "F" or numbers.min() < 0 or numbers.max() > 65535:
            raise OSError(f"{path}: its numbers have no known range: save it with 8 or 16 bits.")
        image = Image.fromarray((numbers >> 8).astype(np.uint8))
    return image.convert("RGB")


def main():
    parser = argparse.ArgumentParser()
    for name in ("export", "image", "labels"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--classes", help="Names, separated by commas.")
    asked = parser.parse_args()
    settings = json.loads((asked.export / "settings.json").read_text(encoding="utf-8"))
    if "files" not in settings:
        parser.error(f"{asked.export} is not such an export: its settings.json names no files")
    if ("text" in settings["files"]) != (asked.classes is not None):
        parser.error("--classes is needed with open classes, and with no others")
    image = read(asked.image)
    height, width = settings["size"]
    inputs = {"pixels": np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))[None]}
    palette = json.loads((asked.export / "palette.json").read_text(encoding="utf-8"))
    if asked.classes is not None:
        names = [name.strip() for name in asked.classes.split(",")]
        most = len(palette) - (settings["settings"]["background"] is not None)
        if len(names) > most or not all(word.strip() for name in names for word in name.split("|")):
            parser.error(f"--classes takes 1 to {most} names, none of them empty")
        inputs["text_embeds"] = encode(names, asked.export, settings)
    vision = opened("vision", asked.export, settings)
    labels = Image.fromarray(vision(**inputs)["labels"][0])
    labels = labels.resize(image.size, Image.Resampling.NEAREST)
    labels.putpalette([value for row in palette for value in row["rgb"]])
    labels.save(asked.labels)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ImportError) as error:  # a file or a package that is not there, or damaged
        raise SystemExit(str(error)) from None
