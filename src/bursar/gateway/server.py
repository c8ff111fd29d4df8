"""The HTTP server: uvicorn with its limits drawn tighter.

Owns what is refused before a request exists: heads that are too long or too slow, several hosts,
expectations that nobody can meet. Must not know applications.
"""

import asyncio
import re
from typing import Any, Final

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from bursar.gateway.asgi import App

MOST_HEAD_BYTES: Final = 65_536
MOST_HEADERS: Final = 200
MOST_URL_BYTES: Final = 8_192
HEAD_TIMEOUT_S: Final = 20.0

# Below uvicorn's high-water mark: reading is not paused, so nothing has to be resumed.
_SMALL_BODY: Final = 65_000
_HOST: Final = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")
_REASONS: Final = {
    400: b"Bad Request",
    408: b"Request Timeout",
    414: b"URI Too Long",
    417: b"Expectation Failed",
    431: b"Request Header Fields Too Large",
}


def take_body(cycle: RequestResponseCycle) -> bytes | None:
    """The request's body if it is small and whole already, past the ASGI messages; else None."""
    if cycle.more_body or cycle.waiting_for_100_continue or len(cycle.body) > _SMALL_BODY:
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
    parts = [b"HTTP/1.1 200 OK\r\n"]
    for name, value in cycle.default_headers:
        parts += (name, b": ", value, b"\r\n")
    parts += (head, b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n", body)
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.chunked_encoding = False
    transport = cycle.transport
    getattr(transport, "write_now", transport.write)(b"".join(parts))
    cycle.message_event.set()
    if not cycle.keep_alive:
        transport.close()
    cycle.on_response()


class Cork:
    """A transport that holds back an answer's head until its first body bytes: one system call.

    Everything but `write` is the transport's own.
    """

    __slots__ = ("_head", "_transport", "abort", "is_closing", "write_now")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.write_now = transport.write
        self._head = b""
        self.abort = transport.abort
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Write, or keep an answer's head for the write that always follows it."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
            return
        self.write_now(data)

    def close(self) -> None:
        """Close once everything is out, a head without a body included."""
        if self._head:
            self.write_now(self._head)
            self._head = b""
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Protocol(HttpToolsProtocol):
    """One connection. A refused request is answered in our error shape and ends it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._cork: Cork | None = None
        self._fault: tuple[int, str, str] | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._is_in_head = False

    def data_received(self, data: bytes) -> None:
        """Parse, and start the clock if the head is not whole yet."""
        if self._fault is not None:
            return
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._refuse(431, "headers_too_large", "The request's headers are too large.")
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._too_slow)
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection that says nothing at all is closed like one that is too slow."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A new head begins."""
        self._head_bytes = 0
        self._is_in_head = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Bound the target."""
        super().on_url(url)
        if len(self.url) > MOST_URL_BYTES:
            self._refuse(414, "uri_too_long", "The request's target is too long.")

    def on_headers_complete(self) -> None:
        """Hand the request on, unless its head was refused."""
        self._is_in_head = False
        self._check_head()
        if self._fault is None:
            super().on_headers_complete()
            if self._cork is None:
                self._cork = Cork(self.transport)
            # An answer to HEAD is a head that nothing follows.
            if self.scope["method"] != "HEAD":
                self.cycle.transport = self._cork  # type: ignore[assignment]

    def _check_head(self) -> None:
        """Refuse heads that are too large, or unclear about where they go."""
        headers = self.headers
        if len(headers) > MOST_HEADERS:
            self._refuse(431, "headers_too_large", "The request's headers are too large.")
            return
        hosts = 0
        for name, value in headers:
            if name == b"host":
                hosts += 1
                if _HOST.fullmatch(value) is None:
                    hosts = 2
            elif name == b"expect" and value.lower() != b"100-continue":
                self._refuse(417, "expectation_failed", "That expectation cannot be met.")
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() != "1.0"):
            self._refuse(400, "invalid_host", "The request must name one valid host.")

    def on_body(self, body: bytes) -> None:
        """Take body bytes of requests that were not refused."""
        if self._fault is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request that was not refused."""
        if self._fault is None:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(400, "invalid_http", msg)

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade that nobody asked us to offer is ignored, without a line in the log."""

    def _refuse(self, status: int, code: str, message: str) -> None:
        if self._fault is not None:
            return
        self._fault = (status, code, message)
        earlier: RequestResponseCycle | None = self.cycle
        if earlier is not None and not earlier.response_complete:
            # An earlier request is still being answered: its answer must not be mixed with ours.
            self.transport.abort()
            return
        error = {"type": "invalid_request_error", "code": code, "message": message, "param": None}
        body = msgspec.json.encode({"error": error})
        head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\n" % (status, _REASONS[status])
        rest = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(head + rest + body)
        self.transport.close()

    def _too_slow(self) -> None:
        self._head_timer = None
        if self._is_in_head:
            self._refuse(408, "request_timeout", "The request did not arrive in time.")
        else:
            self.transport.close()


def uvicorn_options(app: App) -> dict[str, Any]:
    """The settings under which uvicorn serves `app`."""
    return {
        "app": app,
        "interface": "asgi3",
        "http": Protocol,
        "loop": "none",
        "ws": "none",
        "lifespan": "off",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "date_header": True,
        "proxy_headers": False,
        "timeout_keep_alive": 75,
        "backlog": 4096,
    }
