"""How results of the SDK are shown: the one form that `--json` prints, and what tables are made of.

Owns that money is text with at least two decimals, and that a moment is ISO 8601 in UTC. Must not
know which result it is.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any


def shape(value: Any) -> Any:
    """Return a value as JSON has it: a result as an object, with fields that are new to us too."""
    fields = getattr(value, "fields", None)
    if fields is not None:
        return {name: shape(each) for name, each in fields().items()}
    if isinstance(value, Decimal):
        return usd(value)
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [shape(each) for each in value]
    return value


def shapes(values: Iterable[Any]) -> list[dict[str, Any]]:
    """Return many results as JSON has them."""
    return [shape(value) for value in values]


def usd(amount: Decimal | int) -> str:
    """Return money as plain decimal text with at least two decimals."""
    text = format(Decimal(amount), "f")
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"


def moment(at: datetime) -> str:
    """Return a moment in UTC, to the second, or to the millisecond where there is more."""
    precision = "milliseconds" if at.microsecond else "seconds"
    return at.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")
