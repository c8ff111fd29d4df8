"""Calls that need no task: begun at once, and finished when the upstream's answer comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving import MODEL, House, serving, until
from tests.upstream_double import Behaviour


@pytest.fixture
async def house(sqlite_database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """One server, whose key has been used and whose upstream has a connection to spare."""
    async with serving(sqlite_database_url, tmp_path) as served:
        assert (await served.chat(max_tokens=5)).status_code == 200
        yield served


@pytest.fixture
async def tasks(monkeypatch: pytest.MonkeyPatch, house: House) -> list[str]:
    """The names of the coroutines that were run as tasks for calls."""
    found: list[str] = []
    loop = asyncio.get_running_loop()
    create = loop.create_task

    def watched(steps: Any, **options: Any) -> asyncio.Task[Any]:
        name = getattr(steps, "__qualname__", "")
        if name.startswith(("Gateway.", "RequestResponseCycle.")):
            found.append(name)
        return create(steps, **options)

    monkeypatch.setattr(loop, "create_task", watched)
    return found


async def test_a_call_of_a_known_key_needs_no_task(house: House, tasks: list[str]) -> None:
    for _ in range(3):
        assert (await house.chat(max_tokens=5)).status_code == 200
    assert tasks == []
    await house.server.worker.settlement.flush()
    assert house.server.metrics.holds_open == 0


async def test_a_body_that_comes_behind_its_head_needs_none_either(
    house: House, tasks: list[str]
) -> None:
    message = {"role": "user", "content": "hello there"}
    body = json.dumps({"model": MODEL, "messages": [message], "max_tokens": 5}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {house.url.removeprefix('http://')}\r\n"
        f"authorization: Bearer {house.installation.inference_key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    host, port = house.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for _ in range(3):
        for part in (head.encode(), body[:9], body[9:]):
            writer.write(part)
            await asyncio.sleep(0.05)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert json.loads(await reader.readexactly(length))["usage"]["completion_tokens"] > 0
    writer.close()
    assert tasks == []


async def test_its_refusals_and_streams_have_one(house: House, tasks: list[str]) -> None:
    assert (await house.chat(max_tokens=-1)).status_code == 400
    assert (await house.chat(max_tokens=5, stream=True)).status_code == 200
    assert len(tasks) == 2


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        (Behaviour(status=500), 502),
        (Behaviour(status=429), 429),
        (Behaviour(drop=True), 502),
        (Behaviour(garbage=True), 502),
    ],
    ids=["500", "429", "hangs up", "HTML"],
)
async def test_an_upstream_that_fails_it_is_said_to_do_so_and_nothing_stays_held(
    house: House, behaviour: Behaviour, status: int
) -> None:
    house.upstream.default = behaviour
    answer = await house.chat(max_tokens=5)
    house.upstream.default = Behaviour()
    assert answer.status_code == status, answer.text
    assert house.server.metrics.holds_open == 0
    assert not any(slot.lease.held for slot in house.server.worker.purse.slots.values())


async def test_an_answer_that_comes_in_pieces_is_one(house: House, tasks: list[str]) -> None:
    house.upstream.default = Behaviour(is_dripping=True, gap_s=0.001)
    answer = await house.chat(max_tokens=5)
    house.upstream.default = Behaviour()
    assert answer.status_code == 200
    assert json.loads(answer.content)["usage"]["completion_tokens"] > 0
    assert tasks == ["Gateway._answer"]


async def test_a_caller_who_leaves_meanwhile_pays_for_what_was_sold(house: House) -> None:
    await house.server.worker.settlement.flush()
    before = house.server.metrics.settled
    house.upstream.default = Behaviour(delay_s=0.3)
    call = asyncio.create_task(house.chat(max_tokens=5))
    await until(lambda: house.server.metrics.holds_open == 1)
    call.cancel()
    await until(lambda: house.server.metrics.holds_open == 0)
    house.upstream.default = Behaviour()
    await house.server.worker.settlement.flush()
    assert house.server.metrics.settled == before + 1
