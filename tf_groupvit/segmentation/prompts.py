"""Class names in, one embedding a class (K, D) out: encoded once, kept, saved and loaded.

A class may have synonyms, ``"sofa|couch"``; it is called by the first. Its embedding is the mean of the projected
text features over all its names in all templates, not normalised before, and normalised after: as published.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from tf_groupvit.errors import InputError
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.segmentation.templates import SIMPLE, templates_of
from tf_groupvit.segmentation.writing import write_whole

BACKGROUND = "background"
PROMPTS_AT_ONCE = 64


@dataclass(frozen=True)
class ClassEmbeddings:
    """Names of the K classes and their normalised embeddings (K, D), float32; and the templates behind them."""

    names: tuple[str, ...]
    embeds: np.ndarray
    templates: tuple[str, ...] = (SIMPLE,)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an ``.npz`` that ``load`` reads, whole or not at all."""
        from io import BytesIO

        content = BytesIO()
        names, templates = np.array(self.names), np.array(self.templates)
        np.savez(content, names=names, embeds=self.embeds, templates=templates)
        write_whole(Path(path), content.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ClassEmbeddings":
        """Read what ``save`` wrote. Raises InputError for any other file."""
        try:
            with np.load(path, allow_pickle=False) as file:
                names, embeds, templates = file["names"], file["embeds"], file["templates"]
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise InputError(
                f"{path} holds no class embeddings ({error}): expected an .npz of names and embeds."
            ) from error
        if embeds.ndim != 2 or len(embeds) != len(names) or not np.isfinite(embeds).all():
            raise InputError(
                f"{path} holds {len(names)} names and embeddings of shape {embeds.shape}: expected (K, D)."
            )
        return cls(tuple(map(str, names)), embeds.astype("float32"), tuple(map(str, templates)))


def parse_classes(classes: str | Iterable[str]) -> list[tuple[str, ...]]:
    """Class names, as a list or separated by commas -> for each class its names, synonyms behind the first.

    Blanks around a name are dropped, and so are those inside beyond one.

    Raises:
        InputError: no class, an empty one, or one that is there twice.
    """
    listed = classes.split(",") if isinstance(classes, str) else list(classes)
    if not listed or listed == [""]:
        raise InputError("Class names are empty: give at least one, e.g. --classes 'cat,dog'.")
    for number, entry in enumerate(listed, 1):
        if not isinstance(entry, str):
            raise InputError(f"Class {number} is {entry!r}: expected a name, a string.")
    parsed = [tuple(" ".join(name.split()) for name in entry.split("|")) for entry in listed]
    for number, (entry, names) in enumerate(zip(listed, parsed, strict=True), 1):
        if not all(names):
            raise InputError(
                f"Class {number} of {len(parsed)} is {entry!r}, an empty name: give it one, or leave it out."
            )
    _refuse_twice([names[0] for names in parsed])
    return parsed


def _refuse_twice(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"Classes are there twice: {', '.join(map(repr, twice))}: name each of them once.")


def embed_classes(
    model: TFGroupViTModel, tokenizer: Any, classes: str | Iterable[str], templates: str | Sequence[str] = SIMPLE
) -> ClassEmbeddings:
    """Encode the classes, each prompt once, whatever the templates: -> ``ClassEmbeddings``."""
    parsed, sentences = parse_classes(classes), templates_of(templates)
    prompts = [sentence.replace("{}", name) for names in parsed for name in names for sentence in sentences]
    features = encode_prompts(model, tokenizer, prompts)
    rows, start = [], 0
    for names in parsed:
        stop = start + len(names) * len(sentences)
        rows.append(features[start:stop].mean(axis=0))
        start = stop
    embeds = np.stack(rows)
    embeds /= np.linalg.norm(embeds, axis=-1, keepdims=True)
    return ClassEmbeddings(tuple(names[0] for names in parsed), embeds.astype("float32"), sentences)


def encode_prompts(model: TFGroupViTModel, tokenizer: Any, prompts: Sequence[str]) -> np.ndarray:
    """Projected features (N, D), not normalised, float64; prompts of like length go through the tower together."""
    tokenizer = tokenizer.limited_to(model.config.text_config.max_position_embeddings)
    tokens = tokenizer(list(prompts), padding="longest")
    lengths = tokens["attention_mask"].sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    features = np.empty((len(prompts), model.config.projection_dim))
    for start in range(0, len(order), PROMPTS_AT_ONCE):
        rows = order[start : start + PROMPTS_AT_ONCE]
        longest = lengths[rows].max()
        ids = tokens["input_ids"][rows, :longest]
        features[rows] = ops.convert_to_numpy(ops.cast(model.get_text_features(ids), "float32"))
    return features
