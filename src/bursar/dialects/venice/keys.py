"""Keys as Venice shows them, and what its clients send to make and change them.

Owns their shape. Of a key's cost limits by day, month and lifetime Venice knows one, with its
`limitPeriod`: the first that is set. A change of it leaves the others alone. Must not know rules.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, NamedTuple

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from bursar.core import permissions
from bursar.core.allowances import OWN, Resource
from bursar.core.errors import BursarError, Invalid, NotFound
from bursar.core.permissions import Rights
from bursar.core.secrets import KeyKind
from bursar.core.windows import Window
from bursar.dialects.venice import fields
from bursar.edge.body import Model, check
from bursar.edge.calls import Call, carry_out, reply
from bursar.edge.fields import UsdNumberIn, find_id, parse_path_id
from bursar.service import keys
from bursar.service.access import ProvisioningPrincipal
from bursar.service.keys import UNCHANGED, KeyChange, KeySettings, views
from bursar.service.keys.views import KeyView
from bursar.service.limits import allowances
from bursar.service.limits.allowances import Limit
from bursar.service.limits.rules import Scope
from bursar.store.database import ReadTx, WriteTx
from bursar.store.keys import KeyRow

Period = Literal["EPOCH", "MONTH", "LIFETIME"]

_PERIODS: Final[dict[Period, Window]] = {
    "EPOCH": Window.DAY,
    "MONTH": Window.MONTH,
    "LIFETIME": Window.LIFETIME,
}
_KINDS: Final = {KeyKind.PROVISIONING: "ADMIN", KeyKind.INFERENCE: "INFERENCE"}
_DEFAULT: Final = "EPOCH"
_MOST: Final = 10_000
# What their clients call the fields that our refusals name.
_NAMES: Final = {
    "name": "description",
    "expires_at": "expiresAt",
    "credit_limit": "consumptionLimit",
    "limit": "consumptionLimit",
    "networks": "ipAllowlist",
}


class _Fields(Model):
    """Fields as Venice spells them: `apiKeyType` is our `api_key_type`."""

    model_config = ConfigDict(alias_generator=to_camel)


class Consumption(_Fields):
    """What a key may spend in a period; absent leaves alone, null lifts."""

    usd: UsdNumberIn | None = None
    diem: object = None
    vcu: object = None


class NewKeyFields(_Fields):
    """A key to make."""

    api_key_type: Literal["INFERENCE", "ADMIN"]
    description: str
    consumption_limit: Consumption | None = None
    limit_period: Period | None = None
    model_privacy: str | None = None
    expires_at: str | None = None
    ip_allowlist: list[str] | None = Field(default=None, max_length=100)


class KeyFields(_Fields):
    """What to change of a key: absent leaves alone; "" or null lifts an expiry, [] an allowlist."""

    id: str
    description: str | None = None
    consumption_limit: Consumption | None = None
    limit_period: Period | None = None
    model_privacy: str | None = None
    expires_at: str | None = None
    ip_allowlist: list[str] | None = Field(default=None, max_length=100)


class Budget(NamedTuple):
    """The one cost limit that Venice knows of a key (None: unlimited); did people set it?"""

    period: Period
    limit_nanos: int | None
    used_nanos: int
    is_own: bool


async def list_keys(call: Call[ProvisioningPrincipal]) -> Response:
    """The account's keys of both kinds, oldest first: all, a page, or the one that `id` names."""
    account_id, query = call.caller.account_id, call.query
    page = fields.read_page(query, default=_MOST, most=_MOST)
    asked = query.find("id")
    await call.plane.database.catch_up()
    async with call.plane.database.read() as tx:
        if asked is not None:
            rows = [await _find(tx, account_id=account_id, key_id=parse_path_id(asked))]
        else:
            rows = await keys.list_all(tx, account_id=account_id)
        shown = rows[page.start : page.start + page.size]
        found = await _view(tx, account_id=account_id, rows=shown, now_ms=call.plane.now_ms())
    answer = reply({"object": "list", "data": [_shape(each) for each in found]})
    answer.headers.update(page.headers(len(rows)))
    return answer


async def show(call: Call[ProvisioningPrincipal]) -> Response:
    """One key of the account."""
    account_id, key_id = call.caller.account_id, parse_path_id(call.path["key_id"])
    await call.plane.database.catch_up()
    async with call.plane.database.read() as tx:
        row = await _find(tx, account_id=account_id, key_id=key_id)
        found = await _view(tx, account_id=account_id, rows=[row], now_ms=call.plane.now_ms())
    return reply({"data": _shape(found[0])})


async def create(call: Call[ProvisioningPrincipal]) -> Response:
    """Make a key. Its secret is in this answer and nowhere else."""
    new = check(NewKeyFields, call.document)
    _check_meant(new)
    kind = next(ours for ours, theirs in _KINDS.items() if theirs == new.api_key_type)
    limit = None if new.consumption_limit is None else new.consumption_limit.usd
    if kind is not KeyKind.INFERENCE and limit is not None:
        message = "An ADMIN key spends nothing, so it has no limit."
        raise Invalid("invalid_value", message, param="consumptionLimit")
    caller, period = call.caller, new.limit_period or _DEFAULT
    is_lifelong = _PERIODS[period] is Window.LIFETIME

    async def effect(tx: WriteTx) -> dict[str, Any]:
        with _named():
            made = await keys.create(
                tx,
                account_id=caller.account_id,
                user_id=caller.user_id,
                name=new.description,
                random_bytes=call.plane.random_bytes,
                kind=kind,
                credit_limit_nanos=limit if is_lifelong else None,
                expires_ms=_expiry(new.expires_at),
                settings=_settings(caller.rights, new.ip_allowlist),
                by=caller,
            )
            if limit is not None and not is_lifelong:
                await _set_limit(tx, made.key, _PERIODS[period], limit, by=caller)
        row = made.key
        view = await _view(tx, account_id=row.account_id, rows=[row], now_ms=tx.now_ms)
        shown = _shape(view[0])
        # One letter less than everywhere else.
        data = {"apiKey": made.secret, "consumptionLimit": shown.pop("consumptionLimits"), **shown}
        return {"success": True, "data": data}

    return await carry_out(call, effect, status=200)


async def update(call: Call[ProvisioningPrincipal]) -> Response:
    """Change a key: its description, its limit, its expiry or its addresses."""
    changed = check(KeyFields, call.document)
    caller = call.caller

    async def effect(tx: WriteTx) -> dict[str, Any]:
        row = await _find(tx, account_id=caller.account_id, key_id=find_id(changed.id))
        _check_meant(changed)
        given = changed.model_fields_set
        networks = changed.ip_allowlist
        change = KeyChange(
            name=changed.description,
            expires_ms=_expiry(changed.expires_at) if "expires_at" in given else UNCHANGED,
            networks=UNCHANGED if networks is None else (networks or None),
        )
        with _named():
            # Allowances are locked before keys, here as everywhere.
            if given & {"consumption_limit", "limit_period"}:
                await _change_limit(tx, row, changed, by=caller)
            after = await keys.update(
                tx,
                account_id=caller.account_id,
                key_id=row.id,
                change=change,
                by=caller,
                kind=KeyKind(row.kind),
            )
        view = await _view(tx, account_id=row.account_id, rows=[after], now_ms=tx.now_ms)
        return {"success": True, "data": _shape(view[0])}

    await call.plane.database.catch_up()
    return reply(await call.plane.database.transact(effect))


async def delete(call: Call[ProvisioningPrincipal]) -> Response:
    """Delete a key for good."""
    account_id, asked = call.caller.account_id, call.query.find("id")
    if asked is None:
        raise Invalid("missing_field", "Say which key.", param="id")

    async def effect(tx: WriteTx) -> None:
        row = await _find(tx, account_id=account_id, key_id=find_id(asked))
        await keys.delete(tx, account_id=account_id, key_id=row.id, kind=KeyKind(row.kind))

    await call.plane.database.transact(effect)
    return reply({"success": True})


async def _find(tx: ReadTx, *, account_id: int, key_id: int | None) -> KeyRow:
    if key_id is None:
        raise NotFound("not_found", "There is no such key.")
    return await keys.get(tx, account_id=account_id, key_id=key_id, kind=None)


async def _view(
    tx: ReadTx, *, account_id: int, rows: Sequence[KeyRow], now_ms: int
) -> list[KeyView]:
    return await views.view(tx, account_id=account_id, rows=rows, now_ms=now_ms)


async def _change_limit(
    tx: WriteTx, row: KeyRow, changed: KeyFields, *, by: ProvisioningPrincipal
) -> None:
    """Set the limit that Venice knows; in another period, it moves there."""
    if row.kind != KeyKind.INFERENCE:
        message = "An ADMIN key spends nothing, so it has no limit."
        raise Invalid("invalid_value", message, param="consumptionLimit")
    (view,) = await _view(tx, account_id=row.account_id, rows=[row], now_ms=tx.now_ms)
    before = _budget(view.limits)
    period = changed.limit_period or before.period
    limit = before.limit_nanos
    given = changed.consumption_limit
    if "consumption_limit" in changed.model_fields_set:
        if given is None:
            limit = None
        elif "usd" in given.model_fields_set:
            limit = given.usd
    steps: dict[Window, int | None] = {}
    if before.is_own and (limit is None or period != before.period):
        steps[_PERIODS[before.period]] = None
    if limit is not None:
        steps[_PERIODS[period]] = limit
    # In the order of their names, so that two changes do not wait for each other.
    for window in sorted(steps):
        amount = steps[window]
        if amount is None:
            await _lift_limit(tx, row, window, by=by)
        else:
            await _set_limit(tx, row, window, amount, by=by)


async def _set_limit(
    tx: WriteTx, row: KeyRow, window: Window, limit_nanos: int, *, by: ProvisioningPrincipal
) -> None:
    await allowances.set_limit(
        tx,
        account_id=row.account_id,
        scope=Scope("key", row.id),
        resource=Resource.COST,
        window=window,
        model="",
        limit=limit_nanos,
        soft=None,
        by=by,
    )


async def _lift_limit(
    tx: WriteTx, row: KeyRow, window: Window, *, by: ProvisioningPrincipal
) -> None:
    await allowances.remove_limit(
        tx,
        account_id=row.account_id,
        scope=Scope("key", row.id),
        resource=Resource.COST,
        window=window,
        model="",
        by=by,
    )


def _settings(own: Rights, networks: Sequence[str] | None) -> KeySettings:
    """What Venice has no words for is as wide as with the key that asks."""
    return KeySettings(
        project_id=own.project_id,
        environment=own.environment,
        models=own.models,
        endpoints=own.endpoints,
        networks=networks or own.networks,
    )


def _check_meant(asked: NewKeyFields | KeyFields) -> None:
    """Refuse what has no counterpart here, instead of taking it and doing nothing."""
    limit = asked.consumption_limit
    if limit is not None and (limit.diem is not None or limit.vcu is not None):
        message = "There are no DIEM or VCU here: limit a key in usd."
        raise Invalid("invalid_value", message, param="consumptionLimit")
    if asked.model_privacy not in {None, "ALL"}:
        message = "Models have no privacy tiers here: the only one is ALL."
        raise Invalid("invalid_value", message, param="modelPrivacy")


def _expiry(text: str | None) -> int | None:
    return fields.parse_moment(text, param="expiresAt") if text else None


@contextmanager
def _named() -> Iterator[None]:
    """Have refusals name the fields as they were sent."""
    try:
        yield
    except BursarError as error:
        error.param = _NAMES.get(error.param or "", error.param)
        raise


def _budget(limits: Sequence[Limit]) -> Budget:
    found = {
        limit.allowance.ref.window: limit.allowance
        for limit in limits
        if limit.allowance.ref.resource == Resource.COST and not limit.allowance.ref.model
    }
    for period, window in _PERIODS.items():
        row = found.get(window)
        if row is not None and row.limit is not None:
            return Budget(period, row.limit, row.used, row.origin == OWN)
    lifelong = found.get(Window.LIFETIME)
    return Budget("LIFETIME", None, lifelong.used if lifelong else 0, is_own=False)


def _shape(view: KeyView) -> dict[str, Any]:
    row = view.row
    kind = KeyKind(row.kind)
    budget = _budget(view.limits if kind is KeyKind.INFERENCE else ())
    limit = None if budget.limit_nanos is None else fields.usd(budget.limit_nanos)
    networks = permissions.parse_networks(row.networks or ())
    return {
        "id": str(row.id),
        "apiKeyType": _KINDS[kind],
        "description": row.name,
        "last6Chars": row.last6,
        "createdAt": fields.format_moment(row.created_ms),
        "expiresAt": _moment(row.expires_ms),
        "lastUsedAt": _moment(view.last_used_ms),
        "consumptionLimits": {"usd": limit, "diem": None, "vcu": None},
        "limitPeriod": budget.period,
        "modelPrivacy": "ALL",
        "ipAllowlist": [network.with_prefixlen for network in networks],
        "usage": {"trailingSevenDays": _spent(view.spent_nanos)},
        "currentPeriodUsage": _spent(budget.used_nanos),
        "is_active": row.is_enabled,
    }


def _spent(nanos: int) -> dict[str, str]:
    return {"usd": fields.usd_text(nanos), "diem": "0", "vcu": "0"}


def _moment(at_ms: int | None) -> str | None:
    return None if at_ms is None else fields.format_moment(at_ms)
