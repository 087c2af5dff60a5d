"""The ways by which objects travel to other processes; each is a function that sends one and gives
what arrives.
"""

import pickle

import pytest


def by_pickle(value):
    return pickle.loads(pickle.dumps(value))


def by_cloudpickle(value):
    cloudpickle = pytest.importorskip("cloudpickle")
    return cloudpickle.loads(cloudpickle.dumps(value))


def by_ray(value):
    """As Ray sends what a task takes and gives; no cluster is started."""
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    return cloudpickle.loads(cloudpickle.dumps(value))


def by_dask(value):
    protocol = pytest.importorskip("distributed.protocol")
    header, frames = protocol.serialize(value)
    return protocol.deserialize(header, list(map(bytes, frames)))


WAYS = (by_pickle, by_cloudpickle, by_ray, by_dask)
