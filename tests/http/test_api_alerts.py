"""The limit log and alerts over HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from bursar.core.allowances import AllowanceRef
from bursar.service.limits import alerts
from bursar.store.database import Database
from bursar.store.limits import refusals
from bursar.store.limits.refusals import RefusalRow
from bursar.store.plane import leases, settlement
from tests.databases import Clock
from tests.factories import move
from tests.installations import Api, a_charge

LIMITS = "/v1/account/limits"
DAY_MS = 86_400_000


async def spend(database: Database, clock: Clock, cost_nanos: int, name: str) -> None:
    """Have a call charged to the account's daily budget alone."""
    start_ms = clock.now_ms - clock.now_ms % DAY_MS
    ref = AllowanceRef(1, "account", "cost", "day")
    async with database.write() as tx:
        worker_id = await leases.workers.insert_worker(tx, host="test")
        want = leases.Want(ref, start_ms, cost_nanos, cost_nanos, 0)
        await leases.take(tx, worker_id=worker_id, wants=[want])
        moves = [move(ref, from_lease=cost_nanos, used=cost_nanos, start_ms=start_ms)]
        charge = a_charge(name, cost_nanos, at_ms=clock.now_ms, moves=moves)
        await settlement.settle(tx, worker_id=worker_id, charges=[charge])


async def put(api: Api, **fields: Any) -> None:
    daily = {"scope": "account", "resource": "cost", "window": "day", **fields}
    response = await api.call("PUT", LIMITS, json=daily)
    assert response.status_code == 200, response.text


async def test_a_soft_limit_that_is_reached_is_told_once_in_each_window(
    api: Api, database: Database, clock: Clock
) -> None:
    await put(api, soft_limit="2.00")
    await spend(database, clock, 1_999_999_999, "a")
    assert await alerts.tell_of_soft_limits(database) == 0
    await spend(database, clock, 1, "b")
    assert await alerts.tell_of_soft_limits(database) == 1
    await spend(database, clock, 500_000_000, "c")
    for _ in range(2):
        assert await alerts.tell_of_soft_limits(database) == 0
    assert await api.get("/v1/account/alerts") == {
        "alerts": [
            {
                "id": 1,
                "at": "2026-11-21T12:34:56.789Z",
                "kind": "soft_limit",
                "message": "account/cost/day: 2.00 of a soft limit of 2.00 USD are used.",
                "details": {
                    "allowance": "account/cost/day",
                    "resource": "cost",
                    "window": "day",
                    "soft_limit": "2.00",
                    "used": "2.00",
                },
            }
        ],
        "next_cursor": None,
    }
    clock.advance(DAY_MS)
    assert await alerts.tell_of_soft_limits(database) == 0
    await spend(database, clock, 2_000_000_000, "d")
    assert await alerts.tell_of_soft_limits(database) == 1


async def test_another_soft_limit_that_is_reached_is_told_too(
    api: Api, database: Database, clock: Clock
) -> None:
    await put(api, soft_limit="2.00")
    await spend(database, clock, 3_000_000_000, "a")
    assert await alerts.tell_of_soft_limits(database) == 1
    await put(api, soft_limit="5.00")
    assert await alerts.tell_of_soft_limits(database) == 0
    await spend(database, clock, 2_000_000_000, "b")
    assert await alerts.tell_of_soft_limits(database) == 1
    await put(api, limit="100", soft_limit="2.00")
    assert await alerts.tell_of_soft_limits(database) == 0, "that was told before, in this window"


async def test_a_soft_limit_set_after_its_window_has_ended_is_not_told_of_what_was_before(
    api: Api, database: Database, clock: Clock
) -> None:
    await put(api, limit="50.00")
    await spend(database, clock, 3_000_000_000, "a")
    clock.advance(DAY_MS)
    await put(api, soft_limit="2.00")
    assert await alerts.tell_of_soft_limits(database) == 0


async def test_every_process_may_look_and_one_tells(
    api: Api, database: Database, clock: Clock
) -> None:
    await put(api, soft_limit="1.00")
    await spend(database, clock, 1_000_000_000, "a")
    told = await asyncio.gather(*(alerts.tell_of_soft_limits(database) for _ in range(6)))
    assert sum(told) == 1
    assert len((await api.get("/v1/account/alerts"))["alerts"]) == 1


async def test_alerts_and_refusals_are_paged_and_ones_own(
    api: Api, database: Database, clock: Clock
) -> None:
    _, stranger = await api.open_account()
    await put(api, soft_limit="1.00")
    for number in range(3):
        await spend(database, clock, 1_000_000_000, f"e{number}")
        await alerts.tell_of_soft_limits(database)
        clock.advance(DAY_MS)
    second_ms = clock.now_ms - clock.now_ms % 1_000
    row = RefusalRow(
        account_id=1,
        at_ms=second_ms,
        allowance=f"key:3/requests/minute/{'x' * 255}",
        key_id=3,
        model="gpt-x",
        endpoint="embeddings",
        status=429,
        resource="cost",
        window_name="minute",
        limit_amount=1_500_000_000,
        count=7,
    )
    many = [replace(row, at_ms=second_ms - 1_000 * n) for n in range(3)]
    async with database.write() as tx:
        await refusals.add_refusals(tx, rows=many)
    for path, name in (("alerts", "alerts"), ("limits/log", "refusals")):
        first = await api.get(f"/v1/account/{path}?limit=2")
        rest = await api.get(f"/v1/account/{path}?limit=2&cursor={first['next_cursor']}")
        assert [len(first[name]), len(rest[name])] == [2, 1]
        assert rest["next_cursor"] is None
        times = [line["at"] for line in (*first[name], *rest[name])]
        assert times == sorted(times, reverse=True)
        seen = await api.get(f"/v1/account/{path}", caller=stranger)
        assert seen == {name: [], "next_cursor": None}
        cursor = first["next_cursor"]
        for forged, caller in ((cursor + "A", "provisioning"), (cursor, stranger)):
            response = await api.call("GET", f"/v1/account/{path}?cursor={forged}", caller=caller)
            assert response.json()["error"]["code"] == "invalid_cursor"
    newest = (await api.get(f"{LIMITS}/log?key_id=3&model=gpt-x&limit=1"))["refusals"][0]
    assert newest == {
        "at": "2026-11-24T12:34:56Z",
        "allowance": row.allowance,
        "resource": "cost",
        "window": "minute",
        "limit": "1.50",
        "key_id": 3,
        "model": "gpt-x",
        "endpoint": "embeddings",
        "status": 429,
        "count": 7,
    }
    for query in ("?key_id=4", "?model=gpt-y", "?to=2026-11-01T00:00:00Z"):
        assert (await api.get(f"{LIMITS}/log{query}"))["refusals"] == []
    reversed_span = "?from=2026-11-02T00:00:00Z&to=2026-11-01T00:00:00Z"
    for query, code in (
        (reversed_span, "invalid_range"),
        ("?key_id=0", "invalid_value"),
        ("?limit=0", "invalid_value"),
        ("?from=yesterday", "invalid_timestamp"),
        ("?status=429", "unknown_field"),
    ):
        response = await api.call("GET", f"{LIMITS}/log{query}")
        assert response.json()["error"]["code"] == code
