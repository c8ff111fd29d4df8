"""A caller leaves, an upstream fails: every hold ends, and only what was sold is billed.

Whatever happens, balance, wallet and usage rows tell the same story afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import shutil
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from bursar.gateway.http.patience import Patience
from bursar.store.database import sqlite_url
from tests import books, descriptors
from tests.books import Books
from tests.serving import MODEL, House, serving, until
from tests.upstream_double import Behaviour, listening
from tests.wire import Connection

pytestmark = pytest.mark.asyncio(loop_scope="module")

CREDIT = "10"
READING_S, DRAIN_S = 0.8, 2.0
TIMEOUTS = {
    "connect_timeout_s": 0.5,
    "headers_timeout_s": 0.8,
    "idle_timeout_s": 0.8,
    "total_timeout_s": 3.0,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    directory = tmp_path_factory.mktemp("faults")
    path = directory / "bursar.db"
    shutil.copyfile(migrated_sqlite, path)
    async with serving(
        sqlite_url(path),
        directory,
        credit=CREDIT,
        patience=Patience(reading_s=READING_S, parting_s=0.2),
        settings={"disconnect_drain_s": DRAIN_S},
        upstream_settings=TIMEOUTS,
    ) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def everything_adds_up(house: House) -> AsyncIterator[None]:
    yield
    books.require_consistent(await books.at_rest(house), credit=CREDIT)


@dataclass
class Since:
    """What has happened since a moment."""

    house: House
    before: Books

    async def billed(self) -> int:
        """What has been charged, in nano-USD, once nothing is in flight any more."""
        after = await books.at_rest(self.house)
        new = after.charged_nanos + after.overrun_nanos
        return new - self.before.charged_nanos - self.before.overrun_nanos

    def sold(self) -> int:
        """What the upstream has sold, at our price."""
        return sum(map(self.house.cost, self.house.upstream.sales[self.before.calls_upstream :]))

    async def outcomes(self) -> list[tuple[str, int]]:
        """Outcome and output tokens of each new row."""
        await books.at_rest(self.house)
        rows = (await books.usage_rows(self.house))[self.before.rows :]
        return [(row.outcome, row.output_tokens) for row in rows]


@pytest_asyncio.fixture(loop_scope="module")
async def since(house: House) -> Since:
    return Since(house, await books.at_rest(house))


def request(house: House, **fields: Any) -> bytes:
    words = [{"role": "user", "content": "hi"}]
    body = json.dumps({"model": MODEL, "messages": words, "max_tokens": 900, **fields}).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
        % (house.installation.inference_key.encode(), len(body), body)
    )


def error_of(answer: httpx2.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text[:500]
    assert answer.json()["error"]["code"] == code


def last_event(answer: httpx2.Response) -> Any:
    return json.loads(answer.text.rstrip("\n").rsplit("\n", 1)[-1].removeprefix("data: "))


# Callers that leave


@pytest.mark.parametrize("stream", [False, True])
async def test_f_36_who_leaves_before_the_answer_pays_for_what_was_sold(
    house: House, since: Since, *, stream: bool
) -> None:
    house.upstream.behave(Behaviour(tokens=30, delay_s=0.2))
    async with Connection.open(house.url) as connection:
        await connection.send(request(house, stream=stream))
        await until(lambda: house.server.metrics.holds_open == 1)
        connection.hang_up()
    assert await since.billed() == since.sold() > 0
    assert await since.outcomes() == [("disconnected", 30)]


async def test_f_35_who_leaves_after_the_first_chunk_pays_for_what_was_sold(
    house: House, since: Since
) -> None:
    house.upstream.behave(Behaviour(tokens=30, gap_s=0.01))
    async with Connection.open(house.url) as connection:
        await connection.send(request(house, stream=True))
        await connection.reader.readuntil(b"data: ")
        connection.hang_up()
    assert await since.billed() == since.sold() > 0
    assert await since.outcomes() == [("disconnected", 30)]


async def test_f_35_what_is_sold_to_nobody_is_read_for_a_bounded_time(
    house: House, since: Since
) -> None:
    house.upstream.behave(Behaviour(tokens=900, gap_s=0.1))
    async with Connection.open(house.url) as connection:
        await connection.send(request(house, stream=True))
        await connection.reader.readuntil(b"data: ")
        connection.hang_up()
    await until(lambda: house.upstream.sales[-1].is_abandoned, within_s=DRAIN_S + 2)
    ((outcome, tokens),) = await since.outcomes()
    assert outcome == "disconnected"
    assert 10 <= tokens <= 30
    assert await since.billed() > 0


async def test_f_37_half_a_goodbye_is_one_and_is_billed(house: House, since: Since) -> None:
    house.upstream.behave(Behaviour(tokens=20, delay_s=0.2))
    async with Connection.open(house.url) as connection:
        await connection.send(request(house))
        await until(lambda: house.server.metrics.holds_open == 1)
        connection.writer.write_eof()
        assert (await connection.talk()).is_closed
    assert await since.billed() == since.sold() > 0


async def test_who_leaves_in_the_middle_of_the_request_pays_nothing(
    house: House, since: Since
) -> None:
    whole = request(house)
    for sent in (10, len(whole) // 2, len(whole) - 1):
        async with Connection.open(house.url) as connection:
            await connection.send(whole[:sent])
            await asyncio.sleep(0.02)
            connection.hang_up()
    assert await since.billed() == since.sold() == 0
    assert len(house.upstream.sales) == since.before.calls_upstream


# Five megabytes in a hundred events: more than the sockets on the way take.
WIDE = Behaviour(tokens=100, comment=b": " + b"x" * 100_000 + b"\n")


@contextlib.asynccontextmanager
async def small_window(house: House, *, size: int = 4_096) -> AsyncIterator[socket.socket]:
    """A connection over which little fits that nobody reads."""
    host, port = house.url.removeprefix("http://").split(":")
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        peer.setblocking(False)  # noqa: FBT003 - the method's own signature
        await asyncio.get_running_loop().sock_connect(peer, (host, int(port)))
        yield peer


@pytest.mark.parametrize("stream", [False, True])
async def test_f_37_who_does_not_read_is_cut_off_in_time_and_billed(
    house: House, since: Since, *, stream: bool
) -> None:
    behaviour = WIDE if stream else Behaviour(content="x" * 8_000_000)
    house.upstream.behave(behaviour)
    loop = asyncio.get_running_loop()
    async with small_window(house) as peer:
        await loop.sock_sendall(peer, request(house, stream=stream))
        began = loop.time()
        await until(lambda: house.server.metrics.holds_open == 1)
        await until(lambda: house.server.metrics.holds_open == 0, within_s=READING_S + 3)
        if stream:
            assert loop.time() - began >= READING_S
        await asyncio.sleep(READING_S + 0.3)
        received = 0
        with contextlib.suppress(ConnectionError):
            while data := await asyncio.wait_for(loop.sock_recv(peer, 2**20), 5):
                received += len(data)
        assert received < 8_000_000
    assert await since.billed() == since.sold() > 0


async def test_who_reads_slowly_is_waited_for(house: House, since: Since) -> None:
    house.upstream.behave(Behaviour(tokens=100, comment=b": " + b"x" * 50_000 + b"\n"))
    loop = asyncio.get_running_loop()
    received = b""
    # Not so small that a busy machine would take longer than the upstream may altogether.
    async with small_window(house, size=65_536) as peer:
        await loop.sock_sendall(peer, request(house, stream=True))
        while b"[DONE]" not in received[-100:]:
            data = await asyncio.wait_for(loop.sock_recv(peer, 100_000), 5)
            assert data
            received += data
            await asyncio.sleep(0.004)
    assert await since.outcomes() == [("ok", 100)]


async def test_f_38_hundreds_of_callers_that_leave_take_nothing_with_them(
    house: House, since: Since
) -> None:
    house.upstream.default = Behaviour(tokens=3, delay_s=0.01)

    async def come_and_go(number: int) -> None:
        whole = request(house, stream=number % 2 == 0)
        async with Connection.open(house.url) as connection:
            await connection.send(whole[: len(whole) if number % 5 else number])
            await asyncio.sleep((number % 7) * 0.004)
            connection.hang_up()

    # The first fifty open what is kept for good.
    await asyncio.gather(*map(come_and_go, range(50)))
    await quiet(house)
    gc.collect()
    before = left_over(house)
    for start in range(50, 350, 50):
        await asyncio.gather(*map(come_and_go, range(start, start + 50)))
    await quiet(house)
    after = await books.at_rest(house, within_s=20)
    house.upstream.default = Behaviour()
    assert after.charged_nanos - since.before.charged_nanos == since.sold()
    assert after.rows - since.before.rows == after.calls_upstream - since.before.calls_upstream
    await until(
        lambda: all(now <= then for now, then in zip(left_over(house), before, strict=True))
    )
    assert not any(slot.lease.held for slot in house.server.worker.purse.slots.values())


async def quiet(house: House) -> None:
    """Wait until no request has been answered for a while."""
    for _ in range(20):
        answered = dict(house.server.metrics.requests)
        await asyncio.sleep(0.4)
        if answered == house.server.metrics.requests:
            return


def left_over(house: House) -> tuple[int, int]:
    """Tasks and open files, but for connections to the upstream and the database, which are kept.

    Both ends of those to the upstream are in this process, and one task.
    """
    kept = house.upstream.open_connections
    return len(asyncio.all_tasks()) - kept, descriptors.count("self") - 2 * kept


# Upstreams that are late


@pytest.mark.parametrize("stream", [False, True])
async def test_f_39_an_upstream_that_never_begins_is_given_up_and_costs_nothing(
    house: House, since: Since, *, stream: bool
) -> None:
    house.upstream.behave(Behaviour(hang_before_headers=True))
    error_of(await house.chat(stream=stream), 504, "upstream_timeout")
    assert await since.billed() == 0


async def test_f_40_a_stream_that_stops_ends_with_an_error_and_bills_what_came(
    house: House, since: Since
) -> None:
    house.upstream.behave(Behaviour(tokens=20, hang_after=8))
    answer = await house.chat(stream=True)
    assert answer.status_code == 200
    assert last_event(answer)["error"]["code"] == "upstream_timeout"
    ((outcome, tokens),) = await since.outcomes()
    assert outcome == "cut"
    assert 8 <= tokens <= 20


async def test_f_40_a_stream_that_stops_before_its_first_event_is_a_504(
    house: House, since: Since
) -> None:
    house.upstream.behave(Behaviour(hang_after=0))
    error_of(await house.chat(stream=True), 504, "upstream_timeout")
    assert await since.billed() == 0


async def test_f_40_an_answer_that_stops_half_way_is_a_504_and_costs_nothing(
    house: House, since: Since
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n"
    house.upstream.behave(Behaviour(raw=(head + b'{"id":',), raw_keeps_alive=True))
    error_of(await house.chat(), 504, "upstream_timeout")
    assert await since.billed() == 0


async def test_f_41_a_stream_that_drips_has_an_end(house: House, since: Since) -> None:
    house.upstream.behave(Behaviour(tokens=900, gap_s=0.3))
    answer = await house.chat(stream=True)
    assert last_event(answer)["error"]["code"] == "upstream_timeout"
    ((outcome, tokens),) = await since.outcomes()
    assert outcome == "cut"
    assert 5 <= tokens <= 40


async def test_f_41_an_answer_that_drips_has_an_end(house: House, since: Since) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n"
    house.upstream.behave(Behaviour(raw=(head, *[b" "] * 100), gap_s=0.3))
    error_of(await house.chat(), 504, "upstream_timeout")
    assert await since.billed() == 0


# Upstreams that make no sense


def raw(*lines: str, body: bytes = b"{}", kind: str = "application/json") -> Behaviour:
    head = "".join(f"{line}\r\n" for line in (f"content-type: {kind}", *lines))
    return Behaviour(raw=(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + body,))


NONSENSE = {
    "F-43 cut JSON": Behaviour(length_error=-20),
    "F-43 an array": raw("content-length: 2", body=b"[]"),
    "F-43 a text": raw("content-length: 4", body=b'"hi"'),
    "F-43 nothing": raw("content-length: 0", body=b""),
    "F-43 HTML": Behaviour(garbage=True),
    "F-46 gzip": raw("content-encoding: gzip", "content-length: 2"),
    "F-46 two lengths": raw("content-length: 2", "content-length: 3"),
    "F-46 length and chunks": raw("content-length: 2", "transfer-encoding: chunked"),
    "F-46 bad chunk": raw("transfer-encoding: chunked", body=b"zz\r\n{}\r\n0\r\n\r\n"),
    "F-46 not HTTP": Behaviour(raw=(b"SSH-2.0-OpenSSH_9.6\r\n",)),
    "F-46 70 kB of headers": raw(f"x: {'a' * 70_000}", "content-length: 2"),
    "F-47 redirect": Behaviour(redirect_to="http://169.254.169.254/latest/meta-data"),
    "F-47 redirect to itself": Behaviour(redirect_to="/v1/chat/completions"),
    "101 and nothing": Behaviour(raw=(b"HTTP/1.1 101 Switching Protocols\r\n\r\n",)),
}
BROKEN = {
    "F-43 cut in the middle": Behaviour(cut_after=40),
    "F-43 shorter than it says": Behaviour(length_error=10),
    "cut chunk": raw("transfer-encoding: chunked", body=b"ff\r\n{"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", [*NONSENSE, *BROKEN])
async def test_an_answer_that_is_none_is_a_bad_gateway_and_costs_nothing(
    house: House, since: Since, name: str, *, stream: bool
) -> None:
    behaviour = {**NONSENSE, **BROKEN}[name]
    if stream and behaviour.raw is None and behaviour.redirect_to is None:
        behaviour = Behaviour(cut_after=0) if name in BROKEN else Behaviour(garbage=True)
    house.upstream.behave(behaviour)
    answer = await house.chat(stream=stream)
    is_cut = name in BROKEN and not (stream and behaviour.raw)
    error_of(answer, 502, "upstream_unreachable" if is_cut else "upstream_invalid")
    assert await since.billed() == 0
    # Nothing was asked a second time, or elsewhere.
    assert len(house.upstream.sales) == since.before.calls_upstream + 1


@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_that_hangs_up_is_asked_once_more_at_most(
    house: House, since: Since, *, stream: bool
) -> None:
    """Once more, because a connection that was kept may have been closed while it was idle."""
    house.upstream.default = Behaviour(drop=True)
    error_of(await house.chat(stream=stream), 502, "upstream_unreachable")
    house.upstream.default = Behaviour()
    assert await since.billed() == 0
    assert 1 <= len(house.upstream.sales) - since.before.calls_upstream <= 2


async def test_f_47_a_redirect_is_not_followed_nor_shown(house: House) -> None:
    house.upstream.behave(Behaviour(redirect_to="http://127.0.0.1:1/secret"))
    answer = await house.chat()
    assert "location" not in answer.headers
    assert "secret" not in answer.text


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("comment", [b"", b": still here\n\n"])
async def test_f_44_line_ends_and_comments_change_no_charge(
    house: House, since: Since, newline: bytes, comment: bytes
) -> None:
    house.upstream.behave(Behaviour(tokens=12, newline=newline, comment=comment))
    assert (await house.chat(stream=True)).status_code == 200
    assert await since.billed() == since.sold() > 0
    assert await since.outcomes() == [("ok", 12)]


async def test_f_44_a_line_above_1_mib_breaks_the_stream_off(house: House, since: Since) -> None:
    house.upstream.behave(Behaviour(tokens=5, long_line=True))
    answer = await house.chat(stream=True)
    assert last_event(answer)["error"]["code"] == "upstream_invalid"
    assert len(answer.content) < 10_000
    ((outcome, _),) = await since.outcomes()
    assert outcome == "cut"


async def test_f_44_a_stream_without_an_end_mark_is_billed_by_its_report(
    house: House, since: Since
) -> None:
    house.upstream.behave(Behaviour(tokens=9, no_done=True))
    assert (await house.chat(stream=True)).status_code == 200
    assert await since.billed() == since.sold() > 0


async def test_f_44_a_stream_cut_inside_a_character_stays_what_it_was(
    house: House, since: Since
) -> None:
    event = 'data: {"choices":[{"index":0,"delta":{"content":"漢字"}}]}\n\n'.encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    house.upstream.behave(Behaviour(raw=(head + event, event[:-15])))
    answer = await house.chat(stream=True)
    assert answer.content.startswith(event)
    ((_, tokens),) = await since.outcomes()
    assert tokens >= 1


@pytest.mark.parametrize("tokens", [0, 6])
async def test_an_error_within_a_stream_is_passed_on_and_only_words_are_billed(
    house: House, since: Since, tokens: int
) -> None:
    house.upstream.behave(Behaviour(tokens=tokens, in_band_error=True))
    answer = await house.chat(stream=True)
    assert last_event(answer)["error"]["message"] == "overloaded"
    assert (await since.billed() > 0) is (tokens > 0)


# Upstreams without end, or not there at all


@contextlib.asynccontextmanager
async def behind(
    migrated_sqlite: Path, directory: Path, *upstreams: dict[str, Any]
) -> AsyncIterator[House]:
    """A house whose upstreams are these."""
    path = directory / "bursar.db"
    shutil.copyfile(migrated_sqlite, path)
    configured = [
        {"name": f"upstream-{number}", "models": ["gpt-*"], **TIMEOUTS, **upstream}
        for number, upstream in enumerate(upstreams)
    ]
    async with serving(
        sqlite_url(path), directory, credit=CREDIT, settings={"upstreams": configured}
    ) as served:
        yield served
        books.require_consistent(await books.at_rest(served), credit=CREDIT)


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(line for line in head.lower().split("\r\n") if line.startswith("content-length"))
    body = json.loads(await reader.readexactly(int(length.split(":")[1])))
    kind = b"text/event-stream" if body.get("stream") else b"application/json"
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n\r\n" % kind)
    piece = b"x" * 65_536 if body.get("user") == "line" or not body.get("stream") else EVENTS
    writer.write(b'data: {"a":"' if body.get("stream") and piece != EVENTS else b"")
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)


EVENTS = b'data: {"choices":[{"index":0,"delta":{"content":"word "}}]}\n\n' * 100


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "upstream_invalid"),
        ({"stream": True, "user": "line"}, "upstream_invalid"),
        ({"stream": True}, "upstream_timeout"),
    ],
)
async def test_f_46_an_answer_without_end_is_cut_off(
    migrated_sqlite: Path, tmp_path: Path, fields: dict[str, Any], code: str
) -> None:
    async with listening(endless) as port:
        there = {"base_url": f"http://127.0.0.1:{port}/v1"}
        async with behind(migrated_sqlite, tmp_path, there) as house:
            answer = await house.chat(**fields)
            error = last_event(answer) if answer.status_code == 200 else answer.json()
            assert error["error"]["code"] == code
            rows = await books.usage_rows(house)
            assert len(rows) == (1 if fields == {"stream": True} else 0)


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read(2**20)
    await asyncio.sleep(30)


async def impolite(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(2**20)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize(
    ("upstream", "status", "code"),
    [
        pytest.param("http://127.0.0.1:1/v1", 502, "upstream_unreachable", id="refused"),
        pytest.param("http://{}/v1".format("a" * 70), 502, "upstream_unreachable", id="F-49 name"),
        pytest.param(impolite, 502, "upstream_unreachable", id="F-48 no TLS"),
        pytest.param(silent, 504, "upstream_timeout", id="F-48 TLS hangs"),
    ],
)
async def test_an_upstream_that_cannot_be_reached_is_a_bad_gateway(
    migrated_sqlite: Path, tmp_path: Path, upstream: Any, status: int, code: str
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        url = upstream
        if callable(upstream):
            url = f"https://127.0.0.1:{await stack.enter_async_context(listening(upstream))}/v1"
        house = await stack.enter_async_context(
            behind(migrated_sqlite, tmp_path, {"base_url": url})
        )
        for stream in (False, True):
            error_of(await house.chat(stream=stream), status, code)
        assert await books.usage_rows(house) == []
