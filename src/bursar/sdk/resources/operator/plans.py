"""Plans: what accounts get, and the most that they may set themselves."""

from typing import Final

from bursar.sdk import results, values
from bursar.sdk.calls import Call, Page, nothing
from bursar.sdk.faces import AsyncResource, Resource, awaited, awaited_pages, sync, sync_pages
from bursar.sdk.resources.limits import Amount, amount_text
from bursar.sdk.results import Moment, Result
from bursar.sdk.values import UsdIn

_PLANS = "/v1/operator/plans"


class PlanLimit(Result):
    """What a plan gives to every scope of a kind, and the most that one may set for itself.

    Limits of cost are in USD, others in what `unit` says.
    """

    scope: str
    resource: str
    unit: str
    window: str
    model: str | None
    default_limit: Amount | None
    most_limit: Amount | None


class Plan(Result):
    """A plan and its limits."""

    id: int
    name: str
    created_at: Moment
    limits: tuple[PlanLimit, ...]


def _list(*, page_size: int | None = None) -> Call[Page[Plan]]:
    """Every plan, oldest first."""
    return Call("GET", _PLANS, results.read_page(Plan, "plans"), {"limit": page_size})


def _get(plan_id: int) -> Call[Plan]:
    """One plan; raises NotFound."""
    return Call("GET", values.path(_PLANS, plan_id), results.read(Plan))


def _create(name: str, *, idempotency_key: str | None = None) -> Call[Plan]:
    """Make a plan without limits."""
    return Call(
        "POST",
        _PLANS,
        results.read(Plan),
        body={"name": name},
        is_kept=True,
        idempotency_key=idempotency_key,
    )


def _rename(plan_id: int, *, name: str) -> Call[Plan]:
    """Give a plan another name."""
    return Call("PATCH", values.path(_PLANS, plan_id), results.read(Plan), body={"name": name})


def _delete(plan_id: int) -> Call[None]:
    """Delete a plan that no account has; raises Conflict otherwise."""
    return Call("DELETE", values.path(_PLANS, plan_id), nothing)


def _set_limit(
    plan_id: int,
    *,
    scope: str,
    resource: str,
    window: str,
    default_limit: UsdIn | None = None,
    most_limit: UsdIn | None = None,
    model: str | None = None,
) -> Call[Plan]:
    """Set what every `account`, `project`, `user` or `key` gets, and the most it may set itself.

    Amounts of cost are USD, others whole numbers. All accounts of the plan follow at once.
    """
    body = {
        "scope": scope,
        "resource": resource,
        "window": window,
        "model": model,
        "default_limit": amount_text(default_limit, resource=resource),
        "most_limit": amount_text(most_limit, resource=resource),
    }
    path = f"{values.path(_PLANS, plan_id)}/limits"
    return Call("PUT", path, results.read(Plan), body=body)


def _remove_limit(
    plan_id: int, *, scope: str, resource: str, window: str, model: str | None = None
) -> Call[None]:
    """Lift a limit of a plan, for all its accounts; what they have set themselves stays."""
    query = {"scope": scope, "resource": resource, "window": window, "model": model}
    return Call("DELETE", f"{values.path(_PLANS, plan_id)}/limits", nothing, query)


class Plans(Resource):
    """Plans."""

    list: Final = sync_pages(_list)
    get: Final = sync(_get)
    create: Final = sync(_create)
    rename: Final = sync(_rename)
    delete: Final = sync(_delete)
    set_limit: Final = sync(_set_limit)
    remove_limit: Final = sync(_remove_limit)


class AsyncPlans(AsyncResource):
    """Plans."""

    list: Final = awaited_pages(_list)
    get: Final = awaited(_get)
    create: Final = awaited(_create)
    rename: Final = awaited(_rename)
    delete: Final = awaited(_delete)
    set_limit: Final = awaited(_set_limit)
    remove_limit: Final = awaited(_remove_limit)
