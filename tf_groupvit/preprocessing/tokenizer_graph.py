"""Strings (N) in a TensorFlow graph -> token ids and attention mask, int32 (N, max_length), as the Python side's."""

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tf_groupvit.errors import InputError
from tf_groupvit.preprocessing import tokenizer_unicode as unicode
from tf_groupvit.preprocessing.tokenizer_files import END_OF_WORD
from tf_groupvit.preprocessing.tokenizer_merges import Merges, read_table
from tf_groupvit.preprocessing.tokenizer_unicode import ADDED, CODE_POINTS, SPACE, PageTable

if TYPE_CHECKING:
    from tf_groupvit.preprocessing.tokenizer import Tokenizer

# The pattern of pieces, over the classes of the characters in place of the characters: RE2 knows another Unicode.
MARK = "#"  # no class of characters
PIECE = (
    r"(<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[a-zL]+|0|[^ a-zL0A]+|A)"
)
# The byte-level step splits again, which only the two named tokens notice.
NAMED_PIECE, NAMED_PARTS = r"(<\|)(startoftext|endoftext)(\|>)#", r"\1#\2#\3#"

# A text is read as far as its tokens can matter: max_length tokens of at most the longest token's bytes, and this much
# more, so that a single word of many thousand letters ends where its merges no longer reach back.
CONTEXT = 4096


class GraphTokenizer(tf.Module):
    """The tokenizer as core TensorFlow operations: ``graph(["a cat"])`` -> ``{"input_ids", "attention_mask"}``.

    Both are int32 (N, max_length). The vocabulary and the merges are static tables, assets of any SavedModel whose
    module holds this one. Ids equal the Python tokenizer's on every string in Unicode composed form (NFC); there:

    * A string in decomposed form is not composed: each code point is taken as it stands, so ``e`` + U+0301 gives the
      tokens of ``e`` and of the accent, not those of ``é``. Single characters that have another composed form
      (the Kelvin sign, compatibility ideographs) do get it.
    * Bytes that are no UTF-8 count as U+FFFD, as ``bytes.decode("utf-8", "replace")`` gives it.
    * A text over max_length is cut, its end token kept, without a warning.
    * In a single word of more than (max_length - 2) * (bytes of the longest token) + 4096 characters, the rest is not
      read. That is above 6,000 characters for CLIP, whose first 75 tokens do not depend on what comes so much later.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        super().__init__(name="tokenizer")
        folder = Path(tempfile.mkdtemp(prefix="tf_groupvit_tokenizer_"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)  # saving copies the tables' files from it
        self.max_length = tokenizer.max_length
        self.bos, self.eos, self.pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        vocabulary = tokenizer.files.vocabulary
        longest = max(len(token.removesuffix(END_OF_WORD)) for token in vocabulary)
        self.characters_read = (self.max_length - 2) * longest + CONTEXT
        with tf.init_scope(), tf.device("CPU"):
            self._added = AddedTokens(tokenizer)
            self._words = Words(tokenizer, self._added.keys, folder)
            self._merges = Merges(merge_ranks(tokenizer), longest, folder)
            forms = unicode.normal_forms()
            self._forms = [PageTable(_continued(forms[:, i], i == 0)) for i in range(forms.shape[1])]
            self._classes = PageTable(np.append(unicode.classes(), [ADDED]))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")], autograph=False)
    def __call__(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """Ids and mask, int32 (N, max_length), of strings (N)."""
        with tf.device("CPU"):  # no accelerator has strings or tables
            characters = tf.strings.unicode_decode(text, "UTF-8")  # (N, characters) code points, int32
            characters = self._normalise(self._added(characters, normalised=False))
            characters = self._added(characters, normalised=True)
            pieces, rows = self._split(characters)
            return self._frame(self._encode(pieces, rows, tf.size(text, tf.int64)))

    def _normalise(self, characters: tf.RaggedTensor) -> tf.RaggedTensor:
        """Each character in its normal form: composed, lower case, 1 to 3 code points."""
        forms = tf.stack([table(characters.flat_values) for table in self._forms], 1)  # (all characters, 3)
        return tf.ragged.boolean_mask(
            characters.with_flat_values(forms), characters.with_flat_values(forms) >= 0
        ).merge_dims(1, 2)

    def _split(self, characters: tf.RaggedTensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Pieces (pieces, characters) of all texts, blanks dropped, and the text that each is from (pieces)."""
        kinds = self._classes(characters.flat_values)
        marked = mark(characters.with_flat_values(kinds), (PIECE, r"\1" + MARK), (NAMED_PIECE, NAMED_PARTS))
        is_mark = marked.flat_values == ord(MARK)
        piece = tf.boolean_mask(tf.cumsum(tf.cast(is_mark, tf.int64)), ~is_mark)  # (all characters) counted over texts
        solid = kinds != SPACE
        row, piece, points = (
            tf.boolean_mask(values, solid) for values in (characters.value_rowids(), piece, characters.flat_values)
        )
        row, piece, points = self._cut(row, piece, points)
        starts = tf.concat([tf.ones_like(piece[:1], tf.bool), piece[1:] != piece[:-1]], 0)
        return tf.RaggedTensor.from_row_starts(points, tf.where(starts)[:, 0], validate=False), tf.boolean_mask(
            row, starts
        )

    def _cut(self, row: tf.Tensor, piece: tf.Tensor, points: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """What can matter of each text: a piece is a token or more, and a token has a bounded number of bytes."""
        position = tf.range(tf.size(row, tf.int64))
        rows = tf.reduce_max(tf.concat([row, [-1]], 0)) + 1
        first = tf.gather(tf.math.unsorted_segment_min(position, row, rows), row)
        near = (piece - tf.gather(piece, first) < self.max_length - 2) & (position - first < self.characters_read)
        return tuple(tf.boolean_mask(values, near) for values in (row, piece, points))

    def _encode(self, pieces: tf.RaggedTensor, rows: tf.Tensor, N: tf.Tensor) -> tf.RaggedTensor:
        """Token ids (N, tokens) of all pieces, each distinct word encoded once."""
        words, use = tf.unique(self._added.name(pieces), tf.int64)
        symbols, of_word = self._merges(*self._words(words))
        tokens = tf.RaggedTensor.from_value_rowids(symbols, of_word, tf.size(words, tf.int64), validate=False)
        tokens = tf.gather(tokens, use)  # (pieces, tokens)
        return tf.RaggedTensor.from_value_rowids(tokens, rows, N, validate=False).merge_dims(1, 2)

    def _frame(self, tokens: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """Start token, as many tokens as fit, end token, padding: (N, max_length)."""
        room = self.max_length - 2
        inner = tf.cast(tokens, tf.int32).to_tensor(self.pad, shape=[None, room])  # (N, max_length - 2)
        length = tf.cast(tf.minimum(tokens.row_lengths(), room), tf.int32)[:, None] + 2  # (N, 1)
        edge = tf.fill([tf.shape(inner)[0], 1], self.pad)
        place = tf.range(self.max_length)[None]  # (1, max_length)
        ids = tf.concat([edge, inner, edge], 1)
        ids = tf.where(place == 0, self.bos, tf.where(place == length - 1, self.eos, ids))
        ids = tf.ensure_shape(ids, [None, self.max_length])
        return {"input_ids": ids, "attention_mask": tf.cast(place < length, tf.int32)}


class Words(tf.Module):
    """Words (U) -> the symbols to merge: one for a word that is a token, one per byte for any other."""

    def __init__(self, tokenizer: "Tokenizer", added: list[str], folder: Path) -> None:
        super().__init__(name="words")
        vocabulary, unknown = (
            tokenizer.files.vocabulary,
            tokenizer.files.vocabulary.get(tokenizer.files.special["unk_token"]),
        )
        whole = whole_words(tokenizer) | {key: tokenizer.backend.token_to_id(key[1:]) for key in added}
        rows = (f"{word}\t{number}\n" for word, number in whole.items())
        self.table = read_table(folder / "vocabulary.tsv", rows, tf.string, default=-1)
        inner = [vocabulary.get(letter, unknown) for letter in byte_letters()]
        last = [vocabulary.get(letter + END_OF_WORD, unknown) for letter in byte_letters()]
        if None in inner + last:
            raise InputError(
                "A graph needs a token for every byte or an unk_token in the vocabulary: neither is there."
            )
        self.inner, self.last = tf.constant(inner, tf.int64), tf.constant(last, tf.int64)

    def __call__(self, words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Symbols (S) and the word that each is of (S), both int64."""
        known = self.table.lookup(words)  # (U)
        # Latin-1 has one character for each byte; a known word needs no more than one symbol.
        letters = tf.strings.unicode_decode(tf.where(known < 0, words, "?"), "ISO-8859-1")  # (U, bytes)
        letter, word = letters.flat_values, letters.value_rowids()
        ends = tf.concat([word[1:] != word[:-1], tf.ones_like(word[:1], tf.bool)], 0)
        symbols = tf.where(ends, tf.gather(self.last, letter), tf.gather(self.inner, letter))
        whole = tf.gather(known, word)
        return tf.where(whole < 0, symbols, whole), word


class AddedTokens(tf.Module):
    """Code points (N, characters) -> the same with each added token in the text as one number from CODE_POINTS on."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        super().__init__(name="added_tokens")
        tokens = list(tokenizer.backend.get_added_tokens_decoder().values())
        if any(token.single_word for token in tokens):
            raise InputError("A graph cannot tell single words: save the added tokens without 'single_word'.")
        # No piece holds a blank, so that no word is taken for an added token.
        self.keys = [f" {token.content}" for token in tokens]
        self.key_of = tf.constant([*self.keys, ""])
        self.plain = Literals([(i, token.content) for i, token in enumerate(tokens) if not token.normalized])
        normalise = tokenizer.backend.normalizer.normalize_str
        self.normalised = Literals(
            [(i, normalise(token.content)) for i, token in enumerate(tokens) if token.normalized]
        )

    def __call__(self, characters: tf.RaggedTensor, normalised: bool) -> tf.RaggedTensor:
        return (self.normalised if normalised else self.plain)(characters)

    def name(self, pieces: tf.RaggedTensor) -> tf.Tensor:
        """Pieces (pieces, characters) as strings (pieces); an added token, which is a piece of its own, as its key."""
        added = pieces.flat_values - CODE_POINTS
        words = tf.strings.unicode_encode(pieces.with_flat_values(tf.where(added < 0, pieces.flat_values, 0)), "UTF-8")
        first = tf.gather(added, pieces.row_starts())
        return tf.where(first < 0, words, tf.gather(self.key_of, tf.maximum(first, 0)))


class Literals(tf.Module):
    """Finds fixed strings among code points, the longest of those that begin leftmost, and puts one number for each."""

    def __init__(self, numbered: list[tuple[int, str]]) -> None:
        super().__init__(name="literals")
        longest_first = sorted(numbered, key=lambda entry: -len(entry[1]))
        self.numbers = tf.constant([CODE_POINTS + number for number, _ in longest_first], tf.int32)
        self.texts = tf.constant([text for _, text in longest_first], tf.string)
        letters = sorted({letter for _, text in numbered for letter in text})
        # Every letter of the literals has a code of its own, all others share the blank; marks are ( and ).
        code_of = {letter: chr(0x100 + i) for i, letter in enumerate(letters)}
        self.pattern = "|".join("".join(code_of[letter] for letter in text) for _, text in longest_first)
        table = np.full(CODE_POINTS + 1, ord(" "), np.int32)
        table[[ord(letter) for letter in letters]] = [ord(code) for code in code_of.values()]
        self.codes = PageTable(table)

    def __call__(self, characters: tf.RaggedTensor) -> tf.RaggedTensor:
        if not self.pattern:
            return characters
        marked = mark(characters.with_flat_values(self.codes(characters.flat_values)), (f"({self.pattern})", r"(\1)"))
        return self._replace(characters, marked.flat_values == ord("("), marked.flat_values == ord(")"))

    def _replace(self, characters: tf.RaggedTensor, opens: tf.Tensor, closes: tf.Tensor) -> tf.RaggedTensor:
        """``opens`` and ``closes``: where the marks are among all characters and marks."""
        real = ~(opens | closes)
        inside = tf.boolean_mask(tf.cumsum(tf.cast(opens, tf.int32)) > tf.cumsum(tf.cast(closes, tf.int32)), real)
        first = tf.boolean_mask(tf.concat([tf.zeros_like(opens[:1]), opens[:-1]], 0), real)
        points = characters.flat_values
        starts = tf.boolean_mask(tf.cumsum(tf.cast(inside, tf.int64), exclusive=True), first)
        found = tf.RaggedTensor.from_row_starts(tf.boolean_mask(points, inside), starts, validate=False)
        which = tf.argmax(tf.strings.unicode_encode(found, "UTF-8")[:, None] == self.texts, 1)
        points = tf.tensor_scatter_nd_update(points, tf.where(first), tf.gather(self.numbers, which))
        return tf.ragged.boolean_mask(characters.with_flat_values(points), characters.with_flat_values(first | ~inside))


def mark(kinds: tf.RaggedTensor, *rewrites: tuple[str, str]) -> tf.RaggedTensor:
    """Kinds of characters (N, characters), as a string for each text, with regular expressions rewritten in them."""
    strings = tf.strings.unicode_encode(kinds, "UTF-8")
    for pattern, rewrite in rewrites:
        strings = tf.strings.regex_replace(strings, pattern, rewrite)
    return tf.strings.unicode_decode(strings, "UTF-8")


def _continued(column: np.ndarray, first: bool) -> np.ndarray:
    """A column of normal forms, continued over the numbers of added tokens, which stay as they are."""
    added = np.arange(len(column), len(column) + 4096)
    return np.append(column, added if first else np.full(len(added), -1))


def byte_letters() -> list[str]:
    """The printable character that stands for each of the 256 bytes in the vocabulary (GPT-2's byte-level alphabet)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def whole_words(tokenizer: "Tokenizer") -> dict[str, int]:
    """Words that the merges make one token of, as they stand in a text, each with its id."""
    byte_of = {letter: byte for byte, letter in enumerate(byte_letters())}
    found: dict[str, int] = {}
    for token in tokenizer.files.vocabulary:
        letters = token.removesuffix(END_OF_WORD)
        if letters == token or not letters or not byte_of.keys() >= set(letters):
            continue
        word = bytes(byte_of[letter] for letter in letters).decode("utf-8", "replace")
        made = tokenizer.backend.model.tokenize(letters)
        if len(made) == 1 and "\ufffd" not in word and not any(blank in word for blank in "\t\r\n"):
            found[word] = made[0].id
    return found


def merge_ranks(tokenizer: "Tokenizer") -> dict[tuple[int, int], tuple[int, int]]:
    """(left id, right id) -> (rank, merged id); of a pair that is listed twice, the later rank, as in tokenizers."""
    ids = tokenizer.files.vocabulary
    return {
        (ids[left], ids[right]): (rank, ids[left + right]) for rank, (left, right) in enumerate(tokenizer.files.merges)
    }
