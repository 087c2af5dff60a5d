"""Client and AsyncClient: segment images on TensorFlow Serving or the embedded server.

They need no TensorFlow. What is sent and how an answer is read is written once, in generators that
yield requests and pauses; each client drives them its own way, over REST (httpx) or gRPC (grpcio).
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, overload
from unicodedata import category, normalize
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from tf_groupvit.errors import ImageError, InputError, RequestError, one_line
from tf_groupvit.segmentation.class_names import ClassNames, parse_classes, refuse_twice
from tf_groupvit.segmentation.result import ImageLike, Segmentation, encode_image, several
from tf_groupvit.transport.grpc_transport import GrpcTransport
from tf_groupvit.transport.messages import NUMPY_OF
from tf_groupvit.transport.request import SIDES, Inputs, NotReachedError, Request
from tf_groupvit.transport.rest_transport import RestTransport

if TYPE_CHECKING:
    from grpc import Channel, aio
    from httpx import AsyncBaseTransport, BaseTransport

RETRIED = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
FIRST_PAUSE, LONGEST_PAUSE, READY_PAUSE = 0.1, 5.0, 0.25  # seconds
LONGEST_WAIT = 1.0  # seconds between two attempts to reach a server that is not there yet
MAX_ANSWER_BYTES = 64 * 2**20
NOT_SENT = (
    "A server's answer holds a mask, not pixel scores or groups: use a Segmenter where the"
    " model is."
)

# What is read of each answer. Exports of version 0.1 have no "error", which says why an image could
# not be read.
ERROR = {"error": "DT_STRING"}
MASKS = {"mask_bytes": "DT_STRING", "class_scores": "DT_FLOAT", "class_names": "DT_STRING"}
OUTPUTS = {
    "segment": MASKS | ERROR,
    "classify": {"class_names": "DT_STRING", "probabilities": "DT_FLOAT", **ERROR},
    "encode_image": {"image_embeds": "DT_FLOAT", **ERROR},
    "encode_text": {"text_embeds": "DT_FLOAT"},
}
ONE_EACH = ("mask_bytes", "error")  # (B); everything else is (B, N)
_log = logging.getLogger(__name__)

Errors = Literal["raise", "return"]
Arrays = Mapping[str, npt.ArrayLike]
Row = dict[str, Any]  # an answer's outputs for one row
Many = Iterable[ImageLike]
Images = ImageLike | Many
Classes = ClassNames | None
Name = str | None
Scores = dict[str, float]  # probability by class name, best first
Read = Callable[[bytes, Row], Any]  # an image and its row of the answer -> the result
# Generators that yield a request and the seconds for it, or None and the seconds of a pause; they
# are sent the answer.
Flow = Generator[tuple[Request | None, float], Any, Any]


class _ClientBase:
    """Every method of ``Client`` returns its result, of ``AsyncClient`` an awaitable of it.

    Args:
        address: ``http://host:port``, ``https://host:port``, ``grpc://host:port``; ``host:port`` is
            http.
        model_name: the name under which the server knows the model.
        version: a version number, or a label; None is the newest.
        timeout: seconds for one request with everything that belongs to it: connecting, waiting,
            retries, a slow answer.
        retries: how often a request is sent again when the server is UNAVAILABLE (503) or its
            resources are EXHAUSTED (429), after pauses that double from 0.1 s, with jitter. Nothing
            else is retried; 0 asks once.
        batch_size: images in one request.
        wait: whether a connection that is refused is tried again until ``timeout``, as the server
            may be starting; the logger ``tf_groupvit.client`` says so.
        max_answer_bytes: an answer with more, compressed or not, is an error.
        transport: an httpx transport (for ``AsyncClient`` an asynchronous one) or a grpc channel,
            in place of our own.

    Raises:
        InputError: an address, a class name or an input is not usable, or httpx or grpcio is not
            installed.
        ImageError: an image cannot be read, here or by the server: the first of them, with its
            ``index``, and as ``results`` what the others gave. It is raised after all others have
            been sent.
        RequestError: the server refuses, cannot be reached, or is no server of this model; ``code``
            says which, and ``results`` holds what requests before it gave.

    With ``errors="return"`` an image that cannot be read raises nothing: its ImageError is at its
    place in the result.
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
        wait: bool = True,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        transport: "BaseTransport | AsyncBaseTransport | Channel | aio.Channel | None" = None,
    ) -> None:
        if not timeout > 0:  # not a number is refused, too
            raise InputError(f"timeout is {timeout}: expected a number of seconds above 0.")
        if batch_size < 1:
            raise InputError(
                f"batch_size is {batch_size}: expected the images of one request, 1 or more."
            )
        scheme, host, address = _parse_address(address)
        local = host in ("localhost", "::1") or host.startswith("127.")  # no proxy leads there
        kind: Any = GrpcTransport if scheme == "grpc" else RestTransport
        awaited, spec = isinstance(self, AsyncClient), (model_name, version)
        self._transport = kind(address, spec, transport, local, awaited, max_answer_bytes)
        self._timeout, self._retries, self._batch_size = timeout, retries, batch_size
        self._waits = wait and retries > 0
        self._model = f"model '{model_name}' at {address}"
        self._signatures: dict[str, Any] = {}

    def _run(self, flow: Flow) -> Any:
        raise NotImplementedError

    def segment(
        self,
        images: Images,
        class_names: ClassNames | None = None,
        signature_name: str | None = None,
        *,
        errors: Errors = "raise",
    ) -> Any:
        """A ``Segmentation`` with labels (H, W) for an image, or a list of them for several.

        Images are paths, bytes, PIL images or uint8 arrays (H, W, 3). ``class_names`` take the
        place of the classes that the model was exported with: a list, one text with commas, or a
        dict of names and their synonyms, as a ``Segmenter`` takes them.
        """
        return self._run(self._segment(images, class_names, signature_name, errors))

    def classify(self, images: Images, *, errors: Errors = "raise") -> Any:
        """{class name: probability}, best first, of a whole image (H, W, 3); a list for several."""
        return self._run(self._images("classify", images, {}, "classify", errors, _probabilities))

    def encode_image(self, images: Images, *, errors: Errors = "raise") -> Any:
        """Normalized embedding (D), or (B, D) for several; a list with ``errors="return"``."""
        return self._run(self._encode_image(images, errors))

    def encode_text(self, texts: str | Sequence[str]) -> Any:
        """Normalized embedding (D) of a text, or (N, D) of a list, without a template.

        Texts are sent in composed form (NFC).
        """
        return self._run(self._encode_text(texts))

    def predict(self, inputs: Arrays, signature_name: str = "serving_default") -> Any:
        """{output: array} of any signature, in its dtypes and shapes.

        Strings are str, or bytes where an output's name ends in _bytes.
        """
        return self._run(self._predict(inputs, signature_name))

    def status(self) -> Any:
        """The versions, newest first.

        Each is ``{"version": 1, "state": "AVAILABLE", "error_code", "error_message"}``.
        """
        return self._run(self._ask(Request("status")))

    def metadata(self) -> Any:
        """The signatures of the model, with dtype and shape of each input and output.

        ``{"name", "version", "signatures": {name: {"inputs", "outputs": {name: {"dtype",
        "shape"}}}}}``.
        """
        return self._run(self._ask(Request("metadata")))

    def wait_until_ready(self, timeout: float = 60.0) -> Any:
        """Return None once a version is AVAILABLE.

        Raises:
            RequestError: DEADLINE_EXCEEDED when that takes longer than ``timeout`` seconds.
        """
        return self._run(self._wait(time.monotonic() + timeout, timeout))

    # The same as flows

    def _end(self) -> float:
        return time.monotonic() + self._timeout

    def _ask(self, request: Request, end: float | None = None, retries: int | None = None) -> Flow:
        """The answer to a request, sent again as ``retries`` and ``wait`` allow."""
        end = self._end() if end is None else end
        left = self._retries if retries is None else retries
        waits, logged, pause = self._waits and left > 0, False, FIRST_PAUSE
        while True:
            answer = yield request, max(end - time.monotonic(), 0.001)
            if not isinstance(answer, RequestError):
                return answer
            waiting = waits and isinstance(answer, NotReachedError)
            retried = waiting or (answer.code in RETRIED and left > 0)
            wait = pause * random.uniform(0.5, 1.0)
            if not retried or time.monotonic() + wait > end:
                raise answer
            if waiting and not logged:
                _log.warning(
                    "Nothing answers yet for %s: waiting up to %g s.", self._model, self._timeout
                )
                logged = True
            yield None, wait
            left -= not waiting
            pause = min(2 * pause, LONGEST_WAIT if waiting else LONGEST_PAUSE)

    def _rows(self, kind: str, inputs: Inputs, signature: str, end: float) -> Flow:
        """The outputs of ``kind`` for every row of the inputs: a list of Row."""
        names: Mapping[str, str] = OUTPUTS[kind]
        count = len(next(iter(inputs.values())))
        request = Request("predict", inputs, signature, names, rows=True, optional=tuple(ERROR))
        answer = {"error": np.full(count, "", object)} | (yield from self._ask(request, end))
        lost = [name for name in names if not _has_rows(answer.get(name), name, count)]
        if lost:
            shapes = one_line(str({name: np.shape(values) for name, values in answer.items()}))
            raise RequestError(
                "UNKNOWN",
                f"{count} rows of {', '.join(lost)} were expected of {self._model}, not the shapes"
                f" {shapes}: is it ours?",
            )
        return [{name: values[row] for name, values in answer.items()} for row in range(count)]

    def _images(
        self,
        kind: str,
        images: Images,
        inputs: Mapping[str, str],
        signature: str,
        errors: Errors,
        read: Read,
    ) -> Flow:
        """What ``read`` gives for an image, or a list for several; ``inputs`` are alike for all."""
        if errors not in ("raise", "return"):
            raise InputError(f"errors is expected as 'raise' or 'return', not as {errors!r}.")
        listed = several(images)
        given: list[Any] = [images] if listed is None else list(listed)
        results: list[Any] = [None] * len(given)
        batch: dict[int, bytes] = {}
        try:
            for place, image in enumerate(given):
                try:
                    batch[place] = encode_image(image)
                except ImageError as error:
                    results[place] = error
                if batch and (len(batch) == self._batch_size or place == len(given) - 1):
                    rows = yield from self._batch(kind, list(batch.values()), inputs, signature)
                    for (at, content), row in zip(batch.items(), rows, strict=True):
                        results[at] = self._result(given[at], content, row, read)
                    batch = {}
        except RequestError as error:
            error.results = results
            raise
        bad = [place for place, result in enumerate(results) if isinstance(result, ImageError)]
        for place in bad:
            results[place].index = place
        if bad and errors == "raise":
            results[bad[0]].results = results
            raise results[bad[0]]
        return results[0] if listed is None else results

    def _batch(
        self, kind: str, contents: list[bytes], inputs: Mapping[str, str], signature: str
    ) -> Flow:
        """A Row for each image. Where the server refuses all of them, each is sent alone.

        That is the answer where every image is bad, and of exports of version 0.1 where one is; but
        also where something else is wrong with the request, which an image that is surely good
        tells apart.
        """
        end = self._end()

        def ask(contents: list[bytes]) -> Flow:
            alike = {name: [value] * len(contents) for name, value in inputs.items()}
            return self._rows(kind, {"image_bytes": contents, **alike}, signature, end)

        try:
            return (yield from ask(contents))
        except RequestError as error:
            if error.code != "INVALID_ARGUMENT":
                raise
            refusal = error
        try:
            yield from ask([encode_image(np.zeros((32, 32, 3), np.uint8))])
        except RequestError as error:
            raise (refusal if error.code == "INVALID_ARGUMENT" else error) from None
        if len(contents) == 1:
            return [{"error": refusal.message}]
        rows: list[Row] = []
        for content in contents:
            try:
                rows += yield from ask([content])
            except RequestError as error:
                if error.code != "INVALID_ARGUMENT":
                    raise
                rows.append({"error": error.message})
        return rows

    def _result(self, image: object, content: bytes, row: Row, read: Read) -> Any:
        if row["error"]:
            name = str(image) if isinstance(image, (str, PathLike)) else "image"
            return ImageError(f"{name}: {one_line(row['error'])}")
        try:
            return read(content, row)
        except InputError as error:
            reason = one_line(str(error))
            raise RequestError(
                "UNKNOWN", f"The answer of {self._model} cannot be used: {reason}"
            ) from error

    def _segment(
        self, images: Images, class_names: ClassNames | None, signature: str | None, errors: Errors
    ) -> Flow:
        if class_names is None:
            signature = signature or "serving_default"
            return self._images("segment", images, {}, signature, errors, _segmentation)
        given = parse_classes(class_names)
        inputs = {"class_names": _join_classes(["|".join(names) for names in given])}
        called = {
            normalize("NFC", first): first for first, *_ in given
        }  # a result has the names as they were given
        read = lambda content, row: _segmentation(content, row, called)  # noqa: E731
        return self._images("segment", images, inputs, signature or "segment_open", errors, read)

    def _encode_image(self, images: Images, errors: Errors) -> Flow:
        found = yield from self._images(
            "encode_image", images, {}, "encode_image", errors, lambda _, row: row["image_embeds"]
        )
        return _stack(found) if isinstance(found, list) and errors == "raise" else found

    def _encode_text(self, texts: str | Sequence[str]) -> Flow:
        single = isinstance(texts, str)
        composed = [_composed(text) for text in ([texts] if single else texts)]
        rows: list[Row] = []
        for start in range(0, len(composed), self._batch_size):
            batch = {"text": composed[start : start + self._batch_size]}
            rows += yield from self._rows("encode_text", batch, "encode_text", self._end())
        embeds = [row["text_embeds"] for row in rows]
        return embeds[0] if single else _stack(embeds)

    def _predict(self, inputs: Arrays, signature: str) -> Flow:
        end = self._end()
        # Metadata are asked for again when a new version may have brought the signature.
        if signature not in self._signatures:
            self._signatures = (yield from self._ask(Request("metadata"), end))["signatures"]
        if signature not in self._signatures:
            known = one_line(", ".join(sorted(self._signatures)))
            raise InputError(
                f"There is no signature '{signature}' in {self._model}: choose from {known}."
            )
        wanted, given = (
            {n: t["dtype"] for n, t in self._signatures[signature][side].items()} for side in SIDES
        )
        if inputs.keys() != wanted.keys():
            raise InputError(
                f"'{signature}' takes {one_line(str(sorted(wanted)))}, not {sorted(inputs)}."
            )
        arrays = {name: _cast(name, value, wanted[name]) for name, value in inputs.items()}
        # Columns: the only form in REST that suits inputs and outputs of different lengths.
        return (yield from self._ask(Request("predict", arrays, signature, given), end))

    def _wait(self, end: float, timeout: float) -> Flow:
        seen = ""
        while True:
            try:
                versions = yield from self._ask(Request("status"), end, retries=0)
                if any(version["state"] == "AVAILABLE" for version in versions):
                    return
                states = [
                    f"version {v['version']} is {v['state']} {v['error_message']}"
                    for v in versions[:9]
                ]
                seen = one_line(", ".join(states))
            except RequestError as error:
                if error.code not in ("UNAVAILABLE", "NOT_FOUND", "DEADLINE_EXCEEDED"):
                    raise
                # The last look has little time; the one before says more than that it timed out.
                seen = (error.code == "DEADLINE_EXCEEDED" and seen) or error.message
            if time.monotonic() + READY_PAUSE >= end:
                raise RequestError(
                    "DEADLINE_EXCEEDED", f"{self._model} was not ready in {timeout:g} s: {seen}"
                )
            yield None, READY_PAUSE


class Client(_ClientBase):
    __doc__ = (
        f"A client that waits for each answer; a context manager.\n\n    {_ClientBase.__doc__}"
    )

    if TYPE_CHECKING:
        # A path and a file can be iterated over, but are one image.

        @overload  # type: ignore[override]
        def segment(  # type: ignore[overload-overlap]
            self, images: ImageLike, class_names: Classes = ..., signature_name: Name = ...
        ) -> Segmentation: ...
        @overload
        def segment(
            self, images: Many, class_names: Classes = ..., signature_name: Name = ...
        ) -> list[Segmentation]: ...
        @overload
        def segment(  # type: ignore[overload-overlap]
            self,
            images: ImageLike,
            class_names: Classes = ...,
            signature_name: Name = ...,
            *,
            errors: Errors,
        ) -> Segmentation | ImageError: ...
        @overload
        def segment(
            self,
            images: Many,
            class_names: Classes = ...,
            signature_name: Name = ...,
            *,
            errors: Errors,
        ) -> list[Segmentation | ImageError]: ...
        def segment(self, *arguments: Any, **keywords: Any) -> Any: ...

        @overload  # type: ignore[override]
        def classify(self, images: ImageLike) -> Scores: ...  # type: ignore[overload-overlap]
        @overload
        def classify(self, images: Many) -> list[Scores]: ...
        @overload
        def classify(  # type: ignore[overload-overlap]
            self, images: ImageLike, *, errors: Errors
        ) -> Scores | ImageError: ...
        @overload
        def classify(self, images: Many, *, errors: Errors) -> list[Scores | ImageError]: ...
        def classify(self, *arguments: Any, **keywords: Any) -> Any: ...

        @overload  # type: ignore[override]
        def encode_image(self, images: Images) -> np.ndarray: ...
        @overload
        def encode_image(
            self, images: Images, *, errors: Errors
        ) -> np.ndarray | ImageError | list[np.ndarray | ImageError]: ...
        def encode_image(self, *arguments: Any, **keywords: Any) -> Any: ...

        def encode_text(self, texts: str | Sequence[str]) -> np.ndarray: ...
        def predict(self, inputs: Arrays, signature_name: str = ...) -> dict[str, np.ndarray]: ...
        def status(self) -> list[dict[str, Any]]: ...
        def metadata(self) -> dict[str, Any]: ...
        def wait_until_ready(self, timeout: float = ...) -> None: ...

    def _run(self, flow: Flow) -> Any:
        answer = None
        while True:
            try:
                request, seconds = flow.send(answer)
            except StopIteration as end:
                return end.value
            if request is None:
                time.sleep(seconds)
            answer = request and self._transport.send(request, seconds)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_ClientBase):
    __doc__ = (
        "The same for asyncio: ``await`` every method; an asynchronous context manager.\n\n   "
        f" {_ClientBase.__doc__}"
    )

    if TYPE_CHECKING:

        @overload  # type: ignore[override]
        def segment(  # type: ignore[overload-overlap]
            self, images: ImageLike, class_names: Classes = ..., signature_name: Name = ...
        ) -> Awaitable[Segmentation]: ...
        @overload
        def segment(
            self, images: Many, class_names: Classes = ..., signature_name: Name = ...
        ) -> Awaitable[list[Segmentation]]: ...
        @overload
        def segment(  # type: ignore[overload-overlap]
            self,
            images: ImageLike,
            class_names: Classes = ...,
            signature_name: Name = ...,
            *,
            errors: Errors,
        ) -> Awaitable[Segmentation | ImageError]: ...
        @overload
        def segment(
            self,
            images: Many,
            class_names: Classes = ...,
            signature_name: Name = ...,
            *,
            errors: Errors,
        ) -> Awaitable[list[Segmentation | ImageError]]: ...
        def segment(self, *arguments: Any, **keywords: Any) -> Any: ...

        @overload  # type: ignore[override]
        def classify(self, images: ImageLike) -> Awaitable[Scores]: ...  # type: ignore[overload-overlap]
        @overload
        def classify(self, images: Many) -> Awaitable[list[Scores]]: ...
        @overload
        def classify(  # type: ignore[overload-overlap]
            self, images: ImageLike, *, errors: Errors
        ) -> Awaitable[Scores | ImageError]: ...
        @overload
        def classify(
            self, images: Many, *, errors: Errors
        ) -> Awaitable[list[Scores | ImageError]]: ...
        def classify(self, *arguments: Any, **keywords: Any) -> Any: ...

        @overload  # type: ignore[override]
        def encode_image(self, images: Images) -> Awaitable[np.ndarray]: ...
        @overload
        def encode_image(
            self, images: Images, *, errors: Errors
        ) -> Awaitable[np.ndarray | ImageError | list[np.ndarray | ImageError]]: ...
        def encode_image(self, *arguments: Any, **keywords: Any) -> Any: ...

        def encode_text(self, texts: str | Sequence[str]) -> Awaitable[np.ndarray]: ...
        def predict(
            self, inputs: Arrays, signature_name: str = ...
        ) -> Awaitable[dict[str, np.ndarray]]: ...
        def status(self) -> Awaitable[list[dict[str, Any]]]: ...
        def metadata(self) -> Awaitable[dict[str, Any]]: ...
        def wait_until_ready(self, timeout: float = ...) -> Awaitable[None]: ...

    async def _run(self, flow: Flow) -> Any:
        answer = None
        while True:
            try:
                request, seconds = flow.send(answer)
            except StopIteration as end:
                return end.value
            waiting = self._transport.send(request, seconds) if request else asyncio.sleep(seconds)
            answer = await waiting

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


# Checks of what the caller gave


def _parse_address(address: str) -> tuple[str, str, str]:
    """Scheme, host, and the address in full."""
    full = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(full)
        port = parts.port
    except ValueError as error:
        raise InputError(
            f"'{address}' is no address: {error}: write http://host:port or grpc://host:port."
        ) from error
    needs_port = parts.scheme == "grpc" or full != address
    if (
        parts.scheme not in ("http", "https", "grpc")
        or not parts.hostname
        or (needs_port and port is None)
    ):
        raise InputError(
            f"'{address}' is no address: write http://host:port, https://host:port or"
            " grpc://host:port."
        )
    return parts.scheme, parts.hostname, full.rstrip("/")


def _join_classes(class_names: ClassNames) -> str:
    """Classes as a request holds them, in composed form (NFC): "sofa|couch,cat"."""
    entries = [_composed("|".join(names)) for names in parse_classes(class_names)]
    refuse_twice([entry.split("|")[0] for entry in entries])
    for entry in entries:
        if "," in entry:
            raise InputError(
                f"The class '{entry}' has a comma in it, which separates classes in a request:"
                " leave it out."
            )
    return ",".join(entries)


def _composed(text: object) -> str:
    """A text in composed form (NFC): exports of version 0.1 know no other."""
    if not isinstance(text, str):
        raise InputError(
            f"Texts are expected as strings, not as {type(text).__name__}: {str(text)[:40]!r}."
        )
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError(
            f"A text has half of a surrogate pair, which is no UTF-8: clean it ({text[:40]!a})."
        )
    return normalize("NFC", text)


def _cast(name: str, value: npt.ArrayLike, dtype: str) -> np.ndarray:
    """An input in the dtype of its signature; what would lose a fraction or a kind is refused."""
    array = np.array(value, object) if dtype == "DT_STRING" else np.asarray(value)
    if dtype == "DT_STRING":
        fits = all(isinstance(item, (str, bytes)) for item in array.ravel())
    else:
        fits = dtype in NUMPY_OF and np.can_cast(array.dtype, NUMPY_OF[dtype], "same_kind")
    if not fits:
        raise InputError(
            f"Input '{name}' is expected as {dtype}, not as {array.dtype} {array.shape}."
        )
    return array.astype(NUMPY_OF[dtype])


# From a row of an answer, and the bytes of its image, to a result. Raise InputError where the row
# makes no sense.


def _has_rows(values: np.ndarray | None, name: str, count: int) -> bool:
    if values is None:
        return False
    return np.ndim(values) == 1 + (name not in ONE_EACH) and len(values) == count


def _names(row: Row) -> list[str]:
    names = list(row["class_names"])
    if any(category(character) == "Cc" for character in "".join(names)):
        raise InputError("control characters are in its class names.")
    return names


def _segmentation(
    content: bytes, row: Row, called: Mapping[str, str] | None = None
) -> Segmentation:
    names, scores = _names(row), row["class_scores"]
    if len(scores) != len(names):
        raise InputError(f"{len(names)} class names have {len(scores)} class scores.")
    while names and not names[-1]:  # padding: another image of the batch has more classes
        names.pop()
    names = [(called or {}).get(name, name) for name in names]
    return Segmentation.from_png(
        row["mask_bytes"], names, content, class_scores=scores[: len(names)], absence=NOT_SENT
    )


def _probabilities(_: bytes, row: Row) -> dict[str, float]:
    names, numbers = _names(row), row["probabilities"].tolist()
    if not len(set(names)) == len(names) == len(numbers):
        raise InputError(
            f"{len(set(names))} different class names have {len(numbers)} probabilities."
        )
    return dict(sorted(zip(names, numbers, strict=True), key=lambda pair: -pair[1]))


def _stack(embeds: list[np.ndarray]) -> np.ndarray:
    if len({len(embed) for embed in embeds}) > 1:
        raise RequestError(
            "UNKNOWN", "The embeddings differ in length: has the model changed meanwhile?"
        )
    return np.stack(embeds) if embeds else np.zeros((0, 0), np.float32)
