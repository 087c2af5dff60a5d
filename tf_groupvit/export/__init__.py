"""SavedModels for TensorFlow Serving, ``export_saved_model(segmenter, "models/groupvit")``, and
files that run without TensorFlow, ``export_model(segmenter, "mobile", format="litert")``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME_OF = {
    "export_saved_model": "saving",
    "check_export": "check",
    "export_model": "portable",
}
__all__ = ["check_export", "export_model", "export_saved_model"]

if TYPE_CHECKING:
    from tf_groupvit.export.check import check_export
    from tf_groupvit.export.portable import export_model
    from tf_groupvit.export.saving import export_saved_model


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(
            f"module 'tf_groupvit.export' has no attribute {name!r}: it has {', '.join(__all__)}"
        )
    return getattr(import_module(f"tf_groupvit.export.{_HOME_OF[name]}"), name)
