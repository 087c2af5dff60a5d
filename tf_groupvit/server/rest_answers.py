"""REST answers: method, raw target, headers and body in; status, headers and body out. What HTTP
serves, without HTTP.

A plain function of its arguments, so that a socket, a test or a client in the same process reach
the same code.
"""

import re
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap

from tf_groupvit.server.admission import Deadline, Ticket
from tf_groupvit.server.answers import Answers, metadata_of
from tf_groupvit.server.json_apart import Reader
from tf_groupvit.server.json_reading import Signatures
from tf_groupvit.server.json_writing import proto_json, write_error, write_predict
from tf_groupvit.server.predict import predict, refuse_inference
from tf_groupvit.server.request_log import Line, RequestLog
from tf_groupvit.server.servable import DEFAULT_SIGNATURE
from tf_groupvit.server.status import TIMED_OUT, StatusError, invalid

JSON, TEXT, HTML = "application/json", "text/plain", "text/html"
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}
# What the real server's HTTP library lets through; TRACE, CONNECT and whatever it does not know get
# its page.
METHODS = {"GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"}
_INFLATED_BYTES = 100 * 2**20  # of a gzip body, as in the real server

# The server matches its two patterns on the raw text, query included, so `?x=1` is part of a
# model's name.
API = re.compile(r"/v1/.*", re.IGNORECASE | re.ASCII | re.DOTALL)
_VERSION = r"(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?"
_FLAGS = re.IGNORECASE | re.ASCII
_POST = re.compile(rf"/v1/models/([^/:]+){_VERSION}:(classify|regress|predict)", _FLAGS)
_GET = re.compile(rf"/v1/models(?:/([^/:]+))?{_VERSION}(?:/(metadata))?", _FLAGS)


@dataclass(frozen=True)
class Route:
    """What a path asks for. ``action`` is predict, classify, regress, status or metadata."""

    action: str
    model: str
    version: int | None = None
    label: str | None = None


class VersionTooLarge(Exception):  # noqa: N818 - an answer of its own: 400 with an empty body
    """The version does not fit 64 bits."""


def route_of(method: str, target: str) -> Route:
    """The route of a target below /v1/. Raises StatusError, or VersionTooLarge."""
    pattern = {"POST": _POST, "GET": _GET}.get(method)
    match = pattern.fullmatch(target) if pattern else None
    if match is None:
        raise invalid(f"Malformed request: {method} {target}")
    model, version, label, last = match.groups()
    number = (version or "").lstrip("0")
    if len(number) > 19 or int(number or 0) >= 2**63:
        raise VersionTooLarge
    action = last if method == "POST" else ("metadata" if last == "metadata" else "status")
    if method == "POST" and action not in ("predict", "classify", "regress"):
        raise invalid(
            f"Malformed request: {method} {target}"
        )  # the pattern takes :PREDICT, the server does not
    if not model:
        raise invalid("Missing model name in request.")
    return Route(
        action,
        decoded(model),
        int(number or 0) if version else None,
        decoded(label) if label else None,
    )


def decoded(text: str) -> str:
    """Percent-decoded, as bytes."""
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode(
        "utf-8", "surrogateescape"
    )


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def page(status: int, reason: str) -> Answer:
    """The HTML page of the real server's HTTP library."""
    body = (
        f"<HTML><HEAD>\n<TITLE>{status}"
        f" {reason}</TITLE>\n</HEAD><BODY>\n<H1>{reason}</H1>\n</BODY></HTML>\n"
    )
    return Answer(status, body.encode(), {"Content-Type": HTML, "Connection": "close"})


def refused(refusal: StatusError) -> Answer:
    return Answer(refusal.http_status, write_error(refusal.text), {"Content-Type": JSON})


def too_large(most: int) -> Answer:
    return Answer(
        413, write_error(f"The request body is larger than the {most} bytes that this server takes"),
        {"Content-Type": JSON},
    )  # fmt: skip


@dataclass
class RestAnswers:
    """A server's REST API."""

    answers: Answers
    log: RequestLog
    timeout: float | None = 30.0
    cors: bool = False
    prometheus_path: str | None = None
    reader: Reader = field(default_factory=Reader)
    max_request_bytes: int = 2**28

    def is_work(self, method: str, target: str) -> bool:
        """Whether answering needs a place in the gate and the request's body."""
        if method != "POST" or not API.fullmatch(target):
            return False
        try:
            route_of(method, target)
        except (StatusError, VersionTooLarge):
            return False
        return True

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The answer to a whole request. ``headers`` has lower-case names; ``target`` is the raw
        path and query.
        """
        try:
            if not self.is_work(method, target):
                return self.answer_aside(method, target, headers)
            with self.answers.gate.admit() as ticket:
                return self.answer_work(
                    method, target, headers, body, ticket, Deadline(self.timeout)
                )
        except StatusError as refusal:
            return self._dressed(refused(refusal))

    def answer_aside(self, method: str, target: str, headers: Mapping[str, str]) -> Answer:
        """Everything that runs no model: status, metadata, metrics, and what is malformed."""
        return self._dressed(
            self._timed(method, target, 0, lambda line: self._aside(method, target, headers))
        )

    def answer_work(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        ticket: Ticket,
        deadline: Deadline,
    ) -> Answer:
        """A predict, classify or regress request that has a place."""
        return self._dressed(
            self._timed(
                method,
                target,
                len(body),
                lambda line: self._work(target, headers, body, ticket, deadline),
            )
        )

    def refuse(self, method: str, target: str, refusal: StatusError) -> Answer:
        """A request that was not admitted."""
        line = Line("REST", f"{method} {target}")
        line.refused(refusal)
        self.log.write(line)
        return self._dressed(refused(refusal))

    def late(self) -> Answer:
        """The answer to a request whose time is over while it is at work; its line in the log comes
        when that ends.
        """
        return self._dressed(refused(StatusError("DEADLINE_EXCEEDED", TIMED_OUT)))

    def _dressed(self, answer: Answer) -> Answer:
        return Answer(answer.status, answer.body, answer.headers | CORS) if self.cors else answer

    def _timed(self, method: str, target: str, size: int, run: Callable[[Line], Answer]) -> Answer:
        try:
            with self.log.request("REST", f"{method} {target}") as line:
                line.size = size
                return run(line)
        except StatusError as refusal:
            return refused(refusal)

    def _aside(self, method: str, target: str, headers: Mapping[str, str]) -> Answer:
        if method not in METHODS:
            return page(501, "Not Implemented")
        if self.prometheus_path is not None and target.partition("?")[0] == self.prometheus_path:
            return self._metrics(target)
        if not API.fullmatch(target):
            return page(404, "Not Found")
        if method == "OPTIONS":
            origin = headers.get("origin", "").startswith(("http://", "https://"))
            return Answer(200 if origin else 400)
        try:
            route = route_of(method, target)
        except VersionTooLarge:
            return Answer(400, b"", {"Content-Type": JSON})
        text = self._metadata(route) if route.action == "metadata" else self._status(route)
        return Answer(200, text.encode("utf-8", "surrogateescape"), {"Content-Type": JSON})

    def _metrics(self, target: str) -> Answer:
        if target != self.prometheus_path:
            text = f"Unexpected path: {target}. Should be {self.prometheus_path}"
            return Answer(400, text.encode("utf-8", "surrogateescape"), {"Content-Type": TEXT})
        return Answer(200, self.answers.metrics.page().encode(), {"Content-Type": TEXT})

    def _status(self, route: Route) -> str:
        return proto_json(
            self.answers.status_of(route.model, route.version)
        )  # the label is ignored

    def _metadata(self, route: Route) -> str:
        with self.answers.models.use_named(route.model, route.version, route.label) as version:
            response = metadata_of(version)
        signatures = SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        spec, map_ = (
            proto_json(part, proto_names=True) for part in (response.model_spec, signatures)
        )
        return f'{{\n"model_spec":{spec},\n"metadata": {{"signature_def": {map_}}}\n}}\n'

    def _work(
        self,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        ticket: Ticket,
        deadline: Deadline,
    ) -> Answer:
        route = route_of("POST", target)
        ticket.start(deadline)
        body = inflated(body) if "gzip" in headers.get("content-encoding", "") else body
        if len(body) > self.max_request_bytes:
            return too_large(self.max_request_bytes)
        if route.action == "predict":
            text = self._counted_predict(route, body, deadline)
            return Answer(200, text, {"Content-Type": JSON})
        signature, examples = self.reader.examples(body, deadline)
        with self.answers.models.use_named(route.model, route.version, route.label) as version:
            refuse_inference(version.loaded, signature, route.action, examples)
        raise AssertionError("refuse_inference refuses")

    def _counted_predict(self, route: Route, body: bytes, deadline: Deadline) -> bytes:
        started, metrics = time.perf_counter(), self.answers.metrics
        try:
            text = self._predict(route, body, deadline)
        except StatusError as refusal:
            metrics.answered(route.model, refusal.code)
            raise
        metrics.answered(route.model, "OK")
        metrics.succeeded(route.model, "predict", "REST", time.perf_counter() - started)
        return text

    def _predict(self, route: Route, body: bytes, deadline: Deadline) -> bytes:
        """Parse, find the model, run it and write the answer, on one version from beginning to end."""
        with ExitStack() as stack:
            try:
                held = self.answers.models.use_named(route.model, route.version, route.label)
                version = stack.enter_context(held)
                types = {
                    name: signature.input_types
                    for name, signature in version.loaded.signatures.items()
                }
                signatures = Signatures(types, DEFAULT_SIGNATURE)
            except StatusError as refusal:  # which the body's own faults come before
                signatures = Signatures({}, DEFAULT_SIGNATURE, (refusal.code, refusal.text))
            form, name, arrays = self.reader.predict(body, signatures, deadline)
            signature = version.loaded.signatures[name or DEFAULT_SIGNATURE]
            outcome = predict(
                version.loaded,
                signature,
                arrays.keys(),
                arrays.__getitem__,
                (),
                deadline.remaining(),
            )
        self.answers.metrics.ran(route.model, outcome.run_seconds)
        return write_predict(outcome.outputs, form)


def inflated(body: bytes) -> bytes:
    """A gzip body unpacked; a broken or too large one counts as empty."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        text = inflater.decompress(body, _INFLATED_BYTES)
    except zlib.error:
        return b""
    return text if inflater.eof else b""
