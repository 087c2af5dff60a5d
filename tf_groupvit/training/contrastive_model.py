"""A batch of pictures with their captions' tokens in, the losses of a training step out: a
keras.Model for ``fit``.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
from keras import ops

from tf_groupvit.errors import InputError
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.models.operations import compose_assignments, normalize
from tf_groupvit.training.losses import (
    contrastive_loss,
    group_word_loss,
    multi_label_loss,
    vocabulary_loss,
)
from tf_groupvit.training.replicas import AcrossReplicas, gathered, own_share

LARGEST_SCALE = math.log(100.0)  # a larger one makes the softmax a step, and its gradients vanish
PARTS = ("caption", "multi_label", "vocabulary", "group_word")  # of the loss, each with a weight
OF_WORDS = {"vocabulary", "group_word"}  # those that read the words of a fixed vocabulary


class AtMost(keras.constraints.Constraint):
    """Keeps a logit scale below ``LARGEST_SCALE`` after every update."""

    def __call__(self, w: Any) -> Any:
        return ops.minimum(w, LARGEST_SCALE)


class Seen(NamedTuple):
    """images (B, D) and, where a loss reads them, groups (B, G, D), of length one; assignment (B,
    G, P) of patches.
    """

    images: Any
    groups: Any = None
    assignment: Any = None


class TrainingModel(AcrossReplicas):
    """A ``TFGroupViTModel`` with what only training needs: the losses, their own logit scales, the
    words.

    Compile it with an optimizer alone and ``fit`` it on batches that are dicts of ``pixel_values``
    float (B, 3, H, W), ``input_ids`` and ``attention_mask`` int (B, T), and whatever the weighted
    losses read besides:

    * ``caption``: nothing more. The contrastive loss of pictures and captions.
    * ``multi_label``: ``label_ids`` and ``label_mask`` int (B, L, T), prompts of L words of each
      caption.
    * ``vocabulary``, ``group_word``: ``word_ids`` and ``word_mask`` int (V, T), one prompt for each
      word of a fixed vocabulary, with ``present`` (B, V), 1 where the caption has the word.

    Under several replicas each loss is that of one process with the whole batch. Rows of a batch
    are a replica's own, except for the vocabulary's, which every replica must be given alike.

    Args:
        model: trained in place.
        weights: name of a loss -> how much it counts; those of weight 0 are not computed.

    Attributes: ``model``; ``multi_label_logit_scale`` and ``group_logit_scale``, learned, as
        ``model.logit_scale`` is; None where no loss has them.
    """

    def __init__(
        self, model: TFGroupViTModel, weights: Mapping[str, float] | None = None, **keywords: Any
    ) -> None:
        super().__init__(dtype=model.dtype_policy, **keywords)
        self.model = model
        self.weights_of = _checked_weights({"caption": 1.0} if weights is None else weights)
        start = keras.initializers.Constant(model.config.logit_scale_init_value)
        scale = dict(shape=(), dtype="float32", initializer=start, constraint=AtMost())
        self.multi_label_logit_scale = self.group_logit_scale = (
            None  # where no loss has a gradient for them
        )
        if self.weights_of.keys() & {"multi_label", "vocabulary"}:
            self.multi_label_logit_scale = self.add_weight(name="multi_label_logit_scale", **scale)
        if "group_word" in self.weights_of:
            self.group_logit_scale = self.add_weight(name="group_logit_scale", **scale)
        model.logit_scale.constraint = AtMost()
        self.means = {name: keras.metrics.Mean(name=f"{name}_loss") for name in self.weights_of}
        self.built = True

    @property
    def metrics(self) -> list[Any]:
        return [*super().metrics, *self.means.values()]

    def call(self, batch: Mapping[str, Any], training: Any = None) -> dict[str, Any]:
        """The weighted losses of a batch by name, each a scalar before its weight."""
        seen = self.look(batch["pixel_values"], training)
        prompts = dict(_prompts(batch, self.weights_of))
        embeds = self.read(prompts, training)
        return dict(self._each_loss(seen, embeds, batch))

    def look(self, pixel_values: Any, training: Any) -> Seen:
        """Pixels (B, 3, H, W) -> what the losses compare.

        Images and groups go through the projection at once: its batch normalisation then learns the
        statistics of what segmentation will ask of it. Without a loss on groups they stay out, as
        published.
        """
        reads_groups = "group_word" in self.weights_of
        vision = self.model.vision_model(
            pixel_values, output_attentions=reads_groups, training=training
        )
        pooled, groups = vision["pooler_output"], vision["last_hidden_state"]
        if not reads_groups:
            return Seen(normalize(self.model.visual_projection(pooled, training=training)))
        B, G, C = ops.shape(groups)
        rows = ops.concatenate([pooled, ops.reshape(groups, (-1, C))], axis=0)
        embeds = normalize(self.model.visual_projection(rows, training=training))  # (B + B * G, D)
        by_group = ops.reshape(embeds[B:], (B, G, embeds.shape[-1]))
        return Seen(embeds[:B], by_group, compose_assignments(vision["attentions"]))

    def read(self, prompts: Mapping[str, tuple[Any, Any]], training: Any) -> dict[str, Any]:
        """Token ids and masks (n, T) by kind -> embeddings (n, D) of length one by kind, in one
        pass of the tower.
        """
        length = max(ids.shape[-1] for ids, _ in prompts.values())
        ids = ops.concatenate([_padded(ids, length) for ids, _ in prompts.values()], axis=0)
        mask = ops.concatenate([_padded(mask, length) for _, mask in prompts.values()], axis=0)
        text = self.model.text_model(ids, attention_mask=mask, training=training)
        embeds = normalize(self.model.text_projection(text["pooler_output"], training=training))
        found, start = {}, 0
        for kind, (rows, _) in prompts.items():
            found[kind] = embeds[start : start + ops.shape(rows)[0]]
            start = start + ops.shape(rows)[0]
        return found

    def _each_loss(
        self, seen: Seen, embeds: Mapping[str, Any], batch: Mapping[str, Any]
    ) -> Iterator[tuple[str, Any]]:
        """Names and losses. What is compared across the batch is gathered from all replicas first."""
        weighted, images = self.weights_of.keys(), seen.images
        everyone, offset = (
            gathered(images) if weighted & {"caption", "multi_label", "vocabulary"} else (images, 0)
        )
        if "caption" in weighted:
            scale, texts = _exp(self.model.logit_scale), embeds["caption"]
            yield (
                "caption",
                contrastive_loss(images, texts, scale, everyone, gathered(texts)[0], offset),
            )
        if "multi_label" in weighted:
            scale, L = _exp(self.multi_label_logit_scale), batch["label_ids"].shape[1]
            labels = ops.reshape(embeds["label"], (-1, L, embeds["label"].shape[-1]))
            yield (
                "multi_label",
                multi_label_loss(images, labels, scale, everyone, gathered(labels)[0], offset),
            )
        if weighted & OF_WORDS:
            yield from self._losses_of_words(everyone, seen, embeds["word"], batch["present"])

    def _losses_of_words(
        self, everyone: Any, seen: Seen, words: Any, present: Any
    ) -> Iterator[tuple[str, Any]]:
        """everyone: the images (A, D) of all replicas; of this one its share of the words, and
        present (B, V).

        Both are means over what the whole batch mentions, so that each replica works out the whole
        batch's.
        """
        words, present = gathered(words)[0], gathered(present)[0]  # (V, D), (A, V)
        if "vocabulary" in self.weights_of:
            yield (
                "vocabulary",
                vocabulary_loss(everyone, words, present, _exp(self.multi_label_logit_scale)),
            )
        if "group_word" in self.weights_of:
            groups, assignment = gathered(seen.groups)[0], gathered(seen.assignment)[0]
            yield (
                "group_word",
                group_word_loss(groups, words, present, _exp(self.group_logit_scale), assignment),
            )

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, *arguments: Any, **keywords: Any
    ) -> Any:
        """The weighted sum of what ``call`` returned."""
        for name, mean in self.means.items():
            mean.update_state(y_pred[name])
        return sum(weight * y_pred[name] for name, weight in self.weights_of.items()) + sum(
            self.losses
        )

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, *arguments: Any, **keywords: Any) -> Any:
        return self.get_metrics_result()


def _exp(logit_scale: Any) -> Any:
    return ops.exp(ops.cast(logit_scale, "float32"))


def _checked_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """The losses that count. Raises ``InputError`` for an unknown one, a negative weight, or none
    at all.
    """
    if strangers := sorted(set(weights) - set(PARTS)):
        raise InputError(f"There is no loss {strangers[0]!r}: expected some of {', '.join(PARTS)}.")
    if wrong := [name for name, weight in weights.items() if not 0 <= weight < math.inf]:
        raise InputError(
            f"The weight of the loss {wrong[0]!r} is {weights[wrong[0]]!r}: expected 0 or more."
        )
    counted = {name: float(weights[name]) for name in PARTS if weights.get(name)}
    if not counted:
        raise InputError("Every loss has weight 0: give at least one a weight, e.g. caption=1.")
    return counted


def _prompts(
    batch: Mapping[str, Any], weights: Mapping[str, float]
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Kind of text -> its ids and mask, (n, T), for the texts that the weighted losses read."""
    if "caption" in weights:
        yield "caption", (batch["input_ids"], batch["attention_mask"])
    if "multi_label" in weights:
        ids = batch["label_ids"]
        flat = (-1, ids.shape[-1])
        yield "label", (ops.reshape(ids, flat), ops.reshape(batch["label_mask"], flat))
    if OF_WORDS & weights.keys():
        yield "word", (own_share(batch["word_ids"]), own_share(batch["word_mask"]))


def _padded(rows: Any, length: int) -> Any:
    """Rows (n, T) with zeros up to the length: after the end token and masked, so that any id will
    do.
    """
    return ops.pad(ops.cast(rows, "int32"), [[0, 0], [0, length - rows.shape[-1]]])
