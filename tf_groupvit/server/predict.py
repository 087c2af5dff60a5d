"""Predict: a model spec and input arrays in; output arrays out. The one path that both front ends
share.

Checks come in the order of the contract, section 7: inputs by number, then by name, then the output
filter, then the graph itself, which checks element types and nothing else.

Classify, Regress and MultiInference want signatures made for tf.Examples. They are refused here, by
the server's checks in its order (section 14); a signature that passes them all is answered
UNIMPLEMENTED (DIFFERENCES.md).
"""

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_groupvit.server.pixels import pixels_in
from tf_groupvit.server.servable import DEFAULT_SIGNATURE, Endpoint, Servable, Signature
from tf_groupvit.server.status import StatusError, invalid
from tf_groupvit.server.tensor_protos import check_strings, read_tensor

InputReader = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Outcome:
    outputs: dict[str, np.ndarray]
    run_seconds: float


def predict_signature(servable: Servable, name: str) -> Signature:
    """The signature that a Predict request names. Raises StatusError."""
    signature = servable.signatures.get(name or DEFAULT_SIGNATURE)
    if signature is None:
        raise StatusError(
            "FAILED_PRECONDITION", f'Serving signature key "{name or DEFAULT_SIGNATURE}" not found.'
        )
    return signature


def predict(
    servable: Servable,
    signature: Signature,
    given: Collection[str],
    read_input: InputReader,
    output_filter: Iterable[str] = (),
    timeout: float | None = None,
) -> Outcome:
    """Run one signature. ``read_input`` turns the name of a given input into its array. Raises
    StatusError.
    """
    _check_count(signature, given)
    arrays = {alias: _input(signature, alias, given, read_input) for alias in signature.inputs}
    wanted = _wanted(signature, list(output_filter))
    feeds = {signature.inputs[alias]: array for alias, array in arrays.items()}
    fetches = [_fetchable(endpoint) for endpoint in wanted.values()]
    with servable.pixels.hold(pixels_in(arrays.values()), timeout) as left:
        started = time.perf_counter()
        results = servable.run(feeds, fetches, left)
        seconds = time.perf_counter() - started
    return Outcome(dict(zip(wanted, results, strict=True)), seconds)


def predict_request(servable: Servable, request: Any, timeout: float | None = None) -> Outcome:
    """Run a PredictRequest, whose name and version have been resolved. Raises StatusError."""
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


def _set(names: Iterable[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"


def _check_count(signature: Signature, given: Collection[str]) -> None:
    needed = signature.inputs.keys()
    if len(given) > len(needed) or (len(given) < len(needed) and not signature.defaults):
        raise invalid(
            f"input size does not match signature: {len(given)}!={len(needed)} len({_set(given)})"
            f" != len({_set(needed)}). Sent extra: {_set(set(given) - needed)}. Missing but"
            f" required: {_set(needed - set(given))}."
        )


def _input(
    signature: Signature, alias: str, given: Collection[str], read_input: InputReader
) -> np.ndarray:
    if alias in given:
        array = read_input(alias)
        if array.dtype.kind == "O":
            check_strings(array.size, alias)
        return array
    if alias in signature.defaults:
        return read_tensor(signature.defaults[alias], alias)
    raise invalid(
        f"Signature input alias: {alias}(feed name: {signature.inputs[alias].tensor_name}) not"
        " found in request and no default value provided. Inputs expected to be in the request"
        f" {_set(given)}, or default input alias set: {','.join(sorted(signature.defaults))}"
    )


def _wanted(signature: Signature, output_filter: list[str]) -> dict[str, Endpoint]:
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
    return wanted or signature.outputs


def _fetchable(endpoint: Endpoint) -> Endpoint:
    if endpoint.output is None:
        name = endpoint.tensor_name if ":" in endpoint.tensor_name else f"{endpoint.tensor_name}:0"
        raise invalid(
            f"Tensor {name}, specified in either feed_devices or fetch_devices was not found in the"
            " Graph"
        )
    return endpoint


@dataclass(frozen=True)
class Method:
    word: str
    most_outputs: int
    outputs_wanted: str


METHODS = {
    "classify": Method("classification", 2, "Expected one or two output Tensors, found {count}"),
    "regress": Method("regression", 1, "Expected one output Tensor."),
}
METHOD_OF = {f"tensorflow/serving/{name}": name for name in METHODS}


def refuse_inference(
    servable: Servable, signature_name: str, method_name: str, examples: int
) -> None:
    """Raises the StatusError of a classify or regress call."""
    method = METHODS[method_name]
    name = signature_name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None:
        raise invalid(f"No signature was found with the name: {name}")
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if not 1 <= len(signature.outputs) <= method.most_outputs:
        raise invalid(method.outputs_wanted.format(count=len(signature.outputs)))
    if "inputs" not in signature.inputs:
        raise StatusError(
            "FAILED_PRECONDITION",
            f"No {method.word} inputs found in SignatureDef: {signature.proto}",
        )
    if not examples:
        raise invalid("Input is empty.")
    raise StatusError(
        "UNIMPLEMENTED",
        f"This server answers Predict alone; {method_name} needs TensorFlow Serving.",
    )
