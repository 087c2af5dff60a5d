"""A field's value in, nothing or a ConfigError that names the field out; what the config classes
are checked with.
"""

import functools
from dataclasses import fields
from typing import Any

from tf_groupvit.errors import ConfigError, did_you_mean

ACTIVATIONS = ("gelu", "gelu_new", "quick_gelu", "relu", "selu")


class Checked:
    """Rules over the fields of a config; each says what was expected and what came."""

    hidden_size: int
    num_attention_heads: int
    hidden_act: str

    def _check(self, rule: bool, name: str, expected: str) -> None:
        if not rule:
            raise ConfigError(
                f"{type(self).__name__}.{name} is {getattr(self, name)!r:.80}: expected {expected}."
            )

    def _check_counts(self, *names: str) -> None:
        for name in names:
            self._check(is_count(getattr(self, name)), name, "a whole number of at least 1")

    def _check_numbers(self, *names: str, at_least: float, below: float = float("inf")) -> None:
        for name in names:
            value = getattr(self, name)
            wanted = f"a number of at least {at_least}" + (
                f" and below {below}" if below < float("inf") else ""
            )
            self._check(is_number(value) and at_least <= value < below, name, wanted)

    def _check_flags(self, *names: str) -> None:
        for name in names:
            self._check(isinstance(getattr(self, name), bool), name, "true or false")

    def _check_block(self) -> None:
        """The fields that the transformer blocks of both towers share."""
        divides = self.hidden_size % self.num_attention_heads == 0
        self._check(divides, "num_attention_heads", f"a divisor of hidden_size {self.hidden_size}")
        self._check(
            self.hidden_act in ACTIVATIONS, "hidden_act", f"one of {', '.join(ACTIVATIONS)}"
        )
        self._check_numbers(
            "layer_norm_eps", "initializer_range", "initializer_factor", at_least=0.0
        )
        self._check_numbers("dropout", "attention_dropout", at_least=0.0, below=1.0)
        self._check_flags("output_attentions", "output_hidden_states")


def strict_keywords(cls: type) -> type:
    """Let an unknown keyword name the nearest known one."""
    plain = cls.__init__  # type: ignore[misc]
    known = [f.name for f in fields(cls)]

    @functools.wraps(plain)
    def init(self: Any, *args: Any, **values: Any) -> None:
        for name in values:
            if name not in known:
                raise ConfigError(
                    f"{cls.__name__} has no field {name!r}: {did_you_mean(name, known)}"
                )
        plain(self, *args, **values)

    cls.__init__ = init  # type: ignore[misc]
    return cls


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_token(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def is_count(value: Any, at_least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least
