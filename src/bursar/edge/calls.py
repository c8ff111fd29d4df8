"""Calls: from a request to an endpoint and back, in the fixed order of refusals.

Owns that order: unreadable first, then who is calling, then what they ask for. An endpoint gets a
`Call`, whose caller is proven and of the kind that its route demands, so that none can forget to
ask. Must not know any noun.
"""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import msgspec
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from bursar.core import permissions, refusals
from bursar.core.audit.events import ANYBODY, OPERATOR_LOG, Origin
from bursar.core.errors import Forbidden, Unauthenticated, Unreadable
from bursar.core.people import roles
from bursar.core.people.roles import Action
from bursar.core.permissions import Address, Network
from bursar.core.refusals import Reason
from bursar.edge import auth, body
from bursar.edge.cache import Cache
from bursar.edge.gate import Gate
from bursar.edge.pace import Pace
from bursar.edge.query import Query
from bursar.service import access, grants, idempotency
from bursar.service.access import (
    HostPrincipal,
    InferencePrincipal,
    Principal,
    ProvisioningPrincipal,
)
from bursar.service.idempotency import Answer, Running
from bursar.service.limits.explain import Serving
from bursar.service.people import ports
from bursar.service.people.ports import People
from bursar.store.database import Database, WriteTx

C = TypeVar("C")
P = TypeVar("P", bound=Principal)
JSON = "application/json"
_FORWARDED = b"x-forwarded-for"
# What a secret scanner reports at most; each report may take a transaction.
_LEAKS_A_MINUTE = 60
_MOST_LEAKS = 600
# Tokens that open nothing, of sessions and letters; each takes a look into the database.
_BAD_TOKENS_A_MINUTE = 60
_MOST_BAD_TOKENS = 6_000


@dataclass(frozen=True, slots=True)
class Plane:
    """What endpoints work with: the database, the ports, and what this process remembers.

    `trusted` are the proxies whose word on where a request comes from is taken. `caller` is whom
    every request is from, without proof: only where no network leads to.
    """

    database: Database
    random_bytes: Callable[[int], bytes]
    why_not_ready: Callable[[], str | None]
    metrics: Callable[[], bytes]
    reports: Cache
    running: Running
    max_body_bytes: int
    gate: Gate
    serving: Serving
    trusted: Sequence[Network]
    leak_pace: Pace
    token_pace: Pace
    people: People
    caller: Principal | None = None

    def now_ms(self) -> int:
        """The moment, as the database's clock has it."""
        return self.database.clock_ms()


def make_plane(
    database: Database,
    *,
    why_not_ready: Callable[[], str | None],
    metrics: Callable[[], bytes],
    activity_cache_s: int = 300,
    max_body_bytes: int = 65_536,
    most_at_once: int = 8,
    random_bytes: Callable[[int], bytes] = os.urandom,
    serving: Serving = lambda _: (),
    trusted_proxies: Sequence[str] = (),
    people: People | None = None,
    caller: Principal | None = None,
) -> Plane:
    """Return what the control plane of one process works with, whatever its faces.

    `why_not_ready` returns None once requests can be served, else a word; `metrics` returns the
    text for Prometheus; `most_at_once` calls may use the database at the same time. `serving` says
    who serves a model; of `trusted_proxies` (networks) the word on where a request comes from is
    taken. Without `people`, sign-ins do not outlive the process. With a `caller` every request is
    theirs, and none is asked for proof: not for what listens on a network.
    """
    return Plane(
        database=database,
        random_bytes=random_bytes,
        why_not_ready=why_not_ready,
        metrics=metrics,
        reports=Cache(ttl_s=activity_cache_s),
        running=Running(),
        max_body_bytes=max_body_bytes,
        gate=Gate(most_at_once),
        serving=serving,
        trusted=permissions.parse_networks(trusted_proxies),
        leak_pace=Pace(_LEAKS_A_MINUTE, most_together=_MOST_LEAKS),
        token_pace=Pace(_BAD_TOKENS_A_MINUTE, most_together=_MOST_BAD_TOKENS),
        people=people or ports.for_this_process(),
        caller=caller,
    )


@dataclass(frozen=True, slots=True)
class Call(Generic[C]):
    """One request that has been read; `document` and `body` are empty where none is expected.

    `client` is the peer, and `address` where the request comes from as far as can be told.
    """

    plane: Plane
    caller: C
    route: str
    path: Mapping[str, str]
    query: Query
    headers: Headers
    client: str
    address: Address | None
    secret: bytes = field(repr=False)
    body: bytes = field(repr=False)
    document: dict[str, object]
    idempotency_key: str | None


Endpoint = Callable[[Call[Any]], Awaitable[Response]]


async def answer(
    request: Request,
    *,
    plane: Plane,
    endpoint: Endpoint,
    principal: type[Principal] | tuple[type[Principal], ...] | None,
    parameters: tuple[str, ...],
    has_body: bool,
    action: Action | None = None,
    most_bytes: int | None = None,
) -> Response:
    """Read a request, prove its caller (a `principal` of None: anybody) and call the endpoint.

    Of several kinds of principal, the likeliest goes first. Who acts in an account needs a role
    that allows `action`; where none is named, reading for a GET, and managing for all else. A body
    has at most `most_bytes`, where that is more than the plane allows of any.
    """
    query = Query(request.scope["query_string"])
    secret = auth.find_secret(request.scope["headers"], query_names=query.names)
    key = _idempotency_key(request.headers) if request.method == "POST" else None
    sent = b""
    if has_body:
        most = max(plane.max_body_bytes, most_bytes or 0)
        sent = await body.read(request.headers, request.stream(), max_bytes=most)
    document = body.parse(sent) if has_body else {}
    client = request.client.host if request.client else ""
    forwarded = [value for name, value in request.scope["headers"] if name == _FORWARDED]
    address = permissions.client_address(client, forwarded, plane.trusted)

    def make(caller: Principal | None) -> Call[Any]:
        return Call(
            plane=_bind(_sign(plane, caller, request, address), caller),
            caller=caller,
            route=f"{request.method} {request.scope['path']}",
            path=request.path_params,
            query=query,
            headers=request.headers,
            client=client,
            address=address,
            secret=secret or b"",
            body=sent,
            document=document,
            idempotency_key=key,
        )

    if principal is None:
        query.check(parameters)
        return await endpoint(make(None))
    # From here on the database is asked: of those who may, only so many at once.
    async with plane.gate.enter():
        kinds = principal if isinstance(principal, tuple) else (principal,)
        caller = await _prove_any(plane, secret=secret, kinds=kinds, address=address)
        _check_role(caller, action or default_action(request.method))
        query.check(parameters)
        return await endpoint(make(caller))


def _bind(plane: Plane, caller: Principal | None) -> Plane:
    """The plane as the caller has it: whoever acts in an account reaches the rows of no other."""
    is_tenant = isinstance(caller, ProvisioningPrincipal | InferencePrincipal)
    if caller is None or not is_tenant or isinstance(caller, HostPrincipal):
        return plane
    bound = plane.database.bound(account_id=caller.account_id, user_id=caller.user_id)
    return replace(plane, database=bound)


def _sign(
    plane: Plane, caller: Principal | None, request: Request, address: Address | None
) -> Plane:
    """The plane as the audit log is to have it: with who has things written, and from where."""
    actor = ANYBODY if caller is None else caller.actor
    place = "" if address is None else str(address)
    account_id = OPERATOR_LOG if caller is None else caller.account_id
    origin = Origin(actor, place, request.scope.get("request_id", ""), account_id)
    return replace(plane, database=plane.database.of(origin))


def default_action(method: str) -> Action:
    """What a caller's role must allow where a route says nothing of it."""
    return Action.READ if method == "GET" else Action.MANAGE


def _check_role(caller: Principal, action: Action) -> None:
    if isinstance(caller, ProvisioningPrincipal) and not caller.may(action):
        if roles.may(caller.role, action):
            raise grants.confined()
        message = "Your role in this account does not allow this."
        raise Forbidden("insufficient_role", message)


async def _prove_any(
    plane: Plane,
    *,
    secret: bytes | None,
    kinds: tuple[type[Principal], ...],
    address: Address | None,
) -> Principal:
    for kind in kinds[:-1]:
        try:
            return await prove(plane, secret=secret, wanted=kind, address=address)
        except Unauthenticated as refused:
            if refused.code != Reason.WRONG_KEY_TYPE.code:
                raise
    return await prove(plane, secret=secret, wanted=kinds[-1], address=address)


async def prove(
    plane: Plane, *, secret: bytes | None, wanted: type[P], address: Address | None
) -> P:
    """Return who presents this secret from this address; raises Unauthenticated or Forbidden."""
    if plane.caller is not None:
        if isinstance(plane.caller, wanted):
            return plane.caller
        raise refusals.as_error(refusals.deny(Reason.WRONG_KEY_TYPE))
    if secret is None:
        raise refusals.as_error(refusals.deny(Reason.MISSING))
    async with plane.database.read() as tx:
        return await access.authenticate(
            tx, secret=secret, wanted=wanted, now_ms=plane.now_ms(), address=address
        )


def reply(payload: object, *, status: int = 200) -> Response:
    """Answer with JSON."""
    return Response(encode(payload), status_code=status, media_type=JSON)


def encode(payload: object) -> bytes:
    """Return the JSON of a payload."""
    return msgspec.json.encode(payload)


async def carry_out(
    call: Call[P], effect: Callable[[WriteTx], Awaitable[object]], *, status: int
) -> Response:
    """Do what a POST asks for, in one transaction, and answer with what `effect` returns.

    Under an Idempotency-Key it is done once: the same request gets the same answer again. Raises
    Conflict (`idempotency_in_progress`) and Invalid (`idempotency_key_reused`).
    """
    database = call.plane.database
    if call.idempotency_key is None:
        return reply(await database.transact(effect), status=status)
    request = idempotency.Request(
        account_id=call.caller.account_id,
        key_id=call.caller.key_id,
        route=call.route,
        key=call.idempotency_key,
        body=call.body,
        secret=call.caller.seal or call.secret,
    )

    async def once(tx: WriteTx) -> tuple[Answer, dict[str, str]]:
        kept = await idempotency.find_answer(tx, request=request)
        if kept is not None:
            return kept, {"idempotent-replayed": "true"}
        done = Answer(status, encode(await effect(tx)))
        await idempotency.keep_answer(
            tx, request=request, answer=done, random_bytes=call.plane.random_bytes
        )
        return done, {}

    with call.plane.running.hold(request):
        given, headers = await database.transact(once)
    return Response(given.body, status_code=given.status, headers=headers, media_type=JSON)


def _idempotency_key(headers: Headers) -> str | None:
    keys = headers.getlist("idempotency-key")
    if len(keys) > 1:
        raise Unreadable("invalid_idempotency_key", "Send one Idempotency-Key.")
    return idempotency.check_key(keys[0]) if keys else None
