"""GroupViT for TensorFlow and Keras 3: name the classes in words, get the mask.

Each public name is loaded when it is first touched (PEP 562), so importing the package costs
nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from tf_groupvit import quiet

__version__ = "0.2.0"

_HOME_OF = {
    "GroupViTConfig": "config",
    "GroupViTTextConfig": "config",
    "GroupViTVisionConfig": "config",
    "TFGroupViTModel": "models.groupvit",
    "TFGroupViTTextModel": "models.text",
    "TFGroupViTVisionModel": "models.vision",
    "Tokenizer": "preprocessing.tokenizer",
    "ImageProcessor": "preprocessing.image",
    "Segmenter": "segmentation.segmenter",
    "Segmentation": "segmentation.result",
}

# A list of its own: type checkers read no other, and export no name that is not in it.
__all__ = [
    "GroupViTConfig",
    "GroupViTTextConfig",
    "GroupViTVisionConfig",
    "ImageProcessor",
    "Segmentation",
    "Segmenter",
    "TFGroupViTModel",
    "TFGroupViTTextModel",
    "TFGroupViTVisionModel",
    "Tokenizer",
    "__version__",
]

if TYPE_CHECKING:
    from tf_groupvit.config import GroupViTConfig, GroupViTTextConfig, GroupViTVisionConfig
    from tf_groupvit.models.groupvit import TFGroupViTModel
    from tf_groupvit.models.text import TFGroupViTTextModel
    from tf_groupvit.models.vision import TFGroupViTVisionModel
    from tf_groupvit.preprocessing.image import ImageProcessor
    from tf_groupvit.preprocessing.tokenizer import Tokenizer
    from tf_groupvit.segmentation.result import Segmentation
    from tf_groupvit.segmentation.segmenter import Segmenter


quiet.install()


if (
    not TYPE_CHECKING
):  # type checkers know the names, and with this would take any other for one, too

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(
                f"module 'tf_groupvit' has no attribute {name!r}; public names:"
                f" {', '.join(__all__)}"
            )
        value = getattr(import_module(f"tf_groupvit.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
