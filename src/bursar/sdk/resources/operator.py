"""The operator's part: every account, its credit and keys, and the plans."""

from datetime import datetime
from typing import Any, Literal

from bursar.sdk import results, values
from bursar.sdk.calls import Call, Page, nothing
from bursar.sdk.faces import AsyncResource, Resource, awaited, awaited_pages, sync, sync_pages
from bursar.sdk.resources.account import AccountInfo
from bursar.sdk.resources.api_keys import NewApiKey, fields_of_new
from bursar.sdk.resources.billing import Transaction
from bursar.sdk.resources.limits import Amount, amount_text
from bursar.sdk.results import Moment, Result, Usd
from bursar.sdk.values import UNSET, Unset, UsdIn

_ACCOUNTS = "/v1/operator/accounts"
_PLANS = "/v1/operator/plans"


class Posting(Result):
    """A transaction that was just added, and the balance after it, in USD."""

    transaction: Transaction
    balance: Usd


class PlanLimit(Result):
    """What a plan gives to every scope of a kind, and the most that one may set for itself."""

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


# ── Accounts ────────────────────────────────────────────────────────────────────────────────────


def _list(*, page_size: int | None = None) -> Call[Page[AccountInfo]]:
    """Every account, oldest first."""
    read = results.read_page(AccountInfo, "accounts")
    return Call("GET", _ACCOUNTS, read, {"limit": page_size})


def _get(account_id: int) -> Call[AccountInfo]:
    """One account; raises NotFound."""
    return Call("GET", values.path(_ACCOUNTS, account_id), results.read(AccountInfo))


def _create(
    name: str,
    *,
    credit: UsdIn | None = None,
    time_zone: str | None = None,
    plan_id: int | None = None,
    idempotency_key: str | None = None,
) -> Call[AccountInfo]:
    """Open an account; `credit` is what it starts with, in USD."""
    credit_text = values.usd_text(credit)
    body = values.some(name=name, credit=credit_text, time_zone=time_zone, plan_id=plan_id)
    return _post(_ACCOUNTS, results.read(AccountInfo), body, idempotency_key)


def _update(
    account_id: int,
    *,
    name: str | Unset = UNSET,
    time_zone: str | Unset = UNSET,
    plan_id: int | Unset = UNSET,
) -> Call[AccountInfo]:
    """Rename an account, or give it another time zone or plan; what is not given stays."""
    body = values.given(name=name, time_zone=time_zone, plan_id=plan_id)
    path = values.path(_ACCOUNTS, account_id)
    return Call("PATCH", path, results.read(AccountInfo), body=body)


def _suspend(account_id: int, *, idempotency_key: str | None = None) -> Call[AccountInfo]:
    """Stop an account's keys until it is resumed."""
    path = f"{values.path(_ACCOUNTS, account_id)}/suspend"
    return _post(path, results.read(AccountInfo), None, idempotency_key)


def _resume(account_id: int, *, idempotency_key: str | None = None) -> Call[AccountInfo]:
    """Let a suspended account's keys work again."""
    path = f"{values.path(_ACCOUNTS, account_id)}/resume"
    return _post(path, results.read(AccountInfo), None, idempotency_key)


def _grant(
    account_id: int, *, amount: UsdIn, note: str = "", idempotency_key: str | None = None
) -> Call[Posting]:
    """Give an account credit, in USD, above 0."""
    path = f"{values.path(_ACCOUNTS, account_id)}/credit"
    body: dict[str, object] = {"amount": values.usd_text(amount), "note": note}
    return _post(path, results.read(Posting), body, idempotency_key)


def _correct(
    account_id: int, *, amount: UsdIn, reason: str, idempotency_key: str | None = None
) -> Call[Posting]:
    """Correct an account's credit, in USD, below 0 to take some; not what requests hold."""
    path = f"{values.path(_ACCOUNTS, account_id)}/corrections"
    body: dict[str, object] = {"amount": values.usd_text(amount), "reason": reason}
    return _post(path, results.read(Posting), body, idempotency_key)


def _create_key(
    account_id: int,
    *,
    name: str,
    kind: Literal["inference", "provisioning"] = "inference",
    credit_limit: UsdIn | None = None,
    expires_at: datetime | None = None,
    idempotency_key: str | None = None,
) -> Call[NewApiKey]:
    """Make a key of an account; its secret is in the answer's `key` and nowhere else."""
    body = fields_of_new(name, credit_limit=credit_limit, expires_at=expires_at) | {"kind": kind}
    path = f"{values.path(_ACCOUNTS, account_id)}/keys"
    return _post(path, results.read(NewApiKey), body, idempotency_key)


# ── Plans ───────────────────────────────────────────────────────────────────────────────────────


def _list_plans(*, page_size: int | None = None) -> Call[Page[Plan]]:
    """Every plan, oldest first."""
    return Call("GET", _PLANS, results.read_page(Plan, "plans"), {"limit": page_size})


def _get_plan(plan_id: int) -> Call[Plan]:
    """One plan; raises NotFound."""
    return Call("GET", values.path(_PLANS, plan_id), results.read(Plan))


def _create_plan(name: str, *, idempotency_key: str | None = None) -> Call[Plan]:
    """Make a plan without limits."""
    return _post(_PLANS, results.read(Plan), {"name": name}, idempotency_key)


def _rename_plan(plan_id: int, *, name: str) -> Call[Plan]:
    """Give a plan another name."""
    return Call("PATCH", values.path(_PLANS, plan_id), results.read(Plan), body={"name": name})


def _delete_plan(plan_id: int) -> Call[None]:
    """Delete a plan that no account has; raises Conflict otherwise."""
    return Call("DELETE", values.path(_PLANS, plan_id), nothing)


def _set_plan_limit(
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


def _remove_plan_limit(
    plan_id: int, *, scope: str, resource: str, window: str, model: str | None = None
) -> Call[None]:
    """Lift a limit of a plan, for all its accounts; what they have set themselves stays."""
    query = {"scope": scope, "resource": resource, "window": window, "model": model}
    return Call("DELETE", f"{values.path(_PLANS, plan_id)}/limits", nothing, query)


def _post(path: str, read: Any, body: dict[str, object] | None, key: str | None) -> Call[Any]:
    return Call("POST", path, read, body=body, is_kept=True, idempotency_key=key)


# ── Faces ───────────────────────────────────────────────────────────────────────────────────────


class Accounts(Resource):
    """Every account."""

    list = sync_pages(_list)
    get = sync(_get)
    create = sync(_create)
    update = sync(_update)
    suspend = sync(_suspend)
    resume = sync(_resume)
    grant = sync(_grant)
    correct = sync(_correct)
    create_key = sync(_create_key)


class Plans(Resource):
    """Plans."""

    list = sync_pages(_list_plans)
    get = sync(_get_plan)
    create = sync(_create_plan)
    rename = sync(_rename_plan)
    delete = sync(_delete_plan)
    set_limit = sync(_set_plan_limit)
    remove_limit = sync(_remove_plan_limit)


class Operator(Resource):
    """The operator's part; needs an operator key."""

    @property
    def accounts(self) -> Accounts:
        """Every account."""
        return Accounts(self.connection, self.options)

    @property
    def plans(self) -> Plans:
        """Plans."""
        return Plans(self.connection, self.options)


class AsyncAccounts(AsyncResource):
    """Every account."""

    list = awaited_pages(_list)
    get = awaited(_get)
    create = awaited(_create)
    update = awaited(_update)
    suspend = awaited(_suspend)
    resume = awaited(_resume)
    grant = awaited(_grant)
    correct = awaited(_correct)
    create_key = awaited(_create_key)


class AsyncPlans(AsyncResource):
    """Plans."""

    list = awaited_pages(_list_plans)
    get = awaited(_get_plan)
    create = awaited(_create_plan)
    rename = awaited(_rename_plan)
    delete = awaited(_delete_plan)
    set_limit = awaited(_set_plan_limit)
    remove_limit = awaited(_remove_plan_limit)


class AsyncOperator(AsyncResource):
    """The operator's part; needs an operator key."""

    @property
    def accounts(self) -> AsyncAccounts:
        """Every account."""
        return AsyncAccounts(self.connection, self.options)

    @property
    def plans(self) -> AsyncPlans:
        """Plans."""
        return AsyncPlans(self.connection, self.options)
