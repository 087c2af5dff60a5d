"""Class names in, one embedding a class (K, D) out: encoded once, kept, saved and loaded.

A class may have synonyms, ``"sofa|couch"``; it is called by the first. Its embedding is the mean of
the projected text features over all its names in all templates, not normalised before, and
normalised after: as published.
"""

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from keras import ops

from tf_groupvit.errors import InputError
from tf_groupvit.files import atomic_write, refuse_pointer
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.segmentation.class_names import ClassNames, parse_classes, refuse_twice
from tf_groupvit.segmentation.templates import SIMPLE, templates_of

PROMPTS_AT_ONCE = 64
MOST_UNPACKED = 2**28  # bytes of a file that is smaller; ``save`` packs nothing

# What NumPy raises for files that are not there, cut short, of another kind, or with sizes that
# cannot be.
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    AttributeError,
    MemoryError,
    NotImplementedError,
    BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class ClassEmbeddings:
    """Names of the K classes and their normalised embeddings (K, D), float32; and the templates
    behind them.
    """

    names: tuple[str, ...]
    embeds: np.ndarray
    templates: tuple[str, ...] = (SIMPLE,)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an ``.npz`` that ``load`` reads, whole or not at all."""
        from io import BytesIO

        content = BytesIO()
        names, templates = np.array(self.names), np.array(self.templates)
        np.savez(content, names=names, embeds=self.embeds, templates=templates)
        atomic_write(Path(path), content.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ClassEmbeddings":
        """Read what ``save`` wrote. Raises InputError for any other file."""
        if not Path(path).exists():
            raise InputError(f"{path} is not there: expected an .npz of class embeddings.")
        refuse_pointer(Path(path), InputError)
        try:
            with ZipFile(path) as packed:  # of no zip file NumPy would leave the file open
                size = sum(part.file_size for part in packed.infolist())
            if size > max(MOST_UNPACKED, Path(path).stat().st_size):
                raise ValueError(f"{size:,} bytes unpacked")
            with np.load(path, allow_pickle=False) as file:
                names, embeds, templates = (file[key] for key in ("names", "embeds", "templates"))
        except DAMAGE as error:
            raise InputError(
                f"{path} holds no class embeddings ({error}): expected an .npz of names, embeds and"
                " templates."
            ) from error
        _check_arrays(str(path), names, embeds, templates)
        words = [tuple(map(str, listed)) for listed in (names, templates)]
        refuse_twice(words[0])
        return cls(words[0], embeds.astype("float32"), words[1])


def _check_arrays(path: str, names: np.ndarray, embeds: np.ndarray, templates: np.ndarray) -> None:
    """Refuse what ``save`` does not write."""
    for what, array in (("names", names), ("templates", templates)):
        if array.dtype.kind != "U" or array.ndim != 1 or not len(array) or not all(array):
            raise InputError(
                f"{path}: {what} are {array.dtype} {array.shape}: expected texts, none of them"
                " empty."
            )
    if embeds.dtype.kind != "f" or embeds.ndim != 2 or len(embeds) != len(names):
        raise InputError(
            f"{path} holds {len(names)} names and embeddings {embeds.dtype} {embeds.shape}:"
            " expected floats (K, D)."
        )
    lengths = np.linalg.norm(embeds.astype("float64"), axis=1)
    if not np.allclose(lengths, 1, atol=1e-2):  # float16 files are that exact
        raise InputError(
            f"{path}: embeddings are of length {lengths.min():g} to {lengths.max():g}: expected 1."
        )


def embed_classes(
    model: TFGroupViTModel,
    tokenizer: Any,
    classes: ClassNames,
    templates: str | Sequence[str] = SIMPLE,
) -> ClassEmbeddings:
    """Encode the classes, each prompt once, whatever the templates: -> ``ClassEmbeddings``.

    Raises:
        InputError: classes or templates that cannot be used.
    """
    parsed, sentences = parse_classes(classes), templates_of(templates)
    prompts = [
        sentence.replace("{}", name) for names in parsed for name in names for sentence in sentences
    ]
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
    """Projected features (N, D), not normalised, float64; prompts of like length go through the
    tower together.
    """
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
