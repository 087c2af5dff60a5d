"""A segmenter in; the functions that a server runs, with the weights that they share, out.

The table of what goes in and comes out of each is in serving/README.md. All inputs and outputs are
named, flat, and have a leading dimension of any size.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_groupvit.errors import ExportError
from tf_groupvit.export.input_checks import (
    check_array,
    check_strings,
    limit_pixels,
    no_errors,
    same_rows,
)
from tf_groupvit.export.saving import Limits
from tf_groupvit.export.segment_graph import Labelling, Looking
from tf_groupvit.export.text_inputs import MOST_LABELS, Reading, parse_lists
from tf_groupvit.models.operations import normalize, segmentation_logits
from tf_groupvit.models.optimized import can_be_optimized, optimized
from tf_groupvit.preprocessing.image_graph_bytes import assert_with_message, first_error
from tf_groupvit.runtimes import GRAPH
from tf_groupvit.segmentation.class_names import BACKGROUND

IMAGES = tf.TensorSpec([None], tf.string, name="image_bytes")
DEFAULT, ITS_NAME = "serving_default", "segment"
BEGINNING = 2**16  # bytes of a text that are read; a token seldom has more than ten
UNBATCHABLE = ("logits",)  # N texts against B images: the batcher wants one leading dimension

Named = dict[str, tf.Tensor]


def specs_of(width: int, channels: int) -> dict[str, tuple[tf.TensorSpec, ...]]:
    """Signature -> its inputs; ``width`` is that of the embeddings, D."""
    lists = tf.TensorSpec([None], tf.string, name="class_names")
    return {
        "segment": (IMAGES,),
        "segment_open": (IMAGES, lists),
        "segment_pixels": (tf.TensorSpec([None, None, None, 3], tf.uint8, name="pixels"),),
        "segment_embeds": (
            IMAGES,
            tf.TensorSpec([None, None, width], tf.float32, name="text_embeds"),
        ),
        "classify": (IMAGES,),
        "encode_image": (IMAGES,),
        "encode_text": (tf.TensorSpec([None], tf.string, name="text"),),
        "logits": (
            tf.TensorSpec([None, None], tf.int32, name="input_ids"),
            tf.TensorSpec([None, None], tf.int32, name="attention_mask"),
            tf.TensorSpec([None, channels, None, None], tf.float32, name="pixel_values"),
        ),
    }


class Signatures(tf.Module):
    """Everything that a SavedModel of a segmenter holds: weights, embeddings of the classes,
    vocabulary, functions.
    """

    def __init__(self, segmenter: Any, limits: Limits) -> None:
        super().__init__(name="groupvit")
        self._limits = limits
        plain, self._settings = segmenter.model, segmenter.settings
        model = (
            optimized(plain) if can_be_optimized(plain) else plain
        )  # the weights as they are now
        self._model, self._classes = _Untracked(model), segmenter.classes
        self.weights = [variable.value for variable in model.weights]
        self.texts = tf.constant(segmenter.text_embeds)  # (N, D)
        self._names = tf.constant(segmenter.class_names)  # (K)
        tokens, self.tables = None, []
        if segmenter.tokenizer is not None:
            tokens = segmenter.tokenizer.limited_to(
                model.config.text_config.max_position_embeddings
            ).graph()
            self.tables = list(
                tokens.submodules
            )  # without the tokenizer itself, which would be saved as a function too
        self._looking = Looking(model, self._settings)
        self._labelling = Labelling(self._looking, self._settings, self.texts.shape[1])
        self._reading = Reading(model, tokens)

    @property
    def _background(self) -> bool:
        return self._settings.background is not None

    def traced(self, say: Callable[[str], None]) -> dict[str, Any]:
        """Each signature as a traced function.

        Without a tokenizer there is nothing to read texts with: ``segment_open`` and
        ``encode_text`` are left out.
        """
        found = {}
        specs = specs_of(self.texts.shape[1], self._model.it.config.vision_config.num_channels)
        for name, inputs in specs.items():
            if self._reading.tokens is None and name in ("segment_open", "encode_text"):
                continue
            say(f"Tracing {name} ...")
            function = tf.function(getattr(self, name), input_signature=inputs, autograph=False)
            found[name] = function.get_concrete_function()
        return found

    def segment(self, image_bytes: tf.Tensor) -> Named:
        """Encoded images (B) -> masks as PNG, scores, areas and names of the K classes; what is
        wrong with a row.
        """
        images = self._images(image_bytes)
        answer = self._labelling.images(
            images, lambda i: self.texts, self._names.shape[0], no_errors(images)
        )
        return answer | {"class_names": _for_each(self._names, images)}

    def segment_open(self, image_bytes: tf.Tensor, class_names: tf.Tensor) -> Named:
        """Encoded images (B), and for each its classes between commas, (B) -> as ``segment``, K the
        longest list.
        """
        images = self._images(image_bytes)
        listed = check_strings(class_names, "class_names", self._limits.max_images)
        listed = same_rows(listed, "class_names", images, "image_bytes")
        lists = parse_lists(listed, self._background, self._limits.max_texts)
        embeds = self._reading.class_embeds(lists.names, self._classes.templates)  # (M, D)
        longest = lists.longest + int(self._background)
        texts_of = lambda i: embeds[lists.splits[i] : lists.splits[i + 1]]  # noqa: E731
        names = lists.called.to_tensor("")
        if self._background:
            names = tf.concat([tf.where(lists.words == "", BACKGROUND, "")[:, None], names], axis=1)
        answer = self._labelling.images(images, texts_of, longest, lists.words)
        return answer | {"class_names": tf.ensure_shape(names, [None, None])}

    def segment_pixels(self, pixels: tf.Tensor) -> Named:
        """Pixels uint8 (B, H, W, 3) -> labels uint8 (B, H, W)."""
        pixels = check_array(
            pixels, "pixels", "(B, H, W, 3)", (None, None, 3), self._limits.max_images
        )
        pixels = limit_pixels(pixels, "pixels", self._limits.max_pixels, 1, 2)
        shape = tf.shape(pixels)
        some = (shape[0] == 0) | ((shape[1] > 0) & (shape[2] > 0))
        said = ["pixels: expected at least one, got images of ", shape[2], " x ", shape[1], "."]
        return {
            "labels": self._labelling.pixels(assert_with_message(some, said, pixels), self.texts)
        }

    def segment_embeds(self, image_bytes: tf.Tensor, text_embeds: tf.Tensor) -> Named:
        """Encoded images (B) and embeddings of the classes of each (B, K, D) -> as ``segment``,
        without names.
        """
        images = self._images(image_bytes)
        width = self.texts.shape[1]
        embeds = check_array(
            text_embeds, "text_embeds", f"(B, K, {width})", (None, width), self._limits.max_images
        )
        embeds = _some(same_rows(embeds, "text_embeds", images, "image_bytes"), self._background)
        finite = tf.reduce_all(tf.math.is_finite(embeds), axis=[1, 2])
        words = first_error(
            (finite, ["text_embeds: expected finite numbers, got NaN or infinity."])
        )
        longest = tf.shape(embeds)[1] + int(self._background)
        return self._labelling.images(images, lambda i: embeds[i], longest, words)

    def classify(self, image_bytes: tf.Tensor) -> Named:
        """Encoded images (B) -> how likely each of the N classes is, background aside: softmax, (B,
        N).
        """
        images = self._images(image_bytes)
        groups, _, words = self._looking.see(images, no_errors(images))
        similarity = (
            tf.matmul(groups["image_embeds"], self.texts, transpose_b=True) * groups["scale"]
        )
        names = _for_each(tf.constant(self._classes.names), images)
        return {
            "probabilities": _where_well(words, tf.nn.softmax(similarity)),
            "class_names": names,
            "error": words,
        }

    def encode_image(self, image_bytes: tf.Tensor) -> Named:
        """Encoded images (B) -> embeddings of length one (B, D); 0 where a row has an error."""
        images = self._images(image_bytes)
        groups, _, words = self._looking.see(images, no_errors(images))
        return {"image_embeds": _where_well(words, groups["image_embeds"]), "error": words}

    def encode_text(self, text: tf.Tensor) -> Named:
        """Texts (B), taken as they are -> embeddings of length one (B, D).

        Only the beginning of a text has a place among the model's positions, so only the beginning
        is read.
        """
        texts = tf.strings.substr(check_strings(text, "text", self._limits.max_texts), 0, BEGINNING)
        return {"text_embeds": self._reading.embeds(texts)}

    def _images(self, image_bytes: tf.Tensor) -> tf.Tensor:
        return check_strings(image_bytes, "image_bytes", self._limits.max_images)

    def logits(
        self, input_ids: tf.Tensor, attention_mask: tf.Tensor, pixel_values: tf.Tensor
    ) -> Named:
        """Token ids (N, T) and normalised pixels (B, 3, H, W): transformers' outputs. Not
        batchable, as N is not B.
        """
        ids, mask = self._checked_ids(input_ids, attention_mask)
        pixel_values = self._checked_values(pixel_values, tf.shape(ids)[0])
        texts, groups = (
            normalize(self._reading.by_parts(ids, mask)),
            self._looking.groups(pixel_values),
        )
        B, H, W, N = (
            tf.shape(pixel_values)[0],
            tf.shape(pixel_values)[2],
            tf.shape(pixel_values)[3],
            tf.shape(ids)[0],
        )
        per_text = tf.matmul(texts, groups["image_embeds"], transpose_b=True) * groups["scale"]
        sides = (groups["maps"][-1], groups["group_embeds"], texts, groups["scale"])
        maps = tf.cond(
            N > 0, lambda: segmentation_logits(*sides, H, W), lambda: tf.zeros([B, 0, H, W])
        )
        return {
            "logits_per_image": tf.transpose(per_text),
            "logits_per_text": per_text,
            "text_embeds": texts,
            "image_embeds": groups["image_embeds"],
            "segmentation_logits": tf.ensure_shape(maps, [None] * 4),
        }

    def _checked_values(self, pixel_values: tf.Tensor, N: tf.Tensor) -> tf.Tensor:
        """Normalised pixels (B, 3, H, W) that the vision tower can take, and whose answer for N
        texts fits the limits.

        Patches look at each other, so work and memory grow with the square of their number: no more
        is taken than of as many images as the limit says, at the size that the model was trained
        with.
        """
        vision, most = self._model.it.config.vision_config, self._limits
        channels, patch = vision.num_channels, vision.patch_height_width
        letters = f"(B, {channels}, H, W)"
        values = check_array(
            pixel_values, "pixel_values", letters, (channels, None, None), most.max_images
        )
        values = limit_pixels(_of_patches(values, patch), "pixel_values", most.max_pixels, 2, 3)
        B, _, H, W = tf.unstack(tf.cast(tf.shape(values), tf.float64))
        usual = float(np.prod(np.divide(vision.image_height_width, patch)))
        pairs = B * tf.square(H * W / float(patch[0] * patch[1]))
        said = [
            "pixel_values: expected fewer or smaller images, got ",
            *_times(values),
            " pixels.",
        ]
        values = assert_with_message(pairs <= most.max_images * usual**2, said, values)
        said = [
            f"segmentation_logits: expected at most {most.max_pixels} numbers, got ",
            N,
            " texts for ",
        ]
        return assert_with_message(
            tf.cast(N, tf.float64) * B * H * W <= most.max_pixels,
            [*said, *_times(values), "."],
            values,
        )

    def _checked_ids(
        self, input_ids: tf.Tensor, attention_mask: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Ids and mask (N, T) that the text tower can take."""
        ids = check_array(input_ids, "input_ids", "(N, T)", (None,), self._limits.max_texts)
        mask = check_array(
            attention_mask, "attention_mask", "(N, T)", (None,), self._limits.max_texts
        )
        text = self._model.it.config.text_config
        N, T = tf.shape(ids)[0], tf.shape(ids)[1]
        said = ["attention_mask: expected one number for each of input_ids, got another shape."]
        ids = assert_with_message(tf.reduce_all(tf.shape(mask) == tf.shape(ids)), said, ids)
        longest = text.max_position_embeddings
        said = ["input_ids: expected 1 to ", f"{longest} tokens a text, got ", T, "."]
        ids = assert_with_message((N == 0) | ((T > 0) & (longest >= T)), said, ids)
        said = [f"input_ids: expected numbers from 0 to {text.vocab_size - 1}, got another."]
        return assert_with_message(
            tf.reduce_all((ids >= 0) & (ids < text.vocab_size)), said, ids
        ), mask


class _Untracked:
    """Holds a model without tf.Module taking it for a part of what is saved: its variables are in
    ``weights``.
    """

    def __init__(self, it: Any) -> None:
        self.it = it


def check_servable(segmenter: Any) -> None:
    """Refuse a model that no server runs, and more labels than a mask of one byte a pixel can hold."""
    if getattr(segmenter.model, "runtime", GRAPH) != GRAPH:
        raise ExportError(
            "No server runs this model as it is run here: export a segmenter of the plain model."
        )
    count = len(segmenter.class_names)
    if count > MOST_LABELS:
        raise ExportError(
            f"There are {count} labels, background included, and a mask holds one byte a pixel: "
            f"expected at most {MOST_LABELS}, export fewer classes."
        )


def _for_each(names: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Names (K) -> (B, K)."""
    return tf.tile(names[None], [tf.shape(images)[0], 1])


def _where_well(words: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Rows (B, n), 0 where words (B) say that something is wrong."""
    return tf.where((words == "")[:, None], rows, 0.0)


def _some(embeds: tf.Tensor, background: bool) -> tf.Tensor:
    """Embeddings (B, K, D) of at least one class, and of no more than fit."""
    B, K = tf.shape(embeds)[0], tf.shape(embeds)[1]
    most = MOST_LABELS - int(background)
    said = [f"text_embeds: expected 1 to {most} classes an image, got ", K, "."]
    return assert_with_message((B == 0) | ((K > 0) & (most >= K)), said, embeds)


def _times(pixel_values: tf.Tensor) -> list[str | tf.Tensor]:
    """The sizes of pixels (B, C, H, W) as words: B x H x W."""
    shape = tf.shape(pixel_values)
    return [shape[0], " x ", shape[2], " x ", shape[3]]


def _of_patches(pixel_values: tf.Tensor, patch: tuple[int, int]) -> tf.Tensor:
    shape = tf.shape(pixel_values)
    H, W = shape[2], shape[3]
    fits = (H > 0) & (W > 0) & (H % patch[0] == 0) & (W % patch[1] == 0)
    said = [
        f"pixel_values: expected H and W that are multiples of the patch size {patch}, got ",
        H,
        " and ",
        W,
        ".",
    ]
    return assert_with_message((shape[0] == 0) | fits, said, pixel_values)
