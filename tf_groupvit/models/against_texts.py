"""The place that `.keras` files written by version 0.1 name: the class is in zero_shot.py."""

from tf_groupvit.models.zero_shot import FixedTextModel as ImagesAgainstTexts

__all__ = ["ImagesAgainstTexts"]
