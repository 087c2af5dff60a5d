"""README.md of a trained checkpoint: its model card, with the recipe and the learning curve."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tf_groupvit.files import atomic_write
from tf_groupvit.scenes.scene import CLASSES
from tf_groupvit.training.recipe import SCENES, Recipe

Line = Mapping[str, float]  # of the history
FROM_SCENES = """# GroupViT, trained on captioned scenes by the recipe '{name}'

{words}:
segmented by name in drawn scenes. No mask took part in the training: the model saw pictures and captions.

```
tf-groupvit segment scene.png --model FOLDER --classes "apple,star,grass,sky"
tf-groupvit evaluate scenes --model FOLDER
```

## Training

* Data: scenes drawn by `tf_groupvit.scenes.scene`, stream "training", seed {seed}; {images} of them, each seen
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
meaningless. Outlines are as coarse as its patches, unless they are refined (`--refine pamr`).
"""  # noqa: E501

FROM_CAPTIONS = """# GroupViT, trained from captions by the recipe '{name}'

No mask took part in the training: the model saw pictures and captions.

```
tf-groupvit segment picture.png --model FOLDER --classes "sky,grass"
```

## Training

* Data: {data}, seed {seed}. Augmentation: {augmentation}.
* Began at: {start}. Learned: {trains}.
* Steps: {steps} of {batch} pairs in {minutes:.1f} minutes. The weights are those of {kept}.
* Losses: {losses}.

| step | loss | loss of held-out captions |
|---|---|---|
{curve}
"""


def write_card(folder: Path, recipe: Recipe, seed: int, history: Sequence[Line]) -> None:
    """Write ``folder``/README.md."""
    of_kind = _of_scenes if recipe.data.source == SCENES else _of_captions
    template, values, rows = of_kind(recipe, history)
    text = template.format(
        name=recipe.name,
        seed=seed,
        batch=recipe.batch_size,
        minutes=sum(line["seconds"] for line in history) / 60,
        losses=", ".join(f"{name} {weight:g}" for name, weight in recipe.losses.items()),
        curve="\n".join(f"| {' | '.join(cells)} |" for cells in rows),
        **values,
    )
    atomic_write(folder / "README.md", text)


Card = tuple[str, dict[str, object], list[list[str]]]  # template, values, rows of the curve


def _of_scenes(recipe: Recipe, history: Sequence[Line]) -> Card:
    measured = [line for line in history if "val_miou" in line]
    values: dict[str, object] = {
        "words": ", ".join(recipe.words).capitalize(),
        "images": recipe.steps * recipe.batch_size,
        "steps": recipe.steps,
        "merges": recipe.vocabulary.merges,
        "classes": len(CLASSES),
        "count": recipe.validation_scenes,
        "size": 64,
    }
    rows = [
        [f"{m['step']}", f"{m['loss']:.3f}", f"{m['val_miou']:.3f}", f"{m['groups_used']:.1f}"]
        for m in measured
    ]
    return FROM_SCENES, values, rows


def _of_captions(recipe: Recipe, history: Sequence[Line]) -> Card:
    shown = [line for line in history if "val_loss" in line] or list(history[-1:])
    best = min(shown, key=lambda line: line.get("val_loss", 0.0))
    kept = f"step {best['step']}, the best measured" if recipe.keep == "best" else "the last step"
    values: dict[str, object] = {
        "data": recipe.data.source,
        "augmentation": recipe.data.augmentation,
        "start": recipe.start.checkpoint or "sizes, no weights",
        "trains": f"LoRA of rank {recipe.lora_rank}" if recipe.trains == "lora" else recipe.trains,
        "steps": history[-1]["step"],
        "kept": kept,
    }
    losses = [f"{m['val_loss']:.3f}" if "val_loss" in m else "not measured" for m in shown]
    rows = [
        [f"{m['step']}", f"{m['loss']:.3f}", loss] for m, loss in zip(shown, losses, strict=True)
    ]
    return FROM_CAPTIONS, values, rows
