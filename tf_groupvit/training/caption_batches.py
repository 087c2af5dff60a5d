"""A recipe in, the user's captions as endless batches out, and the loss of held-out ones."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_groupvit.errors import GroupViTError, InputError
from tf_groupvit.preprocessing.image_statistics import statistics
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.training.augment import PLAIN, PUBLISHED
from tf_groupvit.training.captions import Prompts, listed_words, tagged_words
from tf_groupvit.training.data import TrainingData, load_pair
from tf_groupvit.training.recipe import Recipe
from tf_groupvit.training.recipe_sections import TAGGER
from tf_groupvit.training.records import Source, open_pairs
from tf_groupvit.training.step import TrainingModel


def first_captions(source: Source, count: int) -> Iterator[str]:
    """The captions of the first records that can be read."""
    records = (record for shard in source.shards for record in source.read(shard))
    for record in islice(records, count):
        try:
            yield load_pair(record)[1]
        except GroupViTError:
            continue  # it is told by name when training meets it


def open_training(recipe: Recipe, source: Source, tokenizer: Tokenizer, size: int, seed: int) -> TrainingData:
    """What is trained on. ``tokenizer`` cuts captions to its length; ``size`` is the side of the model's images."""
    chosen = recipe.data
    how = PUBLISHED if chosen.augmentation == "published" else PLAIN
    look = statistics(chosen.normalize)
    prompts = _prompts(recipe)
    return TrainingData(source, tokenizer, size, recipe.batch_size, prompts, how, look, chosen.shuffle, seed)


def _prompts(recipe: Recipe) -> Prompts | None:
    name = recipe.data.words
    if not name:
        return None
    words = tagged_words() if name == TAGGER else listed_words(_words_in(Path(name)))
    return Prompts(words, recipe.data.word_count)


def _words_in(path: Path) -> list[str]:
    """The words of a file, one a line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The words in {path} cannot be read ({error}): give a file with one a line.") from error
    return [line.strip() for line in lines if line.strip()]


class CaptionScores:
    """``measure()`` -> ``{"val_loss"}``: the weighted loss of held-out pairs, without augmentation or noise.

    Batches have the size of the training's, or all pairs, where those are fewer: with another size the contrastive
    loss is another number.
    """

    def __init__(self, training: TrainingModel, recipe: Recipe, tokenizer: Tokenizer, size: int, seed: int) -> None:
        source, wanted = open_pairs(recipe.data.validation), recipe.data.validation_pairs
        count = sum(1 for _ in islice((r for shard in source.shards for r in source.read(shard)), wanted))
        B = min(recipe.batch_size, count)
        look = statistics(recipe.data.normalize)
        data = TrainingData(source, tokenizer, size, B, _prompts(recipe), PLAIN, look, shuffle=1, seed=seed)
        self.batches, self.training = data.batches().take(count // B), training
        self._loss = tf.function(self._weighted)

    def measure(self) -> dict[str, float]:
        """Measure the model as it is now."""
        return {"val_loss": float(np.mean([self._loss(batch).numpy() for batch in self.batches]))}

    def _weighted(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        losses = self.training(batch, training=False)
        return sum(weight * losses[name] for name, weight in self.training.weights_of.items())
