"""The account's money as Venice shows it: balance, summary, analytics.

Owns their shapes. An inference key may ask for analytics and sees its own use: the rest of the
account is no business of those who were handed a key. Must not know how usage is summed.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

from starlette.responses import Response

from bursar.core.allowances import Allowance
from bursar.core.errors import Invalid
from bursar.dialects.venice import fields
from bursar.edge.calls import Call, reply
from bursar.edge.fields import format_day
from bursar.service import analytics, ledger
from bursar.service.access import InferencePrincipal, ProvisioningPrincipal
from bursar.service.analytics import DAY_MS, Analytics
from bursar.store.usage import Sum

_LOOKBACK: Final = re.compile(r"([1-9][0-9]{0,3})d")
_DEFAULT_DAYS: Final = 7


async def show_balance(call: Call[ProvisioningPrincipal]) -> Response:
    """What the account has left, with the fields of older clients beside it."""
    return reply(_balance(await _wallet(call)))


async def show_summary(call: Call[ProvisioningPrincipal]) -> Response:
    """The same for clients of a former version."""
    return reply({"data": _balance(await _wallet(call))})


async def show_analytics(call: Call[InferencePrincipal] | Call[ProvisioningPrincipal]) -> Response:
    """What was used by day, model and key in the last days, or from one day to another."""
    caller, plane = call.caller, call.plane
    lookback, from_ms, to_ms = _span(call, now_ms=plane.now_ms())
    own_id = caller.key_id if isinstance(caller, InferencePrincipal) else None
    await plane.database.catch_up()
    async with plane.database.read() as tx:
        report = await analytics.analyse(
            tx, account_id=caller.account_id, from_ms=from_ms, to_ms=to_ms, key_id=own_id
        )
    days = range(from_ms, to_ms, DAY_MS)
    return reply({"lookback": lookback, **_analytics(report, days)})


async def _wallet(call: Call[ProvisioningPrincipal]) -> Allowance:
    await call.plane.database.catch_up()
    async with call.plane.database.read() as tx:
        return await ledger.get_wallet(tx, account_id=call.caller.account_id)


def _balance(wallet: Allowance) -> dict[str, Any]:
    left = wallet.left or 0
    return {
        "canConsume": left > 0,
        "consumptionCurrency": "USD",
        "balances": {"usd": fields.usd(left), "diem": None},
        "diemEpochAllocation": 0,
        "current_balance": fields.usd(left),
        "total_spent": fields.usd(wallet.used),
        "subscription_status": "active",
        "last_payment": None,
        "next_billing_date": None,
    }


def _span(call: Call[Any], *, now_ms: int) -> tuple[str, int, int]:
    """The span as Venice names it, its first day's start and its last day's end."""
    query, today_ms = call.query, now_ms - now_ms % DAY_MS
    lookback = query.find("lookback")
    first, last = fields.find_day(query, "startDate"), fields.find_day(query, "endDate")
    if first is not None and last is not None and lookback is None:
        if last < first:
            raise Invalid("invalid_range", "The last day is before the first.", param="endDate")
        return f"{format_day(first)}:{format_day(last)}", first, last + DAY_MS
    if first is not None or last is not None:
        message = "Give startDate and endDate, or lookback alone."
        raise Invalid("invalid_value", message, param="startDate")
    match = _LOOKBACK.fullmatch(lookback or f"{_DEFAULT_DAYS}d")
    days = 0 if match is None else int(match[1])
    if not 1 <= days <= analytics.MOST_DAYS:
        message = f"A lookback is 1d to {analytics.MOST_DAYS}d."
        raise Invalid("invalid_value", message, param="lookback")
    return f"{days}d", today_ms - (days - 1) * DAY_MS, today_ms + DAY_MS


def _analytics(report: Analytics, days: Iterable[int]) -> dict[str, Any]:
    of_days = dict(report.by_day)
    nothing = Sum(0, 0, 0, 0)
    names = {key_id: report.names.get(key_id, "") for key_id in report.top_keys}
    return {
        "byDate": [
            {
                "date": format_day(day),
                "USD": fields.usd(of_days.get(day, nothing).cost_nanos),
                "DIEM": 0,
            }
            for day in days
        ],
        "byModel": [
            {"modelName": model, "unitType": "tokens", "modelType": None, **_total(sums)}
            for model, sums in report.by_model
        ],
        # In DIEM, of which there are none; the amounts in USD are in the list below.
        "byModelDaily": [],
        "byModelDailyUsd": [
            {
                "date": day,
                **{m: fields.usd(report.models_by_day.get((day, m), 0)) for m in report.top_models},
            }
            for day in days
        ],
        "topModels": report.top_models,
        "byKey": [
            {
                "apiKeyId": str(key_id),
                "description": report.names.get(key_id, ""),
                **_total(sums),
            }
            for key_id, sums in report.by_key
        ],
        "byKeyDaily": [],
        "byKeyDailyUsd": [{"date": day, **_keys_of(report, names, day)} for day in days],
        "topKeyNames": list(names.values()),
    }


def _total(sums: Sum) -> dict[str, Any]:
    return {
        "totalUsd": fields.usd(sums.cost_nanos),
        "totalDiem": 0,
        "totalUnits": sums.input_tokens + sums.output_tokens,
    }


def _keys_of(report: Analytics, names: dict[int, str], day: int) -> dict[str, Any]:
    """What the dearest keys cost on a day by their names; keys of one name count together."""
    found: dict[str, int] = {}
    for key_id, name in names.items():
        found[name] = found.get(name, 0) + report.keys_by_day.get((day, key_id), 0)
    return {name: fields.usd(nanos) for name, nanos in found.items()}
