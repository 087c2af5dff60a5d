"""What all models have in common: arguments of calls, Keras' loops, pickling and export."""

import inspect
import operator
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import keras

from tf_groupvit.errors import InputError, one_line
from tf_groupvit.memory import nothing_old_to_collect
from tf_groupvit.models.inputs import accept
from tf_groupvit.models.outputs import plain
from tf_groupvit.types import Tensor

# The process in which TensorFlow began to work. Its threads do not exist in a fork, and whatever
# waits for them there waits forever; a spawned process starts anew.
_first_process: list[int] = []


def is_forked() -> bool:
    """Whether a model was made before this process was forked."""
    return _first_process != [] and _first_process != [os.getpid()]


def check_process() -> None:
    """Called before a model is made or run. Raises ``InputError`` where that would never end."""
    if is_forked():
        raise InputError(
            "This process was forked after a model was loaded, and TensorFlow would hang in it:"
            " start processes with multiprocessing.get_context('spawn'), or load the model in the"
            " new process alone."
        )
    if not _first_process:
        _first_process.append(os.getpid())


@cache
def _argument_names(call: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(call).parameters)[1:]


@contextmanager
def _weights_outlive_errors(model: keras.Model) -> Iterator[None]:
    """Under JAX, Keras takes the weights out of a model while it loops, and loses them where the
    loop fails.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    before = [(variable, variable.value) for variable in model.variables]
    try:
        yield
    except BaseException:
        model.jax_state_sync()  # what the steps that succeeded made of them, if there were any
        for variable, value in before:
            if variable._value is None:
                variable.assign(value)
        raise


class VariablesOf:
    """The variables that a model had when something was traced with them."""

    def __init__(self, model: keras.Model) -> None:
        self._held = model.weights

    def still_in(self, model: keras.Model) -> bool:
        """Whether they still are: ``quantize`` and LoRA put others in their place, or add some."""
        now = model.weights
        return len(now) == len(self._held) and all(map(operator.is_, now, self._held))


class UnusableModel:
    """In place of a model that was sent to a forked process: any use raises ``InputError``."""

    def __getattr__(self, name: str) -> Any:
        check_process()
        raise AttributeError(name)


def _unpickle(make: Callable[..., Any], *arguments: Any) -> Any:
    """A pickled model where models can be made; a pool of processes would wait forever for one that
    fails here.
    """
    return UnusableModel() if is_forked() else make(*arguments)


class BaseModel(keras.Model):
    """A keras.Model whose arguments come by position or by name, as arrays, tensors or nested
    lists.
    """

    _traced_with: VariablesOf | None = None  # what Keras' loops were

    def __init__(self, **keywords: Any) -> None:
        if keras.backend.backend() != "torch":  # whose models a forked process can run
            check_process()
        try:
            super().__init__(**keywords)
            narrow = "float" not in self.compute_dtype
        except ValueError as error:
            if keywords.get("dtype") is None:
                raise
            raise InputError(
                f"{one_line(error)}; give dtype='float32', 'mixed_bfloat16' or the like."
            ) from error
        if narrow:
            raise InputError(
                f"dtype is {keywords['dtype']!r}: expected 'float32', 'float16',"
                " 'mixed_bfloat16', ..."
            )

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """As Keras' own, which takes tensors alone by position: here flags may be given so, too."""
        if keras.backend.backend() != "torch":
            check_process()
        names = _argument_names(type(self).call)
        if len(arguments) > len(names):
            raise InputError(
                f"{len(arguments)} arguments were given, but there are {len(names)}:"
                f" {', '.join(names)}."
            )
        given = dict(zip(names, arguments, strict=False))
        if twice := sorted(given.keys() & keywords.keys()):
            raise InputError(f"{twice[0]} was given twice, by position and by name: give it once.")
        given |= keywords
        return super().__call__(
            **{name: accept(name, value) for name, value in given.items() if value is not None}
        )

    def predict(self, x: Any, *arguments: Any, **keywords: Any) -> Any:
        """Keras' ``predict``, traced anew where layers have got other variables."""
        self._before_loop(x)
        with _weights_outlive_errors(self):
            return super().predict(x, *arguments, **keywords)

    def fit(self, x: Any = None, *arguments: Any, **keywords: Any) -> Any:
        """Keras' ``fit``, likewise."""
        self._before_loop(x)
        with _weights_outlive_errors(self):
            return super().fit(x, *arguments, **keywords)

    def evaluate(self, x: Any = None, *arguments: Any, **keywords: Any) -> Any:
        """Keras' ``evaluate``, likewise."""
        self._before_loop(x)
        with _weights_outlive_errors(self):
            return super().evaluate(x, *arguments, **keywords)

    def quantize(self, *arguments: Any, **keywords: Any) -> Any:
        """Keras' ``quantize``, without a search for garbage through all objects for each layer."""
        with nothing_old_to_collect():
            return super().quantize(*arguments, **keywords)

    def _before_loop(self, x: Any) -> None:
        """Look at token ids that come as an array, since a traced graph cannot; and forget old
        graphs: Keras keeps what it traced, also when a layer has got other variables since.
        """
        ids = x.get("input_ids") if isinstance(x, Mapping) else x
        if hasattr(self, "text_model") and hasattr(ids, "dtype"):
            self.text_model.check_values(accept("input_ids", ids))
        if self._traced_with is None or not self._traced_with.still_in(self):
            self.train_function = self.test_function = self.predict_function = None
            self._traced_with = VariablesOf(self)

    def __reduce__(self) -> tuple[Any, ...]:
        make, arguments = super().__reduce__()
        return _unpickle, (make, *arguments)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, *arguments: Any, **keywords: Any
    ) -> Any:
        """The loss, a scalar. Keras looks for losses by name of an output in plain dicts alone."""
        return super().compute_loss(x, y, plain(y_pred), *arguments, **keywords)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, *arguments: Any, **keywords: Any) -> Any:
        """Metrics by name of an output, each a scalar, likewise."""
        return super().compute_metrics(x, y, plain(y_pred), *arguments, **keywords)

    def default_signature(self) -> dict[str, keras.InputSpec]:
        """The inputs that ``export`` traces, with every size unknown."""
        raise NotImplementedError

    def export(self, filepath: str | os.PathLike[str], *arguments: Any, **keywords: Any) -> None:
        """Keras' ``export`` of the call, with every size unknown unless ``input_signature`` says
        otherwise.

        Outputs are the tensors of the result by name; what is nested in it (the towers' own
        outputs, hidden states) is left out. For images and strings in, and masks out, see
        ``tf_groupvit.export``.

        ``format`` is one of Keras': "tf_saved_model", "onnx", "litert" or "openvino", whose file
        ends with .xml. Each converts in less time, and LiteRT takes inputs as they are, where
        ``input_signature`` has the sizes of the inputs, a dict of ``keras.InputSpec`` in a list.
        """
        keywords.setdefault("input_signature", [self.default_signature()])
        FlatOutputs(self).export(os.fspath(filepath), *arguments, **keywords)  # no Path: OpenVINO


class FlatOutputs(keras.Model):
    """A model's result without its nested entries: what a signature can hold."""

    def __init__(self, model: BaseModel) -> None:
        super().__init__(dtype=model.dtype_policy)
        self.model = model
        self.built = True

    def call(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs by name -> tensors of the result by name, with the shapes that the model gives."""
        result = self.model(inputs, training=False)
        return {
            name: value for name, value in result.items() if not isinstance(value, dict | tuple)
        }
