"""A recipe and what a run of it recorded in; README.md, the model card of the checkpoint, out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_groupvit.evaluation.scenes import CLASSES
from tf_groupvit.segmentation.writing import write_whole
from tf_groupvit.training.recipe import Recipe

CARD = """# GroupViT, trained on captioned scenes by the recipe '{name}'

{words}:
segmented by name in drawn scenes. No mask took part in the training: the model saw pictures and captions.

```
tf-groupvit segment scene.png --model FOLDER --classes "apple,star,grass,sky"
tf-groupvit evaluate scenes --model FOLDER
```

## Training

* Data: scenes drawn by `tf_groupvit.evaluation.scenes`, stream "training", seed {seed}; {images} of them, each seen
  once. The held-out scenes below come from the stream "evaluation", which shares none with it.
* Steps: {steps} of {batch} scenes in {minutes:.1f} minutes. The weights are those of the last step: mIoU was measured
  on the way, and decided nothing.
* Losses: {losses}.
* Vocabulary: {merges} byte-pair merges at most, learned from captions.

| step | loss | mIoU on held-out scenes | groups used an image |
|---|---|---|---|
{curve}

mIoU: the published inference, whole image, all {classes} classes as vocabulary, mean over every class,
{count} scenes of {size}x{size} pixels.

## What it cannot do

It knows {classes} classes as the scenes draw them, and nothing of photographs. Other words get a score too: it is
meaningless. Outlines are as coarse as its patches.
"""


def write_card(folder: Path, recipe: Recipe, seed: int, history: Sequence[Mapping[str, Any]]) -> None:
    """Write ``folder``/README.md."""
    measured = [line for line in history if "val_miou" in line]
    rows = [f"| {m['step']} | {m['loss']:.3f} | {m['val_miou']:.3f} | {m['groups_used']:.1f} |" for m in measured]
    text = CARD.format(
        name=recipe.name,
        words=", ".join(recipe.vocabulary.words).capitalize(),
        seed=seed,
        images=recipe.steps * recipe.batch_size,
        steps=recipe.steps,
        batch=recipe.batch_size,
        minutes=sum(line["seconds"] for line in history) / 60,
        losses=", ".join(f"{name} {weight:g}" for name, weight in recipe.losses.items()),
        merges=recipe.vocabulary.merges,
        curve="\n".join(rows),
        classes=len(CLASSES),
        count=recipe.validation_scenes,
        size=64,
    )
    write_whole(folder / "README.md", text.encode())
