"""The application of the control plane: the registry's routes, in their envelope.

Owns how the framework is used: for matching paths and for the OpenAPI document, not for reading
requests. Must not know nouns. Whatever is not a path of the data plane comes here.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from bursar.api import errors, problems, registry, routes
from bursar.api.problems import Problem
from bursar.api.registry import Route
from bursar.core.errors import BursarError
from bursar.edge import calls
from bursar.edge.calls import Plane
from bursar.edge.envelope import Envelope, Excuse

_log: Final = structlog.get_logger("bursar.api")
_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


def create(
    plane: Plane,
    *,
    version: str,
    count_gone: Callable[[], None] = lambda: None,
    is_described: bool = True,
) -> FastAPI:
    """Return the control API as an ASGI application.

    `count_gone` is called for each caller who left before the request was complete. Without being
    described it has no OpenAPI document of use, and is made in a tenth of the time.
    """
    app = _Application(
        title="Bursar",
        version=version,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        middleware=[
            Middleware(
                Envelope,
                random_bytes=plane.random_bytes,
                excuse=_excuse,
                count_gone=count_gone,
            )
        ],
        exception_handlers={BursarError: _refuse, HTTPException: _refuse_by_framework},
    )
    for route in routes.ROUTES:
        app.add_api_route(
            route.path,
            _endpoint(plane, route),
            methods=[route.method],
            status_code=route.status,
            response_model=route.answer if is_described else None,
            response_class=JSONResponse if route.answer else Response,
            responses=_responses(route) if is_described else None,
            summary=_summary(route),
            description=_description(route),
            tags=[_tag(route)],
            operation_id=f"{_tag(route)}_{route.endpoint.__name__}",
            openapi_extra=_extra(route),
        )
    return app


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        if not self.openapi_schema:
            self.openapi_schema = get_openapi(
                title=self.title, version=self.version, routes=self.routes
            )
            self.openapi_schema["components"]["securitySchemes"] = _SCHEMES
        return self.openapi_schema


def _endpoint(plane: Plane, route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await calls.answer(
            request,
            plane=plane,
            endpoint=route.endpoint,
            principal=route.principal,
            parameters=route.query,
            has_body=route.body is not None,
            action=route.action,
            most_bytes=route.most_bytes,
        )

    return endpoint


async def _refuse(request: Request, error: Exception) -> Response:
    if not isinstance(error, BursarError):
        raise error
    problem = errors.problem_of(error)
    if problem.status >= 500:
        _log.error(
            "request_refused",
            request_id=request.scope["request_id"],
            code=error.code,
            message=error.message,
            detail=error.detail,
        )
    return _response(request, problem)


async def _refuse_by_framework(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 405:
        return _response(request, problems.method_not_allowed(_allowed(request)))
    return _response(
        request, problems.NOT_FOUND if error.status_code == 404 else problems.UNREADABLE
    )


def _excuse(is_outage: bool, request_id: str) -> Excuse:
    problem = problems.OUTAGE if is_outage else problems.INTERNAL
    body = problems.encode(problem, request_id=request_id)
    return Excuse(problem.status, problem.code, body, problem.headers)


def _response(request: Request, problem: Problem) -> Response:
    body = problems.encode(problem, request_id=request.scope["request_id"])
    return Response(body, problem.status, dict(problem.headers), media_type=calls.JSON)


def _allowed(request: Request) -> list[str]:
    """Every method of the path, of which the framework would name only the first route's."""
    found = {
        method
        for route in request.app.routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods
    }
    return sorted(found)


def _responses(route: Route) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {
        "default": {"model": problems.ErrorShape, "description": "Refused"}
    }
    if route.text:
        found[route.status] = {"content": {route.text: {"schema": {"type": "string"}}}}
    return found


def _summary(route: Route) -> str:
    return (route.endpoint.__doc__ or "").split("\n")[0]


def _description(route: Route) -> str:
    return " ".join((route.endpoint.__doc__ or "").split())


def _tag(route: Route) -> str:
    return route.endpoint.__module__.rpartition(".")[2]


def _extra(route: Route) -> dict[str, Any]:
    """What the framework cannot see, because it does not read requests: parameters and bodies."""
    in_path = re.findall(r"\{(\w+)\}", route.path)
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": registry.PATH_ID}
        for name in in_path
    ]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": registry.PARAMETERS[name]}
        for name in route.query
    ]
    extra: dict[str, Any] = {"parameters": parameters} if parameters else {}
    if route.body is not None:
        schema = route.body.model_json_schema()
        extra["requestBody"] = {"required": True, "content": {calls.JSON: {"schema": schema}}}
    if route.principal is not None:
        extra["security"] = [{name: []} for name in _SCHEMES]
    return extra
