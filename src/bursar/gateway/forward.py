"""One call through the gateway, up to the upstream: who calls, what it may cost, who answers.

Owns the order of refusals and the guarantee at a request's end: its hold is settled or released
whatever happens. Must not know how an answer is relayed or charged (`relay`).
"""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec
import structlog

from bursar.core import secrets
from bursar.core.errors import BursarError, InvariantViolated, RateRefused
from bursar.core.refusals import Deny, Reason, as_error, deny
from bursar.gateway import relay
from bursar.gateway.access.rights import Access
from bursar.gateway.asgi import Headers
from bursar.gateway.caller import Caller, CallerGone, Said
from bursar.gateway.dispatch import Dispatch
from bursar.gateway.meter.charging import Plan
from bursar.gateway.planning import Planner
from bursar.gateway.upstreams.port import StartedResponse, UpstreamError
from bursar.gateway.wire import answers, calls, fields
from bursar.gateway.wire.calls import Endpoint
from bursar.gateway.wire.faces import Face
from bursar.telemetry import Metrics
from bursar.worker.keyring import Credential
from bursar.worker.plane import Worker
from bursar.worker.purse import Hold

_log = structlog.get_logger("bursar.gateway")
_OK: Final = 200
_GONE: Final = 499


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


class Asked(msgspec.Struct, eq=False):
    """A request on its way in: who asks for what, and what of it is here by now."""

    endpoint: Endpoint
    face: Face
    caller: Caller
    request_id: str
    body: bytes | None = None
    credential: Credential | None = None


# What an admission lacks. It may bring the exchange itself; else admission is asked again.
Missing = Awaitable[relay.Exchange | None]
Steps = Coroutine[Any, Any, None]
Run = Callable[[Steps], None]


class Gateway:
    """Serves the model endpoints for one worker."""

    def __init__(
        self,
        worker: Worker,
        planner: Planner,
        metrics: Metrics,
        *,
        limits: Limits,
        access: Access,
        dispatch: Dispatch,
        next_id: Callable[[], str],
    ) -> None:
        self.worker = worker
        self.planner = planner
        self._metrics = metrics
        self._limits = limits
        self._access = access
        self._dispatch = dispatch
        self.next_id = next_id

    def begin(self, endpoint: Endpoint, face: Face, caller: Caller, run: Run) -> "Waiting | None":
        """Serve one request whose body is here as far as nothing has to be waited for.

        The rest is handed to `run` as a coroutine, or goes on by itself when the upstream has
        answered: most requests never need a task.
        """
        asked = Asked(endpoint, face, caller, self.next_id())
        exchange: relay.Exchange | None = None
        try:
            admitted = self._admit(asked)
            if not isinstance(admitted, relay.Exchange):
                run(self._answer(asked, self._enter(asked, admitted)))
                return None
            exchange = admitted
            started = self._dispatch.start(exchange)
        except Exception as error:
            if exchange is not None:
                self._close(exchange)
            run(self._answer(asked, _fail(error)))
            return None
        if started is None:
            run(self._answer(asked, self._carry(exchange)))
            return None
        return Waiting(self, asked, exchange, started, run)

    async def serve(self, endpoint: Endpoint, face: Face, caller: Caller) -> None:
        """Serve one request, from its headers to the last byte of its answer."""
        asked = Asked(endpoint, face, caller, self.next_id())
        await self._answer(asked, self._enter(asked))

    async def _answer(self, asked: Asked, steps: Awaitable[None]) -> None:
        """Take the steps that lead to an answer; what goes wrong is an answer too."""
        caller, face, request_id = asked.caller, asked.face, asked.request_id
        try:
            await steps
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
            self._metrics.count(asked.endpoint.name, caller.status)

    async def _enter(self, asked: Asked, missing: Missing | None = None) -> None:
        """Wait for what is missing until the request is admitted, and carry it out."""
        admitted = missing or self._admit(asked)
        while not isinstance(admitted, relay.Exchange):
            admitted = await admitted or self._admit(asked)
        await self._carry(admitted)

    def _admit(self, asked: Asked) -> relay.Exchange | Missing:
        """Admit the request, or say what has to be waited for first.

        That is awaited, and then this called again, unless it gives the exchange itself.
        """
        worker, caller, endpoint = self.worker, asked.caller, asked.endpoint
        closed = worker.closed()
        if closed is not None:
            raise as_error(closed)
        said, body = caller.said(), asked.body
        if body is None:
            body = asked.body = caller.body_at_hand(most=self._limits.max_body_bytes)
            if body is None:
                return self._read_body(asked, said)
        call, now_ms = calls.read_plain(endpoint, body), worker.clock_ms()
        found = {} if call is not None else fields.read_fields(body)
        digest = said.digest = said.digest or secrets.digest(_secret(said.headers))
        credential = asked.credential or worker.keyring.find_digest(digest)
        if credential is None:
            return self._load(asked, said)
        if now_ms >= credential.usable_until_ms:
            raise _unusable(credential, now_ms)
        noted = None
        if said.labels or credential.restrictions is not None:
            noted = self._access.enter(credential, caller, endpoint, said.labels)
        if call is None:
            call = self.planner.read(endpoint, found, body, credential, now_ms)
        slots = credential.slots_for(call.model)
        plan = self.planner.plan(call, credential, slots, noted, now_ms)
        hold = worker.hold_at_once(slots, plan.needs, now_ms)
        if hold is None:
            return self._wait_for_hold(asked, credential, plan)
        return self._open(asked, credential, plan, hold)

    def _open(self, asked: Asked, credential: Credential, plan: Plan, hold: Hold) -> relay.Exchange:
        self._metrics.holds_open += 1
        return relay.Exchange(
            asked.caller,
            plan,
            credential,
            hold,
            self.worker,
            asked.request_id,
            asked.face,
            plan.routes[0],
        )

    def _close(self, exchange: relay.Exchange) -> None:
        exchange.end()
        self._metrics.holds_open -= 1

    async def _carry(
        self, exchange: relay.Exchange, started: StartedResponse | None = None
    ) -> None:
        """Send an admitted request, unless it has been `started`, and relay the answer."""
        try:
            response = await self._dispatch.send(exchange, started)
            if exchange.plan.call.is_stream:
                await relay.stream(exchange, response, self._limits.disconnect_drain_s)
            else:
                await relay.whole(exchange, response)
        finally:
            self._close(exchange)

    def arrived(
        self, asked: Asked, exchange: relay.Exchange, started: StartedResponse
    ) -> Steps | None:
        """Go on with a call of which an answer, or a failure, has come; return what is left."""
        if started.status != _OK or not started.is_whole:
            return self.go_on(asked, exchange, started)
        try:
            exchange.response = started
            body = started.take()
            lines = relay.sell(exchange, started, body)
            if not asked.caller.answer_at_once(lines, body):
                return self._answer(asked, asked.caller.answer_ready(lines, body))
        except Exception as error:
            return self._answer(asked, _fail(error))
        finally:
            self._close(exchange)
        self._metrics.count(asked.endpoint.name, asked.caller.status)
        return None

    def go_on(self, asked: Asked, exchange: relay.Exchange, started: StartedResponse) -> Steps:
        """Wait for the rest of a call that was begun."""
        return self._answer(asked, self._carry(exchange, started))

    async def _read_body(self, asked: Asked, said: Said) -> None:
        vouch = partial(self._authenticate, said, asked.caller, asked.endpoint)
        asked.body = await asked.caller.body(most=self._limits.max_body_bytes, vouch=vouch)

    async def _load(self, asked: Asked, said: Said) -> None:
        asked.credential = await self._find(said)

    async def _find(self, said: Said) -> Credential:
        secret, keyring = _secret(said.headers), self.worker.keyring
        found = keyring.find(secret) or await keyring.load(secret)
        if isinstance(found, Reason):
            raise as_error(deny(found))
        return found

    async def _authenticate(self, said: Said, caller: Caller, endpoint: Endpoint) -> None:
        """Raise unless the caller may call: before a long body is read, it is checked by itself."""
        credential = await self._find(said)
        now_ms = self.worker.clock_ms()
        if now_ms >= credential.usable_until_ms:
            raise _unusable(credential, now_ms)
        self._access.enter(credential, caller, endpoint, said.labels)

    async def _wait_for_hold(
        self, asked: Asked, credential: Credential, plan: Plan
    ) -> relay.Exchange:
        answer = await self.worker.hold(plan.slots, plan.needs)
        if isinstance(answer, Deny):
            raise LimitReached(answer, credential, plan)
        return self._open(asked, credential, plan, answer)

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


class Waiting:
    """A call whose request is out, and which nothing runs for until its upstream has answered."""

    __slots__ = ("_asked", "_exchange", "_gateway", "_run", "_started")

    def __init__(
        self,
        gateway: Gateway,
        asked: Asked,
        exchange: relay.Exchange,
        started: StartedResponse,
        run: Run,
    ) -> None:
        self._gateway = gateway
        self._asked = asked
        self._exchange = exchange
        self._started: StartedResponse | None = started
        self._run = run
        started.told = self._arrived

    def go_on(self) -> None:
        """Have a task wait from now on, which can be counted and cancelled."""
        started = self._take()
        if started is not None:
            self._run(self._gateway.go_on(self._asked, self._exchange, started))

    def _arrived(self) -> None:
        started = self._take()
        if started is not None:
            rest = self._gateway.arrived(self._asked, self._exchange, started)
            if rest is not None:
                self._run(rest)

    def _take(self) -> StartedResponse | None:
        started, self._started = self._started, None
        if started is not None:
            started.told = None
        return started


async def _fail(error: Exception) -> None:
    raise error


async def _say(caller: Caller, error: BursarError, face: Face, request_id: str) -> None:
    await caller.answer(*answers.refusal(error, request_id=request_id, word=face.word))


def _secret(headers: Headers) -> bytes:
    secret = secrets.presented(headers)
    if secret is None:
        raise as_error(deny(Reason.MISSING))
    return secret


def _unusable(credential: Credential, now_ms: int) -> BursarError:
    return as_error(deny(credential.refused(now_ms) or Reason.UNKNOWN))
