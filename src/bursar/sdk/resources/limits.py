"""Limits: what scopes may use, what they have used, what was refused, and what would be."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator

from bursar.sdk import results, values
from bursar.sdk.calls import Call, Page, nothing
from bursar.sdk.faces import AsyncResource, Resource, awaited, awaited_pages, sync, sync_pages
from bursar.sdk.results import Moment, Result, Usd
from bursar.sdk.values import UsdIn


def _amount(value: object) -> object:
    return Decimal(value) if isinstance(value, str) else value


# USD for cost, which is text on the wire; a whole number for everything else.
Amount: TypeAlias = Annotated[Decimal | int, BeforeValidator(_amount)]


class Limit(Result):
    """How much of one resource one scope may use in one window, and what it has used.

    Figures are USD for cost and whole numbers otherwise (`unit` says of what). `leased` is set
    aside by servers; `limit` and `left` are None without a limit, `model` where every one counts.
    """

    name: str
    scope: str
    resource: str
    unit: str
    window: str
    model: str | None
    limit: Amount | None
    soft_limit: Amount | None = None
    used: Amount
    leased: Amount
    left: Amount | None
    origin: str = "own"
    resets_at: Moment | None
    next_resets: tuple[Moment, ...] = ()


class LimitRefusal(Result):
    """What one limit refused in one second: `count` calls, of which the first is described.

    A `limit` of cost is in USD, others in whole numbers.
    """

    at: Moment
    allowance: str
    resource: str
    window: str
    limit: Amount | None
    key_id: int
    model: str
    endpoint: str
    status: int
    count: int


class Verdict(Result):
    """What the gateway would answer: 200, or a refusal with its code."""

    is_allowed: bool
    is_certain: bool
    status: int
    code: str | None
    message: str | None
    limit: str | None
    resets_at: Moment | None
    retry_after_s: int | None


class Needs(Result):
    """What the request would hold: the most that it can cost, in USD, and its tokens."""

    cost: Usd
    tokens: int
    prompt_tokens: int
    max_tokens: int | None


class Standing(Limit):
    """A limit that counts the request, and what the request needs of it."""

    needs: Amount | None
    would_refuse: bool
    is_held: bool


class Explanation(Result):
    """What would become of a request; `limits` go from the widest scope to the narrowest.

    `affordable_max_tokens` is the longest answer that can be paid for, `affordable_requests` how
    many such requests go through, None without an end.
    """

    key_id: int
    model: str
    endpoint: str
    verdict: Verdict
    needs: Needs | None
    affordable_max_tokens: int | None
    affordable_requests: int | None
    limits: tuple[Standing, ...]


def amount_text(amount: UsdIn | None, *, resource: str) -> object:
    """Return an amount as the API takes it: money as text, counts as they are."""
    return values.usd_text(amount) if resource == "cost" else amount


def _list(
    *,
    scope: str | None = None,
    resource: str | None = None,
    model: str | None = None,
    page_size: int | None = None,
) -> Call[Page[Limit]]:
    """Your account's limits, with what is used and left.

    A `scope` is `wallet`, `account`, `project:9`, `user:5` or `key:12`; a `resource` `cost`,
    `requests`, `tokens` or `concurrency`; `model` asks for what counts calls of that model.
    """
    query = {"scope": scope, "resource": resource, "model": model, "limit": page_size}
    return Call("GET", "/v1/account/limits", results.read_page(Limit, "limits"), query)


def _set(
    *,
    scope: str,
    resource: str,
    window: str,
    limit: UsdIn | None = None,
    soft_limit: UsdIn | None = None,
    model: str | None = None,
) -> Call[Limit]:
    """Set a limit: `limit` refuses, `soft_limit` only makes an alert. Both replace what was there.

    A `window` is `minute`, `hour`, `day`, `week`, `month` or `lifetime`. Amounts of cost are USD.
    What is used stays: no window begins anew.
    """
    body = {
        "scope": scope,
        "resource": resource,
        "window": window,
        "model": model,
        "limit": amount_text(limit, resource=resource),
        "soft_limit": amount_text(soft_limit, resource=resource),
    }
    return Call("PUT", "/v1/account/limits", results.read(Limit), body=body)


def _remove(*, scope: str, resource: str, window: str, model: str | None = None) -> Call[None]:
    """Lift a limit of your own; what your plan gives counts again, if it gives any."""
    query = {"scope": scope, "resource": resource, "window": window, "model": model}
    return Call("DELETE", "/v1/account/limits", nothing, query)


def _log(
    *,
    key_id: int | None = None,
    model: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    page_size: int | None = None,
) -> Call[Page[LimitRefusal]]:
    """Which limits refused which calls, newest first; one entry for each limit and second."""
    query = {
        "key_id": key_id,
        "model": model,
        "from": values.moment(start),
        "to": values.moment(end),
        "limit": page_size,
    }
    read = results.read_page(LimitRefusal, "refusals")
    return Call("GET", "/v1/account/limits/log", read, query)


def _explain(
    *,
    key_id: int,
    model: str,
    prompt_tokens: int | None = None,
    prompt_bytes: int | None = None,
    max_tokens: int | None = None,
    choices: int | None = None,
    endpoint: str | None = None,
) -> Call[Explanation]:
    """What would become of a request of this size, given in tokens or in bytes; nothing is held."""
    body = values.some(
        key_id=key_id,
        model=model,
        prompt_tokens=prompt_tokens,
        prompt_bytes=prompt_bytes,
        max_tokens=max_tokens,
        choices=choices,
        endpoint=endpoint,
    )
    read = results.read(Explanation)
    # Nothing is changed by asking, so that asking twice does no harm.
    return Call("POST", "/v1/account/explain", read, body=body, is_kept=True)


class Limits(Resource):
    """Limits."""

    list: Final = sync_pages(_list)
    set: Final = sync(_set)
    remove: Final = sync(_remove)
    log: Final = sync_pages(_log)
    explain: Final = sync(_explain)


class AsyncLimits(AsyncResource):
    """Limits."""

    list: Final = awaited_pages(_list)
    set: Final = awaited(_set)
    remove: Final = awaited(_remove)
    log: Final = awaited_pages(_log)
    explain: Final = awaited(_explain)
