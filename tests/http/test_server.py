"""What leaves a connection leaves in order, however its writes are gathered."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from bursar.gateway.caller import Caller
from bursar.gateway.http.direct import Run, Serve
from bursar.gateway.http.idle import Idle
from bursar.gateway.http.names import Names
from bursar.gateway.http.outbox import Outbox
from bursar.gateway.http.patience import Patience
from bursar.gateway.http.server import Protocol

POST = b"POST /call HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
HEAD_LINES = b"content-length: 2\r\n"
LENGTH = (b"content-length", b"2")
CHUNKED = (
    b"POST /call HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
)


class Wire(asyncio.Transport):
    """A transport that remembers, and refuses what a real one refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_ended = False

    def write(self, data: Any) -> None:
        assert not self.is_ended, "written after the end"
        self.sent += bytes(data)

    def write_eof(self) -> None:
        self.is_ended = True

    def close(self) -> None:
        self.is_ended = True

    def abort(self) -> None:
        self.is_ended = True

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return

    @property
    def statuses(self) -> list[int]:
        return [int(part[:3]) for part in self.sent.split(b"HTTP/1.1 ")[1:]]


class Gone(Wire):
    """One whose peer has reset the connection."""

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")


async def connect(
    during: Callable[[Protocol], None], wire: Wire | None = None, *, keep_alive_s: int = 5
) -> Wire:
    """Send one call that is answered at once, and do something in the same turn of the loop."""
    wire = wire or Wire()

    def serve(caller: Caller, run: Run) -> None:
        run(answer(caller))

    async def answer(caller: Caller) -> None:
        before = wire.sent
        assert caller.answer_at_once(HEAD_LINES, b"{}")
        assert wire.sent == before
        during(protocol)

    protocol = speak(serve, keep_alive_s=keep_alive_s)
    protocol.connection_made(wire)
    protocol.data_received(POST)
    await asyncio.sleep(0.05)
    protocol.connection_lost(None)
    return wire


async def nowhere(_scope: object, _receive: object, _send: object) -> None:
    raise AssertionError("nothing takes the long way here")


def speak(
    serve: Serve, *, keep_alive_s: int = 5, app: object = nowhere, names: Names | None = None
) -> Protocol:
    """One connection's protocol, on which calls are served by `serve`."""
    options = uvicorn.Config(
        app=cast(Any, app),
        interface="asgi3",
        log_config=None,
        access_log=False,
        timeout_keep_alive=keep_alive_s,
    )
    options.load()
    return Protocol(
        config=options,
        server_state=ServerState(),
        app_state={},
        _loop=asyncio.get_running_loop(),
        patience=Patience(parting_s=0.01),
        targets={b"/call": serve},
        outbox=Outbox(),
        names=names or Names(),
    )


async def test_an_answer_leaves_before_a_refusal_of_what_follows_it() -> None:
    wire = await connect(lambda protocol: protocol.data_received(b"garbage\r\n\r\n"))
    assert wire.statuses == [200, 400]
    assert wire.is_ended


async def test_a_refusal_of_somebody_who_has_left_ends_their_connection() -> None:
    wire = await connect(lambda protocol: protocol.data_received(b"garbage\r\n\r\n"), Gone())
    assert wire.is_ended


async def test_an_answer_leaves_before_its_idle_connection_is_closed() -> None:
    wire = await connect(lambda protocol: None, keep_alive_s=0)
    assert wire.statuses == [200]
    assert wire.is_ended


async def test_an_answer_leaves_before_a_server_that_stops_lets_go() -> None:
    wire = await connect(lambda protocol: protocol.shutdown())
    assert wire.statuses == [200]
    assert wire.is_ended


async def test_one_answer_follows_another() -> None:
    calls = 0

    def again(protocol: Protocol) -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            protocol.data_received(POST)

    wire = await connect(again)
    assert wire.statuses == [200, 200, 200]


async def test_every_answer_bears_the_date_of_its_own_moment() -> None:
    def second_passes(protocol: Protocol) -> None:
        if protocol.server_state.default_headers != [(b"date", b"later")]:
            protocol.server_state.default_headers = [(b"date", b"later")]
            protocol.data_received(POST)

    wire = await connect(second_passes)
    assert wire.sent.count(b"date: later") == 1
    assert wire.sent.index(b"date: later") > wire.sent.rindex(b"HTTP/1.1 200")


def request(body: bytes, *lines: bytes) -> bytes:
    named = b"".join(line + b"\r\n" for line in lines)
    return POST[: POST.index(b"content-")] + b"%bcontent-length: %d\r\n\r\n%b" % (
        named,
        len(body),
        body,
    )


LONG = request(b"x" * 70_000)

# What comes behind a first request, packet by packet, and what is served besides that.
AFTER: dict[str, tuple[list[bytes], list[bytes]]] = {
    "the same": ([POST], [b"{}"]),
    "another length": ([request(b"x" * 1000)], [b"x" * 1000]),
    "another header": ([request(b"{}", b"a: b")], [b"{}"]),
    "another header twice": ([request(b"1", b"a: b"), request(b"22", b"a: b")], [b"1", b"22"]),
    "in pieces": ([POST[:9], POST[9:-1], POST[-1:]], [b"{}"]),
    "its body later": ([POST[:-2], POST[-2:]], [b"{}"]),
    "half of its body": ([POST[:-1]], []),
    "a long body later": ([LONG[:-69_999], LONG[-69_999:], POST], [b"x" * 70_000, b"{}"]),
    "two at once": ([POST + request(b"second")], [b"{}", b"second"]),
    "a line break before it": ([b"\r\n", POST, b"\r\n" + POST], [b"{}", b"{}"]),
    "none": ([request(b"")], [b""]),
    "chunks": ([CHUNKED, CHUNKED, POST], [b"{}"] * 3),
    "nonsense": ([POST.replace(b"content-length: 2", b"content-length: two"), POST], []),
    "one too short": ([request(b"{}")[:-1], b"}", POST], [b"{}", b"{}"]),
    "the last one": ([request(b"1", b"connection: close"), POST], [b"1"]),
    "an offer": ([request(b"1", b"upgrade: h2c", b"connection: upgrade"), POST], [b"1", b"{}"]),
}


@pytest.mark.parametrize("name", AFTER)
async def test_a_head_that_comes_again_means_what_it_meant(name: str) -> None:
    packets, served = AFTER[name]
    wire, seen = Wire(), list[tuple[bytes, object]]()

    def serve(caller: Caller, run: Run) -> None:
        body = caller.body_at_hand(most=10_000)
        assert body is not None
        seen.append((body, caller.scope["headers"]))
        run(answer(caller))

    async def answer(caller: Caller) -> None:
        assert caller.answer_at_once(HEAD_LINES, b"{}")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive()).get("more_body", True):
            body += message["body"]
        seen.append((body + message["body"], scope["headers"]))
        await send({"type": "http.response.start", "status": 200, "headers": [LENGTH]})
        await send({"type": "http.response.body", "body": b"{}"})

    protocol = speak(serve, app=app)
    protocol.connection_made(wire)
    for packet in (POST, *packets):
        if not wire.is_ended:
            protocol.data_received(packet)
            await asyncio.sleep(0.01)
    protocol.connection_lost(None)
    assert [body for body, _ in seen] == [b"{}", *served]
    for body, headers in seen:
        # Those of a head that was not parsed are those of the one that was.
        assert (b"host", b"x") in cast(list[Any], headers), body
    assert wire.statuses.count(200) == len(seen)


async def test_a_head_within_another_is_not_one_that_comes_again() -> None:
    def within(protocol: Protocol) -> None:
        protocol.data_received(b"GET /x HTTP/1.1\r\nhost: x\r\n")
        protocol.data_received(POST)

    wire = await connect(within)
    assert wire.statuses == [200, 400]


async def test_a_page_may_read_every_answer() -> None:
    wire, origin = Wire(), b"https://app.example.com"

    def serve(caller: Caller, run: Run) -> None:
        run(answer(caller))

    async def answer(caller: Caller) -> None:
        assert caller.answer_at_once(HEAD_LINES, b"{}")

    protocol = speak(serve, names=Names(origins=[origin.decode()]))
    protocol.connection_made(wire)
    for _ in range(3):
        protocol.data_received(request(b"{}", b"origin: " + origin))
        await asyncio.sleep(0.01)
    protocol.connection_lost(None)
    assert wire.statuses == [200] * 3
    assert wire.sent.count(b"access-control-allow-origin: " + origin) == 3


async def test_a_head_that_comes_again_too_early_waits_for_its_turn() -> None:
    wire, callers = Wire(), list[Caller]()

    def serve(caller: Caller, run: Run) -> None:
        callers.append(caller)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 202, "headers": [LENGTH]})
        await send({"type": "http.response.body", "body": b"{}"})

    protocol = speak(serve, app=app)
    protocol.connection_made(wire)
    protocol.data_received(POST)
    assert callers[0].answer_at_once(HEAD_LINES, b"{}")
    protocol.data_received(POST)
    protocol.data_received(POST)
    await asyncio.sleep(0.01)
    assert len(callers) == 2
    assert wire.statuses == [200]
    assert callers[1].answer_at_once(HEAD_LINES, b"{}")
    await asyncio.sleep(0.01)
    protocol.connection_lost(None)
    assert wire.statuses == [200, 200, 202]


async def test_a_head_that_comes_again_is_not_parsed() -> None:
    wire, calls = Wire(), 0

    def serve(caller: Caller, run: Run) -> None:
        run(answer(caller))

    async def answer(caller: Caller) -> None:
        nonlocal calls
        calls += 1
        assert caller.answer_at_once(HEAD_LINES, b"{}")

    protocol = speak(serve)
    protocol.connection_made(wire)
    for size in (2, 2, 30, 400):
        protocol.data_received(request(b"x" * size))
        protocol.parser = None
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    assert calls == 4
    assert wire.statuses == [200] * 4


class Still:
    """A call that waits, and counts how often a task was asked for."""

    def __init__(self) -> None:
        self.tasks = 0

    def go_on(self) -> None:
        self.tasks += 1


@pytest.mark.parametrize("end", [lambda p: p.shutdown(), lambda p: p.connection_lost(None)])
async def test_a_call_that_waits_has_a_task_from_when_only_tasks_are_counted(
    end: Callable[[Protocol], None],
) -> None:
    still = Still()
    protocol = speak(lambda _caller, _run: still)
    protocol.connection_made(Wire())
    protocol.data_received(POST)
    await asyncio.sleep(0)
    assert still.tasks == 0
    end(protocol)
    assert still.tasks == 1


async def test_a_connection_is_closed_when_it_has_been_idle_for_the_whole_time() -> None:
    loop, closed = asyncio.get_running_loop(), asyncio.Event()
    idle = Idle(loop, 0.2, closed.set)
    began = loop.time()
    idle.begin()
    await asyncio.sleep(0.15)
    idle.end()
    idle.begin()
    await asyncio.sleep(0.1)
    assert not closed.is_set()
    await closed.wait()
    assert loop.time() - began >= 0.34


async def test_a_connection_in_use_is_never_idle() -> None:
    closed = asyncio.Event()
    idle = Idle(asyncio.get_running_loop(), 0.01, closed.set)
    idle.begin()
    idle.end()
    await asyncio.sleep(0.05)
    assert not closed.is_set()
    idle.begin()
    await closed.wait()
    idle.begin()
    idle.stop()


async def test_a_connection_that_is_gone_takes_no_other_answer_with_it() -> None:
    sent: list[bytes] = []

    def gone(_: bytes) -> None:
        raise RuntimeError("the handler is closed")

    outbox = Outbox()
    outbox.put(sent.append, b"first")
    outbox.put(gone, b"for nobody")
    outbox.put(sent.append, b"last")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sent == [b"first", b"last"]
    outbox.put(sent.append, b"and on")
    outbox.flush()
    assert sent[-1] == b"and on"
