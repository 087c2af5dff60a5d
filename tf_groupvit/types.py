"""Names for types that many signatures share. Nothing heavy is imported at run time."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    Tensor = tf.Tensor | keras.KerasTensor
else:
    # A tensor of the Keras backend, eager or symbolic; where layers are called, also what
    # converts to one.
    Tensor = Any
