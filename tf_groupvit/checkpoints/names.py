"""A name of Keras, of transformers' TensorFlow class or of the original code in, transformers'
PyTorch name out.

The one place that knows names. PyTorch's layout is Linear (out, in) and Conv (out, in, H, W);
Keras' is Dense (in, out) and Conv (H, W, in, out). Everything else is laid out alike.
"""

import re

import numpy as np

# Keras' last word -> PyTorch's. Words that are not here (bias, weight, group_token, ...) are the
# same in both.
LEAVES = {
    "kernel": "weight",
    "gamma": "weight",
    "embeddings": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}

# What a checkpoint name can begin with; anything before it in a path is the name of a wrapper.
ROOTS = re.compile(r"(text_model|vision_model|text_projection|visual_projection|logit_scale)(\.|$)")

# In every checkpoint or in none, and nothing that a model needs: positions 0, 1, 2 and PyTorch's
# count of batches.
OPTIONAL = re.compile(r"(.+\.)?(position_ids|num_batches_tracked)$")

# (3, 2, 0, 1) takes HWIO to OIHW, (2, 3, 1, 0) takes it back; the kernel of a Dense is its own
# inverse.
_TO_CHECKPOINT = {2: (1, 0), 4: (3, 2, 0, 1)}
_TO_KERAS = {2: (1, 0), 4: (2, 3, 1, 0)}


def checkpoint_name(variable_path: str) -> str:
    """Keras variable path -> checkpoint name: ``model/text_model.final_layer_norm/gamma`` ->
    ``text_model....weight``.

    The layer that holds the variable is named after its whole checkpoint prefix; a variable of the
    model itself, whose name is the user's choice, stands alone (``my_model/logit_scale`` ->
    ``logit_scale``).
    """
    *layers, leaf = variable_path.replace("-", ".").split(
        "/"
    )  # on PyTorch the dots of a prefix are "-"
    leaf = LEAVES.get(leaf, leaf)
    return (
        f"{layers[-1]}.{leaf}"
        if layers and ROOTS.match(layers[-1]) and leaf != "logit_scale"
        else leaf
    )


def tensorflow_name(weight_name: str) -> str:
    """transformers' TensorFlow name -> PyTorch's:
    ``groupvit/text_model/.../layers_._0/.../kernel:0`` -> ``...weight``.

    Source: the names in files that TFGroupViTModel.save_pretrained (transformers 4.57.6) writes.
    """
    parts = re.sub(r":\d+$", "", weight_name).split("/")
    start = next((i for i, part in enumerate(parts) if ROOTS.match(part)), 0)
    *layers, leaf = parts[start:]
    return ".".join([*layers, LEAVES.get(leaf, leaf)]).replace("_._", ".")


def _leaf(name: str) -> str:
    return re.sub(r":\d+$", "", name).rpartition("/")[2]


def checkpoint_axes(name_or_leaf: str, rank: int) -> tuple[int, ...]:
    """The order of Keras' axes in the checkpoint's layout: (1, 0) for a Dense kernel, (0, 1, ...)
    for most others.
    """
    return (
        _TO_CHECKPOINT.get(rank, tuple(range(rank)))
        if _leaf(name_or_leaf) == "kernel"
        else tuple(range(rank))
    )


def checkpoint_shape(shape: tuple[int, ...], name_or_leaf: str) -> tuple[int, ...]:
    """A Keras variable's shape as the checkpoint has it."""
    return tuple(shape[axis] for axis in checkpoint_axes(name_or_leaf, len(shape)))


def to_checkpoint_layout(array: np.ndarray, name_or_leaf: str) -> np.ndarray:
    """Keras' layout -> the checkpoint's, as a view. ``name_or_leaf`` is Keras': a variable path or
    its last word.
    """
    return array.transpose(checkpoint_axes(name_or_leaf, array.ndim))


def to_keras_layout(array: np.ndarray, name_or_leaf: str) -> np.ndarray:
    """The checkpoint's layout -> Keras', as a view. ``name_or_leaf`` is Keras': a variable path or
    its last word.
    """
    axes = _TO_KERAS.get(array.ndim) if _leaf(name_or_leaf) == "kernel" else None
    return array.transpose(axes) if axes else array


def batch_counters(names) -> list[str]:
    """The ``num_batches_tracked`` that PyTorch's state dict has beside each ``running_mean``."""
    return [
        name.removesuffix("running_mean") + "num_batches_tracked"
        for name in names
        if name.endswith("running_mean")
    ]
