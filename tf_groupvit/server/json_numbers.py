"""JSON number tokens: their digits in; the integer or double that RapidJSON 1.1.0 makes of them
out.

RapidJSON's normal precision is not correctly rounded beyond about 17 digits, and integers wider
than 64 bits become doubles digit by digit. Both are visible to a client with a float64 input, so
the arithmetic is followed step by step.
"""

import re

TOKEN = re.compile(rb"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?)([0-9]+))?")
TOO_BIG = "Number too big to be stored in double."

_INT_MIN, _UINT_MAX = -(2**63), 2**64 - 1
_EXACT = 2**53 - 1  # above it RapidJSON goes on in floating point
_DIGITS = 17  # significant digits that the fraction may still add
_POWERS = [float(f"1e{n}") for n in range(309)]


class TooBig(Exception):  # noqa: N818 - the scanner turns it into its own error
    """The number does not fit a double."""


def number(token: re.Match[bytes]) -> int | float:
    """The value of a matched token. Raises TooBig."""
    minus, whole, fraction, exponent_sign, exponent = token.groups()
    if fraction is None and exponent is None:
        return _integer(minus, whole)
    value = _double(bool(minus), whole, fraction or b"", exponent_sign, exponent)
    return -value if minus else value


def as_stored(value: int) -> int | float:
    """An integer as RapidJSON stores it: itself within 64 bits, else a double."""
    if _INT_MIN <= value <= _UINT_MAX:
        return value
    if abs(value) >= 10**309:
        raise TooBig
    magnitude = _wide(str(abs(value)).encode())
    return -magnitude if value < 0 else magnitude


def _integer(minus: bytes, whole: bytes) -> int | float:
    if len(whole) <= 20:
        value = int(minus + whole)
        if _INT_MIN <= value <= _UINT_MAX:
            return value
    magnitude = _wide(whole, negative=bool(minus))
    return -magnitude if minus else magnitude


def _wide(whole: bytes, negative: bool = False) -> float:
    """Digits beyond 64 bits: an exact 64-bit prefix, then one rounded step per digit."""
    limit = 2**63 if negative else _UINT_MAX
    cut = 20 if len(whole) >= 20 and int(whole[:20]) <= limit else 19
    value = float(int(whole[:cut]))
    for digit in whole[cut:]:
        if value >= 1.7976931348623157e307:
            raise TooBig
        value = value * 10.0 + (digit - 48)
    return value


def _double(
    negative: bool,
    whole: bytes,
    fraction: bytes,
    exponent_sign: bytes | None,
    exponent: bytes | None,
) -> float:
    wide = len(whole) > 20 or int(whole) > (2**63 if negative else _UINT_MAX)
    value, scale = _wide(whole, negative) if wide else float(int(whole)), 0
    if fraction:
        value, scale = _with_fraction(value, whole, fraction, wide)
    power = 0
    if exponent is not None:
        power = int(exponent.lstrip(b"0")[:10] or b"0")
        if exponent_sign == b"-":
            power = -power
        elif power > 308 - scale:
            raise TooBig
    return _scaled(value, power + scale)


def _with_fraction(value: float, whole: bytes, fraction: bytes, wide: bool) -> tuple[float, int]:
    """The significand with the fraction's digits, and the power of ten that undoes them."""
    used, significant = 0, len(whole) - 1
    if not wide:
        exact = int(whole)
        for digit in fraction:
            if exact > _EXACT:
                break
            exact = exact * 10 + (digit - 48)
            used += 1
            significant += exact != 0
        value = float(exact)
    scale = -used
    for digit in fraction[used:]:
        if significant >= _DIGITS:
            break
        value = value * 10.0 + (digit - 48)
        scale -= 1
        significant += value > 0.0
    return value, scale


def _scaled(value: float, power: int) -> float:
    if power < -308:
        return _step(_step(value, -308), power + 308)
    return _step(value, power)


def _step(value: float, power: int) -> float:
    if power < -308:
        return 0.0
    if power >= 0:
        return value * _POWERS[min(power, 308)]
    return value / _POWERS[-power]
