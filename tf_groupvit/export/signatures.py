"""The signatures of an export: what goes in, what comes out, and the functions that answer.

To add a signature: a method of ``SignatureFunctions``, a request and the segmenter's own answer in
``signature_examples``, and a row of ``SIGNATURES``; serving/README.md shows the table.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_groupvit.errors import ExportError
from tf_groupvit.export import signature_examples as examples
from tf_groupvit.export.input_checks import (
    check_array,
    check_class_embeds,
    check_patches,
    check_strings,
    check_token_ids,
    limit_pixels,
    no_errors,
    same_rows,
)
from tf_groupvit.export.saving import Limits
from tf_groupvit.export.segment_graph import SegmentGraph
from tf_groupvit.export.text_inputs import MOST_LABELS, TextEncoder, parse_class_lists
from tf_groupvit.models.operations import normalize, segmentation_logits
from tf_groupvit.models.optimized import can_be_optimized, optimized
from tf_groupvit.preprocessing.image_graph_bytes import assert_with_message, first_error
from tf_groupvit.runtimes import GRAPH
from tf_groupvit.segmentation.class_names import BACKGROUND

if TYPE_CHECKING:
    from tf_groupvit.models.groupvit import TFGroupViTModel
    from tf_groupvit.segmentation.segmenter import Segmenter

TEXT_BYTES = 2**16  # bytes of a text that are read; a token seldom has more than ten

Tensors = dict[str, tf.Tensor]


class SignatureFunctions(tf.Module):
    """Everything that a SavedModel of a segmenter holds.

    These are weights, embeddings of the classes, vocabulary, and functions: one method for each
    signature. K counts the labels, background included; N the classes without it.
    """

    def __init__(self, segmenter: "Segmenter", limits: Limits) -> None:
        super().__init__(name="groupvit")
        self._limits = limits
        plain, self._settings = segmenter.model, segmenter.settings
        # A snapshot: the weights as they are now.
        model = optimized(plain) if can_be_optimized(plain) else plain
        self._untracked, self._classes = _Untracked(model), segmenter.classes
        self.weights = [variable.value for variable in model.weights]
        self.texts = tf.constant(segmenter.text_embeds)  # (N, D)
        self._names = tf.constant(segmenter.class_names)  # (K)
        tokens, self.tables = None, []
        if segmenter.tokenizer is not None:
            positions = model.config.text_config.max_position_embeddings
            tokens = segmenter.tokenizer.limited_to(positions).graph()
            # Without the tokenizer itself, which would be saved as a function too.
            self.tables = list(tokens.submodules)
        self._graph = SegmentGraph(model, self._settings, self.texts.shape[1])
        self._text_encoder = TextEncoder(model, tokens)

    @property
    def model(self) -> "TFGroupViTModel":
        """The model whose weights are saved."""
        return self._untracked.it

    @property
    def _has_background(self) -> bool:
        return self._settings.background is not None

    def traced(self, log: Callable[[str], None]) -> dict[str, Any]:
        """Each signature as a traced function, by name; ``log`` gets a line on each.

        Without a tokenizer, the signatures that read texts are left out.
        """
        found = {}
        D, C = self.texts.shape[1], self.model.config.vision_config.num_channels
        for name, row in SIGNATURES.items():
            if row.reads_text and self._text_encoder.tokens is None:
                continue
            log(f"Tracing {name} ...")
            function = tf.function(
                row.function.__get__(self), input_signature=row.specs(D, C), autograph=False
            )
            found[name] = function.get_concrete_function()
        return found

    def segment(self, image_bytes: tf.Tensor) -> Tensors:
        """Label encoded images (B) with the classes of the segmenter."""
        images = self._images(image_bytes)
        answer = self._graph.images(
            images, lambda i: self.texts, self._names.shape[0], no_errors(images)
        )
        return answer | {"class_names": _for_each(self._names, images)}

    def segment_open(self, image_bytes: tf.Tensor, class_names: tf.Tensor) -> Tensors:
        """Label encoded images (B), each with its own classes, (B) lists; K is the longest."""
        images = self._images(image_bytes)
        listed = check_strings(class_names, "class_names", self._limits.max_images)
        listed = same_rows(listed, "class_names", images, "image_bytes")
        lists = parse_class_lists(listed, self._has_background, self._limits.max_texts)
        embeds = self._text_encoder.class_embeds(lists.names, self._classes.templates)  # (M, D)
        longest = lists.longest + int(self._has_background)
        texts_of = lambda i: embeds[lists.splits[i] : lists.splits[i + 1]]  # noqa: E731
        names = lists.first_names.to_tensor("")
        if self._has_background:
            background = tf.where(lists.errors == "", BACKGROUND, "")[:, None]
            names = tf.concat([background, names], axis=1)
        answer = self._graph.images(images, texts_of, longest, lists.errors)
        return answer | {"class_names": tf.ensure_shape(names, [None, None])}

    def segment_pixels(self, pixels: tf.Tensor) -> Tensors:
        """Label pixels (B, H, W, 3) of one size with the classes of the segmenter."""
        limits = self._limits
        pixels = check_array(pixels, "pixels", "(B, H, W, 3)", (None, None, 3), limits.max_images)
        pixels = limit_pixels(pixels, "pixels", limits.max_pixels, 1, 2)
        B, H, W, _ = tf.unstack(tf.shape(pixels))
        message = ["pixels: expected at least one, got images of ", W, " x ", H, "."]
        pixels = assert_with_message((B == 0) | ((H > 0) & (W > 0)), message, pixels)
        return {"labels": self._graph.pixels(pixels, self.texts)}

    def segment_embeds(self, image_bytes: tf.Tensor, text_embeds: tf.Tensor) -> Tensors:
        """Label encoded images (B), each with classes given by their embeddings (B, K, D)."""
        images = self._images(image_bytes)
        embeds = check_class_embeds(
            text_embeds,
            self.texts.shape[1],
            MOST_LABELS - int(self._has_background),
            self._limits.max_images,
            images,
        )
        finite = tf.reduce_all(tf.math.is_finite(embeds), axis=[1, 2])
        message = ["text_embeds: expected finite numbers, got NaN or infinity."]
        longest = tf.shape(embeds)[1] + int(self._has_background)
        return self._graph.images(
            images, lambda i: embeds[i], longest, first_error((finite, message))
        )

    def classify(self, image_bytes: tf.Tensor) -> Tensors:
        """How likely each of the N classes is for encoded images (B), background aside: softmax."""
        images = self._images(image_bytes)
        groups, _, _, errors = self._graph.see(images, no_errors(images))
        similarity = tf.matmul(groups["image_embeds"], self.texts, transpose_b=True)
        return {
            "probabilities": _or_zeros(errors, tf.nn.softmax(similarity * groups["scale"])),
            "class_names": _for_each(tf.constant(self._classes.names), images),
            "error": errors,
        }

    def encode_image(self, image_bytes: tf.Tensor) -> Tensors:
        """Embeddings of length one of encoded images (B); 0 where a row has an error."""
        images = self._images(image_bytes)
        groups, _, _, errors = self._graph.see(images, no_errors(images))
        return {"image_embeds": _or_zeros(errors, groups["image_embeds"]), "error": errors}

    def encode_text(self, text: tf.Tensor) -> Tensors:
        """Embeddings of length one of texts (B), which are taken as they are.

        Only the beginning of a text has a place among the model's positions, so only the beginning
        is read.
        """
        texts = check_strings(text, "text", self._limits.max_texts)
        return {"text_embeds": self._text_encoder.embeds(tf.strings.substr(texts, 0, TEXT_BYTES))}

    def logits(
        self, input_ids: tf.Tensor, attention_mask: tf.Tensor, pixel_values: tf.Tensor
    ) -> Tensors:
        """Transformers' outputs of token ids (N, T) and normalized pixels (B, C, H, W)."""
        config, limits = self.model.config, self._limits
        ids, mask = check_token_ids(input_ids, attention_mask, config.text_config, limits.max_texts)
        N = tf.shape(ids)[0]
        values = check_patches(pixel_values, N, config.vision_config, limits)
        texts = normalize(self._text_encoder.by_parts(ids, mask))
        groups = self._graph.groups_of_values(values)
        B, _, H, W = tf.unstack(tf.shape(values))
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

    def _images(self, image_bytes: tf.Tensor) -> tf.Tensor:
        return check_strings(image_bytes, "image_bytes", self._limits.max_images)


class _Untracked:
    """Holds a model without tf.Module taking it for a part of what is saved."""

    def __init__(self, it: "TFGroupViTModel") -> None:
        self.it = it


def _for_each(names: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
    """Names (K) -> (B, K)."""
    return tf.tile(names[None], [tf.shape(images)[0], 1])


def _or_zeros(errors: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Rows (B, n), 0 where there is an error (B)."""
    return tf.where((errors == "")[:, None], rows, 0.0)


@dataclass(frozen=True)
class Signature:
    """One signature of an export.

    Attributes:
        function: the method that answers.
        inputs: name -> dtype and shape, as serving/README.md shows them.
        outputs: likewise.
        example: segmenter -> a request for the warm-up, arrays or lists of strings by input.
        expected: (segmenter, **inputs) -> what the Python side says to a request, for the check:
            numbers by output, and ``labels`` for the masks.
        batchable: whether a server may merge requests.
        reads_text: whether it needs a tokenizer.
    """

    function: Callable[..., Tensors]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    example: Callable[["Segmenter"], examples.Inputs]
    expected: Callable[..., dict[str, Any]]
    batchable: bool = True
    reads_text: bool = False

    def specs(self, D: int, C: int) -> tuple[tf.TensorSpec, ...]:
        """The inputs for embeddings of width D and images of C channels; other sizes are open."""
        sizes, specs = {"D": D, "C": C, "3": 3}, []
        for name, text in self.inputs.items():
            dtype, shape = text.split(" ", 1)
            specs.append(tf.TensorSpec(map(sizes.get, re.findall(r"\w", shape)), dtype, name))
        return tuple(specs)


DEFAULT, DEFAULT_OF = "serving_default", "segment"  # the default signature is another name of it

_IMAGES = {"image_bytes": "string (B)"}
_ERROR = {"error": "string (B)"}
_MASKS = {
    "mask_bytes": "string (B)",
    "class_scores": "float32 (B, K)",
    "class_areas": "float32 (B, K)",
}
_NAMES = {"class_names": "string (B, K)"}

SIGNATURES = {
    "segment": Signature(
        function=SignatureFunctions.segment,
        inputs=_IMAGES,
        outputs=_MASKS | _NAMES | _ERROR,
        example=lambda _: {"image_bytes": examples.pictures(0)},
        expected=examples.segment,
    ),
    "segment_open": Signature(
        function=SignatureFunctions.segment_open,
        inputs=_IMAGES | {"class_names": "string (B)"},
        outputs=_MASKS | _NAMES | _ERROR,
        example=lambda segmenter: {
            "image_bytes": examples.pictures(1, 2),
            "class_names": examples.class_lists(segmenter),
        },
        expected=examples.segment_open,
        reads_text=True,
    ),
    "segment_pixels": Signature(
        function=SignatureFunctions.segment_pixels,
        inputs={"pixels": "uint8 (B, H, W, 3)"},
        outputs={"labels": "uint8 (B, H, W)"},
        example=lambda _: {"pixels": examples.picture(0)[None]},
        expected=examples.segment_pixels,
    ),
    "segment_embeds": Signature(
        function=SignatureFunctions.segment_embeds,
        inputs=_IMAGES | {"text_embeds": "float32 (B, K, D)"},
        outputs=_MASKS | _ERROR,
        example=lambda segmenter: {
            "image_bytes": examples.pictures(0),
            "text_embeds": segmenter.text_embeds[None],
        },
        expected=examples.segment_embeds,
    ),
    "classify": Signature(
        function=SignatureFunctions.classify,
        inputs=_IMAGES,
        outputs={"class_names": "string (B, N)", "probabilities": "float32 (B, N)"} | _ERROR,
        example=lambda _: {"image_bytes": examples.pictures(1, 2)},
        expected=examples.classify,
    ),
    "encode_image": Signature(
        function=SignatureFunctions.encode_image,
        inputs=_IMAGES,
        outputs={"image_embeds": "float32 (B, D)"} | _ERROR,
        example=lambda _: {"image_bytes": examples.pictures(0)},
        expected=examples.encode_image,
    ),
    "encode_text": Signature(
        function=SignatureFunctions.encode_text,
        inputs={"text": "string (B)"},
        outputs={"text_embeds": "float32 (B, D)"},
        example=lambda _: {"text": ["a photo of a dog.", "sky"]},
        expected=examples.encode_text,
        reads_text=True,
    ),
    "logits": Signature(
        function=SignatureFunctions.logits,
        inputs={
            "input_ids": "int32 (N, T)",
            "attention_mask": "int32 (N, T)",
            "pixel_values": "float32 (B, C, H, W)",
        },
        outputs={
            "logits_per_image": "float32 (B, N)",
            "logits_per_text": "float32 (N, B)",
            "text_embeds": "float32 (N, D)",
            "image_embeds": "float32 (B, D)",
            "segmentation_logits": "float32 (B, N, H, W)",
        },
        example=examples.token_ids_and_pixels,
        expected=examples.logits,
        batchable=False,  # N texts and B images: a batcher wants one leading dimension
    ),
}


def row_of(name: str) -> Signature:
    """The row of a signature by name, the default one's included."""
    return SIGNATURES[DEFAULT_OF if name == DEFAULT else name]


def check_servable(segmenter: "Segmenter") -> None:
    """Refuse a model that no server runs, and more labels than one byte a pixel can hold.

    Raises:
        ExportError: in these cases.
    """
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
