"""Embeddings of length one and a scale in, one number out: what training makes small. Pure
functions in keras.ops.

Letters beyond the house's: A images of all replicas together, L words of a caption, V words of a
vocabulary. ``scale`` is e to a learned logit scale. Where several replicas train together, the
caller gathers embeddings; the mean of what the replicas get is then the loss of one process with
the whole batch.
"""

from typing import Any

from keras import ops

from tf_groupvit.models.operations import one_hot_max

LOWEST = (
    -1e9
)  # stands for minus infinity where a word is not in the caption, or a group has no patch


def contrastive_loss(
    image_embeds: Any,
    text_embeds: Any,
    scale: Any,
    all_images: Any = None,
    all_texts: Any = None,
    offset: Any = 0,
) -> Any:
    """Symmetric cross-entropy of pairs, row i of image_embeds (B, D) with row i of text_embeds (B,
    D) -> scalar.

    Args:
        all_images, all_texts: (A, D), of all replicas; every other row is a negative. This
            replica's own unless given.
        offset: where this replica's rows begin in them.
    """
    own = offset + ops.arange(ops.shape(image_embeds)[0])
    images = image_embeds if all_images is None else all_images
    texts = text_embeds if all_texts is None else all_texts
    to_text = _cross_entropy(ops.matmul(image_embeds, ops.transpose(texts)) * scale, own)
    to_image = _cross_entropy(ops.matmul(text_embeds, ops.transpose(images)) * scale, own)
    return (to_text + to_image) / 2


def _cross_entropy(logits: Any, own: Any) -> Any:
    """Logits (B, A) and the column (B) of each row's partner -> mean."""
    return ops.mean(
        ops.logsumexp(logits, axis=1) - ops.take_along_axis(logits, own[:, None], axis=1)[:, 0]
    )


def multi_label_loss(
    image_embeds: Any,
    label_embeds: Any,
    scale: Any,
    all_images: Any = None,
    all_labels: Any = None,
    offset: Any = 0,
) -> Any:
    """Each image (B, D) with the L prompts of its caption's words (B, L, D), among those of all
    images -> scalar.

    Paper: section 3.3. From image to text the target is 1/L on each of its own prompts; from a
        prompt to the images it is the one image that the prompt comes from.

    Args:
        all_images, all_labels: (A, D) and (A, L, D), of all replicas; this replica's own unless
            given.
        offset: where this replica's rows begin in them.
    """
    B, L, D = ops.shape(label_embeds)
    own = offset + ops.arange(B)
    images = image_embeds if all_images is None else all_images
    labels = ops.reshape(label_embeds if all_labels is None else all_labels, (-1, D))  # (A * L, D)
    logits = ops.matmul(image_embeds, ops.transpose(labels)) * scale  # (B, A * L)
    columns = own[:, None] * L + ops.arange(L)[None]  # (B, L)
    to_text = ops.mean(
        ops.logsumexp(logits, axis=1)
        - ops.mean(ops.take_along_axis(logits, columns, axis=1), axis=1)
    )
    mine = ops.reshape(label_embeds, (-1, D))
    to_image = _cross_entropy(ops.matmul(mine, ops.transpose(images)) * scale, ops.repeat(own, L))
    return (to_text + to_image) / 2


def vocabulary_loss(image_embeds: Any, word_embeds: Any, present: Any, scale: Any) -> Any:
    """The multi-label loss over a fixed vocabulary: images (B, D) against its words (V, D) ->
    scalar.

    A word that two captions share is one word here, and right for both images, where
    ``multi_label_loss`` takes one for a negative of the other: with few words that matters.

    Args:
        present: (B, V), 1 where the caption has the word. A caption without any takes no part.
    """
    present = ops.cast(present, "float32")
    logits = ops.matmul(image_embeds, ops.transpose(word_embeds)) * scale  # (B, V)
    return (
        _soft_cross_entropy(logits, present)
        + _soft_cross_entropy(ops.transpose(logits), ops.transpose(present))
    ) / 2


def _soft_cross_entropy(logits: Any, targets: Any) -> Any:
    """Rows of logits against the share of each column in the row's targets; rows without targets
    are left out.
    """
    counts = ops.sum(targets, axis=1)  # (B)
    chosen = ops.sum(targets * logits, axis=1) / ops.maximum(counts, 1.0)
    counted = ops.cast(counts > 0, "float32")
    return ops.sum((ops.logsumexp(logits, axis=1) - chosen) * counted) / ops.maximum(
        ops.sum(counted), 1.0
    )


def group_word_loss(
    group_embeds: Any, word_embeds: Any, present: Any, scale: Any, assignment: Any
) -> Any:
    """Groups (B, G, D) against a vocabulary (V, D), knowing only which words each caption has ->
    scalar.

    The sum of two demands on each group's softmax over the words: that every word of the caption is
    the word of some group that has a patch, and that the word of every patch's group is one of the
    caption's. The published losses see the mean of the groups alone, while segmentation reads what
    patches belong to: this closes the gap, still from captions alone. Groups without a patch do not
    count: they look at the whole picture too, and would otherwise learn to say the caption for all
    others. Measured: recipes/demo.toml.

    Args:
        present: (B, V), 1 where the caption has the word. A caption without any takes no part.
        assignment: (B, G, P), how much each patch belongs to each group; 1 in sum over groups.
    """
    present = ops.cast(present, "float32")
    scores = ops.log_softmax(
        ops.matmul(group_embeds, ops.transpose(word_embeds)) * scale, axis=-1
    )  # (B, G, V)
    owns = ops.max(
        one_hot_max(assignment, axis=1), axis=-1
    )  # (B, G): 1 where it is the best group of some patch
    best = ops.max(ops.where(owns[:, :, None] > 0, scores, LOWEST), axis=1)  # (B, V)
    found = ops.sum(present * best) / ops.maximum(ops.sum(present), 1.0)
    said = ops.logsumexp(scores + ops.where(present > 0, 0.0, LOWEST)[:, None], axis=-1)  # (B, G)
    counted = ops.cast(ops.max(present, axis=1) > 0, "float32")
    of_patches = ops.sum(said * ops.mean(assignment, axis=-1), axis=1)  # (B)
    true = ops.sum(of_patches * counted) / ops.maximum(ops.sum(counted), 1.0)
    return -(found + true)
