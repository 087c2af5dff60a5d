"""The losses of a training from captions, and ``LOSSES``, their registry.

The functions take embeddings of length one and ``scale``, e to a learned logit scale. Letters
beyond the package's own: A images of all replicas together, L words of a caption, V words of a
vocabulary. Keras is imported when a loss is computed, so that a recipe can be checked without
loading TensorFlow.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tf_groupvit.errors import InputError
from tf_groupvit.types import Tensor

LOWEST = -1e9  # stands for minus infinity: a word that is not in the caption, a group without patch


class Features(Protocol):
    """What the losses of a batch compare, by name.

    ``image`` (B, D), ``caption`` (B, D), ``label`` (B, L, D), this replica's share of ``word``
    (V, D), ``present`` (B, V), ``group`` (B, G, D) and ``assignment`` (B, G, P).
    """

    offset: int | Tensor  # where this replica's rows begin among those of all replicas

    def own(self, name: str) -> Tensor:
        """The rows (B, ...) of this replica."""
        ...

    def everyone(self, name: str) -> Tensor:
        """The rows (A, ...) of all replicas, in their order."""
        ...


@dataclass(frozen=True)
class Loss:
    """A row of ``LOSSES``.

    Attributes:
        compute: features and scale -> scalar.
        texts: which prompts it reads: ``caption``, ``label`` (words drawn from each caption) or
            ``word`` (a fixed vocabulary, whose words are looked for in captions).
        scale: the attribute with its learned logit scale; ``logit_scale`` is the model's own.
        reads_groups: whether it compares single groups, not only whole images.
    """

    compute: Callable[[Features, Tensor], Tensor]
    texts: str
    scale: str
    reads_groups: bool = False


def check_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """The losses whose weight is not 0, in the order of ``LOSSES``.

    Raises:
        InputError: an unknown loss, a negative weight, or every weight 0.
    """
    if unknown := sorted(set(weights) - set(LOSSES)):
        known = ", ".join(LOSSES)
        raise InputError(f"There is no loss {unknown[0]!r}: expected some of {known}.")
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise InputError(f"The weight of the loss {name!r} is {weight!r}: expected 0 or more.")
    counted = {name: float(weights[name]) for name in LOSSES if weights.get(name)}
    if not counted:
        raise InputError("Every loss has weight 0: give at least one a weight, e.g. caption=1.")
    return counted


def contrastive_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    scale: Tensor,
    all_images: Tensor | None = None,
    all_texts: Tensor | None = None,
    offset: int | Tensor = 0,
) -> Tensor:
    """Symmetric cross-entropy between images (B, D) and their captions (B, D) -> scalar.

    The mean over replicas is the loss of one process with the whole batch.

    Args:
        all_images, all_texts: (A, D), of all replicas; every other row is a negative. This
            replica's own unless given.
        offset: where this replica's rows begin in them.
    """
    from keras import ops

    own = offset + ops.arange(ops.shape(image_embeds)[0])
    images = image_embeds if all_images is None else all_images
    texts = text_embeds if all_texts is None else all_texts
    to_text = _cross_entropy(ops.matmul(image_embeds, ops.transpose(texts)) * scale, own)
    to_image = _cross_entropy(ops.matmul(text_embeds, ops.transpose(images)) * scale, own)
    return (to_text + to_image) / 2


def _cross_entropy(logits: Tensor, own: Tensor) -> Tensor:
    """Logits (B, A) and the column (B) of each row's partner -> mean."""
    from keras import ops

    chosen = ops.take_along_axis(logits, own[:, None], axis=1)[:, 0]
    return ops.mean(ops.logsumexp(logits, axis=1) - chosen)


def multi_label_loss(
    image_embeds: Tensor,
    label_embeds: Tensor,
    scale: Tensor,
    all_images: Tensor | None = None,
    all_labels: Tensor | None = None,
    offset: int | Tensor = 0,
) -> Tensor:
    """Images (B, D) against the prompts of their captions' words (B, L, D) -> scalar.

    Paper: section 3.3. From image to text the target is 1/L on each of its own prompts; from a
        prompt to the images it is the one image that the prompt belongs to.

    Args:
        all_images, all_labels: (A, D) and (A, L, D), of all replicas; this replica's own unless
            given.
        offset: where this replica's rows begin in them.
    """
    from keras import ops

    B, L, D = ops.shape(label_embeds)
    own = offset + ops.arange(B)
    images = image_embeds if all_images is None else all_images
    labels = ops.reshape(label_embeds if all_labels is None else all_labels, (-1, D))  # (A * L, D)
    logits = ops.matmul(image_embeds, ops.transpose(labels)) * scale  # (B, A * L)
    columns = own[:, None] * L + ops.arange(L)[None]  # (B, L)
    chosen = ops.mean(ops.take_along_axis(logits, columns, axis=1), axis=1)
    to_text = ops.mean(ops.logsumexp(logits, axis=1) - chosen)
    mine = ops.reshape(label_embeds, (-1, D))
    to_image = _cross_entropy(ops.matmul(mine, ops.transpose(images)) * scale, ops.repeat(own, L))
    return (to_text + to_image) / 2


def vocabulary_loss(
    image_embeds: Tensor, word_embeds: Tensor, present: Tensor, scale: Tensor
) -> Tensor:
    """The multi-label loss over a fixed vocabulary: images (B, D) against words (V, D) -> scalar.

    A word that two captions share is one word here, and right for both images;
    ``multi_label_loss`` takes it for a negative of the other one, which matters with few words.

    Args:
        present: (B, V), 1 where the caption has the word. A caption without any takes no part.
    """
    from keras import ops

    present = ops.cast(present, "float32")
    logits = ops.matmul(image_embeds, ops.transpose(word_embeds)) * scale  # (B, V)
    to_text = _soft_cross_entropy(logits, present)
    return (to_text + _soft_cross_entropy(ops.transpose(logits), ops.transpose(present))) / 2


def _soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the rows with targets: logits against equal shares of the row's targets."""
    from keras import ops

    counts = ops.sum(targets, axis=1)  # (B)
    chosen = ops.sum(targets * logits, axis=1) / ops.maximum(counts, 1.0)
    counted = ops.cast(counts > 0, "float32")
    lost = (ops.logsumexp(logits, axis=1) - chosen) * counted
    return ops.sum(lost) / ops.maximum(ops.sum(counted), 1.0)


def group_word_loss(
    group_embeds: Tensor, word_embeds: Tensor, present: Tensor, scale: Tensor, assignment: Tensor
) -> Tensor:
    """Groups (B, G, D) against words (V, D), given which words each caption has -> scalar.

    The sum of two demands on each group's softmax over the words: every word of the caption is the
    word of some group that has a patch, and the word of every patch's group is one of the
    caption's. The published losses see only the mean of the groups, while segmentation reads the
    group of each patch: this closes the gap, still from captions alone. Groups without a patch do
    not count: they see the whole image too, and would learn to name the caption's words for all
    others. Measured: recipes/demo.toml.

    Args:
        present: (B, V), 1 where the caption has the word. A caption without any takes no part.
        assignment: (B, G, P), how much each patch belongs to each group; 1 in sum over groups.
    """
    from keras import ops

    from tf_groupvit.models.operations import one_hot_max

    present = ops.cast(present, "float32")
    logits = ops.matmul(group_embeds, ops.transpose(word_embeds)) * scale
    scores = ops.log_softmax(logits, axis=-1)  # (B, G, V)
    owns = ops.max(one_hot_max(assignment, axis=1), axis=-1)  # (B, G): 1 where it owns a patch
    best = ops.max(ops.where(owns[:, :, None] > 0, scores, LOWEST), axis=1)  # (B, V)
    found = ops.sum(present * best) / ops.maximum(ops.sum(present), 1.0)
    said = ops.logsumexp(scores + ops.where(present > 0, 0.0, LOWEST)[:, None], axis=-1)  # (B, G)
    counted = ops.cast(ops.max(present, axis=1) > 0, "float32")
    of_patches = ops.sum(said * ops.mean(assignment, axis=-1), axis=1)  # (B)
    true = ops.sum(of_patches * counted) / ops.maximum(ops.sum(counted), 1.0)
    return -(found + true)


def _caption(features: Features, scale: Tensor) -> Tensor:
    images, texts = features.everyone("image"), features.everyone("caption")
    own = features.own("image"), features.own("caption")
    return contrastive_loss(*own, scale, images, texts, features.offset)


def _multi_label(features: Features, scale: Tensor) -> Tensor:
    images, labels = features.everyone("image"), features.everyone("label")
    own = features.own("image"), features.own("label")
    return multi_label_loss(*own, scale, images, labels, features.offset)


def _vocabulary(features: Features, scale: Tensor) -> Tensor:
    # A mean over what the whole batch mentions: each replica computes that of the whole batch.
    images, words, present = map(features.everyone, ("image", "word", "present"))
    return vocabulary_loss(images, words, present, scale)


def _group_word(features: Features, scale: Tensor) -> Tensor:
    groups, words, present = map(features.everyone, ("group", "word", "present"))
    return group_word_loss(groups, words, present, scale, features.everyone("assignment"))


# To add a loss: its function above, and a row here. Recipes, batches and the model read the row.
LOSSES = {
    "caption": Loss(_caption, "caption", "logit_scale"),
    "multi_label": Loss(_multi_label, "label", "multi_label_logit_scale"),
    "vocabulary": Loss(_vocabulary, "word", "multi_label_logit_scale"),
    "group_word": Loss(_group_word, "word", "group_logit_scale", reads_groups=True),
}
