"""Base paths: a model's folder and its version policy in; the versions to serve, by number, out.

A child whose whole name is a 64-bit integer is a version, also "00000123"; others are ignored (contract, section 8).
"""

import logging
import re

from tf_groupvit.server.config import Model, Policy

_log = logging.getLogger("tf_groupvit.server")
_NUMBER = re.compile(r"-?[0-9]{1,400}", re.ASCII)


class MissingBasePath(Exception):  # noqa: N818 - the poller logs it and keeps what it has
    """The folder is not there, or cannot be listed."""


def list_versions(base_path: str) -> dict[int, str]:
    """Number -> folder for every version below a base path. Raises MissingBasePath."""
    import tensorflow as tf

    try:
        if not tf.io.gfile.exists(base_path):
            raise MissingBasePath(f"NOT_FOUND: {base_path} not found")
        children = sorted({child.split("/")[0] for child in tf.io.gfile.listdir(base_path)})
    except (tf.errors.OpError, OSError) as error:
        raise MissingBasePath(str(error)) from error
    versions: dict[int, str] = {}
    for child in children:
        number = version_number(child)
        if number is None:
            continue
        if number in versions:
            _log.warning("Versions %s and %s are one number: %s is served.", versions[number], child, child)
        versions[number] = f"{base_path.rstrip('/')}/{child}"
    return versions


def version_number(name: str) -> int | None:
    """The number that a whole folder name spells, if it fits 64 bits."""
    if not _NUMBER.fullmatch(name):
        return None
    number = int(name)
    return number if -(2**63) <= number < 2**63 else None


def chosen(versions: dict[int, str], policy: Policy) -> dict[int, str]:
    """The versions that a policy serves."""
    if policy.all:
        return dict(versions)
    if policy.specific:
        return {number: path for number, path in versions.items() if number in policy.specific}
    return {number: versions[number] for number in sorted(versions)[-policy.latest :]} if policy.latest else {}


def aspired(model: Model) -> dict[int, str]:
    """The versions of a model that should be served now. Raises MissingBasePath."""
    return chosen(list_versions(model.base_path), model.policy)
