"""``TrainingModel``: a keras.Model that computes the losses of images and their captions."""

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.models.operations import compose_assignments, normalize
from tf_groupvit.training.losses import LOSSES, check_weights
from tf_groupvit.training.replicas import AcrossReplicas, gathered, own_share
from tf_groupvit.types import Tensor

LARGEST_SCALE = math.log(100.0)  # a larger one makes the softmax a step, and its gradients vanish
Batch = Mapping[str, Tensor]
# Prompts that losses read -> what a batch calls their token ids and mask.
TEXTS = {
    "caption": ("input_ids", "attention_mask"),
    "label": ("label_ids", "label_mask"),
    "word": ("word_ids", "word_mask"),
}


class MaxValue(keras.constraints.Constraint):
    """Keeps a logit scale at or below ``LARGEST_SCALE`` after every update."""

    def __call__(self, w: Tensor) -> Tensor:
        """The scale, of any shape, limited."""
        return ops.minimum(w, LARGEST_SCALE)


class ReplicaFeatures:
    """``losses.Features`` of a batch; rows are gathered from all replicas when a loss asks."""

    def __init__(self, rows: Mapping[str, Tensor]) -> None:
        self.rows = rows
        self.offset: int | Tensor = 0
        self._gathered: dict[str, Tensor] = {}

    def own(self, name: str) -> Tensor:
        """The rows (B, ...) of this replica."""
        return self.rows[name]

    def everyone(self, name: str) -> Tensor:
        """The rows (A, ...) of all replicas, in their order."""
        if name not in self._gathered:
            self._gathered[name], offset = gathered(self.rows[name])
            if name == "image":
                self.offset = offset
        return self._gathered[name]


class TrainingModel(AcrossReplicas):
    """A ``TFGroupViTModel`` with what only training needs: the losses and their own logit scales.

    Compile it with an optimizer alone and ``fit`` it on batches that are dicts of ``pixel_values``
    float (B, 3, H, W), ``input_ids`` and ``attention_mask`` int (B, T), and what the weighted
    losses read in addition:

    * ``caption``: nothing more. The contrastive loss of images and captions.
    * ``multi_label``: ``label_ids`` and ``label_mask`` int (B, L, T), prompts of L words of each
      caption.
    * ``vocabulary``, ``group_word``: ``word_ids`` and ``word_mask`` int (V, T), one prompt for each
      word of a fixed vocabulary, with ``present`` (B, V), 1 where the caption has the word.

    Under several replicas each loss is that of one process with the whole batch. Rows of a batch
    are a replica's own, except for the vocabulary's, which every replica must be given alike.

    Args:
        model: trained in place.
        weights: name of a loss, see ``losses.LOSSES`` -> how much it counts; those of weight 0 are
            not computed.

    Attributes: ``model``; ``weight_of``, the weights that are not 0; ``multi_label_logit_scale``
        and ``group_logit_scale``, learned, as ``model.logit_scale`` is; None where no loss has
        them.
    """

    def __init__(
        self, model: TFGroupViTModel, weights: Mapping[str, float] | None = None, **keywords: Any
    ) -> None:
        super().__init__(dtype=model.dtype_policy, **keywords)
        self.model = model
        self.weight_of = check_weights({"caption": 1.0} if weights is None else weights)
        self.multi_label_logit_scale = self.group_logit_scale = None
        start = keras.initializers.Constant(model.config.logit_scale_init_value)
        for name in self.weight_of:
            scale = LOSSES[name].scale
            if scale != "logit_scale" and getattr(self, scale) is None:
                settings = dict(name=scale, shape=(), dtype="float32", initializer=start)
                setattr(self, scale, self.add_weight(constraint=MaxValue(), **settings))
        model.logit_scale.constraint = MaxValue()
        self.means = {name: keras.metrics.Mean(name=f"{name}_loss") for name in self.weight_of}
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Keras' own, and the mean of each loss."""
        return [*super().metrics, *self.means.values()]

    def call(self, batch: Batch, training: bool | None = None) -> dict[str, Tensor]:
        """The weighted losses of a batch by name, each a scalar before its weight."""
        rows = self.embed_images(batch["pixel_values"], training)
        rows |= self.embed_texts(batch, training)
        if "present" in batch:
            rows["present"] = batch["present"]
        features = ReplicaFeatures(rows)
        found = {}
        for name in self.weight_of:
            loss = LOSSES[name]
            owner = self.model if loss.scale == "logit_scale" else self
            scale = ops.exp(ops.cast(getattr(owner, loss.scale), "float32"))
            found[name] = loss.compute(features, scale)
        return found

    def embed_images(self, pixel_values: Tensor, training: bool | None) -> dict[str, Tensor]:
        """Pixels (B, 3, H, W) -> ``image`` (B, D) of length one; ``group`` and ``assignment``.

        The last two, (B, G, D) of length one and (B, G, P), only where a loss reads groups. Images
        and groups then go through the projection together: its batch normalization learns the
        statistics of what segmentation will ask of it.
        """
        reads_groups = any(LOSSES[name].reads_groups for name in self.weight_of)
        vision = self.model.vision_model(
            pixel_values, output_attentions=reads_groups, training=training
        )
        pooled, groups = vision["pooler_output"], vision["last_hidden_state"]
        if not reads_groups:
            return {"image": normalize(self.model.visual_projection(pooled, training=training))}
        B, G, C = ops.shape(groups)
        rows = ops.concatenate([pooled, ops.reshape(groups, (-1, C))], axis=0)
        embeds = normalize(self.model.visual_projection(rows, training=training))  # (B + B * G, D)
        by_group = ops.reshape(embeds[B:], (B, G, embeds.shape[-1]))
        assignment = compose_assignments(vision["attentions"])
        return {"image": embeds[:B], "group": by_group, "assignment": assignment}

    def embed_texts(self, batch: Batch, training: bool | None) -> dict[str, Tensor]:
        """The prompts that losses read -> embeddings of length one, (B, D), (B, L, D) or (V, D).

        All of them in one pass of the text tower; of the vocabulary, this replica's share.
        """
        wanted = {LOSSES[name].texts for name in self.weight_of}
        kinds = [kind for kind in TEXTS if kind in wanted]
        pairs = [[batch[name] for name in TEXTS[kind]] for kind in kinds]
        if "word" in wanted:
            pairs[-1] = [own_share(rows) for rows in pairs[-1]]
        length = max(ids.shape[-1] for ids, _ in pairs)
        ids, mask = (
            ops.concatenate([_flat(x, length) for x in xs]) for xs in zip(*pairs, strict=True)
        )
        text = self.model.text_model(ids, attention_mask=mask, training=training)
        embeds = normalize(self.model.text_projection(text["pooler_output"], training=training))
        found, start = {}, 0
        for kind, (rows, _) in zip(kinds, pairs, strict=True):
            sizes = ops.shape(rows)[:-1]
            end = start + math.prod(sizes)
            found[kind] = ops.reshape(embeds[start:end], (*sizes, embeds.shape[-1]))
            start = end
        return found

    def compute_loss(
        self,
        x: Batch | None = None,
        y: None = None,
        y_pred: Mapping[str, Tensor] | None = None,
        *arguments: Any,
        **keywords: Any,
    ) -> Tensor:
        """The weighted sum of the scalars that ``call`` returned, and the model's own losses."""
        losses = y_pred or {}
        for name, mean in self.means.items():
            mean.update_state(losses[name])
        return sum(self.weighted(losses)) + sum(self.losses)

    def weighted(self, losses: Mapping[str, Tensor]) -> list[Tensor]:
        """Each loss, a scalar, times its weight."""
        return [weight * losses[name] for name, weight in self.weight_of.items()]


def _flat(rows: Tensor, length: int) -> Tensor:
    """Token ids or masks (..., T) as rows (n, length), with zeros after the end token."""
    rows = ops.reshape(ops.cast(rows, "int32"), (-1, rows.shape[-1]))
    return ops.pad(rows, [[0, 0], [0, length - rows.shape[-1]]])
