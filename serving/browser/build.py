"""Write the page that runs in a browser, with a model in it, into a new folder.

    python serving/browser/build.py FOLDER [--model CHECKPOINT] [--classes dog,grass,sky]

Needs tf-groupvit[onnx], and npm for the runtime, which is ONNX Runtime Web; where npm cannot fetch
it, the exit status is 3. Without --model it is the demo checkpoint.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
STYLE = HERE.parents[1] / "tf_groupvit" / "app" / "page.css"
PAGE = (*sorted(HERE.glob("*.js")), *sorted(HERE.glob("*.css")), HERE / "index.html", STYLE)
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
NO_NPM = "The page needs npm, which fetches its runtime: install Node.js (Debian: nodejs, npm)."
DEMO_NOTE = "This demo model knows drawn scenes only: {}."


def fetch_runtime(folder: Path) -> None:
    """Put the files of the pinned ONNX Runtime Web into the folder. Raises OSError."""
    if shutil.which("npm") is None:
        raise OSError(NO_NPM)
    with TemporaryDirectory() as place:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, place)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        if done.returncode:
            words = (done.stdout + done.stderr).strip().splitlines() or ["it says nothing"]
            raise OSError(f"npm cannot fetch the runtime of the page: {words[0]}.")
        for name in RUNTIME:
            shutil.copy(Path(place, "node_modules/onnxruntime-web/dist", name), folder)


def write_page(folder: Path, checkpoint: Path | str | None, classes: str | None) -> None:
    """Write all files but those of the runtime."""
    from tf_groupvit.app.examples import write_examples
    from tf_groupvit.export import export_model
    from tf_groupvit.export.portable import FORMATS, Portable, write_file
    from tf_groupvit.hub import DEMO, demo_checkpoint
    from tf_groupvit.segmentation.palette import class_colors, group_colors
    from tf_groupvit.segmentation.segmenter import Segmenter

    given: Any = classes or (None if checkpoint else DEMO / "classes.txt")
    segmenter = Segmenter.from_pretrained(checkpoint or demo_checkpoint(), given)
    export_model(segmenter, folder / "model", "onnx", is_open=True, maps=True, say=_say)
    sharpen = Portable(segmenter, batch=1).sharpening()
    write_file(FORMATS["onnx"], sharpen, folder / "model" / "sharpen.onnx", False)
    words = ", ".join(segmenter.classes.names)
    (folder / "examples").mkdir()
    content = {
        "note": "" if checkpoint else DEMO_NOTE.format(words),
        "words": words,
        "examples": [
            {"file": f"examples/{path.name}", "words": words}
            for path, words in write_examples(folder / "examples")
        ],
        "colors": {
            "classes": class_colors([""] * 256).tolist(),
            "groups": group_colors(256).tolist(),
        },
    }
    (folder / "page.json").write_text(json.dumps(content))
    for file in PAGE:
        shutil.copy(file, folder)


def _say(words: str) -> None:
    print(words, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="a checkpoint; unless given, the demo checkpoint")
    parser.add_argument("--classes", help="the words that the page begins with")
    asked = parser.parse_args()
    from tf_groupvit.errors import GroupViTError

    if asked.folder.exists():
        parser.exit(1, f"{asked.folder} is there already: name a new folder.\n")
    asked.folder.mkdir(parents=True)
    try:
        fetch_runtime(asked.folder)
        write_page(asked.folder, asked.model, asked.classes)
    except (OSError, GroupViTError) as error:
        shutil.rmtree(asked.folder)
        parser.exit(3 if isinstance(error, OSError) else 1, f"{error}\n")


if __name__ == "__main__":
    main()
