"""Money: an int of nano-USD inside, a plain decimal outside.

Owns the one way in (`parse_usd`), the one way out (`format_usd`) and the one rounding.
Must not know prices, accounts or any wire shape. No float enters or leaves.
"""

import re
from decimal import Decimal

from bursar.core.errors import InvariantViolated

NANOS_PER_USD = 1_000_000_000
MAX_NANOS = 2**63 - 1

_MAX_USD = 9_223_372_036
_MAX_PARSED_NANOS = _MAX_USD * NANOS_PER_USD
# More is not read at all, not even zeros, so that the work stays bounded.
_MAX_DECIMALS = 64
_MAX_LENGTH = 128
_PLAIN = re.compile(r"-?[0-9]{1,10}(\.[0-9]+)?")


class InvalidAmount(ValueError):
    """An amount that is not money: `code` is `invalid_amount` or `too_precise`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def parse_usd(value: Decimal | int | str) -> int:
    """Return the nano-USD of an amount in USD, exactly.

    Strings are plain decimals: no exponent, sign `+`, spaces, underscores or other digits.
    Negative amounts are read (the caller decides whether they make sense); "-0" is 0.
    Raises InvalidAmount: `too_precise` below one nano-USD, else `invalid_amount` (a float,
    a bool, NaN, infinity, or more than 9 223 372 036 USD either way).
    """
    if isinstance(value, bool) or not isinstance(value, Decimal | int | str):
        raise InvalidAmount("invalid_amount", "An amount must be a decimal number.")
    if isinstance(value, int):
        nanos = value * NANOS_PER_USD
    elif isinstance(value, str):
        if len(value) > _MAX_LENGTH or _PLAIN.fullmatch(value) is None:
            raise InvalidAmount("invalid_amount", "An amount must be a plain decimal number.")
        nanos = _exact_nanos(Decimal(value))
    else:
        nanos = _exact_nanos(value)
    if not -_MAX_PARSED_NANOS <= nanos <= _MAX_PARSED_NANOS:
        raise _too_large()
    return nanos


def format_usd(nanos: int) -> str:
    """Return nano-USD as a plain decimal in USD: at least two decimals, never an exponent."""
    digits = f"{abs(nanos):010d}"
    decimals = digits[-9:].rstrip("0").ljust(2, "0")
    return f"{'-' if nanos < 0 else ''}{digits[:-9]}.{decimals}"


def round_half_up(numerator: int, denominator: int) -> int:
    """Return numerator / denominator rounded half up; the only rounding of money there is.

    Raises InvariantViolated for a negative numerator or a denominator below one.
    """
    if numerator < 0 or denominator < 1:
        raise InvariantViolated("invariant_violated", "A negative amount cannot be rounded.")
    return (2 * numerator + denominator) // (2 * denominator)


def _exact_nanos(amount: Decimal) -> int:
    if not amount.is_finite():
        raise InvalidAmount("invalid_amount", "An amount must be finite.")
    if not amount:
        return 0
    # Sizes before digits: 1e999999 must be refused without ever being written out.
    if amount.adjusted() > 10:
        raise _too_large()
    exponent = amount.as_tuple().exponent
    if isinstance(exponent, int) and exponent >= -_MAX_DECIMALS:
        numerator, denominator = amount.as_integer_ratio()
        nanos, rest = divmod(numerator * NANOS_PER_USD, denominator)
        if rest == 0:
            return nanos
    raise InvalidAmount("too_precise", "An amount may have at most nine decimals.")


def _too_large() -> InvalidAmount:
    return InvalidAmount("invalid_amount", f"An amount may be at most {_MAX_USD} USD.")
