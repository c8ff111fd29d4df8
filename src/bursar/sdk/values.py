"""Values on the wire: JSON without floats, money, moments, ids and secrets.

Owns how they are written and read. Money is a `Decimal` in USD both ways and never passes through
binary fractions; a `float` that a program hands in means the decimal that Python prints for it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from bursar.sdk.errors import InvalidArgument

UsdIn: TypeAlias = Decimal | int | str | float
_SECRET: Final = re.compile(r"\b(b[spo]k_)[0-9A-Za-z]{30,}([0-9A-Za-z]{6})\b")
# Refresh tokens, those of letters, and access tokens, of which nobody needs to see an end.
_TOKEN: Final = re.compile(r"\b(b[rl]t_)[0-9a-f]{16,}|\b(eyJ)[\w-]+\.[\w-]+\.[\w-]+")
_MOST_DIGITS: Final = 40
# More than any machine's fractions have: a number beyond would be written out in full one day.
_MOST_EXPONENT: Final = 400


class Unset(Enum):
    """The value of an argument that was not given, where None means something else."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET


class Secret(str):
    """A secret: text like any other, but its `repr` shows only the ends of it."""

    __slots__ = ()

    def __repr__(self) -> str:
        shortened = redact(self)
        return repr(shortened if shortened != self else "…")


def redact(text: str) -> str:
    """Return the text with its keys shortened to prefix and last six characters, and its tokens."""
    return _TOKEN.sub(lambda found: f"{found[1] or found[2]}…", _SECRET.sub(r"\1…\2", text))


# ── Out ─────────────────────────────────────────────────────────────────────────────────────────


def encode(value: object) -> bytes:
    """Return the JSON of a value, decimals as exact numbers; raises InvalidArgument."""
    return _encode(value).encode()


def given(**fields: object) -> dict[str, object]:
    """Return the fields that were given: those that are not UNSET."""
    return {name: value for name, value in fields.items() if value is not UNSET}


def some(**fields: object) -> dict[str, object]:
    """Return the fields that are neither UNSET nor None."""
    return {name: value for name, value in given(**fields).items() if value is not None}


def usd(amount: UsdIn | Unset | None) -> Decimal | Unset | None:
    """Return money as a decimal, to be sent as a JSON number; raises InvalidArgument."""
    return amount if amount is None or isinstance(amount, Unset) else _decimal(amount)


def usd_text(amount: UsdIn | Unset | None) -> str | Unset | None:
    """Return money as plain decimal text; raises InvalidArgument."""
    return amount if amount is None or isinstance(amount, Unset) else _plain(_decimal(amount))


def moment(at: datetime | Unset | None) -> str | Unset | None:
    """Return a moment as ISO 8601 in UTC; raises InvalidArgument if it has no time zone."""
    if at is None or isinstance(at, Unset):
        return at
    if at.tzinfo is None or at.utcoffset() is None:
        raise InvalidArgument(
            f"{at!r} has no time zone: a moment is one only with it; use "
            "datetime.now(timezone.utc) or .astimezone()."
        )
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def path(*parts: str | int) -> str:
    """Return an address of the first part and segments of the others, which cannot leave it."""
    first, *segments = parts
    for segment in segments:
        if str(segment) in ("", ".", ".."):
            raise InvalidArgument(f"{segment!r} cannot be an id.")
    return "/".join([str(first), *(quoted(str(segment)) for segment in segments)])


def quoted(text: str) -> str:
    """Return text with all that could mean something else escaped; raises InvalidArgument."""
    return quote(_utf8(text), safe="")


def parameter(value: object) -> str:
    """Return a value as a parameter of an address; raises InvalidArgument."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    _utf8(text)
    return text


def header(name: str, text: str) -> str:
    """Return text that can stand in a header; raises InvalidArgument."""
    if not text.isascii() or not text.isprintable():
        raise InvalidArgument(f"{name} may have printable ASCII characters only, not {text!r}.")
    return text


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"{text!r} has half of a character, which cannot be sent.") from None


def _decimal(amount: UsdIn) -> Decimal:
    # A truth value is an int to Python, but nobody means 1 USD by it.
    if isinstance(amount, bool) or not isinstance(amount, Decimal | int | str | float):
        raise InvalidArgument(f"{amount!r} is no amount in USD.")
    try:
        found = Decimal(str(amount) if isinstance(amount, float) else amount)
    except InvalidOperation:
        raise InvalidArgument(f"{amount!r} is no amount in USD.") from None
    if not found.is_finite() or abs(found.adjusted()) > _MOST_DIGITS:
        raise InvalidArgument(f"{amount!r} is no amount in USD.")
    return found


def _plain(number: Decimal) -> str:
    return format(number, "f")


def _encode(value: object) -> str:
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise InvalidArgument(f"{value} cannot be sent as a number.")
        return _plain(value)
    if isinstance(value, Mapping):
        fields = (f"{json.dumps(str(name))}:{_encode(each)}" for name, each in value.items())
        return "{" + ",".join(fields) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return "[" + ",".join(map(_encode, value)) + "]"
    if isinstance(value, datetime):
        return json.dumps(moment(value))
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{value!r} cannot be sent as JSON: {error}.") from None


# ── In ──────────────────────────────────────────────────────────────────────────────────────────


def decode(body: bytes) -> Any:
    """Return what JSON says, its fractions as decimals; raises ValueError for what is none."""
    try:
        return json.loads(body, parse_float=_fraction, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _fraction(text: str) -> Decimal:
    try:
        found = Decimal(text)
    except InvalidOperation:
        found = None
    if found is None or abs(found.adjusted()) > _MOST_EXPONENT:
        raise ValueError("a number is out of range")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
