"""Base paths: a model's folder and its version policy in; the versions to serve, by number, out.

A child whose whole name is a 64-bit integer is a version, also "00000123"; others are ignored (contract, section 8).
"""

import logging
import os
import re
from collections.abc import Callable

from tf_groupvit.server.config import Model, Policy
from tf_groupvit.server.refusal import named

_log = logging.getLogger("tf_groupvit.server")
Say = Callable[[str], None]
_NUMBER = re.compile(r"-?[0-9]{1,400}", re.ASCII)


class MissingBasePath(Exception):  # noqa: N818 - the poller logs it and keeps what it has
    """The folder is not there, or cannot be listed."""


def list_versions(base_path: str, warn: Say = _log.warning) -> dict[int, str]:
    """Number -> folder for every version below a base path. Raises MissingBasePath."""
    versions: dict[int, str] = {}
    for child in _children(base_path):
        number = version_number(child)
        if number is None and not _is_utf8(child):
            warn(f"Ignored {named(child)} below {named(base_path)}: its name is neither a number nor UTF-8.")
        if number is None:
            continue
        if number in versions:
            warn(f"Versions {named(versions[number])} and {child} are one number: {child} is served.")
        versions[number] = f"{base_path.rstrip('/')}/{child}"
    return versions


def _children(base_path: str) -> list[str]:
    """The names below a base path, in order; bytes that are not UTF-8 are surrogate escapes."""
    if "://" not in base_path:
        try:
            return sorted(os.listdir(base_path))
        except FileNotFoundError as error:
            raise MissingBasePath(f"NOT_FOUND: {base_path} not found") from error
        except OSError as error:
            raise MissingBasePath(str(error)) from error
    import tensorflow as tf

    try:
        if not tf.io.gfile.exists(base_path):
            raise MissingBasePath(f"NOT_FOUND: {base_path} not found")
        return sorted({child.split("/")[0] for child in tf.io.gfile.listdir(base_path)})
    except (tf.errors.OpError, OSError, UnicodeError) as error:
        raise MissingBasePath(str(error)) from error


def _is_utf8(name: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in name)


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


def aspired(model: Model, warn: Say = _log.warning) -> dict[int, str]:
    """The versions of a model that should be served now. Raises MissingBasePath."""
    return chosen(list_versions(model.base_path, warn), model.policy)
