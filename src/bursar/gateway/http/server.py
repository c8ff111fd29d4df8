"""The HTTP server: uvicorn with its limits drawn tighter.

Owns what is refused before a request exists, or while its body arrives: what is not HTTP with one
meaning, what is too long or too slow, several hosts, expectations that nobody can meet; and when a
connection ends. Must not know applications.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from bursar.gateway.http import heads
from bursar.gateway.http.cork import Cork
from bursar.gateway.http.direct import DirectCycle, Serve, Targets, Waiting
from bursar.gateway.http.heads import Heads
from bursar.gateway.http.idle import Idle
from bursar.gateway.http.names import Names, allow
from bursar.gateway.http.outbox import Outbox

MOST_HEAD_BYTES: Final = 65_536
MOST_HEADERS: Final = 200
MOST_URL_BYTES: Final = 8_192

# A body may take longer than its time if it moves at this speed, but not for ever.
_BODY_BYTES_PER_S: Final = 50_000
_LONGEST_BODY: Final = 10
# What chunk sizes, their extensions and trailers may add to a body: one-byte chunks come to five.
_MOST_OVERHEAD: Final = 8

# Where in a request the next byte stands.
_BETWEEN, _HEAD, _BODY, _UPGRADE, _OVER = range(5)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a connection may keep us waiting, in seconds.

    `head_s` for a request's head, `body_s` for head and body together (longer while it moves), and
    `reading_s` for a caller that does not read its answer. After a refusal what still arrives is
    thrown away for `parting_s`: closing at once would destroy the answer on its way.
    """

    head_s: float = 20.0
    body_s: float = 30.0
    reading_s: float = 60.0
    parting_s: float = 2.0


class Protocol(HttpToolsProtocol):
    """One connection. A refused request is answered in our error shape and ends it."""

    # uvicorn's is always there; this may be a `DirectCycle`, and is none between two calls.
    cycle: Any

    def __init__(
        self,
        *args: Any,
        patience: Patience,
        targets: Targets,
        outbox: Outbox,
        names: Names,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._outbox = outbox
        self._heads = Heads(names)
        self._idle = Idle(self.loop, self.timeout_keep_alive, self._close)
        self._served = self.app
        self._patience = patience
        self._targets = targets
        # How to serve the request that is being read, if it takes the short way.
        self._serve: Serve | None = None
        self._waiting: Waiting | None = None
        self._cork: Cork | None = None
        self._stage = _BETWEEN
        self._packet = 0
        # Bytes of the present head or body but those that came in the packet in which it began.
        self._wire_bytes = 0
        self._body_bytes = 0
        self._is_fresh = True
        # The loop's time when a request was first seen to be incomplete; 0: not seen yet.
        self._began_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    # The connection

    # As narrow as uvicorn's, which asyncio declares wider.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection that says nothing at all is closed like one that is too slow."""
        super().connection_made(transport)
        self._cork = Cork(transport, self._outbox, self._close)
        self._timer = self.loop.call_later(self._patience.head_s, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop_timer()
        self._stop_stall_timer()
        self._idle.stop()
        self._count_on()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and start the clock if the request is not whole yet."""
        if self._stage == _OVER:
            return
        self._idle.end()
        self._packet = len(data)
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserError:
                self._refuse(400, "invalid_http", "This is not HTTP with one meaning.")
            except httptools.HttpParserUpgrade as upgrade:
                if self._stage != _OVER:
                    data = self._without_upgrade() + data[upgrade.args[0] :]
                    continue
            break
        if self._serve is not None:
            self._go_the_long_way()
        cycle: RequestResponseCycle | None = self.cycle
        if self._stage or cycle is None or cycle.response_complete:
            self._watch()
        elif self._timer is not None:
            self._stop_timer()

    def pause_writing(self) -> None:
        """Give a caller that does not read its time."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(self._patience.reading_s, self.transport.abort)

    def resume_writing(self) -> None:
        """The caller reads."""
        super().resume_writing()
        self._stop_stall_timer()

    def shutdown(self) -> None:
        """Let go of a connection that is idle, once the last answers are out."""
        self._outbox.flush()
        self._count_on()
        super().shutdown()

    def on_response_complete(self) -> None:
        """Go on with the next request, or note since when nobody has wanted anything."""
        # Nothing of a call is kept until the next: its memory is wanted while it is in the caches.
        self._waiting = None
        if isinstance(self.cycle, DirectCycle) and self.cycle.response_complete:
            self.cycle = None
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle.begin()

    def _unset_keepalive_if_required(self) -> None:
        self._idle.end()

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """A new head begins."""
        if self._stage != _OVER:
            self._stage = _HEAD
            self._wire_bytes = 0
            self._is_fresh = True
            self._began_s = 0.0
            # The scope is made when it is known that one is needed.
            self.url = b""
            self.headers = []

    def on_url(self, url: bytes) -> None:
        """Bound the target."""
        self.url += url
        if len(self.url) > MOST_URL_BYTES:
            self._refuse(414, "uri_too_long", "The request's target is too long.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what it says is looked at when all are here."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Hand the request on, unless its head is refused or offers an upgrade."""
        self._check_head()
        if self._stage == _OVER:
            return
        if self.parser.should_upgrade():
            self._stage = _UPGRADE
            if self.parser.get_method() == b"CONNECT":
                self._refuse(501, "method_not_supported", "This server is not a proxy.")
            return
        self._stage = _BODY
        self._wire_bytes = self._body_bytes = 0
        self._is_fresh = True
        if not self._goes_the_short_way():
            self._hand_on()

    def _hand_on(self) -> None:
        url, headers, to_page = self.url, self.headers, self._heads.to_page
        super().on_message_begin()
        self.url, self.headers = url, headers
        self.expect_100_continue = self._heads.expects
        self.scope["headers"] = headers
        self.app = allow if to_page and heads.is_question(headers, self.parser) else self._served
        super().on_headers_complete()
        if to_page:
            self.cycle.default_headers = [*self.server_state.default_headers, *to_page]
        # Trailers come by the same callback; they are not headers of a request that is under way.
        self.headers = []
        if self.scope["http_version"] not in ("1.1", "1.0"):
            self._refuse(505, "version_not_supported", "This server speaks HTTP/1.1.")
        # An answer to HEAD is a head that nothing follows.
        elif self.scope["method"] != "HEAD":
            self.cycle.transport = self._cork

    def _goes_the_short_way(self) -> bool:
        """Whether this is a call of a model that nothing precedes; then its cycle is made."""
        serve = self._targets.get(self.url)
        earlier: RequestResponseCycle | None = self.cycle
        if (
            serve is None
            or self._heads.expects
            or (earlier is not None and not earlier.response_complete)
            or self.parser.get_method() != b"POST"
            or self.parser.get_http_version() != "1.1"
        ):
            return False
        self._serve = serve
        always, to_page = self.server_state.default_headers, self._heads.to_page
        self.cycle = DirectCycle(
            self.headers,
            self._cork,
            self.flow,
            [*always, *to_page] if to_page else always,
            keep_alive=self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        self.headers = []
        return True

    def _run(self, steps: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(steps)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _count_on(self) -> None:
        """Have a task wait with the request that is under way: only those are counted at an end."""
        if self._waiting is not None:
            self._waiting.go_on()
            self._waiting = None

    def _go_the_long_way(self) -> None:
        """The body did not come with the head: waiting for it is what ASGI is made for."""
        self._serve, cycle = None, self.cycle
        if self._stage == _BODY:
            self.cycle, self.headers = None, cycle.scope["headers"]
            self._hand_on()
            self.cycle.body += cycle.body

    def on_body(self, body: bytes) -> None:
        """Take body bytes of a request that was not refused."""
        if self._stage == _BODY:
            self._body_bytes += len(body)
            if self._serve is not None:
                self.cycle.body += body
            else:
                super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request that was not refused."""
        if self._stage == _BODY:
            self._stage = _BETWEEN
            serve, self._serve = self._serve, None
            if serve is None:
                super().on_message_complete()
                return
            self._waiting = self.cycle.begin(serve, self._run)

    # What is refused

    def _check_head(self) -> None:
        """Refuse heads that are too large, or unclear about where they go or end."""
        headers = self.headers
        if len(headers) > MOST_HEADERS or (
            self._packet + self._wire_bytes > MOST_HEAD_BYTES
            and sum(len(name) + len(value) for name, value in headers) > MOST_HEAD_BYTES
        ):
            self._refuse(431, "headers_too_large", "The request's headers are too large.")
        elif fault := self._heads.read(headers, self.url, self.parser):
            self._refuse(*fault)

    def _without_upgrade(self) -> bytes:
        """Start over with the head that a caller sends who offers no upgrade."""
        head = heads.without_upgrade(self.parser, self.url, self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return head

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer for a request that never came to be, in its turn, and end the connection."""
        stage, self._stage = self._stage, _OVER
        cycle: RequestResponseCycle | None = self.cycle
        if stage == _OVER:
            return
        if stage == _BODY and cycle is not None:
            if cycle.response_started or self.pipeline:
                # Its answer is under way, or it is not its turn: ours must not be mixed with that.
                self.transport.abort()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        elif cycle is not None and not cycle.response_complete:
            # Whoever came before is answered in full, and nobody after.
            cycle.keep_alive = False
            return
        self._outbox.flush()
        self.transport.write(heads.refusal(status, code, message))
        self._part()

    # Time and size of what is not whole yet

    def _watch(self) -> None:
        """Bound what has come of a head or a body, and see to it that the rest comes in time."""
        if self._is_fresh:
            self._is_fresh = False
        else:
            self._wire_bytes += self._packet
        if self._stage == _HEAD and self._wire_bytes > MOST_HEAD_BYTES:
            self._refuse(431, "headers_too_large", "The request's headers are too large.")
        elif self._stage == _BODY:
            overhead = self._wire_bytes - self._body_bytes
            if self.cycle.response_complete:
                self._part()
            elif overhead > MOST_HEAD_BYTES + _MOST_OVERHEAD * self._body_bytes:
                self._refuse(400, "invalid_http", "The body is more frame than content.")
        self._began_s = self._began_s or self.loop.time()
        if self._timer is None and self._stage != _OVER:
            self._timer = self.loop.call_later(self._patience.head_s, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        now_s = self.loop.time()
        if self._stage not in (_HEAD, _BODY):
            self._close()
            return
        if self.flow.read_paused:
            self._began_s = now_s  # It is we who do not read.
        left_s = self._began_s + self._allowed_s() - now_s
        if self._stage == _BODY and self.cycle.response_complete:
            self._part()
        elif left_s > 0:
            self._timer = self.loop.call_later(left_s, self._too_slow)
        else:
            self._refuse(408, "request_timeout", "The request did not arrive in time.")

    def _allowed_s(self) -> float:
        if self._stage == _HEAD:
            return self._patience.head_s
        most_s = self._patience.body_s
        return min(most_s + self._body_bytes / _BODY_BYTES_PER_S, most_s * _LONGEST_BODY)

    # The end

    def _close(self) -> None:
        """Close once everything is out, if that ever happens."""
        if self._stage in (_BODY, _OVER):
            self._part()
            return
        self._stop_timer()
        self._outbox.flush()
        if self.transport.get_write_buffer_size():
            self._timer = self.loop.call_later(self._patience.reading_s, self.transport.abort)
        self.transport.close()

    def _part(self) -> None:
        """Say no more, and throw away what still arrives until the caller leaves too."""
        self._stage = _OVER
        self._stop_timer()
        self._outbox.flush()
        if not self.transport.is_closing():
            self.flow.resume_reading()
            with suppress(OSError):
                # asyncio says so when the caller has gone already; uvloop does not.
                self.transport.write_eof()
            self._timer = self.loop.call_later(self._patience.parting_s, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
