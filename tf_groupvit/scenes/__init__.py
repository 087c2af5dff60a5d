"""Drawn scenes: data for the demo checkpoint, tests and docs that need no download."""
