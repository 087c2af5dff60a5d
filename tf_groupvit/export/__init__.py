"""A segmenter in, a SavedModel that TensorFlow Serving runs out."""
