"""Lists of class names (B), each one string, in; the names, one row a class, and whose they are out: in the graph.

The graph's twin of ``prompts.parse_classes``: names between commas, synonyms between bars, blanks as there.
"""

from dataclasses import dataclass

import tensorflow as tf

from tf_groupvit.preprocessing.image_graph_bytes import only_if
from tf_groupvit.segmentation.prompts import BACKGROUND

MOST_LABELS = 256  # what one byte a pixel can tell apart
# The blanks of str.split; RE2's \s knows those of ASCII alone, and not even the separators among them.
BLANKS = r"[\s\x{0b}\x{1c}-\x{1f}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"


@dataclass(frozen=True)
class ClassLists:
    """``names`` (M, synonyms) of all classes of all images, the one that it is called by first; ``splits`` (B + 1)."""

    names: tf.RaggedTensor
    splits: tf.Tensor

    @property
    def called(self) -> tf.RaggedTensor:
        """(B, classes): what each class is called."""
        return tf.RaggedTensor.from_row_splits(_first(self.names), self.splits, validate=False)

    @property
    def longest(self) -> tf.Tensor:
        return tf.cast(tf.reduce_max(tf.concat([[0], self.splits[1:] - self.splits[:-1]], axis=0)), tf.int32)


def _first(names: tf.RaggedTensor) -> tf.Tensor:
    return tf.gather(names.values, names.row_splits[:-1])


def parse_lists(lists: tf.Tensor, background: bool) -> ClassLists:
    """Read the class lists of images (B), each "dog, grass, sofa|couch".

    INVALID_ARGUMENT for an empty name, one that is there twice, "background" where the model adds one of its own, and
    more labels than a byte holds.
    """
    entries = tf.strings.split(lists, ",")  # (B, classes)
    lists = _refuse(entries.row_lengths() == 0, lists, "is empty: name at least one class", lists)
    lists = _few(entries.row_lengths() + int(background), lists)
    with tf.control_dependencies([lists]):
        names = tf.strings.split(tf.identity(entries.values), "|")  # (M, synonyms)
    clean = names.with_values(tf.strings.strip(tf.strings.regex_replace(names.values, BLANKS, " ")))
    row = entries.value_rowids()  # (M)
    whole = _refuse_at(_has_empty(clean), row, lists, "has an empty name: leave it out", clean.values)
    clean = clean.with_values(whole)
    first = _first(clean)
    checked = _refuse_at(_is_twice(first, row), row, lists, "has a class twice: name it once", clean.values)
    if background:
        words = f"has {BACKGROUND!r}, which this model adds by itself: leave it out"
        checked = _refuse_at(first == BACKGROUND, row, lists, words, checked)
    return ClassLists(clean.with_values(checked), entries.row_splits)


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


def _refuse_at(bad: tf.Tensor, row: tf.Tensor, lists: tf.Tensor, words: str, value: tf.Tensor) -> tf.Tensor:
    """Refuse the image whose class (M) is bad."""
    hit = tf.math.unsorted_segment_sum(tf.cast(bad, tf.int32), row, tf.size(lists)) > 0
    return _refuse(hit, lists, words, value)


def _refuse(bad: tf.Tensor, lists: tf.Tensor, words: str, value: tf.Tensor) -> tf.Tensor:
    """Give ``value`` back, or fail naming the first image (B) that is bad and the beginning of its list."""
    which = tf.argmax(tf.concat([tf.cast(bad, tf.int32), [0]], axis=0))
    shown = tf.strings.regex_replace(tf.gather(tf.concat([lists, [""]], axis=0), which), r"\s+", " ")
    shown = tf.strings.regex_replace(shown, r"^(.{80}).+$", r"\1 ...")
    said = ["The list of classes of image ", which + 1, " (", shown, f") {words}."]
    return only_if(~tf.reduce_any(bad), said, value)


def _few(labels: tf.Tensor, lists: tf.Tensor) -> tf.Tensor:
    most = tf.reduce_max(tf.concat([[0], tf.cast(labels, tf.int32)], axis=0))
    said = [
        f"Expected at most {MOST_LABELS} labels an image, background included, came ",
        most,
        ": send fewer classes.",
    ]
    return only_if(most <= MOST_LABELS, said, lists)
