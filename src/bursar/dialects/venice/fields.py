"""Values as Venice writes them: moments with milliseconds, days, numbers of USD, pages by number.

Owns their exact forms, in and out. Must not know which field is where.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import msgspec

from bursar.core.errors import Invalid
from bursar.core.money import format_usd, round_half_up
from bursar.edge import fields as common
from bursar.edge.query import Query

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ZONE: Final = re.compile(r".*(Z|[+-][0-9]{2}:[0-9]{2})")
_MILLI_USD: Final = 1_000_000
_THOUSAND: Final = 1_000
_MOST_PAGES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list that is counted: the `number`th of `size` items, from 1."""

    number: int
    size: int

    @property
    def start(self) -> int:
        """How many items lie before it."""
        return (self.number - 1) * self.size

    def count(self, total: int) -> int:
        """How many pages there are."""
        return -(-total // self.size)

    def headers(self, total: int) -> dict[str, str]:
        """The header fields that go with the page."""
        return {
            "x-pagination-limit": str(self.size),
            "x-pagination-page": str(self.number),
            "x-pagination-total": str(total),
            "x-pagination-total-pages": str(self.count(total)),
        }


def read_page(query: Query, *, default: int, most: int) -> Page:
    """Return the page that `page` and `limit` ask for; raises Invalid (`invalid_value`)."""
    return Page(
        query.number("page", low=1, high=_MOST_PAGES, default=1),
        query.number("limit", low=1, high=most, default=default),
    )


def format_moment(at_ms: int) -> str:
    """Return ms since the epoch as Venice writes a moment: "2026-11-20T16:00:00.000Z"."""
    moment = datetime.fromtimestamp(at_ms // 1000, UTC).replace(tzinfo=None)
    return f"{moment.isoformat(timespec='seconds')}.{at_ms % 1000:03d}Z"


def parse_moment(text: str, *, param: str) -> int:
    """Return the ms of a moment or of the start of a day, in UTC where it names no zone.

    Raises Invalid (`invalid_timestamp`).
    """
    if _DAY.fullmatch(text):
        text = f"{text}T00:00:00Z"
    elif not _ZONE.fullmatch(text):
        text = f"{text}Z"
    return common.parse_moment(text, param=param)


def find_moment(query: Query, *names: str) -> int | None:
    """Return the moment in the first of these parameters that was given, or None."""
    for name in names:
        text = query.find(name)
        if text is not None:
            return parse_moment(text, param=name)
    return None


def find_day(query: Query, name: str) -> int | None:
    """Return the start of a day, YYYY-MM-DD; raises Invalid (`invalid_timestamp`)."""
    text = query.find(name)
    if text is None:
        return None
    try:
        day = date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None or day.year < 1970:
        raise Invalid("invalid_timestamp", "A day looks like 2027-01-31.", param=name)
    return parse_moment(text, param=name)


def usd(nanos: int) -> Any:
    """Return money as a JSON number of USD, without an exponent."""
    return common.usd_number(nanos)


def usd_text(nanos: int) -> str:
    """Return money as text in USD."""
    return format_usd(nanos)


def milli_usd(nanos: int) -> int:
    """Return money in whole thousandths of a USD, rounded down."""
    return nanos // _MILLI_USD


def units(tokens: int) -> Any:
    """Return tokens in thousands, exactly, as a JSON number."""
    whole, rest = divmod(tokens, _THOUSAND)
    return msgspec.Raw(f"{whole}.{rest:03d}".encode())


def price_of_unit(nanos: int, tokens: int) -> Any:
    """Return what a thousand of these tokens came to, as a JSON number of USD."""
    return usd(round_half_up(nanos * _THOUSAND, tokens) if tokens else 0)
