"""An address and images in, ``Segmentation``s out: for TensorFlow Serving and for the embedded server alike.

No TensorFlow. What is asked and how an answer is read is written once, as generators that yield what to send and how
long to pause; ``Client`` and ``AsyncClient`` drive them over one of two wires, REST (httpx) or gRPC (grpcio).
"""

import asyncio
import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tf_groupvit.errors import InputError, RequestError
from tf_groupvit.segmentation.class_names import parse_classes
from tf_groupvit.segmentation.result import Segmentation, encode_image
from tf_groupvit.wires.asks import SIDES, Ask
from tf_groupvit.wires.dtypes import NUMPY_OF
from tf_groupvit.wires.remote_calls import GrpcWire
from tf_groupvit.wires.rest import RestWire

RETRIED = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
FIRST_PAUSE, LONGEST_PAUSE, READY_PAUSE = 0.1, 5.0, 0.25  # seconds
NOT_SENT = "A server's answer holds a mask, not pixel scores or groups: use a Segmenter where the model is."

OUTPUTS = {
    "segment": {"mask_bytes": "DT_STRING", "class_scores": "DT_FLOAT", "class_names": "DT_STRING"},
    "classify": {"class_names": "DT_STRING", "probabilities": "DT_FLOAT"},
    "encode_image": {"image_embeds": "DT_FLOAT"},
    "encode_text": {"text_embeds": "DT_FLOAT"},
}

Step = tuple[Ask | None, float]  # ask within so many seconds; or, without an Ask, pause for so many
Flow = Generator[Step, Any, Any]


class _Questions:
    """All that can be asked. In ``Client`` every method returns its result, in ``AsyncClient`` an awaitable of it.

    Args:
        address: ``http://host:port``, ``https://host:port``, ``grpc://host:port``; ``host:port`` is http.
        model_name: the name under which the server knows the model.
        version: a version number, or a label; None is the newest.
        timeout: seconds for one request, its retries included; over REST no single wait for the network is longer.
        retries: how often a request is sent again when the server is UNAVAILABLE (503, or nothing listens) or its
            resources are EXHAUSTED (429), after pauses that double from 0.1 s, with jitter. Nothing else is retried.
        batch_size: images in one request.
        transport: an httpx transport (for ``AsyncClient`` an asynchronous one) or a grpc channel, in place of our own.

    Raises:
        InputError: an address, a class name or an input is not usable, or httpx or grpcio is not installed.
        ImageError: an image cannot be read.
        RequestError: the server refuses, cannot be reached, or is no server of this model; ``code`` says which.
    """

    def __init__(
        self,
        address: str,
        model_name: str = "groupvit",
        version: int | str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 3,
        batch_size: int = 8,
        transport: Any = None,
    ) -> None:
        scheme, host, address = _parsed(address)
        local = host in ("localhost", "::1") or host.startswith("127.")  # no proxy leads there
        wire = GrpcWire if scheme == "grpc" else RestWire
        self._wire: Any = wire(address, (model_name, version), transport, local, isinstance(self, AsyncClient))
        self._timeout, self._retries, self._batch_size = timeout, retries, batch_size
        self._model = f"model '{model_name}' at {address}"
        self._signatures: dict[str, Any] = {}

    def _run(self, flow: Flow) -> Any:
        raise NotImplementedError

    def segment(self, images: Any, class_names: Any = None, signature_name: str | None = None) -> Any:
        """One ``Segmentation`` for an image, a list for a list; images are paths, bytes, PIL or uint8 (H, W, 3).

        ``class_names`` take the place of the classes that the model was exported with: a list, one text with commas
        between them, or a dict of names and their synonyms, as a ``Segmenter`` takes them.
        """
        return self._run(self._segment(images, class_names, signature_name))

    def classify(self, images: Any) -> Any:
        """{class name: probability}, best first, of the whole image; a list of them for a list."""
        return self._run(self._classify(images))

    def encode_image(self, images: Any) -> Any:
        """Normalised embedding (D), or (B, D) for a list."""
        return self._run(self._encode("encode_image", "image_bytes", images, encode_image))

    def encode_text(self, texts: str | Sequence[str]) -> Any:
        """Normalised embedding (D) of a text, taken as it is, or (N, D) for a list."""
        return self._run(self._encode("encode_text", "text", texts, str))

    def predict(self, inputs: Mapping[str, Any], signature_name: str = "serving_default") -> Any:
        """{output: array} of any signature, in its dtypes; strings are str, or bytes where a name ends in _bytes."""
        return self._run(self._predict(inputs, signature_name))

    def status(self) -> Any:
        """The versions, newest first: ``[{"version": 1, "state": "AVAILABLE", "error_code", "error_message"}]``."""
        return self._run(self._ask(Ask("status")))

    def metadata(self) -> Any:
        """``{"name", "version", "signatures": {name: {"inputs", "outputs": {name: {"dtype", "shape"}}}}}``."""
        return self._run(self._ask(Ask("metadata")))

    def wait_until_ready(self, timeout: float = 60.0) -> Any:
        """Return None once a version is AVAILABLE; DEADLINE_EXCEEDED when that takes longer than ``timeout`` s."""
        return self._run(self._wait(time.monotonic() + timeout, timeout))

    # The same as flows

    def _ask(self, ask: Ask, timeout: float | None = None, retries: int | None = None) -> Flow:
        end = time.monotonic() + (self._timeout if timeout is None else timeout)
        left = self._retries if retries is None else retries
        pause = FIRST_PAUSE
        while True:
            answer = yield ask, max(end - time.monotonic(), 0.001)
            if not isinstance(answer, RequestError):
                return answer
            wait = pause * random.uniform(0.5, 1.0)
            if answer.code not in RETRIED or left < 1 or time.monotonic() + wait > end:
                raise answer
            yield None, wait
            left, pause = left - 1, min(2 * pause, LONGEST_PAUSE)

    def _rows(self, kind: str, inputs: Mapping[str, Sequence[Any]], signature: str) -> Flow:
        """The outputs of ``kind`` for every row of the inputs, batch by batch: a list of {output: value}."""
        names: Mapping[str, str] = OUTPUTS[kind]
        rows: list[dict[str, Any]] = []
        total = len(next(iter(inputs.values())))
        for start in range(0, total, self._batch_size):
            batch = {name: list(values[start : start + self._batch_size]) for name, values in inputs.items()}
            count = len(next(iter(batch.values())))
            answer = yield from self._ask(Ask("predict", batch, signature, names, rows=True))
            lost = [name for name in names if name not in answer or np.shape(answer[name])[:1] != (count,)]
            if lost:
                raise RequestError("UNKNOWN", f"{count} rows of {', '.join(lost)} were expected of {self._model}, "
                                   f"{ {k: np.shape(v) for k, v in answer.items()} } came: is it ours?")  # fmt: skip
            rows += [{name: answer[name][row] for name in names} for row in range(count)]
        return rows

    def _segment(self, images: Any, class_names: Any, signature: str | None) -> Flow:
        alone, contents = _listed(images, encode_image)
        inputs = {"image_bytes": contents}
        if class_names is not None:
            inputs["class_names"] = [_joined(class_names)] * len(contents)
        usual = "serving_default" if class_names is None else "segment_open"
        rows = yield from self._rows("segment", inputs, signature or usual)
        try:
            results = [_segmentation(content, row) for content, row in zip(contents, rows, strict=True)]
        except InputError as error:
            raise RequestError("UNKNOWN", f"The answer of {self._model} cannot be used: {error}") from error
        return results[0] if alone else results

    def _classify(self, images: Any) -> Flow:
        alone, contents = _listed(images, encode_image)
        rows = yield from self._rows("classify", {"image_bytes": contents}, "classify")
        pairs = [zip(row["class_names"], map(float, row["probabilities"]), strict=True) for row in rows]
        results = [dict(sorted(row, key=lambda pair: -pair[1])) for row in pairs]
        return results[0] if alone else results

    def _encode(self, kind: str, name: str, values: Any, encode: Callable[[Any], Any]) -> Flow:
        alone, contents = _listed(values, encode)
        rows = yield from self._rows(kind, {name: contents}, kind)
        embeds = [row[output] for row in rows for output in OUTPUTS[kind]]
        return embeds[0] if alone else np.stack(embeds) if embeds else np.zeros((0, 0), np.float32)

    def _predict(self, inputs: Mapping[str, Any], signature: str) -> Flow:
        if signature not in self._signatures:  # asked for again when a new version may have brought it
            self._signatures = (yield from self._ask(Ask("metadata")))["signatures"]
        if signature not in self._signatures:
            known = ", ".join(sorted(self._signatures))
            raise InputError(f"There is no signature '{signature}' in {self._model}: choose from {known}.")
        wanted, given = ({n: t["dtype"] for n, t in self._signatures[signature][side].items()} for side in SIDES)
        if inputs.keys() != wanted.keys():
            raise InputError(f"'{signature}' takes {sorted(wanted)}, {sorted(inputs)} came.")
        arrays = {name: _cast(name, value, wanted[name]) for name, value in inputs.items()}
        # Columns: the only form in REST that suits inputs and outputs of different lengths.
        answer = yield from self._ask(Ask("predict", arrays, signature, given))
        return answer

    def _wait(self, end: float, timeout: float) -> Flow:
        while True:
            try:
                versions = yield from self._ask(Ask("status"), max(end - time.monotonic(), 0.001), retries=0)
                if any(version["state"] == "AVAILABLE" for version in versions):
                    return
                seen = ", ".join(f"version {v['version']} is {v['state']} {v['error_message']}" for v in versions)
            except RequestError as error:
                if error.code not in ("UNAVAILABLE", "NOT_FOUND", "DEADLINE_EXCEEDED"):
                    raise
                seen = error.message
            if time.monotonic() + READY_PAUSE >= end:
                raise RequestError("DEADLINE_EXCEEDED", f"{self._model} was not ready in {timeout:g} s: {seen}")
            yield None, READY_PAUSE


class Client(_Questions):
    __doc__ = f"A client that waits for each answer; a context manager.\n\n    {_Questions.__doc__}"

    def _run(self, flow: Flow) -> Any:
        answer = None
        while True:
            try:
                ask, seconds = flow.send(answer)
            except StopIteration as end:
                return end.value
            if ask is None:
                time.sleep(seconds)
            answer = ask and self._wire.send(ask, seconds)

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Questions):
    __doc__ = (
        f"The same for asyncio: ``await`` every method; an asynchronous context manager.\n\n    {_Questions.__doc__}"
    )

    async def _run(self, flow: Flow) -> Any:
        answer = None
        while True:
            try:
                ask, seconds = flow.send(answer)
            except StopIteration as end:
                return end.value
            answer = await (self._wire.send(ask, seconds) if ask else asyncio.sleep(seconds))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._wire.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


# What the caller gave


def _parsed(address: str) -> tuple[str, str, str]:
    """Scheme, host, and the address in full."""
    full = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(full)
        port = parts.port
    except ValueError as error:
        raise InputError(f"'{address}' is no address: {error}: write http://host:port or grpc://host:port.") from error
    needs_port = parts.scheme == "grpc" or full != address
    if parts.scheme not in ("http", "https", "grpc") or not parts.hostname or (needs_port and port is None):
        raise InputError(f"'{address}' is no address: write http://host:port, https://host:port or grpc://host:port.")
    return parts.scheme, parts.hostname, full.rstrip("/")


def _listed(values: Any, encode: Callable[[Any], Any]) -> tuple[bool, list[Any]]:
    """Whether one came alone, and all of them encoded."""
    alone = not isinstance(values, (list, tuple))
    return alone, [encode(value) for value in ([values] if alone else values)]


def _joined(class_names: Any) -> str:
    """Classes as a request holds them: "sofa|couch,cat"."""
    entries = ["|".join(names) for names in parse_classes(class_names)]
    for entry in entries:
        if "," in entry:
            raise InputError(f"The class '{entry}' has a comma in it, which parts classes in a request: leave it out.")
    return ",".join(entries)


def _cast(name: str, value: Any, dtype: str) -> np.ndarray:
    """An input in the dtype of its signature; what would lose a fraction or a kind is refused."""
    array = np.array(value, object) if dtype == "DT_STRING" else np.asarray(value)
    if dtype == "DT_STRING":
        fits = all(isinstance(item, (str, bytes)) for item in array.ravel())
    else:
        fits = dtype in NUMPY_OF and np.can_cast(array.dtype, NUMPY_OF[dtype], "same_kind")
    if not fits:
        raise InputError(f"Input '{name}' is expected as {dtype}, {array.dtype} {array.shape} came.")
    return array.astype(NUMPY_OF[dtype])


def _segmentation(content: bytes, row: Mapping[str, Any]) -> Segmentation:
    names = list(row["class_names"])
    while names and not names[-1]:  # padding: another image of the batch has more classes
        names.pop()
    scores = row["class_scores"][: len(names)]
    return Segmentation.from_png(row["mask_bytes"], names, content, class_scores=scores, absence=NOT_SENT)
