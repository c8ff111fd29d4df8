"""How our own pool keeps its connections: what it reuses, bounds, times and gives back."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import uvloop

from bursar.gateway.upstreams.http11 import connections
from bursar.gateway.upstreams.http11.exchanges import PAUSE_ABOVE
from bursar.gateway.upstreams.http11.slots import Slots
from bursar.gateway.upstreams.pool import KeepAlivePool
from bursar.gateway.upstreams.port import Limits, Timeouts, UpstreamError, parse_origin
from tests.upstream_double import Behaviour, ScriptedUpstream, listening

PATH = b"/chat/completions"
ASK = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
STREAM = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'


@pytest_asyncio.fixture
async def up() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest_asyncio.fixture
async def pool(up: ScriptedUpstream) -> AsyncIterator[KeepAlivePool]:
    pool = KeepAlivePool(up.base_url, sweep_s=0.01)
    yield pool
    await pool.close()
    assert (pool.in_use, pool.idle, pool.waiting) == (0, 0, 0)


async def call(pool: KeepAlivePool, body: bytes = ASK) -> bytes:
    response = await pool.send(b"POST", PATH, [], body)
    return await response.read()


@pytest.mark.parametrize(
    ("base_url", "authority", "prefix"),
    [
        ("http://127.0.0.1:9001/v1", "127.0.0.1:9001", "/v1"),
        ("https://api.example.com/v1/", "api.example.com", "/v1"),
        ("https://api.example.com:443", "api.example.com", ""),
        ("http://[::1]:80/a/b", "[::1]", "/a/b"),
    ],
)
def test_a_base_url_names_an_authority_and_a_prefix(
    base_url: str, authority: str, prefix: str
) -> None:
    origin = parse_origin(base_url)
    assert (origin.authority, origin.prefix) == (authority, prefix)


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "127.0.0.1:9001",
        "ftp://host/",
        "http:///v1",
        "http://user:secret@host/",
        "http://host/?a=b",
        "http://host/#a",
        "http://host:99999/",
        "http://host/a b",
        "http://host/\r\nx: y",
        "http://hôte/",
    ],
)
def test_an_unusable_base_url_is_refused_at_once(base_url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        KeepAlivePool(base_url)


async def test_a_call_makes_no_task_and_no_timer(
    up: ScriptedUpstream, pool: KeepAlivePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await call(pool)
    up.behave(Behaviour(delay_s=0.05))
    loop = asyncio.get_running_loop()
    timers: list[object] = []
    call_at = loop.call_at

    def note(*arguments: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append(arguments)
        return call_at(*arguments, **options)

    monkeypatch.setattr(loop, "call_at", note)
    tasks = len(asyncio.all_tasks())
    sending = pool.send(b"POST", PATH, [], ASK)
    sending.send(None)
    assert (len(asyncio.all_tasks()), pool.in_use, timers) == (tasks, 1, [])
    sending.close()
    assert pool.in_use == 0


async def test_an_answer_that_came_at_once_is_read_without_waiting(
    pool: KeepAlivePool,
) -> None:
    response = await pool.send(b"POST", PATH, [], ASK)
    await asyncio.sleep(0.02)
    assert response.is_complete
    reading = response.read()
    with pytest.raises(StopIteration):
        reading.send(None)


async def test_the_connection_is_free_as_soon_as_the_answer_is_there_read_or_not(
    up: ScriptedUpstream, pool: KeepAlivePool
) -> None:
    responses = [await pool.send(b"POST", PATH, [], ASK) for _ in range(3)]
    await asyncio.sleep(0.02)
    assert pool.in_use == 0
    assert {json.loads(await response.read())["object"] for response in responses} == {
        "chat.completion"
    }


async def test_the_connection_used_last_is_used_next(
    up: ScriptedUpstream, pool: KeepAlivePool
) -> None:
    up.default = Behaviour(delay_s=0.02)
    await asyncio.gather(call(pool), call(pool), call(pool))
    assert (up.connections, pool.idle) == (3, 3)
    for _ in range(4):
        await call(pool)
    assert len({sale.connection for sale in up.sales[3:]}) == 1


async def test_idle_connections_are_bounded_and_the_oldest_expire_without_traffic(
    up: ScriptedUpstream,
) -> None:
    limits = Limits(max_idle=2, idle_expiry_s=0.05)
    pool = KeepAlivePool(up.base_url, limits=limits, sweep_s=0.01)
    up.default = Behaviour(delay_s=0.02)
    await asyncio.gather(*(call(pool) for _ in range(4)))
    assert pool.idle == 2
    await asyncio.sleep(0.15)
    assert (pool.idle, up.open_connections, pool._sweeper) == (0, 0, None)
    await pool.close()


async def test_a_connection_that_the_upstream_closes_while_idle_is_forgotten(
    up: ScriptedUpstream, pool: KeepAlivePool
) -> None:
    await call(pool)
    assert pool.idle == 1
    await up.stop()
    await asyncio.sleep(0.05)
    assert pool.idle == 0


async def test_a_restarted_upstream_costs_no_call(
    up: ScriptedUpstream, pool: KeepAlivePool
) -> None:
    await call(pool)
    await up.stop()
    async with up:
        assert b"chat.completion" in await call(pool)


async def test_a_reused_connection_that_dies_at_work_is_not_taken_for_a_stale_one(
    up: ScriptedUpstream, pool: KeepAlivePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STALE_WITHIN_S", 0.02)
    await call(pool)
    up.behave(Behaviour(delay_s=0.06, drop=True))
    with pytest.raises(UpstreamError) as caught:
        await call(pool)
    assert (caught.value.kind, caught.value.request_sent, len(up.sales)) == ("closed", True, 2)


async def test_a_stale_connection_is_replaced_by_a_new_one_not_by_another_of_its_age() -> None:
    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.02)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.readuntil(b"\r\n\r\n")

    async with listening(answer_once) as port:
        pool = KeepAlivePool(f"http://127.0.0.1:{port}")
        await asyncio.gather(call(pool, b""), call(pool, b""), call(pool, b""))
        assert pool.idle == 3
        assert await call(pool, b"") == b"ok"
        await pool.close()


async def test_a_slow_reader_slows_the_upstream_instead_of_filling_memory(
    up: ScriptedUpstream, pool: KeepAlivePool
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 30000000\r\n\r\n"
    up.behave(Behaviour(raw=(head, *[b"x" * 1_000_000] * 30)))
    response = await pool.send(b"POST", PATH, [], ASK)
    await asyncio.sleep(0.1)
    # One read may add at most 256 KiB to what was allowed.
    assert PAUSE_ABOVE < response.buffered <= PAUSE_ABOVE + 262_144
    size = 0
    while chunk := await response.next_chunk():
        size += len(chunk)
        assert len(chunk) <= PAUSE_ABOVE + 262_144
    assert size == 30_000_000


async def test_a_pause_that_we_caused_is_not_the_upstream_s_silence(up: ScriptedUpstream) -> None:
    pool = KeepAlivePool(up.base_url, timeouts=Timeouts(idle_s=0.05), sweep_s=0.01)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n"
    up.behave(Behaviour(raw=(head, *[b"x" * 1_000_000] * 9)))
    response = await pool.send(b"POST", PATH, [], ASK)
    await asyncio.sleep(0.2)
    assert len(await response.read()) == 9_000_000
    await pool.close()


async def test_an_answer_before_the_request_was_out_is_delivered_and_ends_the_connection() -> None:
    async def refuse_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await asyncio.sleep(60)

    async with listening(refuse_early) as port:
        pool = KeepAlivePool(f"http://127.0.0.1:{port}")
        response = await pool.send(b"POST", PATH, [], b"x" * 30_000_000)
        assert (response.status, await response.read(), pool.idle) == (413, b"no", 0)
        await pool.close()


async def test_a_slot_granted_and_cancelled_in_the_same_moment_is_passed_on() -> None:
    slots = Slots(1, 5)
    await slots.take()
    unlucky, lucky = asyncio.create_task(slots.take()), asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.give_back()
    unlucky.cancel()
    await lucky
    await asyncio.wait({unlucky})
    assert unlucky.cancelled()
    assert (slots.taken, slots.waiting) == (1, 0)
    slots.give_back()
    assert slots.taken == 0


async def test_a_waiter_that_gives_up_makes_room_in_the_queue_at_once() -> None:
    slots = Slots(1, 1)
    await slots.take()
    waiter = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.wait({waiter})
    assert slots.waiting == 0
    slots.give_back()
    assert slots.taken == 0


async def test_nobody_overtakes_those_who_wait() -> None:
    slots = Slots(1, 5)
    await slots.take()
    order: list[int] = []

    async def wait(name: int) -> None:
        await slots.take()
        order.append(name)
        slots.give_back()

    tasks = [asyncio.create_task(wait(name)) for name in range(3)]
    await asyncio.sleep(0)
    slots.give_back()
    assert not slots.try_take()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2]


async def test_a_dial_that_is_cancelled_gives_its_slot_back(up: ScriptedUpstream) -> None:
    pool = KeepAlivePool(up.base_url, limits=Limits(max_connections=1))
    for turns in range(12):
        task = asyncio.create_task(call(pool))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert pool.in_use == 0
    await pool.close()


async def test_a_thousand_abandoned_calls_leave_nothing_behind(
    up: ScriptedUpstream, pool: KeepAlivePool
) -> None:
    async def abandon() -> None:
        tasks = [asyncio.create_task(call(pool, STREAM)) for _ in range(50)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    up.default = Behaviour(hang_after=1)
    for _ in range(20):
        await abandon()
    assert (pool.in_use, pool.waiting) == (0, 0)
    await asyncio.sleep(0.1)
    assert up.open_connections == 0
    gc.collect()
    alive = [item for item in gc.get_objects() if isinstance(item, connections.Connection)]
    assert len(alive) <= 1


def test_it_works_the_same_on_uvloop() -> None:
    async def scenario() -> None:
        async with ScriptedUpstream() as up:
            timeouts = Timeouts(headers_s=0.1)
            pool = KeepAlivePool(up.base_url, timeouts=timeouts, sweep_s=0.01)
            for _ in range(5):
                assert b"chat.completion" in await call(pool)
                assert (await call(pool, STREAM)).endswith(b"data: [DONE]\n\n")
            assert up.connections == 1
            up.behave(Behaviour(drop=True))
            assert b"chat.completion" in await call(pool)
            up.behave(Behaviour(hang_before_headers=True), Behaviour(cut_after=2))
            for kind in ("timeout_headers", "closed"):
                with pytest.raises(UpstreamError) as caught:
                    await call(pool, STREAM)
                assert caught.value.kind == kind
            head = b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n"
            up.behave(Behaviour(raw=(head, *[b"x" * 1_000_000] * 9)))
            response = await pool.send(b"POST", PATH, [], ASK)
            await asyncio.sleep(0.05)
            assert response.buffered <= PAUSE_ABOVE + 262_144
            assert len(await response.read()) == 9_000_000
            up.behave(Behaviour(hang_after=1))
            task = asyncio.create_task(call(pool, STREAM))
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.wait({task})
            assert pool.in_use == 0
            await pool.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
