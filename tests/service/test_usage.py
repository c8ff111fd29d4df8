"""Reports say what the usage rows say."""

from __future__ import annotations

import pytest

from bursar.core.errors import Invalid
from bursar.service import keys, usage
from bursar.service.usage import Activity
from bursar.store.database import Database
from bursar.store.usage import EventFilter, EventRow, Position, Sum
from tests.databases import Clock
from tests.installations import Randomness, a_charge, use

pytestmark = pytest.mark.usefixtures("installation")
DAY_MS = 86_400_000


async def report(database: Database, clock: Clock, days: int) -> Activity:
    async with database.read() as tx:
        return await usage.report(tx, account_id=1, days=days, now_ms=clock.now_ms)


async def events(
    database: Database, where: EventFilter | None = None, *, size: int = 50
) -> list[EventRow]:
    found: list[EventRow] = []
    behind = None
    async with database.read() as tx:
        while page := await usage.list_events(
            tx, account_id=1, where=where or EventFilter(), behind=behind, limit=size
        ):
            found += page
            behind = Position(page[-1].at_ms, page[-1].event_id)
    return found


async def test_a_report_sums_by_day_model_and_key(database: Database, clock: Clock) -> None:
    async with database.write() as tx:
        other = await keys.create(
            tx, account_id=1, user_id=None, name="Other", random_bytes=Randomness()
        )
    today = clock.now_ms - clock.now_ms % DAY_MS
    await use(
        database,
        a_charge("a", 100, at_ms=clock.now_ms, model="small"),
        a_charge("b", 200, at_ms=today, model="small"),
        a_charge("c", 1_000, at_ms=today - 1, model="large", key_id=other.key.id),
        a_charge("d", 5_000, at_ms=today - 6 * DAY_MS, model="huge"),
        a_charge("e", 7, at_ms=today - 6 * DAY_MS - 1, model="too old"),
    )
    found = await report(database, clock, 7)
    assert found.total == Sum(4, 6_300, 40, 20)
    assert [(day, sums.requests, sums.cost_nanos) for day, sums in found.by_day] == [
        (today, 2, 300),
        (today - DAY_MS, 1, 1_000),
        (today - 6 * DAY_MS, 1, 5_000),
    ]
    assert [(name, sums.requests) for name, sums in found.by_model] == [
        ("small", 2),
        ("huge", 1),
        ("large", 1),
    ]
    assert [(key_id, name, sums.cost_nanos) for key_id, name, sums in found.by_key] == [
        (3, "First inference key", 5_300),
        (other.key.id, "Other", 1_000),
    ]
    assert (await report(database, clock, 1)).total.cost_nanos == 300
    figures = [found.total, *(sums for _, sums in found.by_model)]
    assert {type(sums.cost_nanos) for sums in figures} == {int}


async def test_a_deleted_key_keeps_its_name_in_reports(database: Database, clock: Clock) -> None:
    await use(database, a_charge("a", 100, at_ms=clock.now_ms))
    async with database.write() as tx:
        await keys.delete(tx, account_id=1, key_id=3)
    found = await report(database, clock, 1)
    assert [(key_id, name) for key_id, name, _ in found.by_key] == [(3, "First inference key")]


async def test_an_account_without_usage_has_an_empty_report(
    database: Database, clock: Clock
) -> None:
    found = await report(database, clock, 30)
    assert found == Activity(30, Sum(0, 0, 0, 0), [], [], [], [])


@pytest.mark.parametrize("size", [1, 2, 50])
async def test_events_are_listed_newest_first_each_once(
    database: Database, clock: Clock, size: int
) -> None:
    now = clock.now_ms
    await use(
        database,
        a_charge("b", 1, at_ms=now),
        a_charge("a", 2, at_ms=now),
        a_charge("c", 3, at_ms=now + 5),
        a_charge("z", 4, at_ms=now - 5),
    )
    assert [event.event_id for event in await events(database, size=size)] == ["c", "b", "a", "z"]


async def test_events_are_filtered(database: Database, clock: Clock) -> None:
    now = clock.now_ms
    await use(
        database,
        a_charge("a", 1, at_ms=now, model="small"),
        a_charge("b", 1, at_ms=now + 1, model="large"),
        a_charge("c", 1, at_ms=now + 2, model="large"),
    )
    expected = {
        EventFilter(model="large"): ["c", "b"],
        EventFilter(model="'; DROP TABLE keys --"): [],
        EventFilter(model="%"): [],
        EventFilter(key_id=3): ["c", "b", "a"],
        EventFilter(key_id=4): [],
        EventFilter(from_ms=now + 1): ["c", "b"],
        EventFilter(to_ms=now + 1): ["a"],
        EventFilter(from_ms=now + 1, to_ms=now + 2, model="large", key_id=3): ["b"],
        EventFilter(from_ms=now, to_ms=now): [],
    }
    for where, ids in expected.items():
        assert [event.event_id for event in await events(database, where)] == ids, where


async def test_a_span_that_ends_before_it_begins_is_refused(database: Database) -> None:
    with pytest.raises(Invalid) as refusal:
        await events(database, EventFilter(from_ms=2, to_ms=1))
    assert refusal.value.code == "invalid_range"
