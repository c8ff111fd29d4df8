"""A dialect as an application: its routes in the common envelope, its refusals in its own words.

Owns how a dialect's routes are called and how it refuses. Must not know any dialect.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.routing import Route as Binding

from bursar.core.errors import BursarError
from bursar.core.people.roles import Action
from bursar.edge import calls
from bursar.edge.calls import Endpoint, Plane
from bursar.edge.envelope import Envelope, Excuse
from bursar.service.access import Principal

_log: Final = structlog.get_logger("bursar.api")


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path behind the prefix; `kinds` None lets anybody call it.

    `action` is what the caller's role must allow, if not what `calls.answer` asks for by itself.
    """

    method: str
    path: str
    kinds: tuple[type[Principal], ...] | None
    endpoint: Endpoint
    query: tuple[str, ...] = ()
    has_body: bool = False
    action: Action | None = None


class Words(Protocol):
    """How a dialect says no: each a body, and what it is answered with."""

    def status_of(self, error: BursarError) -> int:
        """The status with which a use case's refusal is answered."""

    def encode(self, status: int, error: BursarError) -> bytes:
        """The body of that refusal."""

    def excuse(self, is_outage: bool) -> tuple[int, bytes]:
        """Status and body after an accident."""

    def method_not_allowed(self) -> bytes:
        """The body for a method that an existing path does not have."""

    def not_found(self) -> bytes:
        """The body for a path that is not there."""


def create(
    plane: Plane,
    *,
    prefix: str,
    routes: Iterable[Route],
    words: Words,
    count_gone: Callable[[], None] = lambda: None,
) -> Starlette:
    """Return a dialect's control part as an ASGI application.

    `count_gone` is called for each caller who left before the request was complete.
    """

    async def refuse(request: Request, error: Exception) -> Response:
        if not isinstance(error, BursarError):
            raise error
        return _refusal(request, error, words)

    async def refuse_by_framework(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        if error.status_code == 405:
            allowed = {"allow": ", ".join(_allowed(request))}
            return Response(words.method_not_allowed(), 405, allowed, media_type=calls.JSON)
        return Response(words.not_found(), 404, media_type=calls.JSON)

    def excuse(is_outage: bool, _request_id: str) -> Excuse:
        status, body = words.excuse(is_outage)
        return Excuse(status, "ledger_unavailable" if is_outage else "internal_error", body)

    app = Starlette(
        routes=[_bind(plane, prefix, route) for route in routes],
        middleware=[
            Middleware(
                Envelope, random_bytes=plane.random_bytes, excuse=excuse, count_gone=count_gone
            )
        ],
        exception_handlers={BursarError: refuse, HTTPException: refuse_by_framework},
    )
    app.router.redirect_slashes = False
    return app


def _bind(plane: Plane, prefix: str, route: Route) -> Binding:
    async def endpoint(request: Request) -> Response:
        return await calls.answer(
            request,
            plane=plane,
            endpoint=route.endpoint,
            principal=route.kinds,
            parameters=route.query,
            has_body=route.has_body,
            action=route.action,
        )

    handler: Callable[[Request], Awaitable[Response]] = endpoint
    return Binding(f"{prefix}{route.path}", handler, methods=[route.method])


def _refusal(request: Request, error: BursarError, words: Words) -> Response:
    status = words.status_of(error)
    if status >= 500:
        _log.error(
            "request_refused",
            request_id=request.scope["request_id"],
            code=error.code,
            message=error.message,
            detail=error.detail,
        )
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if status == 413:
        # The rest of the body is not read; a connection in the middle of one is of no more use.
        headers["connection"] = "close"
    return Response(words.encode(status, error), status, headers, media_type=calls.JSON)


def _allowed(request: Request) -> list[str]:
    """Every method of the path, of which the framework would name only the first route's."""
    found: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods
    return sorted(found)
