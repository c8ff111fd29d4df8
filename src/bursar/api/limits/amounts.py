"""Amounts of limits on the wire: USD as text for cost, whole numbers for everything else.

Owns that step, in and out, which takes the resource to make. Must not know limits.
"""

from typing import Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema

from bursar.core import money
from bursar.core.allowances import Resource
from bursar.core.errors import Invalid
from bursar.core.money import InvalidAmount, format_usd

UNITS: Final = {
    Resource.COST: "usd",
    Resource.REQUESTS: "requests",
    Resource.TOKENS: "tokens",
    Resource.CONCURRENCY: "calls",
}
Amount: TypeAlias = str | int


def _text_or_number(value: object, info: ValidationInfo) -> Any:
    # A fraction, a list or a truth value is no amount of anything.
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    message = "It must be an amount in USD as text, or a whole number."
    raise Invalid("invalid_amount", message, param=info.field_name)


AmountIn = Annotated[
    Amount | None,
    BeforeValidator(_text_or_number),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\d{1,10}(\.\d{1,9})?$"},
                {"type": "integer", "minimum": 0},
                {"type": "null"},
            ]
        }
    ),
]


def read(value: Amount | None, *, resource: Resource, param: str) -> int | None:
    """Return an amount in the resource's own unit; raises Invalid (`invalid_amount`)."""
    if value is None:
        return None
    if resource is not Resource.COST:
        if isinstance(value, int):
            return value
        message = f"It must be a whole number of {UNITS[resource]}."
        raise Invalid("invalid_amount", message, param=param)
    if not isinstance(value, str):
        message = 'It must be an amount in USD as text, such as "10.00".'
        raise Invalid("invalid_amount", message, param=param)
    try:
        return money.parse_usd(value)
    except InvalidAmount as error:
        raise Invalid(error.code, str(error), param=param) from None


def write(value: int, *, resource: str) -> Amount:
    """Return an amount as JSON has it."""
    return format_usd(value) if resource == Resource.COST else value


def write_any(value: int | None, *, resource: str) -> Amount | None:
    """Return an amount as JSON has it, None for none."""
    return None if value is None else write(value, resource=resource)
