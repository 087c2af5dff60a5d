"""CLIP's byte-pair tokenizer: strings to token ids and attention mask."""

import json
import operator
import warnings
from collections.abc import Iterable
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from tf_groupvit.errors import CheckpointError, InputError
from tf_groupvit.files import atomic_write, make_folder
from tf_groupvit.hub import resolve
from tf_groupvit.preprocessing.tokenizer_files import (
    END_OF_WORD,
    TokenizerFiles,
    read_folder,
    token_fields,
)

if TYPE_CHECKING:
    from tf_groupvit.preprocessing.tokenizer_graph import GraphTokenizer

# One match is one piece; what no alternative matches (white space) is dropped. From the CLIP
# paper's released code.
PIECES = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
NORMALIZER = normalizers.Sequence(
    [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
)
PADDINGS = ("longest", "max_length")


class Tokenizer:
    """CLIP's tokenizer: ``tokenizer(["a cat", "two dogs"])``.

    Ids equal those of transformers' ``CLIPTokenizerFast`` on the same folder.

    Attributes:
        max_length: the most tokens of a text, start and end included.
        bos_token_id, eos_token_id, pad_token_id, unk_token_id: ids of the special tokens.
        vocab_size: the number of rows that an embedding table needs (highest id + 1, added tokens
            included).
    """

    def __init__(self, files: TokenizerFiles, max_length: int | None = None) -> None:
        self.files = files
        self.max_length = _checked_max_length(
            files.max_length if max_length is None else max_length
        )
        self.backend = _build_backend(files)
        ids = self.backend.get_vocab()
        self.bos_token_id: int = ids[files.special["bos_token"]]
        self.eos_token_id: int = ids[files.special["eos_token"]]
        self.unk_token_id: int = ids[files.special["unk_token"]]
        self.pad_token_id: int = ids[files.special["pad_token"]]
        self.vocab_size = max(ids.values()) + 1

    @classmethod
    def from_pretrained(cls, folder: str | Path, max_length: int | None = None) -> "Tokenizer":
        """Read a folder, or a hub id.

        It has ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``. The maximum length is
        ``max_length`` where given, else ``model_max_length`` of ``tokenizer_config.json``, else
        ``max_position_embeddings`` of ``config.json``, else 77.

        Raises:
            CheckpointError: files are missing or damaged.
            ConfigError: a length in them is impossible.
            InputError: ``max_length`` is below 2.
        """
        return cls(read_folder(resolve(folder, weights=False)), max_length)

    def limited_to(self, max_length: int) -> "Tokenizer":
        """The same tokenizer with at most ``max_length`` tokens (a model's number of positions)."""
        limited = copy(self)  # with the same backend, which knows no limit
        limited.max_length = min(self.max_length, _checked_max_length(max_length))
        return limited

    def __call__(
        self, texts: str | Iterable[str], max_length: int | None = None, padding: str = "longest"
    ) -> dict[str, np.ndarray]:
        """Token ids of N texts: ``input_ids`` and ``attention_mask``, both int32 (N, T).

        The mask is 0 on padding. One string counts as a list of one; an empty list gives (0, 2) or
        (0, max_length). A text that is longer is cut, its end token kept, with a UserWarning.

        Args:
            max_length: from 2 to ``self.max_length``, which it is unless given.
            padding: ``"longest"`` makes T the longest text's length, ``"max_length"`` makes it
                ``max_length``.

        Raises:
            InputError: anything but strings, a string with half of a surrogate pair, or another
                length or padding.
        """
        highest = self.max_length
        length = highest if max_length is None else _checked_max_length(max_length, highest)
        if padding not in PADDINGS:
            raise InputError(f"padding should be 'longest' or 'max_length', got {padding!r}.")
        rows = self._encode(_checked_texts(texts))
        _warn_of_cuts(rows, length)
        longest = max((len(row) for row in rows), default=0) + 2
        return self._pad(rows, length if padding == "max_length" else min(length, longest))

    def cut(self, texts: Iterable[str]) -> dict[str, np.ndarray]:
        """Ids and mask, int32 (N, max_length); long texts are cut without a warning."""
        return self._pad(self._encode(_checked_texts(texts)), self.max_length)

    def lengths(self, texts: Iterable[str]) -> np.ndarray:
        """How many tokens each of N texts has before it is cut, its first and last one included."""
        return np.array([len(row) + 2 for row in self._encode(_checked_texts(texts))], np.int64)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        try:
            encoded = self.backend.encode_batch(texts, add_special_tokens=False)
        except Exception as error:  # the Rust side raises bare exceptions
            raise InputError(
                f"The vocabulary cannot encode these texts ({error}): give it an unk_token."
            ) from error
        return [encoding.ids for encoding in encoded]

    def _pad(self, rows: list[list[int]], T: int) -> dict[str, np.ndarray]:
        input_ids = np.full((len(rows), T), self.pad_token_id, np.int32)
        attention_mask = np.zeros((len(rows), T), np.int32)
        for n, row in enumerate(rows):
            ids = [self.bos_token_id, *row[: T - 2], self.eos_token_id]
            input_ids[n, : len(ids)], attention_mask[n, : len(ids)] = ids, 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def decode(self, ids: npt.ArrayLike, skip_special_tokens: bool = False) -> Any:
        """Text of the ids (T), or a list of N texts of ids (N, T).

        As transformers' ``decode``: a space after every word, none before the first. An id that is
        in no file stands for nothing; special tokens are part of the text unless skipped.

        Raises:
            InputError: ids that are no whole numbers from 0.
        """
        numbers = np.atleast_1d(np.asarray(ids))
        if numbers.ndim == 2:
            return [self.decode(row, skip_special_tokens) for row in numbers]
        whole = not numbers.size or (numbers.dtype.kind in "iu" and numbers.min() >= 0)
        if numbers.ndim != 1 or not whole:
            raise InputError(
                f"decode takes whole numbers from 0, (T) or (N, T), got {str(ids)[:80]!r}."
            )
        text = self.backend.decode(numbers.tolist(), skip_special_tokens=skip_special_tokens)
        return text.replace(END_OF_WORD, " ").strip()

    def graph(self) -> "GraphTokenizer":
        """The same tokenizer as a TensorFlow module that encodes string tensors."""
        from tf_groupvit.preprocessing.tokenizer_graph import GraphTokenizer

        return GraphTokenizer(self)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the files that transformers' ``CLIPTokenizerFast`` loads; the folder is made.

        Raises:
            CheckpointError: they cannot be written.
        """
        folder = make_folder(folder, CheckpointError)
        for name, text in self._files_to_write().items():
            atomic_write(folder / name, text, CheckpointError)

    def _files_to_write(self) -> dict[str, str]:
        special, added = self.files.special, self.backend.get_added_tokens_decoder()
        settings = self.files.settings | special
        settings |= {"model_max_length": self.max_length, "tokenizer_class": "CLIPTokenizer"}
        settings["added_tokens_decoder"] = {
            number: token_fields(token) for number, token in sorted(added.items())
        }
        merges = ["#version: 0.2", *(" ".join(pair) for pair in self.files.merges)]
        return {
            "tokenizer.json": self.backend.to_str(),
            "vocab.json": json.dumps(self.files.vocabulary, ensure_ascii=False),
            "merges.txt": "\n".join(merges) + "\n",
            "special_tokens_map.json": json.dumps(special, indent=2, ensure_ascii=False),
            "tokenizer_config.json": json.dumps(settings, indent=2, ensure_ascii=False),
        }


def _build_backend(files: TokenizerFiles) -> Backend:
    # Parity: the pipeline of transformers' CLIPTokenizer, which it sets whatever tokenizer.json
    # says.
    try:
        backend = Backend(
            models.BPE(
                vocab=files.vocabulary,
                merges=files.merges,
                unk_token=files.special["unk_token"],
                continuing_subword_prefix="",
                end_of_word_suffix=END_OF_WORD,
            )
        )
    except Exception as error:  # the Rust side raises bare exceptions
        raise CheckpointError(
            f"Merges and vocabulary do not fit each other ({error}): fetch both again."
        ) from error
    backend.normalizer = NORMALIZER
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens(files.added)
    return backend


def _checked_max_length(max_length: SupportsIndex, highest: int | None = None) -> int:
    """Anything as an int that leaves room for start and end, and is not above ``highest``."""
    try:
        length = operator.index(max_length)
    except TypeError:
        length = 0
    if isinstance(max_length, bool) or length < 2 or (highest is not None and length > highest):
        span = f"from 2 to this tokenizer's {highest}"
        span = "2 or more (start and end token)" if highest is None else span
        raise InputError(f"max_length should be {span}, got {max_length!r}.")
    return length


def _checked_texts(texts: object) -> list[str]:
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, (bytes, dict)) or not isinstance(texts, Iterable):
        raise InputError(f"Texts should be a list of strings, got {type(texts).__name__}.")
    checked = list(texts)
    for n, text in enumerate(checked):
        if not isinstance(text, str):
            raise InputError(
                f"Text {n} should be a string, got {type(text).__name__}: {str(text)[:40]!r}."
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"Text {n} holds half of a surrogate pair, which UTF-8 has not: clean it."
            ) from error
    return checked


def _warn_of_cuts(rows: list[list[int]], length: int) -> None:
    cut = [n for n, row in enumerate(rows) if len(row) + 2 > length]
    if cut:
        warnings.warn(
            f"{len(cut)} of {len(rows)} texts are longer than {length} tokens and were cut, the"
            f" first is text {cut[0]} with {len(rows[cut[0]]) + 2}.",
            UserWarning,
            stacklevel=3,
        )
