"""Strings (N) in a TensorFlow graph -> token ids and attention mask, int32 (N, max_length), as the
Python side's.
"""

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf

from tf_groupvit.errors import InputError
from tf_groupvit.preprocessing.tokenizer_composition import Composition
from tf_groupvit.preprocessing.tokenizer_files import END_OF_WORD
from tf_groupvit.preprocessing.tokenizer_merges import Merges, read_table
from tf_groupvit.preprocessing.tokenizer_strings import (
    LETTERS,
    Literals,
    begins,
    byte_letters,
    decode,
    encode,
    keep,
    spell,
    splits,
)
from tf_groupvit.preprocessing.tokenizer_unicode import CODE_POINTS, SPACE, Classes, NormalForms

if TYPE_CHECKING:
    from tf_groupvit.preprocessing.tokenizer import Tokenizer

# The pattern of pieces, over the classes of the characters in place of the characters: RE2 knows
# another Unicode.
MARK = "#"  # no class of characters
PIECE = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[a-zL]+|0|[^ a-zL0A]+|A"
# The byte-level step splits again, which only the two named tokens notice.
NAMED_PIECE, NAMED_PARTS = r"(<\|)(startoftext|endoftext)(\|>)#", r"\1#\2#\3#"

# A text is read as far as its tokens can matter: max_length tokens of at most the longest token's
# bytes, and this much more, so that a single word of many thousand letters ends where its merges no
# longer reach back.
CONTEXT = 4096


class GraphTokenizer(tf.Module):
    """The tokenizer as core TensorFlow operations: ``graph(["a cat"])`` -> ``{"input_ids",
    "attention_mask"}``.

    Both are int32 (N, max_length). The vocabulary and the merges are static tables, assets of any
    SavedModel whose module holds this one. Ids equal the Python tokenizer's on every string,
    composed (``é``), decomposed (``e`` + U+0301) or neither; there:

    * Bytes that are no UTF-8 count as U+FFFD, as ``bytes.decode("utf-8", "replace")`` gives it.
    * A text over max_length is cut, its end token kept, without a warning.
    * In a single word of more than (max_length - 2) * (bytes of the longest token) + 4096
      characters, the rest is not read. That is above 6,000 characters for CLIP, whose first 75
      tokens do not depend on what comes so much later.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        super().__init__(name="tokenizer")
        folder = Path(tempfile.mkdtemp(prefix="tf_groupvit_tokenizer_"))
        weakref.finalize(
            self, shutil.rmtree, folder, ignore_errors=True
        )  # saving copies the tables' files from it
        self.max_length = tokenizer.max_length
        self.bos, self.eos, self.pad = (
            tokenizer.bos_token_id,
            tokenizer.eos_token_id,
            tokenizer.pad_token_id,
        )
        longest = max(len(token.removesuffix(END_OF_WORD)) for token in tokenizer.files.vocabulary)
        self.characters_read = (self.max_length - 2) * longest + CONTEXT
        with tf.init_scope(), tf.device("CPU"):
            self._added = AddedTokens(tokenizer)
            self._composition = Composition(self._added.count)
            self._forms, self._classes = NormalForms(self._added.count), Classes(self._added.count)
            self._words = Words(tokenizer, self._added.ids, folder)
            self._merges = Merges(merge_ranks(tokenizer), longest, folder)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")], autograph=False)
    def __call__(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Ids and mask, int32 (N, max_length), of strings (N)."""
        with tf.device("CPU"):  # no accelerator has strings or tables
            N = tf.size(text, tf.int64)
            points, row = self._added.plain(
                *decode(text), N
            )  # (S) code points of all texts, and their texts
            points, row = self._composition(points, row)
            points, row = self._added.normalised(*self._forms(points, row), N)
            points, row, piece = self._cut(*self._split(points, row, N))
            return self._frame(self._encode(points, row, piece, N))

    def _split(
        self, points: tf.Tensor, row: tf.Tensor, N: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """All characters but blanks, their texts, and their pieces, counted over all texts: each
        (S).
        """
        kinds = self._classes(points)
        marked = tf.strings.regex_replace(encode(kinds, row, N), PIECE, r"\0" + MARK)
        named = tf.reduce_any(kinds == ord("<"))
        marked = tf.cond(
            named,
            lambda: tf.strings.regex_replace(marked, NAMED_PIECE, NAMED_PARTS),
            lambda: marked,
        )
        is_mark = decode(marked)[0] == ord(MARK)
        (piece,) = keep(~is_mark, tf.cumsum(tf.cast(is_mark, tf.int64)))
        points, row, piece = keep(kinds != SPACE, points, row, piece)
        return points, row, piece

    def _cut(
        self, points: tf.Tensor, row: tf.Tensor, piece: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """What can matter of each text: a piece is a token or more, and a token has a bounded
        number of bytes.
        """
        first = tf.searchsorted(
            row, row, out_type=tf.int64
        )  # (S) where each character's text begins
        place = tf.range(tf.size(row, tf.int64)) - first
        near = (piece - tf.gather(piece, first) < self.max_length - 2) & (
            place < self.characters_read
        )
        points, row, piece = keep(near, points, row, piece)
        return points, row, piece

    def _encode(
        self, points: tf.Tensor, row: tf.Tensor, piece: tf.Tensor, N: tf.Tensor
    ) -> tf.RaggedTensor:
        """Token ids (N, tokens), each distinct word encoded once."""
        starts = begins(piece)
        first, row_of_piece = keep(starts, points, row)  # (pieces)
        spelled = spell(points, tf.cumsum(tf.cast(starts, tf.int64)) - 1, tf.size(first, tf.int64))
        words, use = tf.unique(self._added.rename(spelled, first), tf.int64)
        symbols, word = self._merges(*self._words(words))
        ends = splits(word, tf.size(words, tf.int64))
        tokens = tf.gather(
            tf.RaggedTensor.from_row_splits(symbols, ends, validate=False), use
        )  # (pieces, tokens)
        ends = tf.gather(tokens.row_splits, splits(row_of_piece, N))
        return tf.RaggedTensor.from_row_splits(tokens.values, ends, validate=False)

    def _frame(self, tokens: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """Start token, as many tokens as fit, end token, padding: (N, max_length)."""
        room = self.max_length - 2
        inner = tf.cast(tokens, tf.int32).to_tensor(
            self.pad, shape=[None, room]
        )  # (N, max_length - 2)
        length = tf.cast(tf.minimum(tokens.row_lengths(), room), tf.int32)[:, None] + 2  # (N, 1)
        place = tf.range(self.max_length)[None]  # (1, max_length)
        ids = tf.pad(inner, [[0, 0], [1, 1]], constant_values=self.pad)
        ids = tf.where(place == 0, self.bos, tf.where(place == length - 1, self.eos, ids))
        return {
            "input_ids": tf.ensure_shape(ids, [None, self.max_length]),
            "attention_mask": tf.cast(place < length, tf.int32),
        }


class AddedTokens(tf.Module):
    """Tokens that are found in a text as they stand: among code points, each is one number from
    CODE_POINTS on.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        super().__init__(name="added_tokens")
        tokens = list(tokenizer.backend.get_added_tokens_decoder().values())
        if any(token.single_word for token in tokens):
            raise InputError(
                "A graph cannot tell single words: save the added tokens without 'single_word'."
            )
        self.count = len(tokens)
        # No byte's letter is a blank, so that no word is taken for an added token.
        ids = tokenizer.backend.get_vocab()
        self.ids = {f" {i}": ids[token.content] for i, token in enumerate(tokens)}
        self.names = tf.constant([*self.ids])
        normalise = tokenizer.backend.normalizer.normalize_str
        plain = {
            token.content: CODE_POINTS + i for i, token in enumerate(tokens) if not token.normalized
        }
        forms = {
            normalise(token.content): CODE_POINTS + i
            for i, token in enumerate(tokens)
            if token.normalized
        }
        highest = CODE_POINTS + self.count
        self.plain, self.normalised = Literals(plain, highest), Literals(forms, highest)

    def rename(self, words: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
        """Words (pieces), those whose first number is an added token's under that token's name."""
        added = first - CODE_POINTS
        return tf.where(added < 0, words, tf.gather(self.names, tf.maximum(added, 0)))


class Words(tf.Module):
    """Words (U) in byte letters -> the symbols to merge: one for a word that is a token, one per
    byte for any other.
    """

    def __init__(self, tokenizer: "Tokenizer", added: dict[str, int], folder: Path) -> None:
        super().__init__(name="words")
        rows = [f"{word}\t{number}\n" for word, number in (whole_words(tokenizer) | added).items()]
        self.table = read_table(folder / "vocabulary.tsv", rows, tf.string, default=-1)
        ids = tokenizer.files.vocabulary
        unknown = ids.get(tokenizer.files.special["unk_token"], -1)
        letters = [chr(i) for i in range(LETTERS)]
        self.inner = tf.constant([ids.get(letter, unknown) for letter in letters], tf.int64)
        self.last = tf.constant(
            [ids.get(letter + END_OF_WORD, unknown) for letter in letters], tf.int64
        )
        ends = {letter + END_OF_WORD for letter in byte_letters()}
        if unknown < 0 and not ids.keys() >= ends | set(byte_letters()):
            raise InputError(
                "A graph needs a token for every byte or an unk_token in the vocabulary, and has"
                " neither."
            )

    def __call__(self, words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Symbols (S) and the word that each is of (S), both int64."""
        known = self.table.lookup(words)  # (U)
        letter, word = decode(tf.where(known < 0, words, "?"))  # (S) one for a known word
        last = tf.reverse(begins(tf.reverse(word, [0])), [0])
        symbols = tf.where(last, tf.gather(self.last, letter), tf.gather(self.inner, letter))
        whole = tf.gather(known, word)
        return tf.where(whole < 0, symbols, whole), word


def whole_words(tokenizer: "Tokenizer") -> dict[str, int]:
    """Words that the merges make one token of, in byte letters, each with its id."""
    alphabet = set(byte_letters())
    found: dict[str, int] = {}
    for token in tokenizer.files.vocabulary:
        word = token.removesuffix(END_OF_WORD)
        if word != token and word and alphabet >= set(word):
            made = tokenizer.backend.model.tokenize(word)
            if len(made) == 1:
                found[word] = made[0].id
    return found


def merge_ranks(tokenizer: "Tokenizer") -> dict[tuple[int, int], tuple[int, int]]:
    """(left id, right id) -> (rank, merged id); of a pair that is listed twice, the later rank, as
    in tokenizers.
    """
    ids = tokenizer.files.vocabulary
    return {
        (ids[left], ids[right]): (rank, ids[left + right])
        for rank, (left, right) in enumerate(tokenizer.files.merges)
    }
