"""Predict, as both front ends call it: check a request's inputs, run the signature, give outputs.

Checks come in the order of the contract, section 7: inputs by number, then by name, then the output
filter, then the graph itself, which checks element types and nothing else. Classify, Regress and
MultiInference need signatures made for tf.Examples, which no model here has: they are refused by
the real server's checks in its order (section 14).
"""

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import numpy as np
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from tf_groupvit.server.pixel_limit import pixels_in
from tf_groupvit.server.servable import DEFAULT_SIGNATURE, Endpoint, Servable, Signature
from tf_groupvit.server.status import StatusError, invalid
from tf_groupvit.server.tensor_protos import read_tensor

# Method -> its word in messages, the most outputs of its signatures, and the error for others.
METHODS = {
    "classify": ("classification", 2, "Expected one or two output Tensors, found {count}"),
    "regress": ("regression", 1, "Expected one output Tensor."),
}
METHOD_OF = {f"tensorflow/serving/{name}": name for name in METHODS}


@dataclass(frozen=True)
class Outcome:
    """The outputs of a run by name, each of any shape, and how long it took."""

    outputs: dict[str, np.ndarray]
    run_seconds: float


def predict_signature(servable: Servable, name: str) -> Signature:
    """The signature that a Predict request names, "" for the default one. Raises StatusError."""
    name = name or DEFAULT_SIGNATURE
    if name not in servable.signatures:
        raise StatusError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
    return servable.signatures[name]


def predict(
    servable: Servable,
    signature: Signature,
    given: Collection[str],
    read_input: Callable[[str], np.ndarray],
    output_filter: Iterable[str] = (),
    timeout: float | None = None,
) -> Outcome:
    """Run one signature.

    ``read_input`` turns the name of a ``given`` input into its array, of any shape. The outputs of
    the filter are computed, or all. ``timeout`` is in seconds. Raises StatusError.
    """
    needed = signature.inputs.keys()
    if len(given) > len(needed) or (len(given) < len(needed) and not signature.defaults):
        raise invalid(
            f"input size does not match signature: {len(given)}!={len(needed)} len({_set(given)})"
            f" != len({_set(needed)}). Sent extra: {_set(set(given) - needed)}. Missing but"
            f" required: {_set(needed - set(given))}."
        )
    feeds = {}
    for alias, endpoint in signature.inputs.items():
        if alias in given:
            feeds[endpoint] = read_input(alias)
        elif alias in signature.defaults:
            feeds[endpoint] = read_tensor(signature.defaults[alias], alias)
        else:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {endpoint.tensor_name}) not found in"
                " request and no default value provided. Inputs expected to be in the request"
                f" {_set(given)}, or default input alias set: {_listed(signature.defaults)}"
            )
    wanted = _wanted(signature, output_filter)
    with servable.pixel_limit.hold(pixels_in(feeds.values()), timeout) as left:
        started = time.perf_counter()
        results = servable.run(feeds, list(wanted.values()), left)
        seconds = time.perf_counter() - started
    return Outcome(dict(zip(wanted, results, strict=True)), seconds)


def predict_request(
    servable: Servable, request: PredictRequest, timeout: float | None = None
) -> Outcome:
    """Run a request on its model, within ``timeout`` seconds. Raises StatusError."""
    signature = predict_signature(servable, request.model_spec.signature_name)
    inputs = request.inputs
    return predict(
        servable,
        signature,
        inputs.keys(),
        lambda alias: read_tensor(inputs[alias], alias),
        request.output_filter,
        timeout,
    )


def _listed(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


def _set(names: Iterable[str]) -> str:
    return f"{{{_listed(names)}}}"


def _wanted(signature: Signature, output_filter: Iterable[str]) -> dict[str, Endpoint]:
    """The outputs to compute: those of the filter, in its order, or all."""
    wanted: dict[str, Endpoint] = {}
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the"
                f" set {_set(signature.outputs)}."
            )
        if alias in wanted:
            raise invalid(f"duplicate output tensor alias: {alias}")
        wanted[alias] = signature.outputs[alias]
    wanted = wanted or signature.outputs
    for endpoint in wanted.values():
        if endpoint.output is None:
            name = endpoint.tensor_name
            raise invalid(
                f"Tensor {name if ':' in name else f'{name}:0'}, specified in either feed_devices"
                " or fetch_devices was not found in the Graph"
            )
    return wanted


def refuse_inference(
    servable: Servable, signature_name: str, method_name: str, examples: int
) -> None:
    """Raises the StatusError of a classify or regress call with this number of examples."""
    word, most_outputs, outputs_wanted = METHODS[method_name]
    name = signature_name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None:
        raise invalid(f"No signature was found with the name: {name}")
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if not 1 <= len(signature.outputs) <= most_outputs:
        raise invalid(outputs_wanted.format(count=len(signature.outputs)))
    if "inputs" not in signature.inputs:
        raise StatusError(
            "FAILED_PRECONDITION", f"No {word} inputs found in SignatureDef: {signature.proto}"
        )
    if not examples:
        raise invalid("Input is empty.")
    raise StatusError(
        "UNIMPLEMENTED",
        f"This server answers Predict alone; {method_name} needs TensorFlow Serving.",
    )
