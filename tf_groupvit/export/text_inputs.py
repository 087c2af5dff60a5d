"""Read lists of class names, and encode texts, in the exported graph.

The lists of a request (B), each one string, are read as ``class_names.parse_classes`` does: names
between commas, synonyms between bars, blanks as there.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import tensorflow as tf

from tf_groupvit.models.operations import normalize
from tf_groupvit.preprocessing.image_graph_bytes import first_error
from tf_groupvit.segmentation.class_names import BACKGROUND
from tf_groupvit.segmentation.prompts import PROMPTS_AT_ONCE

if TYPE_CHECKING:
    from tf_groupvit.models.groupvit import TFGroupViTModel
    from tf_groupvit.preprocessing.tokenizer_graph import GraphTokenizer

MOST_LABELS = 256  # what one byte a pixel can tell apart
MOST_BYTES = 2**20  # of a list; for each byte that it reads the tokenizer takes some hundred
# The blanks of str.split; RE2's \s knows those of ASCII alone, and not even the separators among
# them.
BLANKS = (
    r"[\s\x{0b}\x{1c}-\x{1f}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}"
    r"\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"
)
IDS = tf.TensorSpec([None, None], tf.int32)


@dataclass(frozen=True)
class ClassLists:
    """The classes of all images of a request, in one row.

    Attributes:
        names: (M, synonyms) of all classes of all images; the first is what a class is called.
        splits: (B + 1): where the classes of each image begin.
        errors: (B): what is wrong with a list, "" where nothing is. A list with an error has no
            classes here.
    """

    names: tf.RaggedTensor
    splits: tf.Tensor
    errors: tf.Tensor

    @property
    def first_names(self) -> tf.RaggedTensor:
        """(B, classes): what each class is called."""
        return tf.RaggedTensor.from_row_splits(_first(self.names), self.splits, validate=False)

    @property
    def longest(self) -> tf.Tensor:
        """The number of classes of the longest list: int32 scalar."""
        counts = self.splits[1:] - self.splits[:-1]
        return tf.cast(tf.reduce_max(tf.concat([[0], counts], axis=0)), tf.int32)


def _first(names: tf.RaggedTensor) -> tf.Tensor:
    return tf.gather(names.values, names.row_splits[:-1])


def parse_class_lists(lists: tf.Tensor, has_background: bool, max_texts: int) -> ClassLists:
    """Read the class lists of images (B), each "dog, grass, sofa|couch".

    Errors are an empty name, a name twice, "background" where the model adds one of its own, more
    labels than a byte holds, and more names than ``max_texts`` in all: then those lists that are
    longer than their share.
    """
    errors = _too_long(lists, has_background, max_texts)
    entries = tf.strings.split(tf.where(errors == "", lists, ""), ",")  # (B, classes)
    row = entries.value_rowids()  # (M)
    names = tf.strings.split(entries.values, "|")  # (M, synonyms)
    names = names.with_values(tf.strings.strip(tf.strings.regex_replace(names.values, BLANKS, " ")))
    first, listed = _first(names), ["The list of classes (", _beginning(lists)]

    def none_is(bad: tf.Tensor) -> tf.Tensor:
        """True for the images (B) of whose classes (M) none is bad."""
        return tf.math.unsorted_segment_sum(tf.cast(bad, tf.int32), row, tf.size(lists)) == 0

    ours = f") has {BACKGROUND!r}, which this model adds by itself: leave it out."
    errors = first_error(
        (errors == "", [errors]),
        (none_is(_has_empty(names)), [*listed, ") has an empty name: leave it out."]),
        (none_is(_is_twice(first, row)), [*listed, ") has a class twice: name it once."]),
        (none_is((first == BACKGROUND) & has_background), [*listed, ours]),
    )
    kept = tf.where(tf.gather(errors == "", row))[:, 0]
    counts = tf.where(errors == "", entries.row_lengths(), 0)
    return ClassLists(tf.gather(names, kept), tf.concat([[0], tf.cumsum(counts)], axis=0), errors)


def _too_long(lists: tf.Tensor, has_background: bool, max_texts: int) -> tf.Tensor:
    """Errors (B) of lists that are too long, found before they are taken apart."""
    length = tf.strings.length(lists)
    lists = tf.where(length <= MOST_BYTES, lists, "")
    names = _count(lists, ",|") + 1
    labels = _count(lists, ",") + 1 + int(has_background)
    share = max_texts // tf.maximum(tf.size(lists), 1)
    few = (names <= max_texts) & ((tf.reduce_sum(names) <= max_texts) | (names <= share))
    most_bytes = f"Expected a list of classes of at most {MOST_BYTES} bytes, got "
    most_names = f"Expected at most {max_texts} names of classes, synonyms included, got "
    most_labels = f"Expected at most {MOST_LABELS} labels an image, background included, got "
    return first_error(
        (length <= MOST_BYTES, [most_bytes, length, "."]),
        (few, [most_names, names, ": send fewer."]),
        (labels <= MOST_LABELS, [most_labels, labels, ": send fewer classes."]),
    )


def _count(lists: tf.Tensor, kinds: str) -> tf.Tensor:
    """How many bytes of lists (B) are among these, (B)."""
    return tf.strings.length(tf.strings.regex_replace(lists, f"[^{kinds}]", ""))


def _beginning(lists: tf.Tensor) -> tf.Tensor:
    """The beginnings of lists (B) on one line, for messages."""
    shown = tf.strings.regex_replace(tf.strings.substr(lists, 0, 1000), r"\s+", " ")
    return tf.strings.regex_replace(shown, r"^(.{80}).+$", r"\1 ...")


def _has_empty(names: tf.RaggedTensor) -> tf.Tensor:
    """True for classes (M) that have an empty name."""
    empty = tf.cast(names.values == "", tf.int32)
    counted = tf.math.unsorted_segment_sum(empty, names.value_rowids(), names.nrows())
    return (counted > 0) | (names.row_lengths() == 0)


def _is_twice(first: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """True for classes (M) whose image has another of that name."""
    keys = tf.strings.join([tf.strings.as_string(row), first], separator=" ")
    _, use, count = tf.unique_with_counts(keys)
    return tf.gather(count, use) > 1


class TextEncoder:
    """The tokenizer and the text tower of a model; the tower is traced once for all signatures.

    Attributes:
        tokens: the tokenizer, None where there is none.
        width: D, the width of embeddings.
    """

    def __init__(self, model: "TFGroupViTModel", tokens: "GraphTokenizer | None") -> None:
        self.tokens, self.width = tokens, model.config.projection_dim

        def text_tower(input_ids: tf.Tensor, attention_mask: tf.Tensor) -> tf.Tensor:
            features = model.get_text_features(input_ids, attention_mask, training=False)
            return tf.ensure_shape(tf.cast(features, tf.float32), [None, self.width])

        self._tower = tf.function(text_tower, input_signature=[IDS, IDS], autograph=False)

    def features(self, texts: tf.Tensor) -> tf.Tensor:
        """Projected features (N, D) of texts (N), not normalized.

        Texts of like length go through the tower together, cut to the longest among them: most
        prompts have ten tokens, and the tower takes 77.
        """
        assert self.tokens is not None
        tokens = self.tokens(texts)
        lengths = tf.reduce_sum(tokens["attention_mask"], axis=1)
        order = tf.argsort(lengths, stable=True)
        ids, mask, lengths = (
            tf.gather(rows, order)
            for rows in (tokens["input_ids"], tokens["attention_mask"], lengths)
        )
        features = tf.gather(self.by_parts(ids, mask, lengths), tf.math.invert_permutation(order))
        return tf.ensure_shape(features, [None, self.width])

    def by_parts(
        self, ids: tf.Tensor, mask: tf.Tensor, lengths: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Projected features (N, D) of token ids and mask (N, T), some texts at a time.

        With ``lengths`` (N), those that go together are cut to the longest of them.
        """
        N, T = tf.unstack(tf.shape(ids))
        rounds = (N + PROMPTS_AT_ONCE - 1) // PROMPTS_AT_ONCE

        def step(i: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            rows = slice(i * PROMPTS_AT_ONCE, (i + 1) * PROMPTS_AT_ONCE)
            longest = T if lengths is None else tf.reduce_max(lengths[rows])
            return i + 1, found.write(i, self._tower(ids[rows, :longest], mask[rows, :longest]))

        found = tf.TensorArray(
            tf.float32, rounds, infer_shape=False, element_shape=[None, self.width]
        )
        _, found = tf.while_loop(lambda i, _: i < rounds, step, (0, found), parallel_iterations=1)
        return tf.ensure_shape(found.concat(), [None, self.width])

    def embeds(self, texts: tf.Tensor) -> tf.Tensor:
        """Normalized embeddings (N, D) of texts (N)."""
        return normalize(self.features(texts))

    def class_embeds(self, names: tf.RaggedTensor, templates: tuple[str, ...]) -> tf.Tensor:
        """Embeddings (M, D) of classes by their names (M, synonyms), as ``prompts`` makes them.

        Each prompt is encoded once, however often the batch has it.
        """
        parts = [template.split("{}") for template in templates]
        prompts = tf.stack(
            [tf.strings.join([before, names.values, after]) for before, after in parts], axis=1
        )
        unique, use = tf.unique(tf.reshape(prompts, [-1]))
        rows = tf.reshape(tf.gather(self.features(unique), use), [-1, len(templates), self.width])
        return normalize(tf.math.segment_mean(tf.reduce_mean(rows, axis=1), names.value_rowids()))
