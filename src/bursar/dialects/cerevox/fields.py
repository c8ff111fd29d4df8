"""Values as Cerevox writes them: ids as text, days, and credentials of the scheme Basic.

Owns their exact forms, in and out. Must not know which field is where.
"""

import base64
import binascii
import re
from datetime import date
from typing import Final

from starlette.datastructures import Headers

from bursar.core import refusals
from bursar.core.errors import Invalid
from bursar.core.refusals import Reason
from bursar.edge.query import Query

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_BASIC: Final = "basic "


def find_basic(headers: Headers) -> str | None:
    """Return what a request presents in the scheme Basic, None for none.

    Cerevox sends a key there without the colon that the scheme has. Raises Unauthenticated
    (`invalid_api_key`) for what cannot be read.
    """
    given = headers.get("authorization", "")
    if not given.lower().startswith(_BASIC):
        return None
    try:
        return base64.b64decode(given[len(_BASIC) :], validate=True).decode()
    except (binascii.Error, ValueError):
        raise refusals.as_error(refusals.deny(Reason.MALFORMED)) from None


def find_day(query: Query, name: str) -> date | None:
    """Return the day, YYYY-MM-DD, of a parameter, or None; raises Invalid (`invalid_timestamp`)."""
    text = query.find(name)
    if text is None:
        return None
    try:
        day = date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None or not 1970 <= day.year < 9999:
        raise Invalid("invalid_timestamp", "A day looks like 2027-01-31.", param=name)
    return day
