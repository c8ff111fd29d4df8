"""The registry: every route of the control API, and who may call it.

Owns the list. The application is built from it and from nothing else, so a route that is not here
does not exist, and none can be outside authentication by accident. The caller's kind is checked
twice: by the types of the functions below, and at each request.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from bursar.api import accounts, health, keys, ledger, usage
from bursar.api.limits import allowances
from bursar.edge import pages
from bursar.edge.body import Model
from bursar.edge.calls import Call, Endpoint
from bursar.service.access import (
    InferencePrincipal,
    OperatorPrincipal,
    Principal,
    ProvisioningPrincipal,
)

# How the document describes the ids in paths, and the parameters that the routes below name.
PATH_ID: Final[Mapping[str, object]] = {"type": "integer", "minimum": 1}
PARAMETERS: Final[Mapping[str, Mapping[str, object]]] = {
    "cursor": {"type": "string"},
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
    "to": {"type": "string", "format": "date-time"},
}


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path; `principal` None lets anybody call it.

    `answer` is the shape of a success with `status`, `text` another media type that it has too (or
    only); `body` is the model of what is sent, `query` names the parameters of the address.
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


def _anybody(
    path: str,
    endpoint: Callable[[Call[None]], Awaitable[Response]],
    answer: type | None,
    *,
    text: str | None = None,
) -> Route:
    return Route("GET", path, None, endpoint, answer, text=text)


def _inference(
    method: str,
    path: str,
    endpoint: Callable[[Call[InferencePrincipal]], Awaitable[Response]],
    answer: type | None,
) -> Route:
    return Route(method, path, InferencePrincipal, endpoint, answer)


def _provisioning(
    method: str,
    path: str,
    endpoint: Callable[[Call[ProvisioningPrincipal]], Awaitable[Response]],
    answer: type | None,
    *,
    status: int = 200,
    body: type[Model] | None = None,
    query: tuple[str, ...] = (),
    text: str | None = None,
) -> Route:
    return Route(method, path, ProvisioningPrincipal, endpoint, answer, status, body, query, text)


def _operator(
    method: str,
    path: str,
    endpoint: Callable[[Call[OperatorPrincipal]], Awaitable[Response]],
    answer: type | None,
    *,
    status: int = 200,
    body: type[Model] | None = None,
    query: tuple[str, ...] = (),
) -> Route:
    return Route(method, path, OperatorPrincipal, endpoint, answer, status, body, query)


_PAGE: Final = ("cursor", "limit")
_KEY: Final = "/v1/account/keys/{key_id}"
_ACCOUNT: Final = "/v1/operator/accounts/{account_id}"

ROUTES: Final[tuple[Route, ...]] = (
    _anybody("/healthz", health.show_life, health.HealthShape),
    _anybody("/readyz", health.show_readiness, health.HealthShape),
    _anybody("/metrics", health.show_metrics, None, text="text/plain"),
    _provisioning("GET", "/v1/account", accounts.show, accounts.AccountShape),
    _provisioning("GET", "/v1/account/balance", accounts.show_balance, accounts.BalanceShape),
    _provisioning(
        "GET",
        "/v1/account/activity",
        usage.show_activity,
        usage.ActivityShape,
        query=("days", "fresh"),
    ),
    _provisioning("GET", "/v1/account/keys", keys.list_keys, keys.KeyListShape),
    _provisioning(
        "POST",
        "/v1/account/keys",
        keys.create,
        keys.NewKeyShape,
        status=201,
        body=keys.NewKeyFields,
    ),
    _provisioning("GET", _KEY, keys.show, keys.KeyShape),
    _provisioning("PATCH", _KEY, keys.update, keys.KeyShape, body=keys.KeyFields),
    _provisioning("DELETE", _KEY, keys.delete, None, status=204),
    _provisioning("GET", "/v1/account/limits", allowances.list_limits, allowances.LimitListShape),
    _provisioning(
        "GET",
        "/v1/account/transactions",
        ledger.list_transactions,
        ledger.TransactionListShape,
        query=_PAGE,
    ),
    _provisioning(
        "GET",
        "/v1/account/usage/events",
        usage.list_events,
        usage.EventListShape,
        query=("key_id", "model", "from", "to", *_PAGE),
        text="text/csv",
    ),
    _inference("GET", "/v1/key", keys.show_own, keys.OwnKeyShape),
    _operator(
        "GET",
        "/v1/operator/accounts",
        accounts.list_accounts,
        accounts.AccountListShape,
        query=_PAGE,
    ),
    _operator(
        "POST",
        "/v1/operator/accounts",
        accounts.create,
        accounts.AccountShape,
        status=201,
        body=accounts.NewAccount,
    ),
    _operator("GET", _ACCOUNT, accounts.show_any, accounts.AccountShape),
    _operator("POST", f"{_ACCOUNT}/suspend", accounts.suspend, accounts.AccountShape),
    _operator("POST", f"{_ACCOUNT}/resume", accounts.resume, accounts.AccountShape),
    _operator(
        "POST",
        f"{_ACCOUNT}/credit",
        ledger.grant,
        ledger.PostingShape,
        status=201,
        body=ledger.Grant,
    ),
    _operator(
        "POST",
        f"{_ACCOUNT}/corrections",
        ledger.correct,
        ledger.PostingShape,
        status=201,
        body=ledger.Correction,
    ),
    _operator(
        "POST",
        f"{_ACCOUNT}/keys",
        keys.create_any,
        keys.NewKeyShape,
        status=201,
        body=keys.AnyNewKeyFields,
    ),
)
