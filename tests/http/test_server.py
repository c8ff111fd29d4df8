"""What leaves a connection leaves in order, however its writes are gathered."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from bursar.gateway.caller import Caller
from bursar.gateway.names import Names
from bursar.gateway.outbox import Outbox
from bursar.gateway.server import Patience, Protocol

POST = b"POST /call HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
HEAD_LINES = b"content-length: 2\r\n"


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


async def connect(during: Callable[[Protocol], None], wire: Wire | None = None) -> Wire:
    """Send one call that is answered at once, and do something in the same turn of the loop."""
    wire = wire or Wire()

    async def serve(caller: Caller) -> None:
        before = wire.sent
        assert caller.answer_at_once(HEAD_LINES, b"{}")
        assert wire.sent == before
        during(protocol)

    async def app(_scope: object, _receive: object, _send: object) -> None:
        raise AssertionError("nothing takes the long way here")

    options = uvicorn.Config(
        app=cast(Any, app), interface="asgi3", log_config=None, access_log=False
    )
    options.load()
    protocol = Protocol(
        config=options,
        server_state=ServerState(),
        app_state={},
        _loop=asyncio.get_running_loop(),
        patience=Patience(parting_s=0.01),
        targets={b"/call": serve},
        outbox=Outbox(),
        names=Names(),
    )
    protocol.connection_made(wire)
    protocol.data_received(POST)
    await asyncio.sleep(0.05)
    protocol.connection_lost(None)
    return wire


async def test_an_answer_leaves_before_a_refusal_of_what_follows_it() -> None:
    wire = await connect(lambda protocol: protocol.data_received(b"garbage\r\n\r\n"))
    assert wire.statuses == [200, 400]
    assert wire.is_ended


async def test_a_refusal_of_somebody_who_has_left_ends_their_connection() -> None:
    wire = await connect(lambda protocol: protocol.data_received(b"garbage\r\n\r\n"), Gone())
    assert wire.is_ended


async def test_an_answer_leaves_before_its_idle_connection_is_closed() -> None:
    wire = await connect(lambda protocol: protocol.timeout_keep_alive_handler())
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
