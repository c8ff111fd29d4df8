"""Limits that are set over HTTP are what calls meet, and what they refused can be read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bursar.service.limits import alerts
from bursar.service.verify import verify
from tests.serving import House, serving

DAY = {"scope": "key:3", "resource": "requests", "window": "day"}


@pytest.fixture
async def house(database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    async with serving(database_url, tmp_path) as served:
        yield served


async def put(house: House, **fields: Any) -> Any:
    response = await house.control("PUT", "/v1/account/limits", json=fields)
    assert response.status_code == 200, response.text
    return response.json()


async def operate(house: House, method: str, path: str, **fields: Any) -> None:
    response = await house.http.request(
        method,
        f"/v1/operator{path}",
        json=fields,
        headers={"authorization": f"Bearer {house.installation.operator_key}"},
    )
    assert response.status_code in {200, 201}, response.text


async def statuses(house: House, count: int, secret: str | None = None) -> list[int]:
    return [(await house.chat(secret, max_tokens=5)).status_code for _ in range(count)]


async def until_answered(house: House, wanted: int, secret: str | None = None) -> None:
    """Fail unless a call is answered so soon after a change; a busy machine is not a fault."""
    end_s = time.monotonic() + 5
    while (found := await statuses(house, 1, secret)) != [wanted]:
        assert time.monotonic() < end_s, f"{found} and not {wanted}"
        await asyncio.sleep(0.02)


async def differences(house: House) -> list[Any]:
    """What the books have wrong, once every charge is settled."""
    database = house.server.database
    await database.catch_up()
    async with database.read() as tx:
        return list((await verify(tx, now_ms=database.clock_ms())).differences)


async def test_a_limit_that_is_set_is_met_changed_and_lifted_without_a_restart(
    house: House,
) -> None:
    assert await statuses(house, 2) == [200, 200]
    await put(house, **DAY, limit=3)
    assert await statuses(house, 4) == [200, 200, 200, 429]
    await put(house, **DAY, limit=5)
    await until_answered(house, 200)
    found = (await house.control("GET", "/v1/account/limits?scope=key:3&resource=requests")).json()
    assert found["limits"][0]["used"] == 4
    await put(house, **DAY, limit=0)
    await until_answered(house, 429)
    query = "?scope=key:3&resource=requests&window=day"
    response = await house.control("DELETE", f"/v1/account/limits{query}")
    assert response.status_code == 204
    await until_answered(house, 200)
    assert await differences(house) == []


async def test_what_was_refused_is_in_the_log_with_its_first_call(house: House) -> None:
    await put(house, **DAY, limit=1)
    assert await statuses(house, 5) == [200, 429, 429, 429, 429]
    await house.server.worker.refusals.flush()
    log = (await house.control("GET", "/v1/account/limits/log?key_id=3")).json()["refusals"]
    assert sum(line.pop("count") for line in log) == 4
    assert len(log) <= 3, "one line a second"
    at = log[-1].pop("at")
    assert len(at) == len("2026-11-21T12:34:56Z")
    assert log[-1] == {
        "allowance": "key:3/requests/day",
        "resource": "requests",
        "window": "day",
        "limit": 1,
        "key_id": 3,
        "model": "gpt-test",
        "endpoint": "chat.completions",
        "status": 429,
    }


async def test_a_plans_default_holds_for_keys_that_have_never_called(house: House) -> None:
    await operate(
        house,
        "PUT",
        "/plans/1/limits",
        scope="key",
        resource="requests",
        window="day",
        default_limit=2,
    )
    for _ in range(2):
        _, secret = await house.make_key()
        assert await statuses(house, 3, secret) == [200, 200, 429]
    await operate(house, "POST", "/plans", name="Pro")
    await operate(house, "PATCH", f"/accounts/{house.account_id}", plan_id=2)
    await until_answered(house, 200, secret)
    assert await differences(house) == []


async def test_a_soft_limit_refuses_nobody_and_alerts(house: House) -> None:
    await put(house, **DAY, soft_limit=2)
    assert await statuses(house, 4) == [200, 200, 200, 200]
    await house.server.database.catch_up()
    await alerts.tell_of_soft_limits(house.server.database)
    told = (await house.control("GET", "/v1/account/alerts")).json()["alerts"]
    assert [alert["details"]["allowance"] for alert in told] == ["key:3/requests/day"]
    assert await differences(house) == []
