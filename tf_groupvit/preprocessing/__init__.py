"""Text and images to arrays, in Python and as TensorFlow graph operations."""
