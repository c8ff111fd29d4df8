"""The HTTP server: uvicorn with its limits drawn tighter.

Owns what is refused before a request exists, or while its body arrives: what is not HTTP with one
meaning, what is too long or too slow, several hosts, expectations that nobody can meet; and when a
connection ends. Must not know applications.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from bursar.gateway.asgi import Scope
from bursar.gateway.http import heads
from bursar.gateway.http.arrival import Arrival
from bursar.gateway.http.cork import SMALL_BODY, Cork
from bursar.gateway.http.direct import DirectCycle, Serve, Targets, Waiting
from bursar.gateway.http.heads import Heads
from bursar.gateway.http.idle import Idle
from bursar.gateway.http.last_head import LastHead
from bursar.gateway.http.names import Names, allow
from bursar.gateway.http.outbox import Outbox
from bursar.gateway.http.patience import Patience

MOST_URL_BYTES: Final = 8_192

# Where in a request the next byte stands.
_BETWEEN, _HEAD, _BODY, _UPGRADE, _OVER = range(5)


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
        # Of calls that took the short way: what a server makes of the head, and how to serve it.
        self._last_head: LastHead[tuple[Scope, Serve]] = LastHead()
        self._idle = Idle(self.loop, self.timeout_keep_alive, self._close)
        self._served = self.app
        self._patience = patience
        self._targets = targets
        # How to serve the request that is being read, if it takes the short way.
        self._serve: Serve | None = None
        self._waiting: Waiting | None = None
        self._cork: Cork | None = None
        self._stage = _BETWEEN
        # What came last, if a request may begin with it.
        self._message = b""
        self._arrival = Arrival()
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
        is_new = self._stage == _BETWEEN and self.cycle is None
        if is_new:
            body = self._last_head.body_of(data)
            if body is not None:
                self._serve_again(body)
                return
        self._message = data if is_new else b""
        self._arrival.packet = len(data)
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserError:
                self._refuse(400, "invalid_http", "This is not HTTP with one meaning.")
            except httptools.HttpParserUpgrade as upgrade:
                if self._stage != _OVER:
                    self._message = b""
                    data = self._without_upgrade() + data[upgrade.args[0] :]
                    continue
            break
        if self._serve is not None and not self._is_short():
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
            self._arrival.begin_head()
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
        fault = self._heads.read(self.headers, self.url, self.parser, self._arrival.most_bytes)
        if fault is not None:
            self._refuse(*fault)
        if self._stage == _OVER:
            return
        if self.parser.should_upgrade():
            self._stage = _UPGRADE
            if self.parser.get_method() == b"CONNECT":
                self._refuse(501, "method_not_supported", "This server is not a proxy.")
            return
        self._stage = _BODY
        self._arrival.begin_body()
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
        scope: Scope = {"method": "POST", "headers": self.headers}
        self._begin_cycle(scope, keep_alive=self.parser.should_keep_alive())
        if to_page := self._heads.to_page:
            self.cycle.default_headers = [*self.cycle.default_headers, *to_page]
        self.headers = []
        return True

    def _begin_cycle(self, scope: Scope, *, keep_alive: bool) -> None:
        self.cycle = DirectCycle(
            scope,
            self._cork,
            self.flow,
            self.server_state.default_headers,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )

    def _serve_again(self, body: bytes) -> None:
        """Serve a whole request with the head of the one before: the parser need not see it."""
        if self._timer is not None:
            self._stop_timer()
        if self._last_head.meaning is not None:
            scope, serve = self._last_head.meaning
            self._begin_cycle(scope, keep_alive=True)
            self.cycle.body = body
            self._waiting = self.cycle.begin(serve, self._run)

    def _remember(self, serve: Serve) -> None:
        message, self._message = self._message, b""
        if message and self.cycle.keep_alive and not self._heads.to_page:
            meaning = self.cycle.scope, serve
            self._last_head.remember(message, self._arrival.body_bytes, meaning)

    def _run(self, steps: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(steps)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _count_on(self) -> None:
        """Have a task wait with the request that is under way: only those are counted at an end."""
        if self._waiting is not None:
            self._waiting.go_on()
            self._waiting = None

    def _is_short(self) -> bool:
        """Whether the body is known to be small: what is missing of it will not be long either."""
        return self._heads.length is not None and self._heads.length <= SMALL_BODY

    def _go_the_long_way(self) -> None:
        """The body is long, or nobody knows: waiting for it is what ASGI is made for."""
        self._serve, cycle = None, self.cycle
        if self._stage == _BODY:
            self.cycle, self.headers = None, cycle.scope["headers"]
            self._hand_on()
            self.cycle.body += cycle.body

    def on_body(self, body: bytes) -> None:
        """Take body bytes of a request that was not refused."""
        if self._stage == _BODY:
            self._arrival.body_bytes += len(body)
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
            self._remember(serve)
            self._waiting = self.cycle.begin(serve, self._run)

    # What is refused

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
        fault = self._arrival.count(is_body=self._stage == _BODY)
        if self._stage == _BODY and self.cycle.response_complete:
            self._part()
        elif fault is not None and self._stage in (_HEAD, _BODY):
            self._refuse(*fault)
        self._arrival.since_s = self._arrival.since_s or self.loop.time()
        if self._timer is None and self._stage != _OVER:
            self._timer = self.loop.call_later(self._patience.head_s, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        now_s = self.loop.time()
        if self._stage not in (_HEAD, _BODY):
            self._close()
            return
        if self.flow.read_paused:
            self._arrival.since_s = now_s  # It is we who do not read.
        left_s = self._arrival.since_s + self._allowed_s() - now_s
        if self._stage == _BODY and self.cycle.response_complete:
            self._part()
        elif left_s > 0:
            self._timer = self.loop.call_later(left_s, self._too_slow)
        else:
            self._refuse(408, "request_timeout", "The request did not arrive in time.")

    def _allowed_s(self) -> float:
        if self._stage == _HEAD:
            return self._patience.head_s
        return self._patience.allowed_s(self._arrival.body_bytes)

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
