"""Strings and images in, arrays out; beside each, its twin in TensorFlow graph operations."""
