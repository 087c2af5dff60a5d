"""The tokenizer as a TensorFlow graph: strings to token ids, equal to the Python tokenizer's."""

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tf_groupvit.errors import InputError
from tf_groupvit.preprocessing.tokenizer_files import END_OF_WORD
from tf_groupvit.preprocessing.tokenizer_merges import Merges, Words, merge_ranks, spell
from tf_groupvit.preprocessing.tokenizer_unicode import (
    CODE_POINTS,
    SPACE,
    Composition,
    NormalForms,
    PageTable,
    begins,
    class_table,
    decode,
    decode_points,
    encode,
    first_at_least,
    keep,
    shifted_right,
    splits,
)

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
    """The tokenizer as core TensorFlow operations: ``graph(["a cat"])``.

    The vocabulary and the merges are static tables, assets of any SavedModel whose module holds
    this one. Ids equal the Python tokenizer's on every string, composed (``é``), decomposed (``e``
    + U+0301) or neither; there:

    * Bytes that are no UTF-8 count as U+FFFD, as ``bytes.decode("utf-8", "replace")`` gives it.
    * A text over max_length is cut, its end token kept, without a warning.
    * In a single word of more than (max_length - 2) * (bytes of the longest token) + 4096
      characters, the rest is not read. That is above 6,000 characters for CLIP, whose first 75
      tokens do not depend on what comes so much later.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        super().__init__(name="tokenizer")
        # Saving copies the tables' files from here.
        folder = Path(tempfile.mkdtemp(prefix="tf_groupvit_tokenizer_"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.max_length = tokenizer.max_length
        self.bos, self.eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.pad = tokenizer.pad_token_id
        longest = max(len(token.removesuffix(END_OF_WORD)) for token in tokenizer.files.vocabulary)
        self.characters_read = (self.max_length - 2) * longest + CONTEXT
        with tf.init_scope(), tf.device("CPU"):
            self._added = AddedTokens(tokenizer)
            self._composition = Composition(self._added.count)
            self._forms = NormalForms(self._added.count)
            self._classes = class_table(self._added.count)
            self._words = Words(tokenizer, self._added.ids, folder)
            self._merges = Merges(merge_ranks(tokenizer), longest, folder)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")], autograph=False)
    def __call__(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """``input_ids`` and ``attention_mask``, int32 (N, max_length), of strings (N)."""
        with tf.device("CPU"):  # no accelerator has strings or tables
            N = tf.size(text, tf.int64)
            # (S) code points of all texts, and their texts
            points, row = self._added.plain(*decode(text), N)
            points, row = self._composition(points, row)
            points, row = self._added.normalized(*self._forms(points, row), N)
            points, row, piece = self._cut(*self._split(points, row, N))
            return self._frame(self._encode(points, row, piece, N))

    def _split(
        self, points: tf.Tensor, row: tf.Tensor, N: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """All characters but blanks, their texts, and their pieces, counted over all texts: (S)."""
        kinds = self._classes(points)
        marked = tf.strings.regex_replace(encode(kinds, row, N), PIECE, r"\0" + MARK)
        marked = tf.cond(
            tf.reduce_any(kinds == ord("<")),
            lambda: tf.strings.regex_replace(marked, NAMED_PIECE, NAMED_PARTS),
            lambda: marked,
        )
        is_mark = decode_points(marked) == ord(MARK)
        (piece,) = keep(~is_mark, tf.cumsum(tf.cast(is_mark, tf.int64)))
        points, row, piece = keep(kinds != SPACE, points, row, piece)
        return points, row, piece

    def _cut(
        self, points: tf.Tensor, row: tf.Tensor, piece: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """What can matter of each text (S).

        A piece is a token or more, and a token has a bounded number of bytes.
        """
        first = first_at_least(row, row)  # (S) where its text begins
        place = tf.range(tf.size(row, tf.int64)) - first
        pieces_before = piece - tf.gather(piece, first)
        near = (pieces_before < self.max_length - 2) & (place < self.characters_read)
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
        by_word = tf.RaggedTensor.from_row_splits(symbols, ends, validate=False)
        tokens = tf.gather(by_word, use)  # (pieces, tokens)
        ends = tf.gather(tokens.row_splits, splits(row_of_piece, N))
        return tf.RaggedTensor.from_row_splits(tokens.values, ends, validate=False)

    def _frame(self, tokens: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """Start token, as many tokens as fit, end token, padding: (N, max_length)."""
        room = self.max_length - 2
        inner = tf.cast(tokens, tf.int32).to_tensor(self.pad, shape=[None, room])
        length = tf.cast(tf.minimum(tokens.row_lengths(), room), tf.int32)[:, None] + 2  # (N, 1)
        place = tf.range(self.max_length)[None]  # (1, max_length)
        ids = tf.pad(inner, [[0, 0], [1, 1]], constant_values=self.pad)
        ids = tf.where(place == 0, self.bos, tf.where(place == length - 1, self.eos, ids))
        return {
            "input_ids": tf.ensure_shape(ids, [None, self.max_length]),
            "attention_mask": tf.cast(place < length, tf.int32),
        }


class AddedTokens(tf.Module):
    """Tokens that are found in a text as they stand.

    Among code points each is one number from CODE_POINTS on.
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
        normalize = tokenizer.backend.normalizer.normalize_str
        plain, forms = {}, {}
        for number, token in enumerate(tokens, CODE_POINTS):
            if token.normalized:
                forms[normalize(token.content)] = number
            else:
                plain[token.content] = number
        highest = CODE_POINTS + self.count
        self.plain, self.normalized = Literals(plain, highest), Literals(forms, highest)

    def rename(self, words: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
        """Words (P), those whose first number (P) is an added token's under that token's name."""
        added = first - CODE_POINTS
        return tf.where(added < 0, words, tf.gather(self.names, tf.maximum(added, 0)))


class Literals(tf.Module):
    """Finds fixed strings among code points, and puts one number for each.

    Of those that begin leftmost, the longest is found.
    """

    def __init__(self, numbers: dict[str, int], highest: int) -> None:
        """``numbers``: literal -> its number; no code point is above ``highest``."""
        super().__init__(name="literals")
        longest_first = sorted(numbers, key=len, reverse=True)
        self.numbers = tf.constant([numbers[literal] for literal in longest_first], tf.int32)
        # Every letter of the literals has a code of its own, first letters first; all others share
        # the blank.
        first_letters = [literal[0] for literal in numbers]
        letters = dict.fromkeys([*first_letters, *"".join(numbers)])
        code_of = {letter: chr(0x100 + i) for i, letter in enumerate(letters)}
        self.after_first = 0x100 + len(set(first_letters))
        coded = ["".join(code_of[letter] for letter in literal) for literal in longest_first]
        self.pattern, self.coded = "|".join(coded), tf.constant(coded, tf.string)
        table = np.full(highest + 1, ord(" "), np.int32)
        table[[ord(letter) for letter in letters]] = [ord(code) for code in code_of.values()]
        self.codes = PageTable(table)

    def __call__(
        self, points: tf.Tensor, of: tf.Tensor, N: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Code points (S) and their texts (S), of N texts -> the same, literals replaced."""
        if not self.pattern:
            return points, of
        codes = self.codes(points)
        present = tf.reduce_any((codes >= 0x100) & (codes < self.after_first))
        return tf.cond(present, lambda: self._replace(points, of, codes, N), lambda: (points, of))

    def _replace(
        self, points: tf.Tensor, of: tf.Tensor, codes: tf.Tensor, N: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        marked = decode_points(
            tf.strings.regex_replace(encode(codes, of, N), self.pattern, r"(\0)")
        )
        opens, closes = marked == ord("("), marked == ord(")")
        depth = tf.cumsum(tf.cast(opens, tf.int32)) - tf.cumsum(tf.cast(closes, tf.int32))
        after_open = shifted_right(opens, False)
        inside, first = keep(~(opens | closes), depth > 0, after_open)  # (S)
        letters, literal = keep(inside, codes, tf.cumsum(tf.cast(first, tf.int64)) - 1)
        places = tf.where(first)
        found = encode(letters, literal, tf.size(places, tf.int64))  # (literals found)
        number = tf.gather(self.numbers, tf.argmax(found[:, None] == self.coded, 1))
        return keep(first | ~inside, tf.tensor_scatter_nd_update(points, places, number), of)
