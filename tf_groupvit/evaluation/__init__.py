"""Datasets in, mean intersection over union out."""
