"""Refusals by limits reach the limit log, once for each limit and second, and hold nobody up."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy.exc import OperationalError

from bursar.core.refusals import Deny, Reason, deny
from bursar.jobs import retention
from bursar.store.database import Database
from bursar.store.limits import refusals
from bursar.store.limits.refusals import Position, RefusalFilter, RefusalRow
from bursar.telemetry import Metrics
from bursar.worker.plane import Worker
from bursar.worker.refusals import MOST, Refusals
from tests.databases import Clock

RATE = Deny(
    Reason.RATE,
    "60 of 60 are used",
    allowance="key:3/requests/minute/gpt-*/x",
    limit=60,
    left=0,
    resource="requests",
)
CALL = {"account_id": 1, "key_id": 3, "model": "gpt-x", "endpoint": "chat.completions"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def gathered(database: Database, clock: Clock, metrics: Metrics) -> Refusals:
    return Refusals(database, metrics, clock_ms=clock)


async def stored(database: Database, **where: object) -> list[RefusalRow]:
    async with database.read() as tx:
        return await refusals.list_refusals(
            tx,
            account_id=1,
            where=RefusalFilter(**where),  # type: ignore[arg-type]
            behind=None,
            limit=2 * MOST,
        )


async def test_a_limit_and_second_make_one_row_with_the_first_call(
    database: Database, clock: Clock, gathered: Refusals
) -> None:
    for key_id in (3, 4, 3):
        gathered.note(RATE, **{**CALL, "key_id": key_id})
        clock.advance(50)
    money = Deny(Reason.QUOTA, "", "wallet/cost/lifetime", 5, 0, "cost")
    gathered.note(money, **CALL)
    gathered.note(deny(Reason.MODEL_NOT_FOUND), **CALL)
    clock.advance(1_000)
    gathered.note(RATE, **CALL)
    await gathered.flush()
    first_ms = clock.now_ms - clock.now_ms % 1_000 - 1_000
    later, wallet, first = await stored(database)
    assert first == RefusalRow(
        account_id=1,
        at_ms=first_ms,
        allowance="key:3/requests/minute/gpt-*/x",
        key_id=3,
        model="gpt-x",
        endpoint="chat.completions",
        status=429,
        resource="requests",
        window_name="minute",
        limit_amount=60,
        count=3,
    )
    assert (wallet.allowance, wallet.status, wallet.window_name) == (
        "wallet/cost/lifetime",
        402,
        "lifetime",
    )
    assert later == replace(first, at_ms=first_ms + 1_000, count=1)
    await gathered.flush()
    assert len(await stored(database)) == 3


async def test_what_several_workers_refuse_at_once_is_added_up(
    database: Database, clock: Clock, metrics: Metrics
) -> None:
    workers = [Refusals(database, metrics, clock_ms=clock) for _ in range(6)]
    names = [f"key:{number}/requests/minute" for number in range(20)]
    for worker in workers:
        for name in names:
            worker.note(replace(RATE, allowance=name), **CALL)
            worker.note(replace(RATE, allowance=name), **CALL)
        names.reverse()
    await asyncio.gather(*(worker.flush() for worker in workers))
    rows = await stored(database)
    assert sorted(row.allowance for row in rows) == sorted(names)
    assert {row.count for row in rows} == {12}


async def test_what_is_refused_while_it_is_written_down_is_written_next(
    database: Database, clock: Clock, gathered: Refusals
) -> None:
    gathered.note(RATE, **CALL)
    writing = asyncio.create_task(gathered.flush())
    while not writing.done():
        gathered.note(RATE, **CALL)
        await asyncio.sleep(0)
        if gathered._counts[next(iter(gathered._counts))] > 5:
            break
    await writing
    await gathered.flush()
    (row,) = await stored(database)
    assert row.count >= 6
    assert not gathered._counts


async def test_a_database_that_is_away_loses_nothing_up_to_the_bound(
    database: Database, clock: Clock, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Refusals(database, metrics, clock_ms=clock)
    for number in range(MOST + 7):
        away.note(replace(RATE, allowance=f"key:{number}/requests/minute"), **CALL)
    assert metrics.refusals_unlogged == 7
    away.note(replace(RATE, allowance="key:0/requests/minute"), **CALL)
    assert metrics.refusals_unlogged == 7, "one that has its row needs no room"

    def gone() -> None:
        raise OperationalError("", {}, Exception())

    with monkeypatch.context() as patch:
        patch.setattr(database, "write", gone)
        with pytest.raises(OperationalError):
            await away.flush()
    await away.flush()
    assert not away._counts
    counts = {row.allowance: row.count for row in await stored(database)}
    assert len(counts) == MOST
    assert counts.pop("key:0/requests/minute") == 2
    assert set(counts.values()) == {1}


async def test_the_log_is_filtered_and_paged_newest_first(
    database: Database, clock: Clock, gathered: Refusals
) -> None:
    start_ms = clock.now_ms - clock.now_ms % 1_000
    for number in range(5):
        gathered.note(RATE, **{**CALL, "key_id": 3 + number % 2, "model": f"m{number % 3}"})
        clock.advance(1_000)
    await gathered.flush()
    seconds = [(row.at_ms - start_ms) // 1_000 for row in await stored(database)]
    assert seconds == [4, 3, 2, 1, 0]
    assert len(await stored(database, key_id=4)) == 2
    assert len(await stored(database, model="m0")) == 2
    assert len(await stored(database, from_ms=start_ms + 1_000, to_ms=start_ms + 3_000)) == 2
    async with database.read() as tx:
        rest = await refusals.list_refusals(
            tx,
            account_id=1,
            where=RefusalFilter(),
            behind=Position(start_ms + 2_000, RATE.allowance or ""),
            limit=5,
        )
    assert [row.at_ms for row in rest] == [start_ms + 1_000, start_ms]


async def test_refusals_are_forgotten_after_as_many_days_as_is_set(
    database: Database, clock: Clock, gathered: Refusals
) -> None:
    for _ in range(4):
        gathered.note(RATE, **CALL)
        clock.advance(86_400_000)
    await gathered.flush()
    await retention.tidy(database, limit_log_days=2)
    kept = await stored(database)
    assert [(clock.now_ms - row.at_ms) // 86_400_000 for row in kept] == [1]
    await retention.tidy(database, limit_log_days=1)
    assert await stored(database) == []


async def test_a_worker_writes_down_the_rest_when_it_stops(
    worker: Worker, database: Database
) -> None:
    worker.refusals.note(RATE, **CALL)
    await worker.stop()
    assert [row.count for row in await stored(database)] == [1]
