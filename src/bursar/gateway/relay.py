"""The answer's way back: from the upstream to the caller, with a charge before its last byte.

Owns what happens when one side stops: a caller that hangs up does not stop the sale, so the rest is
drained, for a bounded time, and charged; an upstream that breaks off is charged for what was
delivered. The steps that end a hold never await: a cancelled request's clean-up would be cancelled
again at its first await, and the hold would stay open for good.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from bursar import failpoints
from bursar.core.money import format_usd
from bursar.gateway.caller import Caller
from bursar.gateway.meter import charging
from bursar.gateway.meter.charging import Plan, Sale
from bursar.gateway.meter.sse import StreamMeter
from bursar.gateway.meter.usage import NoUsage, estimate_body, usage_of_body, why_no_usage
from bursar.gateway.routing import Route
from bursar.gateway.upstreams.port import UpstreamError, UpstreamResponse
from bursar.gateway.wire import answers, ratelimits
from bursar.gateway.wire.faces import Face
from bursar.worker.keyring import Credential
from bursar.worker.plane import Worker
from bursar.worker.purse import Hold

OK: Final = "ok"
DISCONNECTED: Final = "disconnected"
CUT: Final = "cut"

_EVENTS: Final = (b"content-type", b"text/event-stream; charset=utf-8")
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
_NO_CACHE: Final = (b"cache-control", b"no-cache")
# A stream is noted once so many pieces or seconds of it are not: a sudden end costs no more.
_UNNOTED_PIECES: Final = 32
_UNNOTED_S: Final = 1.0
_NO_USAGE: Final = "usage"
_NEVER: Final = float("inf")


class Exchange(msgspec.Struct, eq=False):
    """One admitted call: its two sides, its hold, and how far it has come."""

    caller: Caller
    plan: Plan
    credential: Credential
    _hold: Hold
    _worker: Worker
    request_id: str
    face: Face
    route: Route
    response: UpstreamResponse | None = None
    meter: StreamMeter | None = None
    _began: float = msgspec.field(default_factory=time.monotonic)
    _first_byte: float | None = None
    _unnoted: int = _UNNOTED_PIECES
    _note_at: float = _NEVER
    _is_noted: bool = False

    @property
    def is_charged(self) -> bool:
        """True once the hold has ended."""
        return self._hold.is_ended

    def mark_first_byte(self) -> None:
        """Note that the answer has begun."""
        if self._first_byte is None:
            self._first_byte = time.monotonic()
            self._note_at = self._first_byte + _UNNOTED_S

    def charge(self, sold: Sale, outcome: str) -> None:
        """End the hold with what was sold and hand the charge to settlement. Plain, never fails."""
        now = time.monotonic()
        first = now if self._first_byte is None else self._first_byte
        record, parts = charging.charge(
            self.plan,
            self.credential,
            self._hold,
            sold,
            self.route,
            self.request_id,
            outcome,
            int((now - self._began) * 1000),
            int((first - self._began) * 1000),
        )
        self._worker.settlement.submit(record, parts)
        if sold.is_estimated and outcome == OK:
            self.count_failure(_NO_USAGE)
        if self._is_noted and not self._worker.settlement.is_storage_full:
            self._worker.journal.checkpoints.forget(self.request_id)

    def count_failure(self, kind: str) -> None:
        """Count what the upstream did wrong after its answer had begun."""
        self._worker.metrics.upstream_failed(kind)

    def count_piece(self) -> None:
        """Another piece of a stream is here: note what it has cost so far, if it is time for that.

        Called for each piece, so an answer that is short, or comes whole, is never noted.
        """
        self._unnoted -= 1
        if self._unnoted and time.monotonic() < self._note_at:
            return
        self._unnoted = _UNNOTED_PIECES
        self._note_at = time.monotonic() + _UNNOTED_S
        meter = self.meter
        if meter is not None and meter.events and not self.is_charged:
            self._note(meter)

    def _note(self, meter: StreamMeter) -> None:
        now = time.monotonic()
        first = now if self._first_byte is None else self._first_byte
        output = meter.estimate_output_tokens() if meter.usage is None else 0
        if meter.has_error and not output:
            return
        noted = charging.checkpoint(
            self.plan,
            self.credential,
            self._hold,
            charging.sale(self.plan, meter.usage, estimated_output=output),
            route=self.route,
            request_id=self.request_id,
            outcome=CUT,
            duration_ms=int((now - self._began) * 1000),
            first_byte_ms=int((first - self._began) * 1000),
        )
        self._is_noted = self._worker.journal.checkpoints.write(noted) or self._is_noted

    def charge_delivered(self, outcome: str) -> None:
        """Charge a stream for what has been seen of it; nothing seen, or only an error, is free."""
        meter = self.meter
        if self.is_charged or meter is None:
            return
        output = 0
        if meter.usage is None:
            output = meter.estimate_output_tokens()
            if not meter.events or (meter.has_error and not output):
                return
        self.charge(charging.sale(self.plan, meter.usage, estimated_output=output), outcome)

    def end(self) -> None:
        """Make sure that nothing stays open, however the call ended. Plain, idempotent."""
        if self.response is not None:
            self.response.abort()
        if not self._hold.is_ended:
            self.charge_delivered(CUT)
            self._hold.release()
            if self._is_noted:
                self._worker.journal.checkpoints.forget(self.request_id)

    def headers(self, kind: tuple[bytes, bytes], *more: tuple[bytes, bytes]) -> answers.Headers:
        """The headers of a good answer."""
        named = (b"x-request-id", self.request_id.encode())
        return [kind, _NOSNIFF, named, *more, *self.limit_headers()]

    def limit_headers(self) -> answers.Headers:
        """What a good answer says of the limits that apply to its call, at this moment."""
        if not (self.credential.has_rates or self.face.balance):
            return []
        return self.face.limit_fields(self.plan.slots, self._worker.clock_ms())


async def whole(exchange: Exchange, response: UpstreamResponse) -> None:
    """Relay an answer that comes in one piece."""
    exchange.response = response
    body = await response.read()
    lines = sell(exchange, response, body)
    if not exchange.caller.answer_at_once(lines, body):
        await exchange.caller.answer_ready(lines, body)


def sell(exchange: Exchange, response: UpstreamResponse, body: bytes) -> bytes:
    """Charge for a whole answer; return the header lines with which it goes out.

    Raises UpstreamRefused, with nothing charged, for an answer that is none.
    """
    exchange.mark_first_byte()
    usage = usage_of_body(body)
    estimated = 0
    if usage is None:
        if why_no_usage(body) is NoUsage.NOT_JSON:
            raise answers.invalid()
        if answers.is_only_error(body):
            raise answers.from_status(500, response.headers, body)
        estimated = estimate_body(body)
    sold = charging.sale(exchange.plan, usage, estimated)
    outcome = DISCONNECTED if exchange.caller.is_gone else OK
    exchange.charge(sold, outcome)
    head = (
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        "x-content-type-options: nosniff\r\n"
        f"x-request-id: {exchange.request_id}\r\n"
        f"x-bursar-cost: {format_usd(sold.cost_nanos)}\r\n"
    )
    lines = head.encode("ascii")
    limits = exchange.limit_headers()
    if limits:
        lines += ratelimits.lines(limits)
    return lines


async def stream(exchange: Exchange, response: UpstreamResponse, drain_s: float) -> None:
    """Relay a stream, piece by piece, as it comes."""
    exchange.response = response
    if not _is_event_stream(response.headers):
        raise answers.invalid()
    exchange.meter = StreamMeter(strip_usage=not exchange.plan.call.wants_usage)
    try:
        await _relay(exchange, response)
        if exchange.caller.is_gone:
            await _drain(exchange, response, drain_s)
    except UpstreamError as error:
        exchange.count_failure(error.kind)
        await _break_off(exchange, answers.from_failure(error))
        return
    await _finish(exchange)


async def _relay(exchange: Exchange, response: UpstreamResponse) -> None:
    """Pass pieces on until the stream or the caller ends."""
    caller, meter = exchange.caller, exchange.meter
    if meter is None:
        return
    while not caller.is_gone:
        chunk = await response.next_chunk()
        if not chunk:
            return
        out = meter.feed(chunk)
        if meter.is_done and not exchange.is_charged:
            # The end mark is in `out`: the charge is in the journal before it leaves.
            exchange.charge_delivered(OK)
        exchange.count_piece()
        if out:
            await _pass_on(exchange, out)


@failpoints.after("stream.chunk")
async def _pass_on(exchange: Exchange, out: bytes) -> None:
    if not exchange.caller.status:
        # Only now: until the first piece is here, a failure can still be an honest status.
        exchange.mark_first_byte()
        await exchange.caller.start(200, exchange.headers(_EVENTS, _NO_CACHE))
    await exchange.caller.write(out, more=True)


async def _drain(exchange: Exchange, response: UpstreamResponse, drain_s: float) -> None:
    """Read what the upstream still sells to a caller that has gone."""
    meter = exchange.meter
    try:
        async with asyncio.timeout(drain_s):
            while meter is not None and not exchange.is_charged:
                chunk = await response.next_chunk()
                if not chunk:
                    break
                meter.feed(chunk)
                if meter.is_done:
                    break
                exchange.count_piece()
    except TimeoutError:
        response.abort()
    exchange.charge_delivered(DISCONNECTED)


async def _finish(exchange: Exchange) -> None:
    """End a stream: what was held back, the charge, and the last byte."""
    meter, caller = exchange.meter, exchange.caller
    if meter is None:
        return
    rest = meter.finish()
    if not meter.events and not meter.is_done and meter.usage is None:
        raise answers.invalid()
    exchange.charge_delivered(OK if meter.is_done else CUT)
    if rest:
        await _pass_on(exchange, rest)
    await caller.write(b"", more=False)


async def _break_off(exchange: Exchange, error: answers.UpstreamRefused) -> None:
    """The upstream failed: before the first byte a status, after it an event in the stream."""
    if not exchange.caller.status:
        raise error
    exchange.charge_delivered(CUT)
    said = answers.event(error, request_id=exchange.request_id, word=exchange.face.word)
    await exchange.caller.write(said, more=False)


def _is_event_stream(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    return any(
        name == b"content-type" and value.lower().startswith(b"text/event-stream")
        for name, value in headers
    )
