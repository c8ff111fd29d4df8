"""One call through the gateway, up to the upstream: who calls, what it may cost, who answers.

Owns the order of refusals and the guarantee at a request's end: its hold is settled or released
whatever happens. Must not know how an answer is relayed or charged (`relay`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from bursar import failpoints
from bursar.core import bounds, secrets
from bursar.core.errors import BursarError, Invalid, InvariantViolated, NotFound, RateRefused
from bursar.core.prices import InvalidQuantity, Price
from bursar.core.refusals import Deny, Reason, as_error, deny
from bursar.gateway import relay
from bursar.gateway.access import labels
from bursar.gateway.access.rights import Access
from bursar.gateway.asgi import Headers
from bursar.gateway.caller import Caller, CallerGone, read_headers
from bursar.gateway.meter.charging import Plan
from bursar.gateway.routing import Route, Router
from bursar.gateway.upstreams.aside import Aside
from bursar.gateway.upstreams.port import UpstreamError, UpstreamResponse
from bursar.gateway.wire import answers, calls, fields
from bursar.gateway.wire.calls import CHAT, Call, Endpoint
from bursar.gateway.wire.faces import Face
from bursar.telemetry import Metrics
from bursar.worker.keyring import Credential
from bursar.worker.plane import Worker
from bursar.worker.purse import COST, Amounts, Hold, Slot

_log = structlog.get_logger("bursar.gateway")
# 401 is about our key, so another upstream may well answer.
_WORTH_ANOTHER: Final = frozenset((401, 429, 500, 502, 503, 504, 529))
_OUR_KEY: Final = 401
_MOST_ERROR_BODY: Final = 65_536
_GONE: Final = 499
# What most requests have of headers that decide something: a secret, and that the body is JSON.
_ORDINARY: Final = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """How far the gateway goes for one request."""

    max_body_bytes: int
    disconnect_drain_s: float


class LimitReached(Exception):
    """A limit refuses a call of this key, which is all planned."""

    def __init__(self, refusal: Deny, credential: Credential, plan: Plan) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.credential = credential
        self.plan = plan


class Gateway:
    """Serves the model endpoints for one worker."""

    def __init__(
        self,
        worker: Worker,
        router: Router,
        metrics: Metrics,
        *,
        limits: Limits,
        access: Access,
        aside: Aside,
        next_id: Callable[[], str],
    ) -> None:
        self.worker = worker
        self.router = router
        self._metrics = metrics
        self._limits = limits
        self._access = access
        self._aside = aside
        self.next_id = next_id

    def served(self) -> list[Price]:
        """The models that are priced and served, as they are at this moment."""
        return [
            price
            for price in self.worker.pricebook.list(self.worker.clock_ms())
            if price.model and self.router.routes(price.model)
        ]

    async def serve(self, endpoint: Endpoint, face: Face, caller: Caller) -> None:
        """Serve one request, from its headers to the last byte of its answer."""
        request_id = self.next_id()
        try:
            await self._serve(endpoint, caller, face, request_id)
        except CallerGone:
            caller.status = caller.status or _GONE
        except InvariantViolated:
            _log.exception("invariant_violated", request_id=request_id)
            await _say(caller, answers.broken(), face, request_id)
        except LimitReached as reached:
            await self._refuse(caller, reached, face, request_id)
        except BursarError as error:
            self._metrics.refuse(error.detail or error.code)
            await _say(caller, error, face, request_id)
        except UpstreamError as error:
            self._metrics.upstream_failed(error.kind)
            await _say(caller, answers.from_failure(error), face, request_id)
        except Exception:
            _log.exception("request_failed", request_id=request_id)
            await _say(caller, answers.broken(), face, request_id)
        finally:
            self._metrics.count(endpoint.name, caller.status)

    async def _serve(self, endpoint: Endpoint, caller: Caller, face: Face, request_id: str) -> None:
        closed = self.worker.closed()
        if closed is not None:
            raise as_error(closed)
        headers = read_headers(caller.scope["headers"])
        asked = None if len(headers) == _ORDINARY else labels.read(headers)
        most = self._limits.max_body_bytes
        body = caller.body_at_hand(most=most)
        if body is None:
            vouch = partial(self._authenticate, headers, caller, endpoint, asked)
            body = await caller.body(most=most, vouch=vouch)
        found = fields.read_fields(body)
        worker, now_ms = self.worker, self.worker.clock_ms()
        secret = _secret(headers)
        credential = worker.keyring.find(secret) or await self._load(secret)
        if now_ms >= credential.usable_until_ms:
            raise _unusable(credential, now_ms)
        noted = None
        if asked or credential.restrictions is not None:
            noted = self._access.enter(credential, caller, endpoint, asked)
        try:
            call = calls.read_call(endpoint, found, body)
        except Invalid:
            # That there is no such model goes before what is wrong with the request for it.
            self._find_price(fields.model_of(found), credential, now_ms)
            raise
        slots = credential.slots_for(call.model)
        plan = self._plan(call, credential, slots, noted, now_ms)
        hold = worker.hold_at_once(slots, plan.needs, now_ms)
        if hold is None:
            hold = await self._wait_for_hold(credential, plan)
        self._metrics.holds_open += 1
        exchange = relay.Exchange(caller, plan, credential, hold, self.worker, request_id, face)
        try:
            response = await self._send(exchange)
            if call.is_stream:
                await relay.stream(exchange, response, self._limits.disconnect_drain_s)
            else:
                await relay.whole(exchange, response)
        finally:
            exchange.end()
            self._metrics.holds_open -= 1

    async def _load(self, secret: bytes) -> Credential:
        found = await self.worker.keyring.load(secret)
        if isinstance(found, Reason):
            raise as_error(deny(found))
        return found

    async def _authenticate(
        self,
        headers: Headers,
        caller: Caller,
        endpoint: Endpoint,
        asked: Mapping[str, str] | None,
    ) -> None:
        """Raise unless the caller may call: before a long body is read, it is checked by itself."""
        secret, now_ms = _secret(headers), self.worker.clock_ms()
        credential = self.worker.keyring.find(secret) or await self._load(secret)
        if now_ms >= credential.usable_until_ms:
            raise _unusable(credential, now_ms)
        self._access.enter(credential, caller, endpoint, asked)

    async def _wait_for_hold(self, credential: Credential, plan: Plan) -> Hold:
        answer = await self.worker.hold(plan.slots, plan.needs)
        if isinstance(answer, Deny):
            raise LimitReached(answer, credential, plan)
        return answer

    async def _refuse(
        self, caller: Caller, reached: LimitReached, face: Face, request_id: str
    ) -> None:
        error, call = as_error(reached.refusal), reached.plan.call
        self._metrics.refuse(error.detail or error.code)
        self.worker.refusals.note(
            reached.refusal,
            account_id=reached.credential.account_id,
            key_id=reached.credential.key_id,
            model=call.model,
            endpoint=call.endpoint.name,
        )
        status, headers, body = answers.refusal(error, request_id=request_id, word=face.word)
        if isinstance(error, RateRefused):
            headers += face.limit_fields(reached.plan.slots, self.worker.clock_ms())
        await caller.answer(status, headers, body)

    def _plan(
        self,
        call: Call,
        credential: Credential,
        slots: Sequence[Slot],
        noted: str | None,
        now_ms: int,
    ) -> Plan:
        """Route and price the call, and bound what it can cost; `noted` are its labels."""
        routes, price = self._find_price(call.model, credential, now_ms)
        calls.require_rates(call, price)
        try:
            most = bounds.bound_request(
                price,
                body_bytes=call.body_bytes,
                has_media=call.has_media,
                has_output=call.endpoint is CHAT,
                wanted_output=call.max_output,
                choices=call.choices,
                free_nanos=partial(_free_nanos, slots, now_ms),
            )
        except InvalidQuantity as error:
            limit = call.limit_field or "model"
            message = "This could cost more than any amount of money."
            raise fields.invalid("invalid_value", limit, message) from error
        needs = Amounts(most.cost_nanos, 1, most.tokens, 1)
        return Plan(call, price, routes, most.max_output, most.prompt_tokens, needs, slots, noted)

    def _find_price(
        self, model: str, credential: Credential, now_ms: int
    ) -> tuple[Sequence[Route], Price]:
        routes: Sequence[Route] = self.router.routes(model)
        if not routes:
            raise NotFound("model_not_found", "The model does not exist.", param="model")
        if credential.restrictions is not None:
            routes = self._access.require_model(credential.restrictions, routes, model)
        book = self.worker.pricebook
        price = book.find(model, at_ms=now_ms) or book.find(routes[0].model, at_ms=now_ms)
        if price is None:
            raise as_error(deny(Reason.MODEL_NOT_PRICED, param="model"))
        return routes, price

    @failpoints.before("hold.taken")
    async def _send(self, exchange: relay.Exchange) -> UpstreamResponse:
        """The first answer of an upstream that is worth relaying; notes whose it is.

        Fails over to the next upstream on connection errors, time-outs, overload and a refusal of
        our key, always before the caller has seen a byte.
        """
        plan, aside = exchange.plan, self._aside
        routes = aside.choose(plan.routes) if aside.is_needed else plan.routes
        path, last = plan.call.endpoint.path, routes[-1] if routes else None
        for route in routes:
            exchange.route = route
            upstream = route.upstream
            body = calls.upstream_body(plan.call, route=route, max_output=plan.max_output)
            try:
                response = await upstream.client.send(b"POST", path, upstream.headers, body)
            except UpstreamError as error:
                # After a time-out the upstream may be at work, and would sell the call twice.
                if route is last or (error.request_sent and error.kind.startswith("timeout")):
                    raise
                self._metrics.upstream_failed(error.kind)
                continue
            if response.status == 200:
                if aside.is_needed:
                    aside.answered(upstream)
                return response
            self._metrics.upstream_failed(str(response.status))
            if response.status == _OUR_KEY:
                aside.refused(upstream)
            if route is last or response.status not in _WORTH_ANOTHER:
                raise await _refused(response, upstream.headers)
            response.abort()
        # Every one that could serve it is set aside.
        raise answers.from_status(_OUR_KEY, [], b"")


async def _say(caller: Caller, error: BursarError, face: Face, request_id: str) -> None:
    await caller.answer(*answers.refusal(error, request_id=request_id, word=face.word))


def _secret(headers: Headers) -> bytes:
    secret = secrets.presented(headers)
    if secret is None:
        raise as_error(deny(Reason.MISSING))
    return secret


def _unusable(credential: Credential, now_ms: int) -> BursarError:
    return as_error(deny(credential.refused(now_ms) or Reason.UNKNOWN))


def _free_nanos(slots: Sequence[Slot], now_ms: int) -> int:
    """What the tightest of these cost allowances has left that nobody holds."""
    free = [slot.free_at(now_ms) for slot in slots if slot.index == COST]
    return min((nanos for nanos in free if nanos is not None), default=0)


async def _refused(
    response: UpstreamResponse, sent: Sequence[tuple[bytes, bytes]]
) -> answers.UpstreamRefused:
    if 300 <= response.status < 400 or response.status < 200:
        response.abort()
        return answers.invalid()
    body = await response.read()
    for name, value in sent:
        if name == b"authorization":
            # Some say in their refusals which key they were called with, and it is ours.
            body = body.replace(value.removeprefix(b"Bearer "), b"[hidden]")
    return answers.from_status(response.status, response.headers, body[:_MOST_ERROR_BODY])
