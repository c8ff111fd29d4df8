"""What a route of the control API is, and how one is described.

Owns the form; the list is `routes`. Must not know any noun.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from bursar.core.allowances import Resource
from bursar.core.people.roles import Action
from bursar.core.permissions import Environment
from bursar.core.windows import Window
from bursar.edge import pages
from bursar.edge.body import Model
from bursar.edge.calls import Call, Endpoint
from bursar.service.access import (
    InferencePrincipal,
    OperatorPrincipal,
    Principal,
    ProvisioningPrincipal,
    UserPrincipal,
)

# How the document describes the ids in paths, and the parameters that the routes below name.
PATH_ID: Final[Mapping[str, object]] = {"type": "integer", "minimum": 1}
PARAMETERS: Final[Mapping[str, Mapping[str, object]]] = {
    "account_id": {"type": "integer", "minimum": 1},
    "action": {"type": "string", "maxLength": 64},
    "actor": {"type": "string", "maxLength": 255},
    "cursor": {"type": "string"},
    "email": {"type": "string", "maxLength": 320},
    "environment": {"type": "string", "enum": [str(each) for each in Environment]},
    "group_by": {"type": "string", "maxLength": 70},
    "is_enabled": {"type": "boolean"},
    "label": {"type": "string", "maxLength": 320},
    "project_id": {"type": "integer", "minimum": 1},
    "q": {"type": "string", "maxLength": 255},
    "user_id": {"type": "integer", "minimum": 1},
    "days": {"type": "integer", "minimum": 1, "maximum": 30, "default": 30},
    "fresh": {"type": "boolean", "default": False},
    "from": {"type": "string", "format": "date-time"},
    "key_id": {"type": "integer", "minimum": 1},
    "limit": {
        "type": "integer",
        "minimum": 1,
        "maximum": pages.MAX_ITEMS,
        "default": pages.DEFAULT_ITEMS,
    },
    "model": {"type": "string", "maxLength": 255},
    "month": {"type": "string", "pattern": r"^\d{4}-\d{2}$"},
    "resource": {"type": "string", "enum": [str(resource) for resource in Resource]},
    "scope": {"type": "string", "maxLength": 32},
    "target": {"type": "string", "maxLength": 255},
    "to": {"type": "string", "format": "date-time"},
    "window": {"type": "string", "enum": [str(window) for window in Window]},
}


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path; `principal` None lets anybody call it.

    `answer` is the shape of a success with `status`, `text` another media type that it has too (or
    only); `body` is the model of what is sent, `query` names the parameters of the address.
    `action` is what the caller's role must allow, if not what `calls.answer` asks for by itself;
    `most_bytes` is how long a body may be that is longer than others.
    """

    method: str
    path: str
    principal: type[Principal] | None
    endpoint: Endpoint
    answer: type | None
    status: int = 200
    body: type[Model] | None = None
    query: tuple[str, ...] = ()
    text: str | None = None
    action: Action | None = None
    most_bytes: int | None = None


def anybody(
    path: str,
    endpoint: Callable[[Call[None]], Awaitable[Response]],
    answer: type | None,
    *,
    text: str | None = None,
) -> Route:
    """A GET that needs no key."""
    return Route("GET", path, None, endpoint, answer, text=text)


def anybody_sends(
    path: str,
    endpoint: Callable[[Call[None]], Awaitable[Response]],
    answer: type | None,
    *,
    status: int,
    body: type[Model],
) -> Route:
    """A POST that needs no key."""
    return Route("POST", path, None, endpoint, answer, status, body)


def inference(
    method: str,
    path: str,
    endpoint: Callable[[Call[InferencePrincipal]], Awaitable[Response]],
    answer: type | None,
) -> Route:
    """A route for inference keys."""
    return Route(method, path, InferencePrincipal, endpoint, answer)


def provisioning(
    method: str,
    path: str,
    endpoint: Callable[[Call[ProvisioningPrincipal]], Awaitable[Response]],
    answer: type | None,
    *,
    status: int = 200,
    body: type[Model] | None = None,
    query: tuple[str, ...] = (),
    text: str | None = None,
    action: Action | None = None,
    most_bytes: int | None = None,
) -> Route:
    """A route for provisioning keys, and for people who have signed in."""
    kind = ProvisioningPrincipal
    return Route(
        method, path, kind, endpoint, answer, status, body, query, text, action, most_bytes
    )


def person(
    method: str,
    path: str,
    endpoint: Callable[[Call[UserPrincipal]], Awaitable[Response]],
    answer: type | None,
    *,
    status: int = 200,
    body: type[Model] | None = None,
) -> Route:
    """A route for people who have signed in, about themselves."""
    action = Action.OWN_PROFILE
    return Route(method, path, UserPrincipal, endpoint, answer, status, body, action=action)


def operator(
    method: str,
    path: str,
    endpoint: Callable[[Call[OperatorPrincipal]], Awaitable[Response]],
    answer: type | None,
    *,
    status: int = 200,
    body: type[Model] | None = None,
    query: tuple[str, ...] = (),
) -> Route:
    """A route for operator keys."""
    return Route(method, path, OperatorPrincipal, endpoint, answer, status, body, query)
