"""Answers on their way out: fewer writes than ASGI's messages would take.

Owns the short cuts past uvicorn's request cycle, for bodies that are here already and answers that
are whole, and the one write for an answer's head and its first bytes. Must not know what is said.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from bursar.gateway.asgi import Headers
from bursar.gateway.http.outbox import Outbox

# Below uvicorn's high-water mark: reading is not paused, so nothing has to be resumed.
SMALL_BODY: Final = 65_000


class _Beginning:
    """How a good answer begins: the same for all of one second."""

    def __init__(self) -> None:
        self._headers: Headers = []
        self._lines = b"HTTP/1.1 200 OK\r\n"

    def of(self, headers: Headers) -> bytes:
        """The status line and the header lines that every answer has at the moment."""
        if headers is not self._headers:
            lines = [b"%b: %b\r\n" % header for header in headers]
            self._headers, self._lines = headers, b"HTTP/1.1 200 OK\r\n" + b"".join(lines)
        return self._lines


_beginning: Final = _Beginning()


def take_body(cycle: RequestResponseCycle) -> bytes | None:
    """The request's body if it is small and whole already, past the ASGI messages; else None."""
    if cycle.more_body or cycle.waiting_for_100_continue or len(cycle.body) > SMALL_BODY:
        return None
    body = bytes(cycle.body)
    cycle.body = bytearray()
    return body


def may_answer_at_once(cycle: RequestResponseCycle) -> bool:
    """Whether this request's answer may be written now, whole, past the ASGI messages."""
    return not (
        cycle.response_started
        or cycle.disconnected
        or cycle.flow.write_paused
        or cycle.scope["method"] == "HEAD"
    )


def answer_at_once(cycle: RequestResponseCycle, head: bytes, body: bytes) -> None:
    """Write a 200 with these header lines and this body, and end the request as `send` would."""
    end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
    answer = b"%b%b%b%b" % (_beginning.of(cycle.default_headers), head, end, body)
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.chunked_encoding = False
    transport: Any = cycle.transport
    if cycle.keep_alive and isinstance(transport, Cork):
        transport.write_soon(answer)
    else:
        transport.write(answer)
    cycle.message_event.set()
    if not cycle.keep_alive:
        transport.close()
    cycle.on_response()


class Cork:
    """A transport that holds back an answer's head until its first body bytes: one system call.

    How it closes is the protocol's matter; everything else is the transport's own.
    """

    __slots__ = ("_close", "_head", "_outbox", "_transport", "abort", "is_closing", "write_now")

    def __init__(
        self, transport: asyncio.Transport, outbox: Outbox, close: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._outbox = outbox
        self._close = close
        self.write_now = transport.write
        self._head = b""
        self.abort = transport.abort
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Write, or keep an answer's head for the write that always follows it."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 ") and data.endswith(b"\r\n\r\n") and data[9:12] != b"100":
            self._head = data
            return
        self.write_now(data)

    def write_soon(self, data: bytes) -> None:
        """Write a whole answer together with the others of this turn of the loop."""
        self._outbox.put(self.write_now, data)

    def close(self) -> None:
        """Close once everything is out, a head without a body included."""
        self._outbox.flush()
        if self._head:
            self.write_now(self._head)
            self._head = b""
        self._close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
