"""The example photos of the pages: drawn scenes, so that none have to be shipped."""

from pathlib import Path

from PIL import Image

from tf_groupvit.scenes.scene import scene

SEED = 2022
NUMBERS = (2, 6, 7, 18)  # several things each, on different grounds
SIDE = 256


def write_examples(folder: Path) -> list[tuple[Path, str]]:
    """Draw the example pictures into the folder: their paths, and the words to segment them by."""
    examples = []
    for number in NUMBERS:
        drawn = scene(SEED, number, SIDE)
        path = folder / f"scene-{number}.png"
        Image.fromarray(drawn.image).save(path)
        examples.append((path, ", ".join(drawn.names)))
    return examples
