"""Words of a request, in the graph: lists of class names to names and whose they are, and texts to
their embeddings.

Lists (B), each one string, are read as ``prompts.parse_classes`` does: names between commas,
synonyms between bars, blanks as there.
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tf_groupvit.models.operations import normalize
from tf_groupvit.preprocessing.image_graph_bytes import first_error
from tf_groupvit.segmentation.class_names import BACKGROUND
from tf_groupvit.segmentation.prompts import PROMPTS_AT_ONCE

MOST_LABELS = 256  # what one byte a pixel can tell apart
MOST_BYTES = 2**20  # of a list; for each byte that it reads the tokenizer takes some hundred
# The blanks of str.split; RE2's \s knows those of ASCII alone, and not even the separators among
# them.
BLANKS = r"[\s\x{0b}\x{1c}-\x{1f}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"


@dataclass(frozen=True)
class ClassLists:
    """``names`` (M, synonyms) of all classes of all images, the one that it is called by first;
    ``splits`` (B + 1).

    ``words`` (B) say what is wrong with a list, "" where nothing is; a list that is wrong has no
    classes here.
    """

    names: tf.RaggedTensor
    splits: tf.Tensor
    words: tf.Tensor

    @property
    def called(self) -> tf.RaggedTensor:
        """(B, classes): what each class is called."""
        return tf.RaggedTensor.from_row_splits(_first(self.names), self.splits, validate=False)

    @property
    def longest(self) -> tf.Tensor:
        return tf.cast(
            tf.reduce_max(tf.concat([[0], self.splits[1:] - self.splits[:-1]], axis=0)), tf.int32
        )


def _first(names: tf.RaggedTensor) -> tf.Tensor:
    return tf.gather(names.values, names.row_splits[:-1])


def parse_lists(lists: tf.Tensor, background: bool, max_texts: int) -> ClassLists:
    """Read the class lists of images (B), each "dog, grass, sofa|couch".

    Wrong are an empty name, one that is there twice, "background" where the model adds one of its
    own, more labels than a byte holds, and more names than ``max_texts`` in all: then those lists
    that are longer than their share.
    """
    words = _too_many(lists, background, max_texts)
    entries = tf.strings.split(tf.where(words == "", lists, ""), ",")  # (B, classes)
    row = entries.value_rowids()  # (M)
    names = tf.strings.split(entries.values, "|")  # (M, synonyms)
    names = names.with_values(tf.strings.strip(tf.strings.regex_replace(names.values, BLANKS, " ")))
    first, shown = _first(names), _beginning(lists)

    def none_is(bad: tf.Tensor) -> tf.Tensor:
        """True for the images (B) of whose classes (M) none is bad."""
        return tf.math.unsorted_segment_sum(tf.cast(bad, tf.int32), row, tf.size(lists)) == 0

    words = first_error(
        (words == "", [words]),
        (
            none_is(_has_empty(names)),
            ["The list of classes (", shown, ") has an empty name: leave it out."],
        ),
        (
            none_is(_is_twice(first, row)),
            ["The list of classes (", shown, ") has a class twice: name it once."],
        ),
        (
            none_is((first == BACKGROUND) & background),
            [
                "The list of classes (",
                shown,
                f") has {BACKGROUND!r}, which this model adds by itself: leave it out.",
            ],
        ),
    )
    kept = tf.where(tf.gather(words == "", row))[:, 0]
    counts = tf.where(words == "", entries.row_lengths(), 0)
    return ClassLists(tf.gather(names, kept), tf.concat([[0], tf.cumsum(counts)], axis=0), words)


def _too_many(lists: tf.Tensor, background: bool, max_texts: int) -> tf.Tensor:
    """Words (B) for lists that are too long, found before they are taken apart."""
    length = tf.strings.length(lists)
    lists = tf.where(length <= MOST_BYTES, lists, "")
    names = _count(lists, ",|") + 1
    labels = _count(lists, ",") + 1 + int(background)
    share = max_texts // tf.maximum(tf.size(lists), 1)
    most = [f"Expected at most {MOST_LABELS} labels an image, background included, got ", labels]
    return first_error(
        (
            length <= MOST_BYTES,
            [f"Expected a list of classes of at most {MOST_BYTES} bytes, got ", length, "."],
        ),
        (
            (names <= max_texts) & ((tf.reduce_sum(names) <= max_texts) | (names <= share)),
            [
                f"Expected at most {max_texts} names of classes, synonyms included, got ",
                names,
                ": send fewer.",
            ],
        ),
        (labels <= MOST_LABELS, [*most, ": send fewer classes."]),
    )


def _count(lists: tf.Tensor, kinds: str) -> tf.Tensor:
    """How many bytes of lists (B) are of a kind, (B)."""
    return tf.strings.length(tf.strings.regex_replace(lists, f"[^{kinds}]", ""))


def _beginning(lists: tf.Tensor) -> tf.Tensor:
    """The beginnings of lists (B) in one line, for messages."""
    shown = tf.strings.regex_replace(tf.strings.substr(lists, 0, 1000), r"\s+", " ")
    return tf.strings.regex_replace(shown, r"^(.{80}).+$", r"\1 ...")


def _has_empty(names: tf.RaggedTensor) -> tf.Tensor:
    """True for classes (M) of which a name is empty."""
    empty = tf.cast(names.values == "", tf.int32)
    counted = tf.math.unsorted_segment_sum(empty, names.value_rowids(), names.nrows())
    return (counted > 0) | (names.row_lengths() == 0)


def _is_twice(first: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """True for classes (M) whose image has another of that name."""
    keys = tf.strings.join([tf.strings.as_string(row), first], separator=" ")
    _, use, count = tf.unique_with_counts(keys)
    return tf.gather(count, use) > 1


IDS = tf.TensorSpec([None, None], tf.int32)


class Reading:
    """The text side of one model; the tower is traced once, for all signatures."""

    def __init__(self, model: Any, tokens: Any) -> None:
        self.tokens, self.width = tokens, model.config.projection_dim

        def tower(input_ids: tf.Tensor, attention_mask: tf.Tensor) -> tf.Tensor:
            features = model.get_text_features(input_ids, attention_mask, training=False)
            return tf.ensure_shape(tf.cast(features, tf.float32), [None, self.width])

        self.tower = tf.function(tower, input_signature=[IDS, IDS], autograph=False)

    def features(self, texts: tf.Tensor) -> tf.Tensor:
        """Projected features (N, D) of texts (N), not normalised.

        Texts of like length go through the tower together, cut to the longest among them: most
        prompts have ten tokens, and the tower takes 77.
        """
        tokens = self.tokens(texts)
        lengths = tf.reduce_sum(tokens["attention_mask"], axis=1)
        order = tf.argsort(lengths, stable=True)
        ids, mask = (
            tf.gather(tokens["input_ids"], order),
            tf.gather(tokens["attention_mask"], order),
        )
        lengths = tf.gather(lengths, order)
        features = tf.gather(self.by_parts(ids, mask, lengths), tf.math.invert_permutation(order))
        return tf.ensure_shape(features, [None, self.width])

    def by_parts(
        self, ids: tf.Tensor, mask: tf.Tensor, lengths: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Projected features (N, D) of tokens (N, T), some texts at a time.

        With ``lengths`` (N), those that go together are cut to the longest of them.
        """
        N, T = tf.unstack(tf.shape(ids))
        rounds = (N + PROMPTS_AT_ONCE - 1) // PROMPTS_AT_ONCE

        def step(i: Any, found: Any) -> tuple[Any, Any]:
            rows = slice(i * PROMPTS_AT_ONCE, (i + 1) * PROMPTS_AT_ONCE)
            longest = T if lengths is None else tf.reduce_max(lengths[rows])
            return i + 1, found.write(i, self.tower(ids[rows, :longest], mask[rows, :longest]))

        found = tf.TensorArray(
            tf.float32, rounds, infer_shape=False, element_shape=[None, self.width]
        )
        _, found = tf.while_loop(lambda i, _: i < rounds, step, (0, found), parallel_iterations=1)
        return tf.ensure_shape(found.concat(), [None, self.width])

    def embeds(self, texts: tf.Tensor) -> tf.Tensor:
        """Normalised embeddings (N, D) of texts (N)."""
        return normalize(self.features(texts))

    def class_embeds(self, names: tf.RaggedTensor, templates: tuple[str, ...]) -> tf.Tensor:
        """Classes by their names (M, synonyms) -> embeddings (M, D), as segmentation/prompts.py
        makes them.

        Each prompt is encoded once, however often the batch has it.
        """
        parts = [template.split("{}") for template in templates]
        prompts = tf.stack(
            [tf.strings.join([before, names.values, after]) for before, after in parts], axis=1
        )
        unique, use = tf.unique(tf.reshape(prompts, [-1]))
        rows = tf.reshape(tf.gather(self.features(unique), use), [-1, len(templates), self.width])
        return normalize(tf.math.segment_mean(tf.reduce_mean(rows, axis=1), names.value_rowids()))
