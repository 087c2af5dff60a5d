"""Load a SavedModel folder, and run its signatures as tensorflow_model_server runs them.

The session is run through `_call_tf_sessionrun`, which is the C++ Session of the real server:
element types are strict, declared shapes are not checked, only the outputs asked for are computed.
Python's `Session.run` casts in silence and checks shapes.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.framework.types_pb2 import DataType
from tensorflow.core.protobuf.config_pb2 import ConfigProto, RunOptions
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef, TensorInfo
from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.client.session import Session
from tensorflow.python.framework.errors import OpError
from tensorflow.python.framework.ops import Graph
from tensorflow.python.lib.io import file_io
from tensorflow.python.saved_model.loader_impl import SavedModelLoader

from tf_groupvit.errors import asserted
from tf_groupvit.server.pixel_limit import UNBOUNDED
from tf_groupvit.server.status import StatusError
from tf_groupvit.transport.status_codes import code_name

DEFAULT_SIGNATURE = "serving_default"
# What is not there, in the words of Python's loader.
_MISSING = ("not registered", "not a valid checkpoint", "does not exist")


def type_name(number: int) -> str:
    """What TensorFlow's `DataTypeString` calls the type of a number in types.proto: "float", not
    "float32".
    """
    if number not in DataType.values():
        return f"unknown dtype enum ({number})"
    return DataType.Name(number).removeprefix("DT_").lower() if number else "INVALID"


@dataclass(frozen=True)
class Endpoint:
    """One input or output of a signature."""

    tensor_name: str
    dtype: int  # number in types.proto
    output: object | None  # TF_Output; None where the name is no tensor of the graph


@dataclass(frozen=True)
class Signature:
    """One signature of a model; ``defaults`` are of inputs that a request may leave out."""

    name: str
    inputs: dict[str, Endpoint]
    outputs: dict[str, Endpoint]
    defaults: dict[str, TensorProto]
    proto: SignatureDef

    @cached_property
    def input_types(self) -> dict[str, str]:
        """TensorFlow's names for the inputs' element types."""
        return {name: type_name(endpoint.dtype) for name, endpoint in self.inputs.items()}


class Servable:
    """A loaded version of a model."""

    def __init__(
        self,
        path: str,
        session: Session,
        signatures: dict[str, Signature],
        in_caller: bool = False,
    ) -> None:
        self.path = path
        self.session = session
        self.signatures = signatures
        self.pixel_limit = UNBOUNDED
        self._in_caller = in_caller
        # What is left to do when the version serves; it is given a function that says when to stop.
        self.afterwards: Callable[[Callable[[], bool]], None] | None = None

    def run(
        self, feeds: dict[Endpoint, np.ndarray], fetches: list[Endpoint], timeout: float | None
    ) -> list[np.ndarray]:
        """Arrays of any shape for inputs -> the array of each fetched output.

        ``timeout`` is in seconds. Raises StatusError with the runtime's own text; of a failed check
        of the graph that is its words, without the operation's name.
        """
        options = _run_options(timeout, self._in_caller)
        given = {endpoint.output: array for endpoint, array in feeds.items()}
        wanted = [endpoint.output for endpoint in fetches]
        try:
            return [
                _array(result)
                for result in self.session._call_tf_sessionrun(options, given, wanted, [], None)
            ]
        except OpError as error:
            raise StatusError(code_name(error.error_code), asserted(error.message)) from None
        finally:
            if options is not None:
                pywrap_tf_session.TF_DeleteBuffer(options)

    def aside(self) -> "Servable":
        """The same session for work that no request waits for.

        A run takes the caller's thread and none of the few that TensorFlow has for operations:
        preparing a graph would hold each of those for seconds.
        """
        return Servable(self.path, self.session, self.signatures, in_caller=True)

    def close(self) -> None:
        """Free the session."""
        self.session.close()


def _array(result: bytes | np.ndarray) -> np.ndarray:
    """A result as an array; a string of rank 0 comes as bytes, of which numpy would strip the zeros
    at the end.
    """
    return np.array(result, object) if isinstance(result, bytes) else np.asarray(result)


def _run_options(timeout: float | None, in_caller: bool) -> object | None:
    options = RunOptions(inter_op_thread_pool=-1 if in_caller else 0)
    if timeout is not None:
        options.timeout_in_ms = max(1, min(int(timeout * 1000), 2**62))
    if not options.ByteSize():
        return None
    return pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())


def load(
    path: str, tags: tuple[str, ...] = ("serve",), config: ConfigProto | None = None
) -> Servable:
    """Load a SavedModel folder. Raises StatusError, with the C++ loader's text where it has one."""
    session = None
    try:
        loader, meta_graph = _saved_model(path, tags)
        with Graph().as_default() as graph:
            session = Session(graph=graph, config=config)
            loader.load(session, list(tags))  # what the deprecated public function calls
            session._extend_graph()
            signatures = {
                name: _signature(name, proto, graph)
                for name, proto in meta_graph.signature_def.items()
            }
    except StatusError:
        raise
    except Exception as error:
        if session is not None:
            session.close()
        raise _load_error(error) from error
    graph.finalize()
    return Servable(path, session, signatures)


def _saved_model(path: str, tags: tuple[str, ...]) -> tuple[SavedModelLoader, MetaGraphDef]:
    """The folder's loader, and its graph with these tags. Raises StatusError."""
    file = os.path.join(path, "saved_model.pb")
    if not _is_file(file if file_io.file_exists_v2(file) else f"{file}txt"):
        raise StatusError(
            "NOT_FOUND",
            "Specified file path does not appear to contain a SavedModel bundle (should have a"
            f" file called `saved_model.pb`)\nSpecified file path: {path}",
        )
    try:
        loader = SavedModelLoader(path)
    except OSError as error:
        raise StatusError("DATA_LOSS", f"Can't parse {file} as binary proto") from error
    try:
        return loader, loader.get_meta_graph_def_from_tags(tags)
    except RuntimeError as error:
        raise StatusError(
            "NOT_FOUND",
            f"Could not find meta graph def matching supplied tags: {{ {' '.join(tags)} }}. To"
            " inspect available tag-sets in the SavedModel, please use the SavedModel CLI:"
            " `saved_model_cli`",
        ) from error


def _is_file(path: str) -> bool:
    """Whether there is a file to read, not a folder, nor a pipe that would never end."""
    return (
        os.path.isfile(path)
        if os.path.exists(path)
        else file_io.file_exists_v2(path) and not file_io.is_directory_v2(path)
    )


def _signature(name: str, proto: SignatureDef, graph: Graph) -> Signature:
    return Signature(
        name,
        {alias: _endpoint(info, graph) for alias, info in proto.inputs.items()},
        {alias: _endpoint(info, graph) for alias, info in proto.outputs.items()},
        dict(proto.defaults.items()),
        proto,
    )


def _endpoint(info: TensorInfo, graph: Graph) -> Endpoint:
    try:
        output = graph.get_tensor_by_name(info.name)._as_tf_output()
    except (
        KeyError,
        ValueError,
    ):  # the init op's "output" is an operation; sparse inputs have none
        output = None
    return Endpoint(info.name, info.dtype, output)


def _load_error(error: Exception) -> StatusError:
    """A loading error with its canonical code; what Python's loader words itself is INTERNAL."""
    if isinstance(error, OpError):
        return StatusError(code_name(error.error_code), error.message)
    missing = any(phrase in str(error) for phrase in _MISSING)
    return StatusError("NOT_FOUND" if missing else "INTERNAL", str(error))
