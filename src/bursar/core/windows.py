"""Windows: the stretch of time over which an allowance counts.

Owns where windows begin and end, derived from the moment alone, so that nothing ever has to
reset them. Must not know allowances. Moments are ms since the epoch, from 1900 to 9998.

The windows of one kind and zone tile time: each moment is in exactly one. A calendar window
begins at the first moment at which its first day's midnight has been reached: after the gap
where clocks skip midnight, at the first of two midnights where they repeat it.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from zoneinfo import ZoneInfo

from bursar.core.errors import Invalid, InvariantViolated

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_MILLISECOND = timedelta(milliseconds=1)
_BEGIN_MS = (datetime(1900, 1, 2, tzinfo=UTC) - _EPOCH) // _MILLISECOND
_END_MS = (datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH) // _MILLISECOND
_ZONE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}")

_NOT_ZONES = ("right/", "posix", "localtime", "Factory")


class Window(StrEnum):
    """The kinds of windows; weeks begin on Monday, a lifetime never ends."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    LIFETIME = "lifetime"


_FIXED_MS = {Window.MINUTE: 60_000, Window.HOUR: 3_600_000}


@dataclass(frozen=True, slots=True)
class Bounds:
    """From `start_ms` up to but not including `end_ms` (None: never)."""

    start_ms: int
    end_ms: int | None


def bounds(window: Window, *, now_ms: int, zone: str = "UTC") -> Bounds:
    """Return the window that contains this moment.

    Minutes and hours count from the epoch in UTC; days, weeks and months follow the calendar
    of the IANA zone. Raises Invalid (`invalid_timezone`) for an unknown zone and
    InvariantViolated for a moment out of range.
    """
    if not _BEGIN_MS <= now_ms < _END_MS:
        raise InvariantViolated("invariant_violated", "The clock is out of range.")
    if window == Window.LIFETIME:
        return Bounds(0, None)
    length = _FIXED_MS.get(window)
    if length is not None:
        start = now_ms - now_ms % length
        return Bounds(start, start + length)
    place = find_zone(zone)
    first = _first_day(window, (_EPOCH + now_ms * _MILLISECOND).astimezone(place).date())
    start = _begin_ms(first, place)
    while True:
        first = _next_first_day(window, first)
        end = _begin_ms(first, place)
        # Clocks that step back over midnight show the old day again in the new window; a day
        # that a zone skipped altogether has no moments.
        if now_ms < end:
            return Bounds(start, end)
        start = end


def day_start(day: date, *, zone: str) -> int:
    """Return the moment at which a day begins in an IANA zone, in ms since the epoch.

    Raises Invalid (`invalid_timezone`) for an unknown zone.
    """
    return _begin_ms(day, find_zone(zone))


def preview(window: Window, *, now_ms: int, zone: str, count: int) -> list[int]:
    """Return the next `count` moments at which the window resets; none for a lifetime."""
    moments: list[int] = []
    end = bounds(window, now_ms=now_ms, zone=zone).end_ms
    while end is not None and len(moments) < count:
        moments.append(end)
        end = bounds(window, now_ms=end, zone=zone).end_ms
    return moments


def find_zone(name: str) -> tzinfo:
    """Return the IANA time zone of this name; raises Invalid (`invalid_timezone`)."""
    if name == "UTC":
        return UTC
    # The name becomes a path below the zone data: nothing else may be reached through it, nor
    # its variants with leap seconds or what the host calls local.
    if len(name) <= 64 and _ZONE_NAME.fullmatch(name) and not name.startswith(_NOT_ZONES):
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            pass
    raise Invalid("invalid_timezone", "The time zone must be an IANA name, such as Europe/Rome.")


def _first_day(window: Window, day: date) -> date:
    if window == Window.WEEK:
        return day - timedelta(days=day.weekday())
    if window == Window.MONTH:
        return day.replace(day=1)
    return day


def _next_first_day(window: Window, first: date) -> date:
    if window == Window.WEEK:
        return first + timedelta(days=7)
    if window == Window.MONTH:
        return (first + timedelta(days=31)).replace(day=1)
    return first + timedelta(days=1)


def _begin_ms(day: date, zone: tzinfo) -> int:
    midnight = datetime.combine(day, time(), tzinfo=zone)
    moment = midnight.astimezone(UTC)
    before = midnight.replace(fold=1).astimezone(UTC)
    # Only where clocks skip midnight does the later reading give the earlier moment. The
    # clocks change between the two, and that change is when the day begins.
    if before < moment:
        wall = midnight.replace(tzinfo=None)
        while moment - before > _SECOND:
            middle = before + (moment - before) // 2
            middle = middle.replace(microsecond=0)
            if middle.astimezone(zone).replace(tzinfo=None) < wall:
                before = middle
            else:
                moment = middle
    return (moment - _EPOCH) // _MILLISECOND
