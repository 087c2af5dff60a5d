"""Check the shapes and sizes of a request's inputs while the exported graph runs.

Neither the server nor its C++ session looks at the shapes that a signature declares, and TensorFlow
folds a check of them away when it believes the declaration. So the checks here read the rank at run
time, and each gives its input back: what is made of the result depends on the check.

Every failure is INVALID_ARGUMENT.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_groupvit.config import GroupViTTextConfig, GroupViTVisionConfig
from tf_groupvit.export.saving import Limits
from tf_groupvit.models.text import LEGACY_END, end_ids
from tf_groupvit.preprocessing.image_graph_bytes import Message, assert_with_message
from tf_groupvit.preprocessing.image_reading import MAX_SIDE


def check_strings(value: tf.Tensor, name: str, most: int) -> tf.Tensor:
    """A string for each image or text, (B), of at most ``most``."""
    return _limit_rows(_of_rank(value, name, "(B)", 1), name, most)


def check_array(
    value: tf.Tensor, name: str, letters: str, sizes: Sequence[int | None], most: int
) -> tf.Tensor:
    """An array (B, *sizes), where None is any size, and B at most ``most``.

    An empty batch may come as shape (0): JSON has no way to say (0, 4, 4, 3).

    Args:
        letters: the shape as messages write it, e.g. ``"(B, H, W, 3)"``.
    """
    loose = _unknown_shape(value)
    shape = tf.shape(loose)
    is_empty = tf.reduce_all(tf.equal(shape, 0)) & tf.equal(tf.size(shape), 1)
    empty = tf.constant([0, *(size or 1 for size in sizes)])
    loose = tf.cond(
        is_empty, lambda: _unknown_shape(tf.reshape(loose, empty)), lambda: tf.identity(loose)
    )
    value = _of_rank(loose, name, letters, 1 + len(sizes))
    shape = tf.shape(value)
    wanted = tf.constant([-1, *(-1 if size is None else size for size in sizes)])
    fits = tf.reduce_all(tf.equal(wanted, -1) | tf.equal(shape, wanted))
    message = [f"{name}: expected shape {letters}, got ", _shape_text(shape), "."]
    value = assert_with_message(fits, message, value)
    return _limit_rows(tf.ensure_shape(value, [None, *sizes]), name, most)


def _limit_rows(value: tf.Tensor, name: str, most: int) -> tf.Tensor:
    rows = tf.shape(value, out_type=tf.int64)[0]
    message = [f"{name}: expected at most {most} rows, got ", rows, ": send fewer at once."]
    return assert_with_message(rows <= most, message, value)


def limit_pixels(value: tf.Tensor, name: str, most: int, height: int, width: int) -> tf.Tensor:
    """``value`` (B, ...), if its images have at most ``most`` pixels, all together.

    No side may be over ``MAX_SIDE`` pixels either.

    Args:
        height: the axis of the height; ``width`` likewise.
    """
    shape = tf.shape(value, out_type=tf.int64)
    pixels = shape[0] * shape[height] * shape[width]
    message = [f"{name}: expected at most {most} pixels in all, got ", pixels]
    value = assert_with_message(
        pixels <= most, [*message, ": send fewer or smaller images."], value
    )
    longest = tf.maximum(shape[height], shape[width])
    message = [f"{name}: expected at most {MAX_SIDE} pixels a side, got ", longest, ": shrink it."]
    return assert_with_message(longest <= MAX_SIDE, message, value)


def some_row_valid(errors: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """``value`` of any shape, unless every one of the rows has an error; then the first fails.

    Args:
        errors: string (B), "" for a row that is valid. Without rows nothing fails.
    """
    first = tf.concat([errors, [""]], axis=0)[0]
    some = (tf.size(errors) == 0) | tf.reduce_any(errors == "")
    return assert_with_message(some, [first], value)


def no_errors(rows: tf.Tensor) -> tf.Tensor:
    """An empty error for each of the rows (B, ...): string (B)."""
    return tf.fill(tf.shape(rows)[:1], "")


def same_rows(value: tf.Tensor, name: str, other: tf.Tensor, other_name: str) -> tf.Tensor:
    """``value`` (B, ...), if ``other`` has as many rows."""
    mine, theirs = tf.shape(value)[0], tf.shape(other)[0]
    expected = f"{name} and {other_name}: expected one row for each image in both, got "
    return assert_with_message(
        tf.equal(mine, theirs), [expected, mine, " and ", theirs, "."], value
    )


def _of_rank(value: tf.Tensor, name: str, letters: str, rank: int) -> tf.Tensor:
    loose = _unknown_shape(value)
    shape = tf.shape(loose)
    message = [f"{name}: expected shape {letters}, got ", _shape_text(shape), "."]
    checked = assert_with_message(tf.equal(tf.size(shape), rank), message, loose)
    return tf.ensure_shape(checked, [None] * rank)


def _unknown_shape(value: tf.Tensor) -> tf.Tensor:
    """The same tensor, of a shape that TensorFlow does not believe to know."""
    return tf.raw_ops.PlaceholderWithDefault(input=value, shape=tf.TensorShape(None))


def _shape_text(shape: tf.Tensor) -> tf.Tensor:
    sizes = tf.strings.reduce_join(tf.strings.as_string(shape), separator=", ")
    return tf.strings.join(["(", sizes, ")"])


# ---- inputs of one signature ----


def check_class_embeds(
    embeds: tf.Tensor, width: int, most_classes: int, most_rows: int, images: tf.Tensor
) -> tf.Tensor:
    """Embeddings (B, K, width) of 1 to ``most_classes`` classes for each of the images (B)."""
    letters = f"(B, K, {width})"
    embeds = check_array(embeds, "text_embeds", letters, (None, width), most_rows)
    embeds = same_rows(embeds, "text_embeds", images, "image_bytes")
    B, K = tf.shape(embeds)[0], tf.shape(embeds)[1]
    message = [f"text_embeds: expected 1 to {most_classes} classes an image, got ", K, "."]
    return assert_with_message((B == 0) | ((K > 0) & (most_classes >= K)), message, embeds)


def check_token_ids(
    input_ids: tf.Tensor, attention_mask: tf.Tensor, config: GroupViTTextConfig, most: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Token ids and mask (N, T) that the text tower takes, N at most ``most``."""
    ids = check_array(input_ids, "input_ids", "(N, T)", (None,), most)
    mask = check_array(attention_mask, "attention_mask", "(N, T)", (None,), most)
    N, T = tf.shape(ids)[0], tf.shape(ids)[1]
    same = tf.reduce_all(tf.shape(mask) == tf.shape(ids))
    message = ["attention_mask: expected one number for each of input_ids, got another shape."]
    ids = assert_with_message(same, message, ids)
    longest, highest = config.max_position_embeddings, config.vocab_size - 1
    message = [f"input_ids: expected 1 to {longest} tokens a text, got ", T, "."]
    ids = assert_with_message((N == 0) | ((T > 0) & (longest >= T)), message, ids)
    message = [f"input_ids: expected numbers from 0 to {highest}, got another."]
    ids = assert_with_message(tf.reduce_all((ids >= 0) & (ids <= highest)), message, ids)
    ends = end_ids(config)
    if ends and config.eos_token_id != LEGACY_END:
        ended = tf.reduce_any(tf.equal(ids[:, :, None], ends), axis=[1, 2])
        message = [f"input_ids: expected an end token, {config.eos_token_id}, in each text."]
        ids = assert_with_message(tf.reduce_all(ended), message, ids)
    return ids, mask


def check_patches(
    pixel_values: tf.Tensor, N: tf.Tensor, config: GroupViTVisionConfig, limits: Limits
) -> tf.Tensor:
    """Normalized pixels (B, C, H, W) that the vision tower takes, and whose answer is not too
    large.

    Every patch attends to all others, so work and memory grow with the square of their number: no
    more is taken than of as many images as the limit says, at the size that the model was trained
    with.

    Args:
        N: the number of texts, int32 scalar: ``segmentation_logits`` have N maps of each image.
    """
    channels, patch = config.num_channels, config.patch_height_width
    letters, sizes = f"(B, {channels}, H, W)", (channels, None, None)
    values = check_array(pixel_values, "pixel_values", letters, sizes, limits.max_images)
    B, _, H, W = tf.unstack(tf.shape(values))
    fits = (H > 0) & (W > 0) & (H % patch[0] == 0) & (W % patch[1] == 0)
    expected = f"pixel_values: expected H and W that are multiples of the patch size {patch}, got "
    values = assert_with_message((B == 0) | fits, [expected, H, " and ", W, "."], values)
    values = limit_pixels(values, "pixel_values", limits.max_pixels, 2, 3)
    shown: Message = [B, " x ", H, " x ", W]
    B, H, W = (tf.cast(size, tf.float64) for size in (B, H, W))
    usual = float(np.prod(np.divide(config.image_height_width, patch)))
    pairs = B * tf.square(H * W / float(patch[0] * patch[1]))
    message = ["pixel_values: expected fewer or smaller images, got ", *shown, " pixels."]
    values = assert_with_message(pairs <= limits.max_images * usual**2, message, values)
    expected = f"segmentation_logits: expected at most {limits.max_pixels} numbers, got "
    few = tf.cast(N, tf.float64) * B * H * W <= limits.max_pixels
    return assert_with_message(few, [expected, N, " texts for ", *shown, "."], values)
