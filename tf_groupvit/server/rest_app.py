"""TensorFlow Serving's REST API: its routes, their handlers, and the ASGI application.

Requests that run a model are received in the event loop, admitted when their body is whole, and
worked on in a thread; everything else is answered in the event loop. `RestApp.answer` gives the
same answers without a socket.
"""

import asyncio
import contextlib
import re
import time
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote_to_bytes

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap

from tf_groupvit.server.admission import Arrival, Arrivals, ConcurrencyLimit, Deadline, Ticket
from tf_groupvit.server.config_files import prometheus_path
from tf_groupvit.server.grpc_service import metadata_response, status_response
from tf_groupvit.server.json_reader import JsonReader
from tf_groupvit.server.json_requests import Signatures, read_examples, read_predict
from tf_groupvit.server.json_responses import proto_json, write_error, write_predict
from tf_groupvit.server.model_manager import ModelManager
from tf_groupvit.server.monitoring import Metrics, logged_request
from tf_groupvit.server.options import Options
from tf_groupvit.server.predict import predict, refuse_inference
from tf_groupvit.server.servable import DEFAULT_SIGNATURE
from tf_groupvit.server.status import TIMED_OUT, StatusError, draining, invalid

JSON, TEXT, HTML = "application/json", "text/plain", "text/html"
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}
# What the real server's HTTP library lets through; TRACE, CONNECT and what it does not know get its
# page.
METHODS = {"GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"}
RUNNING = {"predict", "classify", "regress"}  # actions that need a body and a place
_GUNZIPPED_BYTES = 100 * 2**20  # of a gzip body, as in the real server
_CROWDED = "Too many requests are arriving at once, and this one was the slowest; try again later"

# The server matches its two patterns on the raw text, query included, so `?x=1` is part of a
# model's name.
_FLAGS = re.IGNORECASE | re.ASCII
_API = re.compile(r"/v1/.*", _FLAGS | re.DOTALL)
_VERSION = r"(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?"
_POST = re.compile(rf"/v1/models/([^/:]+){_VERSION}:(classify|regress|predict)", _FLAGS)
_GET = re.compile(rf"/v1/models(?:/([^/:]+))?{_VERSION}(?:/(metadata))?", _FLAGS)


@dataclass(frozen=True)
class Route:
    """What a method and a path ask for: an action, and mostly a model."""

    action: str
    model: str = ""
    version: int | None = None
    label: str | None = None


def route_of(method: str, target: str, metrics_path: str | None = None) -> Route:
    """The route of a method and a raw path with its query. Raises StatusError if malformed."""
    if method not in METHODS:
        return Route("not_implemented")
    if metrics_path is not None and target.partition("?")[0] == metrics_path:
        return Route("metrics")
    if not _API.fullmatch(target):
        return Route("not_found")
    if method == "OPTIONS":
        return Route("preflight")
    pattern = {"POST": _POST, "GET": _GET}.get(method)
    match = pattern.fullmatch(target) if pattern else None
    if match is None:
        raise invalid(f"Malformed request: {method} {target}")
    model, version, label, last = match.groups()
    number = (version or "").lstrip("0") or "0"
    if len(number) > 19 or int(number) >= 2**63:
        return Route("version_too_large")
    if method == "POST" and last not in RUNNING:  # the pattern takes :PREDICT, the server does not
        raise invalid(f"Malformed request: {method} {target}")
    if not model:
        raise invalid("Missing model name in request.")
    action = last if method == "POST" or last == "metadata" else "status"
    return Route(
        action,
        _unquote(model),
        int(number) if version else None,
        _unquote(label) if label else None,
    )


def _unquote(text: str) -> str:
    """Percent-decoded, as bytes."""
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode(
        "utf-8", "surrogateescape"
    )


class RestApp:
    """The application: ASGI for uvicorn, and a plain function for the same process."""

    def __init__(
        self, models: ModelManager, limit: ConcurrencyLimit, metrics: Metrics, options: Options
    ) -> None:
        self._models, self._limit, self._metrics = models, limit, metrics
        self._most_bytes = options.max_request_bytes
        self._receive_seconds = options.receive_timeout_seconds
        milliseconds = options.rest_api_timeout_in_ms
        self._timeout = milliseconds / 1e3 if milliseconds > 0 else None
        self._headers = CORS if options.rest_api_enable_cors_support else {}
        self._metrics_path = prometheus_path(options.monitoring_config_file)
        held = max(options.max_receiving_bytes, options.max_request_bytes)
        self.arrivals = Arrivals(options.max_receiving, held)
        self.reader = JsonReader(options.max_json_tokens)
        # A thread for each request that is admitted: those that wait, or are read by another
        # process, leave the slots of the limit to others.
        self._pool = ThreadPoolExecutor(limit.places, thread_name_prefix="rest")
        self.draining = False

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Response:
        """The answer to a whole request; ``target`` is the raw path and query.

        The names of ``headers`` are in lower case.
        """
        name = f"{method} {target}"
        try:
            route = route_of(method, target, self._metrics_path)
            if route.action not in RUNNING:
                return self._logged(name, 0, partial(self._look_up, route, target, headers))
            ticket = self._limit.admit()
            return self._work(name, route, headers, body, ticket, Deadline(self._timeout))
        except StatusError as error:
            return self._refuse(name, error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        target = _target_of(scope)
        name = f"{scope['method']} {target}"
        with contextlib.suppress(ClientDisconnect):
            try:
                response = await self._respond(Request(scope, receive), target, name)
            except asyncio.CancelledError:  # the server ends, and the request's time with it
                response = self._refuse(name, draining())
            if self.draining:
                response.headers["Connection"] = "close"
            await response(scope, receive, send)

    async def _respond(self, request: Request, target: str, name: str) -> Response:
        whole = True
        try:
            if self.draining:
                raise draining()
            route = route_of(request.method, target, self._metrics_path)
            if route.action not in RUNNING:
                work = partial(self._look_up, route, target, request.headers)
                return self._logged(name, 0, work)
            deadline, whole = Deadline(self._timeout), False
            declared = request.headers.get("content-length", "")
            if declared.isdigit() and int(declared) > self._most_bytes:
                raise self._too_large()
            arrival = self.arrivals.enter()
            try:
                body = await self._body(request, arrival, deadline)
                whole = True
                left, ticket = deadline.remaining(), self._limit.admit()
                given = (name, route, request.headers, body, ticket, deadline)
                job = asyncio.wrap_future(self._pool.submit(self._work, *given))
                return await asyncio.wait_for(asyncio.shield(job), left)
            except TimeoutError:  # the work goes on; its line in the log comes when it ends
                return self._error(StatusError("DEADLINE_EXCEEDED", TIMED_OUT))
            finally:
                self.arrivals.leave(arrival)
        except StatusError as error:
            return self._refuse(name, error, close=not whole)

    async def _body(self, request: Request, arrival: Arrival, deadline: Deadline) -> bytes:
        """The whole body. Raises StatusError where it is too large or takes too long."""
        left, parts = deadline.remaining(), []
        try:
            seconds = self._receive_seconds if left is None else min(left, self._receive_seconds)
            async with asyncio.timeout(seconds) as limit:
                arrival.drop = lambda: limit.reschedule(0)
                async for part in request.stream():
                    parts.append(part)
                    self.arrivals.grow(arrival, len(part))
                    if arrival.size > self._most_bytes:
                        raise self._too_large()
                self.arrivals.whole(arrival)
        except TimeoutError:
            if arrival.dropped:
                raise StatusError("RESOURCE_EXHAUSTED", _CROWDED) from None
            raise StatusError("DEADLINE_EXCEEDED", TIMED_OUT) from None
        return b"".join(parts)

    def close(self) -> None:
        """End the reader's processes; what runs in a thread is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.reader.close()

    # Responses

    def _response(
        self, status: int, body: bytes = b"", kind: str = "", close: bool = False
    ) -> Response:
        headers = self._headers | ({"Content-Type": kind} if kind else {})
        return Response(body, status, headers | ({"Connection": "close"} if close else {}))

    def _error(self, error: StatusError, close: bool = False) -> Response:
        return self._response(error.http_status, write_error(error.text), JSON, close)

    def _page(self, status: int, reason: str) -> Response:
        """The HTML page of the real server's HTTP library."""
        body = (
            f"<HTML><HEAD>\n<TITLE>{status} {reason}</TITLE>\n</HEAD><BODY>\n"
            f"<H1>{reason}</H1>\n</BODY></HTML>\n"
        )
        return self._response(status, body.encode(), HTML, close=True)

    def _too_large(self) -> StatusError:
        text = (
            f"The request body is larger than the {self._most_bytes} bytes that this server takes"
        )
        return StatusError("RESOURCE_EXHAUSTED", text, http_status=413)

    def _logged(self, name: str, size: int, work: Callable[[], Response]) -> Response:
        try:
            with logged_request("REST", name) as line:
                line.size = size
                return work()
        except StatusError as error:
            return self._error(error)

    def _refuse(self, name: str, error: StatusError, close: bool = False) -> Response:
        with contextlib.suppress(StatusError), logged_request("REST", name):
            raise error
        return self._error(error, close)

    # Handlers

    def _work(
        self,
        name: str,
        route: Route,
        headers: Mapping[str, str],
        body: bytes,
        ticket: Ticket,
        deadline: Deadline,
    ) -> Response:
        """Run a request that is admitted, in a thread of its own."""
        with ticket:
            work = partial(self._run, route, headers, body, ticket, deadline)
            return self._logged(name, len(body), work)

    def _look_up(self, route: Route, target: str, headers: Mapping[str, str]) -> Response:
        """Everything that runs no model."""
        match route.action:
            case "status":  # whose label is ignored
                text = proto_json(status_response(self._models, route.model, route.version))
            case "metadata":
                text = self._metadata(route)
            case "metrics" if target == self._metrics_path:
                return self._response(200, self._metrics.page().encode(), TEXT)
            case "metrics":
                text = f"Unexpected path: {target}. Should be {self._metrics_path}"
                return self._response(400, text.encode("utf-8", "surrogateescape"), TEXT)
            case "preflight":
                web = headers.get("origin", "").startswith(("http://", "https://"))
                return self._response(200 if web else 400)
            case "version_too_large":
                return self._response(400, b"", JSON)
            case "not_implemented":
                return self._page(501, "Not Implemented")
            case _:
                return self._page(404, "Not Found")
        return self._response(200, text.encode("utf-8", "surrogateescape"), JSON)

    def _metadata(self, route: Route) -> str:
        with self._models.use_named(route.model, route.version, route.label) as version:
            response = metadata_response(version)
        signatures = SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        spec = proto_json(response.model_spec, proto_names=True)
        signature_map = proto_json(signatures, proto_names=True)
        return f'{{\n"model_spec":{spec},\n"metadata": {{"signature_def": {signature_map}}}\n}}\n'

    def _run(
        self,
        route: Route,
        headers: Mapping[str, str],
        body: bytes,
        ticket: Ticket,
        deadline: Deadline,
    ) -> Response:
        ticket.start(deadline)
        body = gunzip(body) if "gzip" in headers.get("content-encoding", "") else body
        if len(body) > self._most_bytes:
            raise self._too_large()
        if route.action != "predict":
            signature, examples = self.reader.read(read_examples, body, deadline, ticket.paused)
            with self._models.use_named(route.model, route.version, route.label) as version:
                refuse_inference(version.loaded, signature, route.action, examples)
            raise AssertionError("refuse_inference refuses")
        started = time.perf_counter()
        try:
            text = self._predict(route, body, ticket, deadline)
        except StatusError as error:
            self._metrics.answered(route.model, error.code)
            raise
        self._metrics.answered(route.model, "OK")
        seconds = time.perf_counter() - started
        self._metrics.succeeded(route.model, "predict", "REST", seconds)
        return self._response(200, text, JSON)

    def _predict(self, route: Route, body: bytes, ticket: Ticket, deadline: Deadline) -> bytes:
        """Parse, run and write the answer, on one version of the model throughout."""
        with contextlib.ExitStack() as stack:
            try:
                held = self._models.use_named(route.model, route.version, route.label)
                version = stack.enter_context(held)
                types = {
                    name: signature.input_types
                    for name, signature in version.loaded.signatures.items()
                }
                signatures = Signatures(types, DEFAULT_SIGNATURE)
            except StatusError as error:  # which the body's own faults come before
                signatures = Signatures({}, DEFAULT_SIGNATURE, (error.code, error.text))
            form, name, arrays = self.reader.read(
                partial(read_predict, types_of=signatures), body, deadline, ticket.paused
            )
            signature = version.loaded.signatures[name or DEFAULT_SIGNATURE]
            left = deadline.remaining()
            outcome = predict(
                version.loaded, signature, arrays.keys(), arrays.__getitem__, timeout=left
            )
        self._metrics.ran(route.model, outcome.run_seconds)
        return write_predict(outcome.outputs, form, deadline.remaining)


def gunzip(body: bytes) -> bytes:
    """A gzip body unpacked; a broken or too large one counts as empty."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        text = inflater.decompress(body, _GUNZIPPED_BYTES)
    except zlib.error:
        return b""
    return text if inflater.eof else b""


def _target_of(scope: Scope) -> str:
    """The raw path with its query."""
    raw = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogateescape")
    query = scope.get("query_string", b"")
    return (raw + b"?" + query if query else raw).decode("utf-8", "surrogateescape")
