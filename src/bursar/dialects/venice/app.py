"""The application of the dialect's control part: the registry's routes, in the common envelope.

Owns how its refusals are answered. Must not know nouns.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.routing import Route as Binding

from bursar.core.errors import BursarError
from bursar.dialects.venice import errors, routes
from bursar.dialects.venice.models import Served
from bursar.dialects.venice.routes import Route
from bursar.edge import calls
from bursar.edge.calls import Plane
from bursar.edge.envelope import Envelope, Excuse

_log: Final = structlog.get_logger("bursar.api")


def create(
    plane: Plane,
    *,
    served: Served,
    shows_totals: bool = True,
    count_gone: Callable[[], None] = lambda: None,
) -> Starlette:
    """Return the dialect's control part as an ASGI application, for `routes.make`'s arguments.

    `count_gone` is called for each caller who left before the request was complete.
    """
    made = routes.make(served=served, shows_totals=shows_totals)
    app = Starlette(
        routes=[_bind(plane, route) for route in made],
        middleware=[
            Middleware(
                Envelope, random_bytes=plane.random_bytes, excuse=_excuse, count_gone=count_gone
            )
        ],
        exception_handlers={BursarError: _refuse, HTTPException: _refuse_by_framework},
    )
    app.router.redirect_slashes = False
    return app


def _bind(plane: Plane, route: Route) -> Binding:
    async def endpoint(request: Request) -> Response:
        return await calls.answer(
            request,
            plane=plane,
            endpoint=route.endpoint,
            principal=route.kinds,
            parameters=route.query,
            has_body=route.has_body,
        )

    handler: Callable[[Request], Awaitable[Response]] = endpoint
    return Binding(f"{routes.PREFIX}{route.path}", handler, methods=[route.method])


async def _refuse(request: Request, error: Exception) -> Response:
    if not isinstance(error, BursarError):
        raise error
    status = errors.status_of(error)
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
    return Response(errors.encode(status, error), status, headers, media_type=calls.JSON)


async def _refuse_by_framework(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 405:
        allowed = {"allow": ", ".join(_allowed(request))}
        return Response(errors.method_not_allowed(), 405, allowed, media_type=calls.JSON)
    return Response(errors.not_found(), 404, media_type=calls.JSON)


def _excuse(is_outage: bool, _request_id: str) -> Excuse:
    status, body = errors.excuse(is_outage)
    return Excuse(status, "ledger_unavailable" if is_outage else "internal_error", body)


def _allowed(request: Request) -> list[str]:
    """Every method of the path, of which the framework would name only the first route's."""
    found: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods
    return sorted(found)
