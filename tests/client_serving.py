"""A small stand-in for TensorFlow Serving, over REST and gRPC, and the four ways to ask it."""

import asyncio
import base64
import io
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import numpy as np
from PIL import Image, ImageOps

from tf_groupvit.client import AsyncClient, Client
from tf_groupvit.transport.messages import NUMBER_OF, NUMPY_OF, fill, from_tensor, message_classes

NAMES = ["background", "dog", "cat"]
PHOTO = np.zeros((4, 6, 3), np.uint8)
PHOTO[:, 3:] = 255
TALL = Image.Exif()
TALL[0x0112] = 6


def encoded(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


# A model that calls the dark half class 0 and the bright half class 1, with what it was asked and
# how often


def looked_at(contents):
    """Gray pixels of each image, or None, and why; refused where all are bad."""
    pixels, words = [], []
    for content in contents:
        try:
            pixels.append(
                np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("L"))
            )
            words.append("")
        except OSError:
            pixels.append(None)
            words.append(f"Expected an image, came {len(content)} bytes.")
    if contents and all(words):
        raise RefusalError("INVALID_ARGUMENT", words[0])
    return pixels, words


def segment(contents, classes):
    names, longest = classes, max(map(len, classes))
    pixels, words = looked_at(contents)
    masks = [b"" if grey is None else encoded((grey > 127).astype(np.uint8)) for grey in pixels]
    return {
        "mask_bytes": ("DT_STRING", masks),
        "error": ("DT_STRING", words),
        "class_scores": (
            "DT_FLOAT",
            [[0.5] * len(row) + [0.0] * (longest - len(row)) for row in names],
        ),
        "class_areas": (
            "DT_FLOAT",
            [[0.25] * len(row) + [0.0] * (longest - len(row)) for row in names],
        ),
        "class_names": ("DT_STRING", [row + [""] * (longest - len(row)) for row in names]),
    }


def embed(values):
    return [[float(len(value)), 1.0, -0.5] for value in values]


def listed(names):
    return [["background", *(name.strip() for name in text.split(","))] for text in names]


def classify(image_bytes):
    return {
        "error": ("DT_STRING", looked_at(image_bytes)[1]),
        "class_names": ("DT_STRING", [["dog", "cat"]] * len(image_bytes)),
        "probabilities": ("DT_FLOAT", [[0.25, 0.75]] * len(image_bytes)),
    }


def kinds(f, i, b, s):
    strings = ("DT_STRING", s)
    return {
        "f": ("DT_FLOAT", f),
        "i": ("DT_INT64", i),
        "b": ("DT_BOOL", b),
        "s": strings,
        "s_bytes": strings,
    }


SIGNATURES: dict[str, Any] = {
    "serving_default": lambda image_bytes: segment(image_bytes, [NAMES] * len(image_bytes)),
    "segment_open": lambda image_bytes, class_names: segment(image_bytes, listed(class_names)),
    "classify": classify,
    "encode_image": lambda image_bytes: {
        "image_embeds": ("DT_FLOAT", embed(image_bytes)),
        "error": ("DT_STRING", looked_at(image_bytes)[1]),
    },
    "encode_text": lambda text: {"text_embeds": ("DT_FLOAT", embed(text))},
    "total": lambda x: {"total": ("DT_FLOAT", float(np.sum(x)))},
    "kinds": kinds,
}
INPUTS = {
    "total": {"x": "DT_FLOAT"},
    "kinds": {"f": "DT_FLOAT", "i": "DT_INT64", "b": "DT_BOOL", "s": "DT_STRING"},
    "encode_text": {"text": "DT_STRING"},
}
OUTPUTS = {
    "total": {"total": "DT_FLOAT"},
    "kinds": {
        "f": "DT_FLOAT",
        "i": "DT_INT64",
        "b": "DT_BOOL",
        "s": "DT_STRING",
        "s_bytes": "DT_STRING",
    },
    "encode_text": {"text_embeds": "DT_FLOAT"},
}


class RefusalError(Exception):
    def __init__(self, code, message):
        self.code, self.message = code, message


class Serving:
    """What REST and gRPC hand their requests to."""

    def __init__(self):
        self.asked, self.refusals, self.slow, self.state = [], [], 0.0, 30

    def arrive(self, model, version, label):
        time.sleep(self.slow)
        if self.refusals:
            raise RefusalError(*self.refusals.pop(0))
        if model != "groupvit" or version not in (None, 7):
            spec = f"Latest({model})" if version is None else f"Specific({model}, {version})"
            raise RefusalError("NOT_FOUND", f"Servable not found for request: {spec}")
        if label not in (None, "stable"):
            raise RefusalError("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")

    def predict(self, signature, inputs):
        self.asked.append(
            (
                signature,
                {name: len(np.atleast_1d(np.asarray(v, object))) for name, v in inputs.items()},
            )
        )
        if signature not in SIGNATURES:
            raise RefusalError(
                "INVALID_ARGUMENT",
                f'Serving signature name: "{signature}" not found in signature def',
            )
        return SIGNATURES[signature](**inputs)


HTTP = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
}
ROUTE = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(:predict|/metadata)?"
STATES = {20: "LOADING", 30: "AVAILABLE"}


def plain(value):
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return [plain(item) for item in value] if isinstance(value, list) else value


def written(name, value):
    if isinstance(value, list):
        return [written(name, item) for item in value]
    if name.endswith("_bytes"):
        return {
            "b64": base64.b64encode(value if isinstance(value, bytes) else value.encode()).decode()
        }
    return value


def declared(name):
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    return {
        side: {
            key: {"dtype": dtype, "tensor_shape": shape, "name": "t:0"}
            for key, dtype in table.get(name, {}).items()
        }
        for side, table in (("inputs", INPUTS), ("outputs", OUTPUTS))
    }


def rest(serving):
    """REST as in the contract, sections 2 to 6."""

    def answer(request):
        model, version, label, tail = re.findall(f"^{ROUTE}$", request.url.path)[0]
        serving.arrive(model, int(version) if version else None, label or None)
        if not tail:
            status = {"error_code": "OK", "error_message": ""}
            return {
                "model_version_status": [
                    {"version": "7", "state": STATES[serving.state], "status": status}
                ]
            }
        if tail == "/metadata":
            sides = {name: declared(name) for name in [*SIGNATURES, "__saved_model_init_op"]}
            spec = {"name": model, "signature_name": "", "version": "7"}
            return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": sides}}}
        body = json.loads(request.content)
        if "instances" in body:
            inputs = {
                name: [plain(row[name]) for row in body["instances"]]
                for name in body["instances"][0]
            }
        else:
            inputs = {name: plain(value) for name, value in body["inputs"].items()}
        outputs = {
            name: written(name, v)
            for name, (_, v) in serving.predict(body["signature_name"], inputs).items()
        }
        values = list(outputs.values())
        if "inputs" in body:
            return {"outputs": outputs if len(outputs) > 1 else values[0]}
        rows = [dict(zip(outputs, row, strict=True)) for row in zip(*values, strict=True)]
        return {"predictions": rows if len(outputs) > 1 else values[0]}

    def handle(request):
        try:
            return httpx.Response(200, json=answer(request))
        except RefusalError as refusal:
            return httpx.Response(HTTP[refusal.code], json={"error": refusal.message})

    return httpx.MockTransport(handle)


def grpc_server(serving, port=0):
    """gRPC as in the contract, section 7, on a port of loopback, a free one unless given."""
    messages = message_classes()

    def guarded(function):
        def call(request, context):
            spec = request.model_spec
            version = spec.version.value if spec.HasField("version") else None
            try:
                serving.arrive(spec.name, version, spec.version_label or None)
                return function(request)
            except RefusalError as refusal:
                context.abort(getattr(grpc.StatusCode, refusal.code), refusal.message)

        return call

    def predict(request):
        inputs = {}
        for name, tensor in request.inputs.items():
            values = from_tensor(f"{name}_bytes", tensor)  # bytes, as a server sees them
            text = values.dtype == object and name not in ("image_bytes",)
            inputs[name] = [v.decode() for v in values.ravel()] if text else values.tolist()
        response = messages["PredictResponse"]()
        for name, (dtype, value) in serving.predict(
            request.model_spec.signature_name, inputs
        ).items():
            fill(response.outputs[name], np.array(value, NUMPY_OF[dtype]))
        return response

    def status(request):
        response = messages["GetModelStatusResponse"]()
        response.model_version_status.add(version=7, state=serving.state)
        return response

    def metadata(request):
        every = messages["SignatureDefMap"]()
        for name in [*SIGNATURES, "__saved_model_init_op"]:
            entry = every.signature_def[name]
            for side, table in ((entry.inputs, INPUTS), (entry.outputs, OUTPUTS)):
                for key, dtype in table.get(name, {}).items():
                    side[key].dtype = NUMBER_OF[dtype]
                    side[key].tensor_shape.dim.add(size=-1)
        response = messages["GetModelMetadataResponse"]()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = 7
        response.metadata["signature_def"].value = every.SerializeToString()
        return response

    def handlers(**functions):
        return {
            name: grpc.unary_unary_rpc_method_handler(
                guarded(function),
                messages[f"{name}Request"].FromString,
                lambda message: message.SerializeToString(),
            )
            for name, function in functions.items()
        }

    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    for service, methods in (
        ("PredictionService", handlers(Predict=predict, GetModelMetadata=metadata)),
        ("ModelService", handlers(GetModelStatus=status)),
    ):
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(f"tensorflow.serving.{service}", methods),)
        )
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, f"grpc://127.0.0.1:{port}"


WAYS = ["rest", "grpc", "rest-async", "grpc-async"]


def asking(way, serving):
    """Yields ``ask(method, *arguments, **options)``, with the options of the client."""
    kind, _, awaited = way.partition("-")
    server, address = grpc_server(serving) if kind == "grpc" else (None, "tfserving.test:8501")
    transport = {} if server else {"transport": rest(serving)}

    def parted(options):
        return {name: options.pop(name) for name in ("errors",) if name in options}

    async def asynchronously(method, *arguments, **options):
        keywords = parted(options)
        async with AsyncClient(address, **transport, **options) as client:
            return await getattr(client, method)(*arguments, **keywords)

    def call(method, *arguments, **options):
        if awaited:
            return asyncio.run(asynchronously(method, *arguments, **options))
        keywords = parted(options)
        with Client(address, **transport, **options) as client:
            return getattr(client, method)(*arguments, **keywords)

    yield call
    if server:
        server.stop(None).wait()
