"""What a person chose on the page in; a ``Segmentation`` out. One model, its classes encoded once.
No Gradio.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tf_groupvit.errors import InputError
from tf_groupvit.segmentation.prompts import ClassEmbeddings, embed_classes
from tf_groupvit.segmentation.result import Segmentation
from tf_groupvit.segmentation.segmenter import Segmenter
from tf_groupvit.segmentation.templates import SIMPLE

# choices whose segmenters stay ready: going back and forth on the page encodes nothing again
KEPT = 32


@dataclass(frozen=True)
class Choices:
    """What the page offers beside photo and words; ``background`` 0 is no background."""

    templates: str = SIMPLE
    protocol: str = "paper"
    mode: str = "whole"
    background: float = 0.0


class Answering:
    """Segments photos with the model of one segmenter, under whatever classes and choices are asked
    for.

    Args:
        base: whose model, tokenizer and processor are used; its classes are the page's first words.
        normalize: "imagenet" or "clip" statistics instead of the processor's.
    """

    def __init__(self, base: Segmenter, normalize: str | None = None) -> None:
        if base.tokenizer is None:
            raise InputError(
                "The page needs a tokenizer, for words that are typed: name a checkpoint that has"
                " one."
            )
        self.base, self._normalize = base, normalize
        self._embeddings = lru_cache(KEPT)(self._embed)
        self._segmenter = lru_cache(KEPT)(self._build)

    @property
    def stages(self) -> int:
        """How many grouping stages the model has."""
        return sum(tokens > 0 for tokens in self.base.model.config.vision_config.num_group_tokens)

    def segment(self, photo: Any, words: str, choices: Choices = Choices()) -> Segmentation:
        """Segment a photo (a path, bytes, PIL or uint8 (H, W, 3)) by words, separated by commas or
        lines.

        Raises:
            InputError: there is no photo, it is no image, or the words or choices cannot be used.
        """
        if photo is None:
            raise InputError(
                "There is no photo yet: upload one, take one, paste one, or choose an example."
            )
        return self._segmenter(words_of(words), choices)(photo)

    def _embed(self, words: tuple[str, ...], templates: str) -> ClassEmbeddings:
        return embed_classes(self.base.model, self.base.tokenizer, words, templates)

    def _build(self, words: tuple[str, ...], choices: Choices) -> Segmenter:
        return self.base.with_choices(
            self._embeddings(words, choices.templates),
            protocol=choices.protocol,
            mode=choices.mode,
            background=choices.background or None,
            size=None,
            normalize=self._normalize,
        )


def words_of(text: str) -> tuple[str, ...]:
    """Classes as they are typed: commas or line breaks between them, empty ones dropped.

    Raises ``InputError`` if none is left.
    """
    words: Sequence[str] = [" ".join(word.split()) for word in text.replace("\n", ",").split(",")]
    words = tuple(word for word in words if word)
    if not words:
        raise InputError("There are no classes yet: type some words, e.g. dog, grass, sky.")
    return words
