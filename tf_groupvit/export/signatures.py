"""A segmenter in; the functions that a server runs, with the weights that they share, out.

The table of what goes in and comes out of each is in serving/README.md. All inputs and outputs are named, flat, and
have a leading dimension of any size.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_groupvit.errors import ExportError
from tf_groupvit.export.arriving import numbers, strings, together
from tf_groupvit.export.class_lists import MOST_LABELS, parse_lists
from tf_groupvit.export.labelling import Labelling
from tf_groupvit.export.looking import Looking
from tf_groupvit.export.reading import Reading
from tf_groupvit.models.comparing import normalise, segmentation_logits
from tf_groupvit.models.optimized import can_be_optimized, optimized
from tf_groupvit.models.runtimes import GRAPH
from tf_groupvit.preprocessing.image_graph_bytes import only_if
from tf_groupvit.segmentation.prompts import BACKGROUND

IMAGES = tf.TensorSpec([None], tf.string, name="image_bytes")
DEFAULT, ITS_NAME = "serving_default", "segment"
UNBATCHABLE = ("logits",)  # N texts against B images: the batcher wants one leading dimension

Named = dict[str, tf.Tensor]


def specs_of(width: int, channels: int) -> dict[str, tuple[tf.TensorSpec, ...]]:
    """Signature -> its inputs; ``width`` is that of the embeddings, D."""
    lists = tf.TensorSpec([None], tf.string, name="class_names")
    return {
        "segment": (IMAGES,),
        "segment_open": (IMAGES, lists),
        "segment_pixels": (tf.TensorSpec([None, None, None, 3], tf.uint8, name="pixels"),),
        "segment_embeds": (IMAGES, tf.TensorSpec([None, None, width], tf.float32, name="text_embeds")),
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
    """Everything that a SavedModel of a segmenter holds: weights, embeddings of the classes, vocabulary, functions."""

    def __init__(self, segmenter: Any) -> None:
        super().__init__(name="groupvit")
        plain, self._settings = segmenter.model, segmenter.settings
        model = optimized(plain) if can_be_optimized(plain) else plain  # the weights as they are now
        self._model, self._classes = _Untracked(model), segmenter.classes
        self.weights = [variable.value for variable in model.weights]
        self.texts = tf.constant(segmenter.text_embeds)  # (N, D)
        self._names = tf.constant(segmenter.class_names)  # (K)
        tokens, self.tables = None, []
        if segmenter.tokenizer is not None:
            tokens = segmenter.tokenizer.limited_to(model.config.text_config.max_position_embeddings).graph()
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

        Without a tokenizer there is nothing to read texts with: ``segment_open`` and ``encode_text`` are left out.
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
        """Encoded images (B) -> masks as PNG, scores, areas and names of the K classes."""
        images = strings(image_bytes, "image_bytes")
        answer = self._labelling.images(images, lambda i: self.texts, self._names.shape[0])
        return answer | {"class_names": _for_each(self._names, images)}

    def segment_open(self, image_bytes: tf.Tensor, class_names: tf.Tensor) -> Named:
        """Encoded images (B), and for each its classes between commas, (B) -> as ``segment``, K the longest list."""
        images = strings(image_bytes, "image_bytes")
        listed = together(strings(class_names, "class_names"), "class_names", images, "image_bytes")
        lists = parse_lists(listed, self._background)
        embeds = self._reading.class_embeds(lists.names, self._classes.templates)  # (M, D)
        longest = lists.longest + int(self._background)
        texts_of = lambda i: embeds[lists.splits[i] : lists.splits[i + 1]]  # noqa: E731
        names = lists.called.to_tensor("")
        if self._background:
            names = tf.concat([_for_each(tf.constant([BACKGROUND]), images), names], axis=1)
        return self._labelling.images(images, texts_of, longest) | {"class_names": tf.ensure_shape(names, [None, None])}

    def segment_pixels(self, pixels: tf.Tensor) -> Named:
        """Pixels uint8 (B, H, W, 3) -> labels uint8 (B, H, W)."""
        pixels = numbers(pixels, "pixels", "(B, H, W, 3)", (None, None, 3))
        shape = tf.shape(pixels)
        some = (shape[0] == 0) | ((shape[1] > 0) & (shape[2] > 0))
        said = ["pixels: expected at least one, came images of ", shape[2], " x ", shape[1], "."]
        return {"labels": self._labelling.pixels(only_if(some, said, pixels), self.texts)}

    def segment_embeds(self, image_bytes: tf.Tensor, text_embeds: tf.Tensor) -> Named:
        """Encoded images (B) and embeddings of the classes of each (B, K, D) -> as ``segment``, without names."""
        images = strings(image_bytes, "image_bytes")
        width = self.texts.shape[1]
        embeds = numbers(text_embeds, "text_embeds", f"(B, K, {width})", (None, width))
        embeds = _usable(together(embeds, "text_embeds", images, "image_bytes"), self._background)
        return self._labelling.images(images, lambda i: embeds[i], tf.shape(embeds)[1] + int(self._background))

    def classify(self, image_bytes: tf.Tensor) -> Named:
        """Encoded images (B) -> how likely each of the N classes is, background aside: softmax, (B, N)."""
        images = strings(image_bytes, "image_bytes")
        groups, _ = self._looking.see(images)
        similarity = tf.matmul(groups["image_embeds"], self.texts, transpose_b=True) * groups["scale"]
        names = _for_each(tf.constant(self._classes.names), images)
        return {"probabilities": tf.nn.softmax(similarity), "class_names": names}

    def encode_image(self, image_bytes: tf.Tensor) -> Named:
        """Encoded images (B) -> embeddings of length one (B, D)."""
        groups, _ = self._looking.see(strings(image_bytes, "image_bytes"))
        return {"image_embeds": groups["image_embeds"]}

    def encode_text(self, text: tf.Tensor) -> Named:
        """Texts (B), taken as they are -> embeddings of length one (B, D)."""
        return {"text_embeds": self._reading.embeds(strings(text, "text"))}

    def logits(self, input_ids: tf.Tensor, attention_mask: tf.Tensor, pixel_values: tf.Tensor) -> Named:
        """Token ids (N, T) and normalised pixels (B, 3, H, W): transformers' outputs. Not batchable, as N is not B."""
        ids, mask = self._checked_ids(input_ids, attention_mask)
        vision = self._model.it.config.vision_config
        channels = vision.num_channels
        pixel_values = numbers(pixel_values, "pixel_values", f"(B, {channels}, H, W)", (channels, None, None))
        pixel_values = _of_patches(pixel_values, vision.patch_height_width)
        texts, groups = normalise(self._reading.tower(ids, mask)), self._looking.groups(pixel_values)
        B, H, W, N = tf.shape(pixel_values)[0], tf.shape(pixel_values)[2], tf.shape(pixel_values)[3], tf.shape(ids)[0]
        per_text = tf.matmul(texts, groups["image_embeds"], transpose_b=True) * groups["scale"]
        sides = (groups["maps"][-1], groups["group_embeds"], texts, groups["scale"])
        maps = tf.cond(N > 0, lambda: segmentation_logits(*sides, H, W), lambda: tf.zeros([B, 0, H, W]))
        return {
            "logits_per_image": tf.transpose(per_text),
            "logits_per_text": per_text,
            "text_embeds": texts,
            "image_embeds": groups["image_embeds"],
            "segmentation_logits": tf.ensure_shape(maps, [None] * 4),
        }

    def _checked_ids(self, input_ids: tf.Tensor, attention_mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Ids and mask (N, T) that the text tower can take."""
        ids = numbers(input_ids, "input_ids", "(N, T)", (None,))
        mask = numbers(attention_mask, "attention_mask", "(N, T)", (None,))
        text = self._model.it.config.text_config
        N, T = tf.shape(ids)[0], tf.shape(ids)[1]
        said = ["attention_mask: expected one number for each of input_ids, came another shape."]
        ids = only_if(tf.reduce_all(tf.shape(mask) == tf.shape(ids)), said, ids)
        longest = text.max_position_embeddings
        said = ["input_ids: expected 1 to ", f"{longest} tokens a text, came ", T, "."]
        ids = only_if((N == 0) | ((T > 0) & (longest >= T)), said, ids)
        said = [f"input_ids: expected numbers from 0 to {text.vocab_size - 1}, came another."]
        return only_if(tf.reduce_all((ids >= 0) & (ids < text.vocab_size)), said, ids), mask


class _Untracked:
    """Holds a model without tf.Module taking it for a part of what is saved: its variables are in ``weights``."""

    def __init__(self, it: Any) -> None:
        self.it = it


def check_servable(segmenter: Any) -> None:
    """Refuse a model that no server runs, and more labels than a mask of one byte a pixel can hold."""
    if getattr(segmenter.model, "runtime", GRAPH) != GRAPH:
        raise ExportError("No server runs this model as it is run here: export a segmenter of the plain model.")
    count = len(segmenter.class_names)
    if count > MOST_LABELS:
        raise ExportError(
            f"There are {count} labels, background included, and a mask holds one byte a pixel: "
            f"expected at most {MOST_LABELS}, export fewer classes."
        )


def _for_each(names: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Names (K) -> (B, K)."""
    return tf.tile(names[None], [tf.shape(images)[0], 1])


def _usable(embeds: tf.Tensor, background: bool) -> tf.Tensor:
    """Embeddings (B, K, D) of at least one class, of no more than fit, and finite."""
    B, K = tf.shape(embeds)[0], tf.shape(embeds)[1]
    most = MOST_LABELS - int(background)
    said = [f"text_embeds: expected 1 to {most} classes an image, came ", K, "."]
    embeds = only_if((B == 0) | ((K > 0) & (most >= K)), said, embeds)
    said = ["text_embeds: expected finite numbers, came NaN or infinity."]
    return only_if(tf.reduce_all(tf.math.is_finite(embeds)), said, embeds)


def _of_patches(pixel_values: tf.Tensor, patch: tuple[int, int]) -> tf.Tensor:
    shape = tf.shape(pixel_values)
    H, W = shape[2], shape[3]
    fits = (H > 0) & (W > 0) & (H % patch[0] == 0) & (W % patch[1] == 0)
    said = [f"pixel_values: expected H and W that are multiples of the patch size {patch}, came ", H, " and ", W, "."]
    return only_if((shape[0] == 0) | fits, said, pixel_values)
