"""One upstream connection and the exchange on it.

Owns the bytes of HTTP/1.1 answers: strict framing, size limits, back pressure, and the rule that
an answer which could be read in two ways is refused. Must not know which connection a request
takes, how requests are written or what bodies mean; the pool (`Owner`) hears when an exchange ends.

Everything that ends an exchange is a plain call, because a cancelled task is cancelled again at
its first await: a clean-up that suspends would leak the connection's slot.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from bursar.gateway.http.last_head import LastHead
from bursar.gateway.http.outbox import Outbox
from bursar.gateway.upstreams.http11.exchanges import Exchange
from bursar.gateway.upstreams.port import FailureKind, Limits, Timeouts, UpstreamError

# A server that closes an idle connection and a client that writes to it cross within one round
# trip. A reused connection that dies later than this died at work, and the work may be sold.
STALE_WITHIN_S = 2.0

_HEADER_OVERHEAD = 32
_OK = 200
_LENGTH = b"content-length"
_FRAMING = frozenset((_LENGTH, b"transfer-encoding", b"content-encoding"))
_INFORMATIONAL = frozenset((100, 102, 103))
_BODYLESS = frozenset((204, 304))


class Owner(Protocol):
    """Who lends connections out and takes them back."""

    def connection_open(self, connection: Connection) -> None:
        """A connection was made."""
        ...

    def exchange_over(self, connection: Connection, *, is_reusable: bool) -> None:
        """Take the slot back; called exactly once for each started exchange."""
        ...

    def connection_gone(self, connection: Connection) -> None:
        """A connection was lost, idle or not; called once, after `exchange_over`."""
        ...


class _Refused(Exception):
    """Raised inside a parser's callback: this answer is not acceptable."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind: FailureKind = kind


class Connection(asyncio.Protocol):
    """One keep-alive connection: at most one exchange at a time, never pipelined."""

    __slots__ = (
        "_exchange",
        "_head_room",
        "_is_head_request",
        "_is_kept_alive",
        "_is_out",
        "_is_paused",
        "_is_used",
        "_last_head",
        "_limits",
        "_loop",
        "_outbox",
        "_owner",
        "_parser",
        "_quiet",
        "_transport",
        "idle_since",
    )

    def __init__(
        self,
        owner: Owner,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        outbox: Outbox | None = None,
    ) -> None:
        self._owner = owner
        self._limits = limits
        self._loop = loop
        self._outbox = outbox
        self._is_out = False
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._is_used = False
        self._is_paused = False
        self._is_kept_alive = False
        self._is_head_request = False
        self._head_room = 0
        # Of good answers: the headers behind a head, all but its length.
        self._last_head: LastHead[list[tuple[bytes, bytes]]] = LastHead()
        self._quiet = 0
        self.idle_since = 0.0

    @property
    def is_usable(self) -> bool:
        """Whether a request may be written to it now."""
        transport = self._transport
        return transport is not None and self._exchange is None and not transport.is_closing()

    def start(self, request: bytes, *, is_head_request: bool) -> Exchange:
        """Write one request; the caller holds a slot, which the exchange's end gives back."""
        exchange = self._exchange = Exchange(
            self, self._loop, self._limits.max_body, self._loop.time()
        )
        transport = self._transport
        if transport is None or transport.is_closing():
            self.fail("closed", "the upstream closed the connection", request_sent=False)
            return exchange
        self._head_room = self._limits.max_head
        self._quiet = 0
        self._is_head_request = is_head_request
        self._is_out = False
        if self._outbox is None:
            self._write(request)
        else:
            self._outbox.put(self._write, request)
        return exchange

    def _write(self, request: bytes) -> None:
        self._is_out = True
        if self._transport is not None:
            self._transport.write(request)

    def resume(self) -> None:
        """Read on after a pause; the silence that we caused does not count as the upstream's."""
        if not self._is_paused:
            return
        self._is_paused = False
        if self._exchange is not None:
            self._exchange.heard_at = self._loop.time()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def expire(self, now: float, timeouts: Timeouts) -> None:
        """Fail the exchange if it has taken too long; `now` is the loop's time in seconds."""
        exchange = self._exchange
        if exchange is None:
            return
        taken = now - exchange.sent_at
        if taken >= timeouts.total_s:
            self.fail("timeout_total", f"the call took longer than {timeouts.total_s:g} s")
        elif not exchange.status:
            if taken >= timeouts.headers_s:
                self.fail("timeout_headers", f"no answer within {timeouts.headers_s:g} s")
        elif not self._is_paused and now - exchange.heard_at >= timeouts.idle_s:
            self.fail("timeout_idle", f"the upstream fell silent for {timeouts.idle_s:g} s")

    def fail(self, kind: FailureKind, message: str, *, request_sent: bool = True) -> None:
        """End the exchange with an error and close the connection."""
        exchange = self._exchange
        if exchange is not None:
            exchange.error = UpstreamError(kind, message, request_sent=request_sent)
            self._end(exchange, is_reusable=False)

    def close(self) -> None:
        """Close now; nothing that was written is waited for."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)
        self._owner.connection_open(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End whatever was going on: an answer that needed more bytes is cut short."""
        self._transport = None
        exchange = self._exchange
        if exchange is not None:
            waited = self._loop.time() - exchange.sent_at
            is_silent = exchange.heard_at == 0.0
            exchange.is_stale = self._is_used and is_silent and waited <= STALE_WITHIN_S
            self.fail("closed", "the upstream closed the connection before its answer was whole")
        self._owner.connection_gone(self)

    def eof_received(self) -> None:
        """Complete a body that only the connection's end delimits; the transport then closes."""
        exchange = self._exchange
        if exchange is not None and exchange.ends_with_connection:
            exchange.is_complete = True
            self._end(exchange, is_reusable=False)

    def data_received(self, data: bytes) -> None:
        """Feed the parser and say what is new."""
        exchange = self._exchange
        if exchange is None:
            self.close()  # Nobody asked: these bytes would be taken for the next request's answer.
            return
        if not self._is_out:
            # What comes before the request is out answers something else: begin anew elsewhere.
            exchange.is_stale = True
            self.fail("closed", "the upstream spoke out of turn", request_sent=False)
            return
        is_first = not exchange.heard_at
        exchange.heard_at = self._loop.time()
        if is_first and not self._is_head_request:
            body = self._last_head.body_of(data)
            if body is not None:
                self._take_again(exchange, body)
                return
        self._quiet += len(data)
        pieces = len(exchange.chunks)
        failure: Exception | None = None
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            failure = error
        if exchange.is_complete:
            is_reusable = failure is None and self._is_clean()
            if is_first and is_reusable and exchange.status == _OK and exchange.content_length > 0:
                self._last_head.remember(data, exchange.content_length, exchange.headers)
            self._end(exchange, is_reusable=is_reusable)
        elif failure is not None:
            self._fail_parsing(failure)
        else:
            self._keep_bounds(exchange, pieces)
            exchange.wake()

    def _take_again(self, exchange: Exchange, body: bytes) -> None:
        """Take a whole answer with the head of the one before: the parser need not see it."""
        length = (_LENGTH, b"%d" % len(body))
        exchange.headers += [
            length if header[0] == _LENGTH else header for header in self._last_head.meaning or ()
        ]
        exchange.status = _OK
        exchange.content_length = exchange.buffered = len(body)
        exchange.chunks.append(body)
        exchange.is_complete = self._is_kept_alive = True
        self._end(exchange, is_reusable=self._is_clean())

    # httptools: called from within feed_data

    def on_message_begin(self) -> None:
        """Refuse bytes behind a complete answer; bare line breaks, which cannot begin one, pass."""
        if self._exchange is None or self._exchange.is_complete:
            raise _Refused("protocol", "bytes after the end of the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header; trailers are counted and dropped."""
        exchange = cast(Exchange, self._exchange)
        self._head_room -= len(name) + len(value) + _HEADER_OVERHEAD
        if self._head_room < 0:
            raise _Refused("too_large", "the upstream's headers are too large")
        if exchange.status:
            return
        name = name.lower()
        if name in _FRAMING:
            _note_framing(exchange, name, value)
        exchange.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Decide how the body ends, or skip an informational answer."""
        exchange = cast(Exchange, self._exchange)
        status = self._parser.get_status_code()
        is_framed = exchange.content_length >= 0 or exchange.transfer_encoding != b""
        if status < 200:
            if status not in _INFORMATIONAL or is_framed:
                raise _Refused("protocol", f"unexpected informational answer {status}")
            exchange.headers.clear()
            return
        if status > 599 or self._parser.get_http_version() not in ("1.1", "1.0"):
            raise _Refused("protocol", "not an HTTP/1.1 answer")
        exchange.status = status
        self._is_kept_alive = self._parser.should_keep_alive()
        if self._is_head_request:
            exchange.is_complete = True
        else:
            exchange.ends_with_connection = not is_framed and status not in _BODYLESS

    def on_body(self, body: bytes) -> None:
        """Buffer a piece of the body."""
        exchange = cast(Exchange, self._exchange)
        if exchange.is_complete:
            raise _Refused("protocol", "a body where none may be")
        exchange.chunks.append(body)
        exchange.buffered += len(body)
        self._quiet = 0

    def on_message_complete(self) -> None:
        """The answer is whole, unless it was an informational one."""
        exchange = cast(Exchange, self._exchange)
        if exchange.status:
            exchange.is_complete = True

    def _keep_bounds(self, exchange: Exchange, pieces: int) -> None:
        # Headers, trailers and chunk extensions that never end: twice the limit, because
        # separators count here and `on_header` has the exact rule.
        if self._quiet > 2 * self._limits.max_head:
            self.fail("too_large", "the upstream sends headers without end")
            return
        chunks = exchange.chunks
        if len(chunks) > pieces + 1:
            # An object a chunk costs forty times a two-byte chunk's size: keep one a read.
            chunks[pieces:] = [b"".join(chunks[pieces:])]
        if exchange.buffered <= exchange.ceiling:
            return
        if exchange.reads_whole:
            self.fail("too_large", f"the upstream's answer exceeds {exchange.ceiling} bytes")
        elif not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _is_clean(self) -> bool:
        # An answer that came before the request was out leaves the two sides at different places.
        transport = self._transport
        return (
            self._is_kept_alive
            and not self._is_head_request
            and transport is not None
            and transport.get_write_buffer_size() == 0
        )

    def _fail_parsing(self, failure: Exception) -> None:
        refusal = failure.__context__
        if isinstance(refusal, _Refused):
            self.fail(refusal.kind, str(refusal))
        else:
            self.fail("protocol", f"the upstream's answer is not valid HTTP: {failure}")

    def _end(self, exchange: Exchange, *, is_reusable: bool) -> None:
        self._exchange = None
        exchange.connection = None
        self._is_used = True
        if is_reusable:
            # The loop at hand: asking for the running one costs a system call each time.
            self.idle_since = self._loop.time()
            self.resume()
        else:
            self.close()
        self._owner.exchange_over(self, is_reusable=is_reusable)
        exchange.wake()


def _note_framing(exchange: Exchange, name: bytes, value: bytes) -> None:
    """Record what delimits the body; anything but one plain length or one `chunked` is refused.

    An encoded body is refused too: we asked for none, usage in it cannot be read, and what cannot
    be metered must not be delivered.
    """
    if name == _LENGTH:
        is_acceptable = exchange.content_length < 0 and value.isdigit() and len(value) <= 18
        if is_acceptable:
            exchange.content_length = int(value)
    elif name == b"transfer-encoding":
        is_acceptable = not exchange.transfer_encoding and value.lower() == b"chunked"
        exchange.transfer_encoding = value
    else:
        is_acceptable = value.lower() == b"identity"
    if not is_acceptable or (exchange.content_length >= 0 and exchange.transfer_encoding):
        raise _Refused("protocol", f"unacceptable {name.decode()} in the upstream's answer")
