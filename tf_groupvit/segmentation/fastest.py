"""``runtime="auto"``: the runtime that answers one picture fastest on this machine.

It is measured once, and remembered in a file of the user's cache, one for each machine, version,
setting of threads, model and size. Whatever is wrong with that file, it is measured again.
"""

import hashlib
import itertools
import json
import math
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_groupvit.errors import InputError, one_line
from tf_groupvit.files import atomic_write, make_folder, read_json
from tf_groupvit.models.base_model import check_process
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.models.optimized import can_be_optimized, optimized
from tf_groupvit.quiet import held_back
from tf_groupvit.runtimes import GRAPH, LITE_INT8, RUNTIMES, check_runtime
from tf_groupvit.segmentation.pipeline import encode_values
from tf_groupvit.segmentation.settings import Settings

CALLS = 7  # that are timed of each runtime, in turns, after two that are not
PACKAGES = (
    *("tf-groupvit", "tensorflow", "keras", "numpy"),
    *("ai-edge-litert", "openvino", "onnxruntime", "tf2onnx"),
)
VARIABLES = ("TF_", "OMP_", "KMP_", "ONEDNN_", "DNNL_", "OV_", "CUDA_VISIBLE_DEVICES")


def fastest(model: TFGroupViTModel, settings: Settings) -> str:
    """The name of the runtime that is fastest for one square or window; exact ones only.

    One line on standard error says which, and why. Raises ``InputError`` in a process that was
    forked.
    """
    check_process()
    if not can_be_optimized(model):
        _say(GRAPH, "no other runtime can run this model")
        return GRAPH
    side = settings.window
    size = (side, side) if settings.mode == "window" else settings.size
    names = [name for name in RUNTIMES if name != LITE_INT8 and _is_installed(name)]
    facts = _digest(_facts(model, names, size))
    file = _cache() / f"runtime-{facts[:32]}.json"
    seconds, how = _remembered(file, facts, names), "remembered"
    if seconds is None:
        seconds, how = measured(model, names, size), "measured"
        _remember(file, {"facts": facts, "seconds": seconds})
    chosen = min(seconds, key=lambda name: seconds[name])
    said = ", ".join(f"{name} {each * 1e3:.0f} ms" for name, each in seconds.items())
    _say(chosen, f"{how} for one image of {size[0]} x {size[1]}: {said}")
    return chosen


def measured(model: TFGroupViTModel, names: list[str], size: tuple[int, int]) -> dict[str, float]:
    """Runtime -> seconds of the model's look at one picture: the shortest of some calls, in turns,
    since whatever else the machine does only adds.

    A runtime that fails here is left out.
    """
    pixels = np.zeros((1, model.config.vision_config.num_channels, *size), "float32")
    running, rows = dict[str, TFGroupViTModel](), dict[str, list[float]]()
    for name in names:
        try:
            runs = model if name == GRAPH else optimized(model, name)
            with held_back():  # what compilers write to standard error
                for _ in range(2):
                    encode_values(runs, None, pixels)
        except Exception as error:  # whatever keeps another runtime from running this model
            if name == GRAPH:
                raise
            print(f"runtime {name!r} is left out: {one_line(error)}", file=sys.stderr)
            continue
        running[name], rows[name] = runs, []
    for _ in range(CALLS):
        for name, runs in running.items():
            started = time.perf_counter()
            np.asarray(encode_values(runs, None, pixels)["group_embeds"])  # waits for a GPU
            rows[name].append(time.perf_counter() - started)
    return {name: min(row) for name, row in rows.items()}


def _say(chosen: str, why: str) -> None:
    kept = "" if chosen == GRAPH else "; it keeps the weights as they are now until refresh()"
    print(f"Runtime {chosen!r} is taken, {why}{kept}.", file=sys.stderr)


def _is_installed(name: str) -> bool:
    try:
        check_runtime(name)
    except InputError:
        return False
    return True


def _facts(model: TFGroupViTModel, names: list[str], size: tuple[int, int]) -> dict[str, Any]:
    """All that decides which runtime is fastest."""
    threading = tf.config.threading
    return {
        "runtimes": names,
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "processor": _processor(),
        "processors": [os.cpu_count(), len(getattr(os, "sched_getaffinity", lambda _: ())(0))],
        "share": _lines("/sys/fs/cgroup/cpu.max"),  # of the processors, in a container
        "devices": [
            [device.name, str(tf.config.experimental.get_device_details(device))]
            for device in tf.config.get_visible_devices()
        ],
        "compiler": tf.config.optimizer.get_jit(),
        "threads": [
            threading.get_intra_op_parallelism_threads(),
            threading.get_inter_op_parallelism_threads(),
        ],
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)
        },
        "model": json.loads(json.dumps(model.config.to_dict(), default=str)),
        "size": list(size),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> list[str]:
    """Its name and instructions, as Linux tells them; elsewhere as Python does."""
    lines = [*itertools.takewhile(bool, _lines("/proc/cpuinfo"))]
    found = [line for line in lines if line.startswith(("model", "flags", "Features", "CPU"))]
    return [platform.machine(), platform.processor(), *found]


def _lines(file: str) -> list[str]:
    """What Linux tells in a file of its own; elsewhere nothing."""
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []


def _cache() -> Path:
    """This package's folder in the user's cache."""
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "tf_groupvit"


def _digest(facts: dict[str, Any]) -> str:
    """It takes their place in the file: Terraform's variables, which begin with TF_ as well, may
    be secrets.
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _remembered(file: Path, facts: str, names: list[str]) -> dict[str, float] | None:
    """The seconds in the file, if it is whole, about just these facts, and of these runtimes."""
    try:
        found = read_json(file, InputError)
    except InputError:
        return None
    seconds = found.get("seconds")
    if found.get("facts") != facts or not isinstance(seconds, dict) or not seconds:
        return None
    numbers = all(isinstance(each, float) and 0 < each < math.inf for each in seconds.values())
    return seconds if numbers and set(seconds) <= set(names) else None


def _remember(file: Path, content: dict[str, Any]) -> None:
    """Write the file, or leave it, where none can be written, or the user's folder is not known."""
    if not file.is_absolute():
        return
    try:
        make_folder(file.parent)
        atomic_write(file, json.dumps(content))
    except (InputError, OSError):
        return
