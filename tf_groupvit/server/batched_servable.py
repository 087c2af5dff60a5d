"""A servable under batching: a loaded model and parameters in; the same model, whose runs share batches, out."""

import os

import numpy as np
import tensorflow as tf

from tf_groupvit.errors import ConfigError
from tf_groupvit.server.batch_arrays import Arrays
from tf_groupvit.server.batching import Scheduler
from tf_groupvit.server.batching_parameters import PER_MODEL, Parameters, read_parameters
from tf_groupvit.server.refusal import invalid
from tf_groupvit.server.servable import Endpoint, Servable


class BatchedServable(Servable):
    """Runs of the same inputs and outputs are merged, whatever signature they come from."""

    def __init__(self, plain: Servable, scheduler: Scheduler, parameters: Parameters) -> None:
        super().__init__(plain.path, plain.session, plain.signatures)
        self._scheduler, self._parameters = scheduler, parameters

    def run(
        self, feeds: dict[Endpoint, np.ndarray], fetches: list[Endpoint], timeout: float | None
    ) -> list[np.ndarray]:
        endpoints = {endpoint.tensor_name: endpoint for endpoint in [*feeds, *fetches]}
        inputs = {endpoint.tensor_name: array for endpoint, array in feeds.items()}
        names = sorted({endpoint.tensor_name for endpoint in fetches})

        def run(arrays: Arrays, outputs: list[str], seconds: float | None) -> list[np.ndarray]:
            feeds = {endpoints[name]: array for name, array in arrays.items()}
            return Servable.run(self, feeds, [endpoints[name] for name in outputs], seconds)

        key = (self, frozenset(inputs), frozenset(names))
        results = self._scheduler.submit(key, run, self._parameters, inputs, names, timeout)
        found = dict(zip(names, results, strict=True))
        return [found[endpoint.tensor_name] for endpoint in fetches]

    def close(self) -> None:
        self._scheduler.forget(self)
        super().close()


def batched(servable: Servable, scheduler: Scheduler, parameters: Parameters, per_model: bool) -> Servable:
    """The servable under batching; as it is where each model has parameters of its own and this one has none.

    Raises Refusal where the parameters are wrong, which fails the load.
    """
    if per_model:
        file = os.path.join(servable.path, PER_MODEL)
        if not tf.io.gfile.exists(file):
            return servable
        try:
            parameters = read_parameters(file)
        except ConfigError as error:
            raise invalid(str(error)) from None
    parameters.check()
    return BatchedServable(servable, scheduler, parameters)
