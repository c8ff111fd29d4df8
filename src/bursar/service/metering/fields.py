"""What a report of use must look like before it is priced.

Owns the forms of its fields and how late it may come. Must not know prices, keys or limits.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bursar.core import permissions, text
from bursar.core.errors import Invalid
from bursar.core.prices import MAX_QUANTITY, TOKEN_METERS

# A bill is made soon after its month: what comes later than this could not be on it.
MOST_LATE_MS: Final = 35 * 86_400_000
# By so much somebody's clock may be ahead of ours.
_AHEAD_MS: Final = 5 * 60_000
MOST_METERS: Final = 32
# Sums of tokens are kept in 64 bits; a trillion at once is no single use.
_MOST_TOKENS: Final = 10**12
_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_METER: Final = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
# The gateway's own: an event must not be taken for a call.
_CALLS: Final = "req_"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """A report as it was sent; None is what was not said. `at_ms` None is now."""

    id: str
    quantities: Mapping[str, int] = field(hash=False)
    at_ms: int | None = None
    product: str | None = None
    model: str | None = None
    key_id: int | None = None
    labels: Mapping[str, str] | None = field(default=None, hash=False)


@dataclass(frozen=True, slots=True)
class Event:
    """A report that can be priced: where it named a product alone, that stands for a model too."""

    id: str
    at_ms: int
    product: str | None
    model: str
    quantities: Mapping[str, int] = field(hash=False)
    key_id: int | None
    labels: Mapping[str, str] = field(hash=False)


def clean(new: NewEvent, *, now_ms: int) -> Event:
    """Return the report in the form in which it can be priced.

    Raises Invalid: `missing_field`, `invalid_value`, `invalid_label`, or `invalid_timestamp` for
    what is more than 35 days old or more than 5 minutes ahead.
    """
    if _ID.fullmatch(new.id) is None or new.id.startswith(_CALLS):
        message = "An id is 1 to 128 printable ASCII characters, and does not begin with req_."
        raise Invalid("invalid_value", message, param="id")
    model = _name(new.model, "model")
    product = _name(new.product, "product")
    shown = model or product
    if shown is None:
        raise Invalid("missing_field", "Say which product or model was used.", param="product")
    return Event(
        id=new.id,
        at_ms=_moment(new.at_ms, now_ms),
        product=product,
        model=shown,
        quantities=_quantities(new.quantities),
        key_id=new.key_id,
        labels=permissions.clean_labels(new.labels or {}),
    )


def _name(given: str | None, param: str) -> str | None:
    if given is not None and not text.is_model_name(given):
        message = "A name is 1 to 200 printable characters without spaces."
        raise Invalid("invalid_value", message, param=param)
    return given


def _moment(at_ms: int | None, now_ms: int) -> int:
    if at_ms is None:
        return now_ms
    if at_ms > now_ms + _AHEAD_MS:
        raise Invalid("invalid_timestamp", "This has not happened yet.", param="at")
    if at_ms < now_ms - MOST_LATE_MS:
        message = "What was used more than 35 days ago cannot be reported any more."
        raise Invalid("invalid_timestamp", message, param="at")
    # No window and no bill has what lies ahead.
    return min(at_ms, now_ms)


def _quantities(given: Mapping[str, int]) -> dict[str, int]:
    if not 1 <= len(given) <= MOST_METERS:
        raise _refused(f"An event has 1 to {MOST_METERS} quantities.")
    for meter, quantity in given.items():
        if _METER.fullmatch(meter) is None:
            raise _refused("A meter's name is lower-case letters, digits and underscores.")
        most = _MOST_TOKENS if meter in TOKEN_METERS else MAX_QUANTITY
        if type(quantity) is not int or not 0 <= quantity <= most:
            raise _refused(f"{meter} must be a whole number from 0 to {most}.")
    return dict(sorted(given.items()))


def _refused(message: str) -> Invalid:
    return Invalid("invalid_value", message, param="quantities")
