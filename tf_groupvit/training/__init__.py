"""Captions and images in, a trained checkpoint out."""
