"""TensorFlow as a server needs it: its C++ libraries, its session and its messages.

`import tensorflow` loads some 3,000 modules before it gives the first name, and Keras with them. A
server needs a quarter of them. Measured on an AMD EPYC: 0.9 s of the processor's time and 405 MiB
in place of 2.5 s and 557 MiB (3.3 s and 690 MiB where JAX is installed, which TensorFlow imports).
"""

import os
import sys
import threading
from collections.abc import Iterable
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType

from tf_groupvit import quiet

# Each of them has `import tensorflow` load libraries that come with other packages.
_PLUGINS = ("TF_PLUGGABLE_DEVICE_LIBRARY_PATH", "TF_USE_MODULAR_FILESYSTEM")


def import_session_parts() -> bool:
    """Import what runs a SavedModel; for a process that does little else: whether it was possible.

    ``tensorflow`` is then a package whose modules can be imported one by one. The first use of
    another name of it, such as ``tensorflow.io``, runs the whole import. Where TensorFlow is
    imported already, or has plug-ins to load, nothing is done.
    """
    if "tensorflow" in sys.modules or _has_plugins(sys.path):
        return False
    package = _package()
    if package is None:
        return False
    sys.modules["tensorflow"] = package
    with quiet.importing():
        import tensorflow.python.saved_model.loader_impl  # noqa: F401 - and with it the session
    return True


def _has_plugins(folders: Iterable[str]) -> bool:
    return any(map(os.environ.get, _PLUGINS)) or any(
        Path(folder, "tensorflow-plugins").exists() for folder in folders
    )


def _package() -> ModuleType | None:
    """TensorFlow's package, not executed before the first name that it does not have yet."""
    spec = find_spec("tensorflow")
    if spec is None or spec.loader is None:
        return None
    package, loader, lock = module_from_spec(spec), spec.loader, threading.RLock()
    whole = False

    def find(name: str) -> object:
        nonlocal whole
        with lock:
            if not whole and (name == "__version__" or not name.startswith("__")):
                whole = True
                loader.exec_module(package)
            if name in vars(package):
                return vars(package)[name]
        raise AttributeError(f"module 'tensorflow' has no attribute {name!r}")

    vars(package)["__getattr__"] = find
    return package
