"""A recipe in, the user's captions as endless batches out, and the loss of held-out ones."""

from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_groupvit.errors import DatasetError, InputError
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.training.augment import PLAIN, PUBLISHED, Augmentation
from tf_groupvit.training.captions import Prompts, listed_words, tagged_words
from tf_groupvit.training.data import TrainingData
from tf_groupvit.training.recipe import Recipe
from tf_groupvit.training.recipe_sections import TAGGER
from tf_groupvit.training.records import Source, open_pairs, records_of, split
from tf_groupvit.training.step import TrainingModel


def open_sources(recipe: Recipe) -> tuple[Source, Source]:
    """The pairs to train on, and those that are held out; the same ones where the recipe holds none out."""
    chosen = recipe.data
    source = open_pairs(chosen.source)
    if chosen.validation_share:
        return split(source, chosen.validation_share)
    return source, open_pairs(chosen.validation) if chosen.validation else source


def open_training(recipe: Recipe, source: Source, tokenizer: Tokenizer, size: int, seed: int) -> TrainingData:
    """What is trained on. ``tokenizer`` cuts captions to its length; ``size`` is the side of the model's images."""
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
        raise InputError(f"The words in {path} cannot be read ({error}): give a file with one a line.") from error
    return [line.strip() for line in lines if line.strip()]


class CaptionScores:
    """``measure()`` -> ``{"val_loss"}``: the weighted loss of held-out pairs, without augmentation or noise.

    Batches have the size of the training's, or all pairs, where those are fewer: with another size the contrastive
    loss is another number.
    """

    def __init__(
        self, training: TrainingModel, recipe: Recipe, source: Source, tokenizer: Tokenizer, size: int, seed: int
    ) -> None:
        count = sum(1 for _ in islice(records_of(source), recipe.data.validation_pairs))
        if not count:
            raise DatasetError("No pairs are held out: raise [data] validation_share, or give [data] validation.")
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
