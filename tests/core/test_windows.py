"""Windows tile time in every zone, whatever its clocks did."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bursar.core import windows
from bursar.core.errors import Invalid, InvariantViolated
from bursar.core.windows import Bounds, Window

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR_MS = 3_600_000
CALENDAR = (Window.DAY, Window.WEEK, Window.MONTH)
ZONES = (
    "UTC",
    "Europe/Rome",
    "America/New_York",
    "America/Sao_Paulo",  # clocks changed at midnight, into a gap and into a fold
    "America/St_Johns",  # changed at 00:01, so that midnight came twice
    "America/Scoresbysund",
    "America/Toronto",
    "Africa/Casablanca",  # changes for Ramadan
    "Australia/Lord_Howe",  # changes by half an hour
    "Pacific/Apia",  # skipped 30 December 2011
    "Pacific/Kwajalein",  # skipped 21 August 1993
    "Asia/Kathmandu",
    "Asia/Gaza",
    "Asia/Beirut",
    "Antarctica/Troll",
)
FIRST, LAST = -2_208_000_000_000, 4_102_444_800_000  # 1900 to 2100
MOMENTS = st.integers(0, LAST) | st.integers(FIRST, LAST)


def ms(text: str, zone: str = "UTC") -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))
    return (moment - EPOCH) // timedelta(milliseconds=1)


def wall(moment_ms: int, zone: str) -> datetime:
    moment = EPOCH + timedelta(milliseconds=moment_ms)
    return moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)


@pytest.mark.parametrize(
    ("window", "now", "start", "end"),
    [
        ("minute", "2026-11-20T12:34:56", "2026-11-20T12:34:00", "2026-11-20T12:35:00"),
        ("hour", "2026-11-20T12:34:56", "2026-11-20T12:00:00", "2026-11-20T13:00:00"),
        ("day", "2026-11-20T12:34:56", "2026-11-20T00:00:00", "2026-11-21T00:00:00"),
        ("day", "2026-11-20T00:00:00", "2026-11-20T00:00:00", "2026-11-21T00:00:00"),
        ("week", "2026-11-20T12:34:56", "2026-11-16T00:00:00", "2026-11-23T00:00:00"),
        ("week", "2026-11-16T00:00:00", "2026-11-16T00:00:00", "2026-11-23T00:00:00"),
        ("week", "2027-01-01T00:00:00", "2026-12-28T00:00:00", "2027-01-04T00:00:00"),
        ("month", "2026-11-20T12:34:56", "2026-11-01T00:00:00", "2026-12-01T00:00:00"),
        ("month", "2026-12-31T23:59:59", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
        ("month", "2028-02-29T12:00:00", "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
        ("month", "2026-01-31T12:00:00", "2026-01-01T00:00:00", "2026-02-01T00:00:00"),
    ],
)
def test_windows_in_utc(window: str, now: str, start: str, end: str) -> None:
    assert windows.bounds(Window(window), now_ms=ms(now)) == Bounds(ms(start), ms(end))


def test_the_last_millisecond_belongs_to_the_window_and_the_next_does_not() -> None:
    end = ms("2026-11-21T00:00:00")
    assert windows.bounds(Window.DAY, now_ms=end - 1).end_ms == end
    assert windows.bounds(Window.DAY, now_ms=end).start_ms == end


def test_a_lifetime_begins_at_the_epoch_and_never_ends() -> None:
    assert windows.bounds(Window.LIFETIME, now_ms=0) == Bounds(0, None)
    assert windows.bounds(Window.LIFETIME, now_ms=10**13, zone="Europe/Rome") == Bounds(0, None)


@pytest.mark.parametrize(
    ("zone", "noon", "hours"),
    [
        ("Europe/Rome", "2026-03-29T12:00", 23),
        ("Europe/Rome", "2026-10-25T12:00", 25),
        ("Australia/Lord_Howe", "2025-10-05T12:00", 23.5),
        ("Australia/Lord_Howe", "2025-04-06T12:00", 24.5),
        ("America/Sao_Paulo", "2018-11-04T12:00", 23),  # midnight was skipped
        ("America/Sao_Paulo", "2018-02-17T12:00", 25),  # 23:00 to 24:00 came twice
        ("America/St_Johns", "2006-10-28T12:00", 24),  # both passages belong to the Sunday
        ("America/St_Johns", "2006-10-29T12:00", 25),
        ("Pacific/Apia", "2011-12-29T12:00", 24),
        ("Pacific/Apia", "2011-12-31T12:00", 24),
        ("Asia/Kathmandu", "2026-06-01T12:00", 24),
        ("America/Toronto", "1919-03-30T12:00", 23.5),  # 23:30 was followed by 00:30
        ("America/Toronto", "1919-03-31T12:00", 23.5),
    ],
)
def test_a_day_is_as_long_as_its_clocks_made_it(zone: str, noon: str, hours: float) -> None:
    found = windows.bounds(Window.DAY, now_ms=ms(noon, zone), zone=zone)
    assert found.end_ms is not None
    assert (found.end_ms - found.start_ms) / HOUR_MS == hours
    assert wall(found.start_ms, zone).date().isoformat() == noon[:10]


def test_a_day_without_midnight_begins_when_the_clocks_have_jumped() -> None:
    zone = "America/Sao_Paulo"
    found = windows.bounds(Window.DAY, now_ms=ms("2018-11-04T12:00", zone), zone=zone)
    assert wall(found.start_ms, zone) == datetime.fromisoformat("2018-11-04T01:00")
    assert wall(found.start_ms - 1, zone).isoformat() == "2018-11-03T23:59:59.999000"


def test_a_gap_around_midnight_parts_the_days_where_it_begins() -> None:
    zone = "America/Toronto"
    found = windows.bounds(Window.DAY, now_ms=ms("1919-03-31T12:00", zone), zone=zone)
    assert wall(found.start_ms, zone) == datetime.fromisoformat("1919-03-31T00:30")
    assert wall(found.start_ms - 1, zone).isoformat() == "1919-03-30T23:29:59.999000"


def test_the_hour_that_comes_twice_over_midnight_belongs_to_the_new_day() -> None:
    zone = "America/St_Johns"
    first_midnight = ms("2006-10-29T00:00", zone)
    for minutes in (0, 1, 30, 61, 90):
        now_ms = first_midnight + minutes * 60_000
        assert windows.bounds(Window.DAY, now_ms=now_ms, zone=zone).start_ms == first_midnight
    assert wall(first_midnight + 30 * 60_000, zone).date().isoformat() == "2006-10-28"


@example("America/St_Johns", Window.DAY, 1_162_090_800_000)
@example("Pacific/Apia", Window.DAY, 1_325_239_200_000)
@example("Pacific/Apia", Window.DAY, 1_325_239_199_999)
@given(st.sampled_from(ZONES), st.sampled_from(Window), MOMENTS)
def test_windows_contain_their_moments_and_tile_time(
    zone: str, window: Window, now_ms: int
) -> None:
    found = windows.bounds(window, now_ms=now_ms, zone=zone)
    if found.end_ms is None:
        assert window is Window.LIFETIME
        return
    assert found.start_ms <= now_ms < found.end_ms
    assert windows.bounds(window, now_ms=found.end_ms, zone=zone).start_ms == found.end_ms
    assert windows.bounds(window, now_ms=found.end_ms - 1, zone=zone) == found
    if found.start_ms > FIRST:
        assert windows.bounds(window, now_ms=found.start_ms, zone=zone) == found
        assert windows.bounds(window, now_ms=found.start_ms - 1, zone=zone).end_ms == found.start_ms


@given(st.sampled_from(ZONES), st.sampled_from(CALENDAR), MOMENTS)
def test_a_calendar_window_begins_as_its_first_day_begins(
    zone: str, window: Window, now_ms: int
) -> None:
    start = windows.bounds(window, now_ms=now_ms, zone=zone).start_ms
    before, first = wall(start - 1, zone), wall(start, zone)
    assert before.date() < first.date()
    if window is Window.WEEK:
        assert first.weekday() == 0
    if window is Window.MONTH:
        assert first.day == 1


@given(st.sampled_from(ZONES), st.sampled_from(Window), MOMENTS)
def test_previewed_resets_are_the_ends_of_the_windows_that_follow(
    zone: str, window: Window, now_ms: int
) -> None:
    moments = windows.preview(window, now_ms=now_ms, zone=zone, count=4)
    if window is Window.LIFETIME:
        assert moments == []
        return
    assert len(moments) == 4
    assert moments == sorted(set(moments))
    assert moments[0] == windows.bounds(window, now_ms=now_ms, zone=zone).end_ms
    assert moments[1] == windows.bounds(window, now_ms=moments[0], zone=zone).end_ms


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Mars/Olympus",
        "../../etc/passwd",
        "/etc/localtime",
        "Europe",
        "Europe/",
        "Europe//Rome",
        "Europe/Rome\n",
        "Europe/Rome\0",
        "right/UTC",
        "posix/UTC",
        "localtime",
        "tzdata.zi",
        "zone.tab",
        "+02:00",
        "x" * 5000,
    ],
)
def test_what_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as refusal:
        windows.bounds(Window.DAY, now_ms=0, zone=name)
    assert refusal.value.code == "invalid_timezone"


@pytest.mark.parametrize("now_ms", [-(10**13), 10**15, 2**63])
def test_a_moment_beyond_the_calendar_is_refused(now_ms: int) -> None:
    with pytest.raises(InvariantViolated):
        windows.bounds(Window.MONTH, now_ms=now_ms)
