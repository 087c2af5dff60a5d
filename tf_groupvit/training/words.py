"""A fixed vocabulary in; prompts of its words, and which of them each caption has, out."""

from collections.abc import Sequence

import numpy as np

from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.training.captions import listed_words

# A word's prompt is one of these, another at every step: what is learned should not hang on the words around it.
TEMPLATES = (
    "a photo of a {}.",
    "a photo of a {}.",
    "a picture of the {}.",
    "a photo of {}.",
    "{}.",
    "nothing but {}.",
)


class Words:
    """What losses over a vocabulary read beside pictures: ``word_ids`` and ``word_mask`` (V, T), ``present`` (B, V).

    Args:
        words: V names, of one word or several.
        length: T, in tokens; longer prompts are cut, with a warning.
        seed: of the order of the templates.

    Raises:
        InputError: no words, an empty one, or a length that is not the tokenizer's.
    """

    def __init__(self, words: Sequence[str], tokenizer: Tokenizer, length: int, seed: int = 0) -> None:
        self.words, self.seed, self.shape = tuple(words), seed, (len(words), length)
        self._find, self._column = listed_words(words), {word: column for column, word in enumerate(words)}
        texts = ([form.format(word) for word in words] for form in TEMPLATES)
        self._prompts = [tokenizer(rows, max_length=length, padding="max_length") for rows in texts]

    def prompts(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and mask, int32 (V, T), of batch ``number``."""
        chosen = self._prompts[np.random.default_rng((self.seed, number)).integers(len(TEMPLATES))]
        return chosen["input_ids"], chosen["attention_mask"]

    def present(self, captions: Sequence[str]) -> np.ndarray:
        """Which words each caption has, as whole words and in any case: float32 (B, V), 1 where it has it.

        Of words that overlap, the longer one counts.
        """
        found = np.zeros((len(captions), len(self.words)), np.float32)
        for row, caption in zip(found, captions, strict=True):
            row[[self._column[word] for word in self._find(caption)]] = 1
        return found
