"""Rate limits as Venice shows them: what applies to the calling key, and which calls were refused.

Owns their shapes. A limit of ours may count one model or many, and several may apply to one call:
Venice knows one number for each model, resource and span, which is the least of them. Must not know
how limits are kept.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from starlette.responses import Response

from bursar.core import permissions
from bursar.core.allowances import Allowance, Resource
from bursar.core.windows import Window
from bursar.dialects.venice import fields
from bursar.dialects.venice.models import Served
from bursar.edge.calls import Call, Endpoint, reply
from bursar.service.access import InferencePrincipal, ProvisioningPrincipal
from bursar.service.limits import refusals, views
from bursar.store.limits.refusals import RefusalFilter, RefusalRow

# What says "no limit": the largest whole number that every JSON reader takes exactly. A limit that
# is left out counts as none left with venice-sdk.
UNLIMITED: Final = 2**53 - 1
_KINDS: Final = {
    (Resource.REQUESTS, Window.MINUTE): "RPM",
    (Resource.REQUESTS, Window.HOUR): "RPH",
    (Resource.REQUESTS, Window.DAY): "RPD",
    (Resource.TOKENS, Window.MINUTE): "TPM",
    (Resource.TOKENS, Window.HOUR): "TPH",
    (Resource.TOKENS, Window.DAY): "TPD",
}
# Always shown; the others only where there is such a limit.
_SHOWN: Final = ("RPM", "RPD", "TPM")
_TIER: Final = "paid"
_LOGGED: Final = 50
_MOST_LOGGED: Final = 1_000
_MOST_OFFSET: Final = 10_000


def shower(served: Served) -> Endpoint:
    """Return the endpoint that shows what applies to the calling key."""

    async def show_limits(call: Call[InferencePrincipal] | Call[ProvisioningPrincipal]) -> Response:
        caller, plane = call.caller, call.plane
        await plane.database.catch_up()
        async with plane.database.read() as tx:
            view = await views.view_key(
                tx, account_id=caller.account_id, key_id=caller.key_id, now_ms=plane.now_ms()
            )
        may_call = isinstance(caller, InferencePrincipal)
        shown = {
            "accessPermitted": may_call,
            "apiTier": {"id": _TIER, "isCharged": True},
            "balances": {"USD": fields.usd(view.spendable_nanos), "DIEM": 0},
            "keyExpiration": _moment(view.expires_ms),
            "nextEpochBegins": fields.format_moment(view.day_ends_ms),
            "rateLimits": [
                {"apiModelId": price.model, "rateLimits": _limits(view.allowances, price.model)}
                for price in served()
            ],
        }
        return reply({"data": shown})

    endpoint: Callable[..., Awaitable[Response]] = show_limits
    return endpoint


async def list_log(call: Call[ProvisioningPrincipal]) -> Response:
    """The account's last refusals by limits of requests, tokens and calls at once, newest first."""
    query, account_id = call.query, call.caller.account_id
    size = query.number("limit", low=1, high=_MOST_LOGGED, default=_LOGGED)
    page = query.number("page", low=1, high=_MOST_OFFSET, default=1)
    skipped = query.number("offset", low=0, high=_MOST_OFFSET, default=(page - 1) * size)
    where = RefusalFilter(
        key_id=query.id("api_key_id"),
        from_ms=fields.find_moment(query, "start_date"),
        to_ms=fields.find_moment(query, "end_date"),
        is_rate=True,
    )
    async with call.plane.database.read() as tx:
        found = await refusals.list_refusals(
            tx, account_id=account_id, where=where, behind=None, limit=skipped + size
        )
    return reply({"object": "list", "data": [_entry(row) for row in found[skipped:]]})


def _limits(allowances: Iterable[Allowance], model: str) -> list[dict[str, Any]]:
    least = dict.fromkeys(_SHOWN, UNLIMITED)
    for row in allowances:
        kind = _KINDS.get((Resource(row.ref.resource), Window(row.ref.window)))
        is_meant = not row.ref.model or permissions.matches(row.ref.model, model)
        if kind is not None and row.limit is not None and is_meant:
            least[kind] = min(least.get(kind, UNLIMITED), row.limit)
    return [{"type": kind, "amount": amount} for kind, amount in least.items()]


def _entry(row: RefusalRow) -> dict[str, Any]:
    known = (Resource(row.resource), Window(row.window_name))
    return {
        "apiKeyId": str(row.key_id),
        "modelId": row.model,
        "rateLimitTier": _TIER,
        "rateLimitType": _KINDS.get(known, f"{row.resource}_{row.window_name}".upper()),
        "timestamp": fields.format_moment(row.at_ms),
    }


def _moment(at_ms: int | None) -> str | None:
    return None if at_ms is None else fields.format_moment(at_ms)
