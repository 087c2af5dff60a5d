"""What a fresh process pays until its first answers. Runs in a process of its own, with the package
to be measured on its PYTHONPATH, and prints JSON: name -> [seconds, of them by the processor], or
an amount.

    from_cold.py python CHECKPOINT PHOTO CLASSES STARTED    STARTED: time.monotonic() before it was
    from_cold.py session VERSION_FOLDER REQUESTS            a pickle, as signature_requests gives it
    from_cold.py export CHECKPOINT BASE_PATH CLASSES
"""

import json
import multiprocessing
import pickle
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LATER = 5  # calls after the first, with the same photo
STEADY = 10  # calls, whose median is what a call takes in the long run
Found = dict[str, Any]


class Watch:
    """Seconds by the clock and by the processor since the last look."""

    def __init__(self) -> None:
        self.last = time.perf_counter(), time.process_time()

    def lap(self) -> list[float]:
        now = time.perf_counter(), time.process_time()
        passed = [now[0] - self.last[0], now[1] - self.last[1]]
        self.last = now
        return passed


def memory(key: str = "VmRSS:") -> int:
    """MiB, as Linux tells them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) // 1024


def python(checkpoint: str, photo: str, classes: str, started: str) -> Found:
    """Import, load, and calls of a segmenter."""
    watch, found = Watch(), Found()
    from tf_groupvit import Segmenter

    found["import"] = watch.lap()
    found["MiB after the import"] = memory()
    segmenter = Segmenter.from_pretrained(checkpoint, classes=classes)
    found["from_pretrained"] = watch.lap()
    found["MiB after loading"] = memory()
    watch.lap()
    segmenter(photo)
    found["call 1"] = watch.lap()
    found["start to first mask"] = [time.monotonic() - float(started), time.process_time()]
    watch.lap()
    later = []
    for number in range(2, 1 + LATER):
        segmenter(photo)
        later.append(watch.lap())
        found[f"call {number}"] = later[-1]
    other = larger(photo)
    watch.lap()
    segmenter(other)
    found["call with a photo of another size"] = watch.lap()
    found["MiB after the calls"] = memory()
    found["MiB at most"] = memory("VmHWM:")
    steady = steadily(lambda: segmenter(photo))
    found["steady call"] = steady
    slowest = max(seconds for seconds, _ in later)
    found["slowest of calls 2 to 5, times the steady one"] = slowest / steady[0]
    return found


def larger(photo: str) -> Any:
    """The photo's pixels, (H, W, 3), a quarter larger."""
    import numpy as np
    from PIL import Image

    image = Image.open(photo).convert("RGB")
    return np.asarray(image.resize((image.width * 5 // 4, image.height * 5 // 4)))


def steadily(call: Any) -> list[float]:
    watch, laps = Watch(), []
    for _ in range(STEADY):
        call()
        laps.append(watch.lap())
    return [statistics.median(one) for one in zip(*laps, strict=True)]


def session(folder: str, requests: str) -> Found:
    """Every signature in a session and process of its own, then all in one, in their order."""
    import tensorflow as tf

    asked, found = pickle.loads(Path(requests).read_bytes()), Found()
    found |= {f"nodes: {name}": count for name, count in weigh(Path(folder)).items()}
    known = [name for name in asked if name in signatures_of(Path(folder))]
    for name in known:
        with multiprocessing.get_context("fork").Pool(1) as apart:
            load, answer = apart.apply(first_answer, (folder, name, asked[name]))
        found[f"alone: {name}"] = answer
        found[f"load and {name}, alone"] = [a + b for a, b in zip(load, answer, strict=True)]
    held, watch = memory(), Watch()
    found["MiB of TensorFlow"] = held
    run = loaded(tf, folder)
    found["load"] = watch.lap()
    found["MiB more after loading"] = memory() - held
    watch.lap()
    for name in known:
        run(name, asked[name])
        found[f"in turn: {name}"] = watch.lap()
        if name == known[0]:
            found[f"MiB more after {name}"] = memory() - held
            watch.lap()
    found["MiB more after all"] = memory() - held
    found[f"steady {known[0]}"] = steadily(lambda: run(known[0], asked[known[0]]))
    return found


def first_answer(folder: str, name: str, inputs: dict[str, Any]) -> tuple[list[float], list[float]]:
    import tensorflow as tf

    watch = Watch()
    run = loaded(tf, folder)
    load = watch.lap()
    run(name, inputs)
    return load, watch.lap()


def loaded(tf: Any, folder: str) -> Any:
    """A function of signature and inputs, in a session as a server makes it."""
    running = tf.compat.v1.Session(graph=tf.Graph())
    with running.graph.as_default():
        known = tf.compat.v1.saved_model.load(running, ["serve"], folder).signature_def

    def run(name: str, inputs: dict[str, Any]) -> Any:
        outputs = {key: tensor.name for key, tensor in known[name].outputs.items()}
        return running.run(outputs, {known[name].inputs[key].name: inputs[key] for key in inputs})

    return run


def signatures_of(folder: Path) -> set[str]:
    return set(meta_graph(folder).signature_def)


def weigh(folder: Path) -> dict[str, int]:
    """Nodes of the main graph, and of every function's body times the places that call it."""
    graph = meta_graph(folder).graph_def
    functions = {one.signature.name: one.node_def for one in graph.library.function}
    calls: Counter[str] = Counter()
    for nodes in (graph.node, *functions.values()):
        for node in nodes:
            calls.update(callees(node))
    bodies = sum(calls[name] * len(nodes) for name, nodes in functions.items())
    return {"main graph": len(graph.node), "with bodies at each call": len(graph.node) + bodies}


def callees(node: Any) -> Iterator[str]:
    """Names of the functions that a node calls, among others."""
    yield node.op
    for value in node.attr.values():
        yield value.func.name
        yield from (function.name for function in value.list.func)


def meta_graph(folder: Path) -> Any:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    content = (folder / "saved_model.pb").read_bytes()
    return SavedModel.FromString(content).meta_graphs[0]


def export(checkpoint: str, base: str, classes: str) -> Found:
    from tf_groupvit.export import export_saved_model
    from tf_groupvit.segmentation.segmenter import Segmenter

    segmenter, watch = Segmenter.from_pretrained(checkpoint, classes=classes), Watch()
    export_saved_model(segmenter, base)
    size = sum(file.stat().st_size for file in Path(base).rglob("*") if file.is_file())
    return {"export": watch.lap(), "MiB on disk": size // 2**20}


WAYS: dict[str, Callable[..., Found]] = {"python": python, "session": session, "export": export}

if __name__ == "__main__":
    print(json.dumps(WAYS[sys.argv[1]](*sys.argv[2:])))
