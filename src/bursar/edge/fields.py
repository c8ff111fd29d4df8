"""Values on the wire: money, moments and ids, in and out.

Owns their exact forms. Money is a plain decimal in USD (a JSON number where a client expects one,
else text), a moment is ISO 8601 in UTC, an id is digits. Must not know which field is where.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema

from bursar.core import money
from bursar.core.errors import Invalid, NotFound
from bursar.core.money import InvalidAmount, format_usd

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_ID: Final = 2**63 - 1
# What a spreadsheet takes for the beginning of a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_ID: Final = re.compile(r"[1-9][0-9]{0,18}")
_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})"
)


def format_moment(at_ms: int) -> str:
    """Return ms since the epoch as ISO 8601 in UTC; a fraction only where there is one."""
    moment = _EPOCH + timedelta(milliseconds=at_ms)
    spec = "milliseconds" if at_ms % 1000 else "seconds"
    return moment.replace(tzinfo=None).isoformat(timespec=spec) + "Z"


def format_day(at_ms: int) -> str:
    """Return the date in UTC of a moment."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).date().isoformat()


def parse_moment(text: object, *, param: str) -> int:
    """Return the ms since the epoch of an ISO 8601 moment with a time zone.

    Raises Invalid (`invalid_timestamp`) for anything else, as a date alone, a 30th of February, a
    leap second, or a moment before 1970.
    """
    if isinstance(text, str) and _MOMENT.fullmatch(text):
        try:
            at_ms = (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)
        except (ValueError, OverflowError):
            at_ms = -1
        if at_ms >= 0:
            return at_ms
    message = "A moment looks like 2027-01-31T12:00:00Z."
    raise Invalid("invalid_timestamp", message, param=param)


def usd_number(nanos: int | None) -> Any:
    """Return money as a JSON number without an exponent; None is null."""
    return None if nanos is None else msgspec.Raw(format_usd(nanos).encode())


def spreadsheet_text(text: str) -> str:
    """Return somebody's text for a cell of a CSV, which a spreadsheet must not compute."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def parse_path_id(text: str) -> int:
    """Return an id from a path; raises NotFound for what cannot be one, as for an unknown one."""
    number = find_id(text)
    if number is None:
        raise NotFound("not_found", "There is nothing here, or it is not yours.")
    return number


def find_id(text: str) -> int | None:
    """Return an id, None for what cannot be one: no sign, zero in front, or more than 64 bits."""
    if _ID.fullmatch(text) is None:
        return None
    number = int(text)
    return number if number <= _MAX_ID else None


def _number(value: object, info: ValidationInfo) -> int:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Invalid("invalid_amount", "It must be a number in USD.", param=info.field_name)
    return _nanos(value, info)


def _text(value: object, info: ValidationInfo) -> int:
    if not isinstance(value, str):
        message = 'It must be an amount in USD as text, such as "10.00".'
        raise Invalid("invalid_amount", message, param=info.field_name)
    return _nanos(value, info)


def _nanos(value: Decimal | int | str, info: ValidationInfo) -> int:
    try:
        return money.parse_usd(value)
    except InvalidAmount as error:
        raise Invalid(error.code, str(error), param=info.field_name) from None


def _moment(value: object, info: ValidationInfo) -> int:
    return parse_moment(value, param=info.field_name or "")


# What comes in. Refusals are raised as our own errors, which pydantic lets through.
UsdNumberIn = Annotated[
    int, BeforeValidator(_number), WithJsonSchema({"type": "number", "minimum": 0})
]
UsdTextIn = Annotated[
    int,
    BeforeValidator(_text),
    WithJsonSchema({"type": "string", "pattern": r"^-?\d{1,10}(\.\d{1,9})?$"}),
]
IdIn = Annotated[int, Field(ge=1, le=_MAX_ID)]
MomentIn = Annotated[
    int, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})
]

# What goes out, for the schema: a `usd_number`, or text.
UsdNumber = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}]})]
Usd = Annotated[str, WithJsonSchema({"type": "string", "pattern": r"^-?\d+\.\d{2,9}$"})]
Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
