"""Classify, Regress, MultiInference: a servable and a signature in; the refusal that the server gives out.

These methods want signatures made for tf.Examples. The checks are the server's, in its order (contract, section 14);
a signature that passes them all is answered UNIMPLEMENTED here, which DIFFERENCES.md lists.
"""

from dataclasses import dataclass

from tf_groupvit.server.refusal import Refusal, invalid
from tf_groupvit.server.servable import DEFAULT_SIGNATURE, Servable


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


def refuse_inference(servable: Servable, signature_name: str, method_name: str, examples: int) -> None:
    """Raises the Refusal of a classify or regress call."""
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
        raise Refusal("FAILED_PRECONDITION", f"No {method.word} inputs found in SignatureDef: {signature.proto}")
    if not examples:
        raise invalid("Input is empty.")
    raise Refusal("UNIMPLEMENTED", f"This server answers Predict alone; {method_name} needs TensorFlow Serving.")
