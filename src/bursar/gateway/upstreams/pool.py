"""Our own keep-alive pool of HTTP/1.1 connections to one upstream.

Owns who gets which connection, how many there may be, how requests are written and when a call
has taken too long. Must not know how answers are parsed (`http11`) or what they mean.

A request costs no task and no timer: it waits on one future, and one sweep a second over the open
connections enforces every time-out. A slot is taken before a connection and given back when the
exchange ends, however it ends.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque

from bursar.gateway.http.outbox import Outbox
from bursar.gateway.upstreams.http11.connections import Connection
from bursar.gateway.upstreams.http11.exchanges import Exchange
from bursar.gateway.upstreams.http11.slots import Slots
from bursar.gateway.upstreams.port import (
    OWN_HEADERS,
    Headers,
    Limits,
    Timeouts,
    UpstreamError,
    check_target,
    parse_origin,
)

_MAX_HEADS = 256
_METHODS_WITHOUT_BODY = frozenset((b"GET", b"HEAD", b"DELETE"))


class KeepAlivePool:
    """An `UpstreamClient` over own connections; belongs to one event loop."""

    def __init__(
        self,
        base_url: str,
        *,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        sweep_s: float = 1.0,
    ) -> None:
        """Prepare a pool for `base_url`; `tls` replaces the system's trust store.

        `sweep_s` is how late a time-out may be noticed. Raises ValueError for an unusable URL.
        """
        self._origin = parse_origin(base_url)
        self._timeouts = timeouts or Timeouts()
        self._limits = limits or Limits()
        self._tls = (tls or _default_tls()) if self._origin.is_tls else None
        self._sweep_s = sweep_s
        self._sweeper: asyncio.TimerHandle | None = None
        self._heads: dict[tuple[bytes, bytes], bytes] = {}
        self._fields: dict[Headers, bytes] = {}
        self._open: set[Connection] = set()
        self._emptied = asyncio.Event()
        self._idle: deque[Connection] = deque()
        self._slots = Slots(self._limits.max_connections, self._limits.max_waiters)
        self._outbox = Outbox()
        self._is_closed = False

    @property
    def in_use(self) -> int:
        """How many slots are taken, by exchanges and by connections being made."""
        return self._slots.taken

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many calls wait for a slot."""
        return self._slots.waiting

    async def send(
        self, method: bytes, path: bytes, headers: Headers, body: bytes, *, is_again: bool = False
    ) -> Exchange:
        """Send one request; see `UpstreamClient.send`.

        Repeats the request once, on a new connection, if a reused one turns out to have been
        closed before a byte of an answer. Raises ValueError for a header or path that would
        break out of its line.
        """
        request = self._render(method, path, headers, body)
        is_head_request = method == b"HEAD"
        if not is_again:
            connection = self._take_at_once() or await self._take()
            exchange = connection.start(request, is_head_request=is_head_request)
            if await exchange.answered():
                return exchange
        connection = await self._take(must_be_new=True)
        exchange = connection.start(request, is_head_request=is_head_request)
        if not await exchange.answered() and exchange.error is not None:
            raise exchange.error
        return exchange

    def start(self, method: bytes, path: bytes, headers: Headers, body: bytes) -> Exchange | None:
        """Send one request on an idle connection; see `UpstreamClient.start`."""
        request = self._render(method, path, headers, body)
        connection = self._take_at_once()
        if connection is None:
            return None
        exchange = connection.start(request, is_head_request=method == b"HEAD")
        return exchange if exchange.error is None else None

    async def close(self) -> None:
        """Close every connection; see `UpstreamClient.close`."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._slots.close()
        for connection in tuple(self._open):
            connection.fail("closed", "the upstream client was closed")
            connection.close()
        if self._open:
            await self._emptied.wait()

    # http11.connections.Owner

    def connection_open(self, connection: Connection) -> None:
        """Count a connection that was made."""
        self._open.add(connection)
        self._emptied.clear()
        self._arm()

    def exchange_over(self, connection: Connection, *, is_reusable: bool) -> None:
        """Keep the connection for the next request or let it go, and give the slot back."""
        if is_reusable:
            if self._is_closed or len(self._idle) >= self._limits.max_idle:
                connection.close()
            else:
                self._idle.append(connection)
        self._slots.give_back()

    def connection_gone(self, connection: Connection) -> None:
        """Forget a lost connection."""
        self._open.discard(connection)
        if not self._open:
            self._emptied.set()
        if connection in self._idle:
            self._idle.remove(connection)

    # Slots and connections

    def _take_at_once(self) -> Connection | None:
        """Take a slot and an idle connection if both are there, else nothing."""
        if not self._idle or not self._slots.try_take():
            return None
        connection = self._pop_idle()
        if connection is None:
            self._slots.give_back()
        return connection

    async def _take(self, *, must_be_new: bool = False) -> Connection:
        """Take a slot and a connection, waiting and dialling as need be."""
        await self._slots.take()
        try:
            connection = None if must_be_new else self._pop_idle()
            return connection or await self._dial()
        except BaseException:
            self._slots.give_back()
            raise

    def _pop_idle(self) -> Connection | None:
        # Last in, first out: the warmest connection, and the surplus grows old enough to expire.
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
        return None

    async def _dial(self) -> Connection:
        loop = asyncio.get_running_loop()
        origin = self._origin
        try:
            async with asyncio.timeout(self._timeouts.connect_s):
                _transport, connection = await loop.create_connection(
                    lambda: Connection(self, self._limits, loop, self._outbox),
                    origin.host,
                    origin.port,
                    ssl=self._tls,
                    server_hostname=origin.host if self._tls else None,
                )
        except TimeoutError as error:
            message = f"no connection within {self._timeouts.connect_s:g} s"
            raise UpstreamError("timeout_connect", message, request_sent=False) from error
        except ssl.SSLError as error:
            raise UpstreamError("tls", f"TLS failed: {error}", request_sent=False) from error
        except (OSError, UnicodeError) as error:
            raise UpstreamError(
                "connect", f"cannot connect: {error}", request_sent=False
            ) from error
        if self._is_closed:
            connection.close()
            raise UpstreamError("closed", "the upstream client is closed", request_sent=False)
        return connection

    # Time

    def _arm(self) -> None:
        if self._sweeper is None and not self._is_closed:
            self._sweeper = asyncio.get_running_loop().call_later(self._sweep_s, self._sweep)

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in tuple(self._open):
            connection.expire(now, self._timeouts)
        while self._idle and now - self._idle[0].idle_since >= self._limits.idle_expiry_s:
            self._idle.popleft().close()
        self._slots.expire(now - self._timeouts.connect_s)
        self._sweeper = None
        if self._open:
            self._arm()

    # Requests

    def _render(self, method: bytes, path: bytes, headers: Headers, body: bytes) -> bytes:
        static = self._heads.get((method, path)) or self._static_head(method, path)
        # The gateway's own headers, a tuple, are the same for every request.
        fields = self._fields.get(headers) if type(headers) is tuple else None
        if fields is None:
            fields = self._render_fields(headers)
        if not body and method in _METHODS_WITHOUT_BODY:
            return b"%b%b\r\n" % (static, fields)
        return b"%b%bcontent-length: %d\r\n\r\n%b" % (static, fields, len(body), body)

    def _render_fields(self, headers: Headers) -> bytes:
        lines = [
            b"%b: %b\r\n" % header for header in headers if header[0].lower() not in OWN_HEADERS
        ]
        fields = b"".join(lines)
        if (
            fields.count(b"\r") != len(lines)
            or fields.count(b"\n") != len(lines)
            or b"\0" in fields
        ):
            raise ValueError("a header holds a line break or NUL")
        if type(headers) is tuple and len(self._fields) < _MAX_HEADS:
            self._fields[headers] = fields
        return fields

    def _static_head(self, method: bytes, path: bytes) -> bytes:
        check_target(method, path)
        origin = self._origin
        head = b"%b %b%b HTTP/1.1\r\nhost: %b\r\naccept-encoding: identity\r\n" % (
            method,
            origin.prefix.encode(),
            path,
            origin.authority.encode(),
        )
        if len(self._heads) < _MAX_HEADS:
            self._heads[method, path] = head
        return head


def _default_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
