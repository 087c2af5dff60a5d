"""A recipe, a seed and a folder in; tokenizer, model, optimizer and data of a run, before any step,
out.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_groupvit.errors import DatasetError, InputError
from tf_groupvit.files import make_folder
from tf_groupvit.preprocessing.image import ImageProcessor
from tf_groupvit.preprocessing.image_arrays import statistics
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.scenes.scene import scenes
from tf_groupvit.training.augment import PLAIN, PUBLISHED, Augmentation
from tf_groupvit.training.callbacks import say
from tf_groupvit.training.captions import Prompts, listed_words, tagged_words
from tf_groupvit.training.contrastive_model import TrainingModel
from tf_groupvit.training.data import TrainingData
from tf_groupvit.training.model_setup import begin, checkpoint_of, compile_for
from tf_groupvit.training.recipe import SCENES, TAGGER, Recipe
from tf_groupvit.training.records import (
    Source,
    first_captions,
    first_images,
    open_pairs,
    records_of,
    split,
)
from tf_groupvit.training.scene_batches import DRAWN_AT, PixelValues, SceneBatches
from tf_groupvit.training.validation import SEED, GroupPictures, SceneScores

STATE, HISTORY, BEST = "training/state.safetensors", "training/history.jsonl", "training/best"
CLASS_NAMES = "classes.txt"  # of a checkpoint
PICTURES = 8  # that are shown on the way


def open_sources(recipe: Recipe) -> tuple[Source, Source]:
    """The pairs to train on, and those that are held out; the same ones where the recipe holds none
    out.
    """
    chosen = recipe.data
    source = open_pairs(chosen.source)
    if chosen.validation_share:
        return split(source, chosen.validation_share)
    return source, open_pairs(chosen.validation) if chosen.validation else source


def open_training(
    recipe: Recipe, source: Source, tokenizer: Tokenizer, size: int, seed: int
) -> TrainingData:
    """What is trained on. ``tokenizer`` cuts captions to its length; ``size`` is the side of the
    model's images.
    """
    how = PUBLISHED if recipe.data.augmentation == "published" else PLAIN
    return _data(recipe, source, tokenizer, size, recipe.batch_size, how, recipe.data.shuffle, seed)


def _data(
    recipe: Recipe,
    source: Source,
    tokenizer: Tokenizer,
    size: int,
    batch_size: int,
    augmentation: Augmentation,
    shuffle: int,
    seed: int,
) -> TrainingData:
    """With all that the recipe's losses read."""
    return TrainingData(
        source,
        tokenizer,
        size,
        batch_size,
        prompts=_prompts(recipe),
        words=recipe.sought_words,
        augmentation=augmentation,
        normalize=recipe.data.normalize,
        shuffle=shuffle,
        seed=seed,
    )


def _prompts(recipe: Recipe) -> Prompts | None:
    name = recipe.data.words
    if not name:
        return None
    words = tagged_words() if name == TAGGER else listed_words(_words_in(Path(name)))
    return Prompts(words, recipe.data.word_count)


def _words_in(path: Path) -> list[str]:
    """The words of a file, one a line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The words in {path} cannot be read ({error}): give a file with one a line."
        ) from error
    return [line.strip() for line in lines if line.strip()]


class CaptionScores:
    """``measure()`` -> ``{"val_loss"}``: the weighted loss of held-out pairs, without augmentation
    or noise.

    Batches have the size of the training's, or all pairs, where those are fewer: with another size
    the contrastive loss is another number.
    """

    def __init__(
        self,
        training: TrainingModel,
        recipe: Recipe,
        source: Source,
        tokenizer: Tokenizer,
        size: int,
        seed: int,
    ) -> None:
        count = sum(1 for _ in islice(records_of(source), recipe.data.validation_pairs))
        if not count:
            raise DatasetError(
                "No pairs are held out: raise [data] validation_share, or give [data] validation."
            )
        B = min(recipe.batch_size, count)
        data = _data(recipe, source, tokenizer, size, B, PLAIN, shuffle=1, seed=seed)
        self.batches, self.training = data.batches().take(count // B), training
        self._loss = tf.function(self._weighted, autograph=False)

    def measure(self) -> dict[str, float]:
        """Measure the model as it is now."""
        return {"val_loss": float(np.mean([self._loss(batch).numpy() for batch in self.batches]))}

    def _weighted(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        losses = self.training(batch, training=False)
        return sum(weight * losses[name] for name, weight in self.training.weights_of.items())


@dataclass(frozen=True)
class Run:
    """Where a run stands, built from its recipe and seed, before any step."""

    recipe: Recipe
    seed: int
    folder: Path
    tokenizer: Tokenizer
    processor: ImageProcessor
    training: TrainingModel
    data: SceneBatches | TrainingData

    @property
    def about(self) -> dict[str, Any]:
        """What a state must agree with, to be gone on from."""
        return {"seed": self.seed, **self.recipe.to_dict()}


def build(recipe: Recipe, folder: Path, seed: int = 0) -> Run:
    """Tokenizer, model, optimizer and data of a run, the same for the same recipe and seed.

    A batch that is larger than the data is lowered to them, with a word on standard error.
    """
    keras.utils.set_random_seed(seed)
    source = None if recipe.data.source == SCENES else open_sources(recipe)[0]
    recipe = recipe if source is None else _fitted(recipe, source)
    count = recipe.vocabulary.captions
    drawn = (one.caption for one in scenes(seed, count, DRAWN_AT, "training"))
    captions = drawn if source is None else first_captions(source, count)
    tokenizer, training = begin(recipe, folder, seed, captions, goes_on=(folder / STATE).exists())
    config = training.model.config
    size = config.vision_config.image_height_width[0]
    mean, std = statistics(recipe.data.normalize)
    square = {"height": size, "width": size}
    processor = ImageProcessor(size=square, crop_size=square, image_mean=mean, image_std=std)
    length, longest = recipe.vocabulary.text_length, config.text_config.max_position_embeddings
    data: SceneBatches | TrainingData
    if source is None:
        data = SceneBatches(
            tokenizer, recipe.words, size, recipe.batch_size, (mean, std), seed, length
        )
    else:
        data = open_training(recipe, source, tokenizer.limited_to(min(length, longest)), size, seed)
        if recipe.epochs:
            recipe = replace(recipe, steps=max(1, recipe.epochs * len(data) // recipe.batch_size))
    compile_for(training, recipe)
    make_folder((folder / STATE).parent)
    return Run(recipe, seed, folder, tokenizer, processor, training, data)


def _fitted(recipe: Recipe, source: Source) -> Recipe:
    """The recipe with a batch that the data can fill, and that replicas can share evenly."""
    wanted, replicas = recipe.batch_size, tf.distribute.get_strategy().num_replicas_in_sync
    found = sum(1 for _ in islice(records_of(source), wanted))
    if found == wanted:
        return recipe
    lowered, least = found - found % replicas, max(2, replicas)
    if lowered < least:
        raise DatasetError(
            f"{recipe.data.source}: pairs to train on should be {least} or more, {found} came."
        )
    say(
        f"{recipe.data.source} holds {found} pairs to train on: the batch of {wanted} is lowered to"
        f" {lowered}."
    )
    return replace(recipe, batch_size=lowered)


def measure_of(run: Run) -> Callable[[], dict[str, float]]:
    """What is measured on the way: mIoU on held-out scenes, the loss of held-out captions, or
    nothing.
    """
    if isinstance(run.data, SceneBatches):
        count = run.recipe.validation_scenes
        return SceneScores(run.training.model, run.tokenizer, run.data.to_pixels, count).measure
    if not run.recipe.data.held_out:
        return dict
    source = open_sources(run.recipe)[1]
    return CaptionScores(
        run.training, run.recipe, source, run.data.tokenizer, run.data.size, run.seed
    ).measure


def pictures_of(run: Run) -> GroupPictures:
    """What is drawn on the way: of held-out pictures where there are some, else of the first of the
    data.
    """
    data, recipe = run.data, run.recipe
    if isinstance(data, SceneBatches):
        images, to_pixels = [one.image for one in scenes(SEED, PICTURES, DRAWN_AT)], data.to_pixels
    else:
        images = first_images(open_sources(recipe)[recipe.data.held_out], PICTURES)
        to_pixels = PixelValues(data.size, (data.mean, data.std))
    return GroupPictures(
        run.training.model, run.tokenizer, to_pixels, to_pixels.size, images, class_names(run)
    )


def class_names(run: Run) -> tuple[str, ...]:
    """The recipe's, or those of the checkpoint that training began at; none where there are none."""
    if run.recipe.words:
        return run.recipe.words
    before = checkpoint_of(run.recipe)
    listed = before / CLASS_NAMES if before else None
    if listed is None or not listed.is_file():
        return ()
    return tuple(filter(None, map(str.strip, listed.read_text(encoding="utf-8").split("\n"))))
