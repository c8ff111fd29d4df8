"""What is done to a key over HTTP is what its calls meet, and its usage stays where it belongs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bursar.service.verify import verify
from tests.serving import House, serving

KEYS = "/v1/account/keys"


@pytest.fixture
async def house(database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    async with serving(database_url, tmp_path) as served:
        yield served


async def ask(house: House, method: str, path: str, **fields: Any) -> Any:
    sent = {} if method == "GET" else {"json": fields}
    response = await house.control(method, path, **sent)
    assert response.status_code < 300, response.text
    return response.json()


async def call(house: House, secret: str) -> int:
    return (await house.chat(secret, max_tokens=5)).status_code


async def until(house: House, secret: str, wanted: int, *, within_s: float = 5) -> int:
    """How many calls were answered otherwise before; it must be so soon after a change."""
    end_s = time.monotonic() + within_s
    before = 0
    while (found := await call(house, secret)) != wanted:
        assert time.monotonic() < end_s, f"{found} and not {wanted}"
        before += 1
        await asyncio.sleep(0.05)
    return before


async def differences(house: House) -> list[Any]:
    """What the books have wrong, once every charge is settled."""
    database = house.server.database
    await database.catch_up()
    async with database.read() as tx:
        return list((await verify(tx, now_ms=database.clock_ms())).differences)


async def test_rotating_moving_and_renaming_a_key_resets_nothing(house: House) -> None:
    projects = [await ask(house, "POST", "/v1/account/projects", name=name) for name in "ab"]
    first = await ask(
        house, "POST", KEYS, name="Key", project_id=projects[0]["id"], labels={"team": "x"}
    )
    path = f"{KEYS}/{first['id']}"
    day = {"scope": f"key:{first['id']}", "resource": "requests", "window": "day"}
    await ask(house, "PUT", "/v1/account/limits", **day, limit=100)
    assert await call(house, first["key"]) == 200
    rotated = await ask(house, "POST", f"{path}/rotate", grace_s=3_600)
    for secret in (first["key"], rotated["key"]):
        assert await call(house, secret) == 200
    await ask(house, "PATCH", path, name="Renamed", project_id=projects[1]["id"])
    assert await call(house, first["key"]) == 200
    # The move was told before it was answered, so this call was the new project's.
    again = await ask(house, "POST", f"{path}/rotate", grace_s=1)
    # The first secret has gone with the second rotation, the second goes with its grace.
    moved = 1 + await until(house, first["key"], 401)
    moved += await until(house, rotated["key"], 401)
    assert await call(house, again["key"]) == 200
    moved += 1
    await ask(house, "PUT", "/v1/account/limits", **day, limit=3 + moved)
    await until(house, again["key"], 429)
    assert await differences(house) == []
    shown = await ask(house, "GET", path)
    [daily] = [limit for limit in shown["limits"] if limit["resource"] == "requests"]
    assert (daily["used"], daily["left"]) == (3 + moved, 0)
    assert float(shown["spent_7_days"]) > 0
    assert shown["last_used_at"] is not None
    report = await ask(house, "GET", "/v1/account/activity?fresh=true")
    counts = {each["project_name"]: each["request_count"] for each in report["project_usage"]}
    assert counts == {"a": 3, "b": moved}
    by_team = await ask(house, "GET", "/v1/account/usage/summary?group_by=label:team")
    assert [(each["group"], each["request_count"]) for each in by_team["groups"]] == [
        ("x", 3 + moved)
    ]


async def test_a_leaked_key_stops_and_works_again_with_another_secret(house: House) -> None:
    made = await ask(house, "POST", KEYS, name="Key")
    assert await call(house, made["key"]) == 200
    await ask(house, "POST", "/v1/leaks", secret=made["key"])
    await until(house, made["key"], 401)
    rotated = await ask(house, "POST", f"{KEYS}/{made['id']}/rotate")
    assert await call(house, rotated["key"]) == 401
    await ask(house, "PATCH", f"{KEYS}/{made['id']}", is_enabled=True)
    await until(house, rotated["key"], 200)
    assert await call(house, made["key"]) == 401
    assert await differences(house) == []


async def test_what_a_key_may_reach_is_asked_at_its_next_call(house: House) -> None:
    made = await ask(house, "POST", KEYS, name="Key")
    assert await call(house, made["key"]) == 200
    path = f"{KEYS}/{made['id']}"
    for change in (
        {"models": ["nothing-*"]},
        {"endpoints": ["embeddings"]},
        {"networks": ["203.0.113.0/24"]},
    ):
        await ask(house, "PATCH", path, **change)
        await until(house, made["key"], 403)
        await ask(house, "PATCH", path, **dict.fromkeys(change))
        await until(house, made["key"], 200)
    assert await differences(house) == []
