"""Notes: what of a thing is put into the audit log when it is changed.

Owns the form of each noun there, in the words of the API, amounts of money and moments as texts.
Must not know who may change what.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

from bursar.core.allowances import Allowance, Resource
from bursar.core.audit import events
from bursar.core.audit.events import AuditAction, AuditEvent, Values
from bursar.core.money import format_usd
from bursar.core.prices import Price, format_rate
from bursar.store import audit
from bursar.store.database import WriteTx
from bursar.store.keys import KeyRow
from bursar.store.limits.plans import PlanLimit
from bursar.store.people import members
from bursar.store.people.members import MemberRow
from bursar.store.tenants.accounts import AccountRow
from bursar.store.tenants.projects import ProjectRow

_PER_MILLION: Final = 10**6
# Of an account: its id is the log's own, and when it was opened is when its first row was written.
_NOT_OF_ACCOUNTS: Final = ("id", "created_ms")


def note(
    tx: WriteTx,
    *,
    account_id: int,
    action: AuditAction,
    target: str,
    before: Values | None = None,
    after: Values | None = None,
    actor: str | None = None,
) -> None:
    """Note what was done with `target`; of what was and is, only the difference.

    Nothing is noted where both are given and equal: then nothing was changed.
    """
    if before is not None and after is not None:
        before, after = events.find_changes(before, after)
        if not after:
            return
    audit.record(
        tx,
        AuditEvent(
            account_id=account_id,
            action=action,
            target=target,
            before=before,
            after=after,
            actor=actor,
        ),
    )


async def note_of_person(
    tx: WriteTx,
    *,
    user_id: int,
    action: AuditAction,
    target: str,
    before: Values | None = None,
    after: Values | None = None,
    actor: str | None = None,
) -> None:
    """Note what becomes of somebody, wherever they act, in every account that they belong to.

    It is the same person, password and second factor in all of them. Of who belongs to none it is
    noted where it is done.
    """
    own = {row.account_id for row in await members.list_memberships(tx, user_id=user_id)}
    for account_id in sorted(own or {tx.origin.account_id}):
        note(
            tx,
            account_id=account_id,
            action=action,
            target=target,
            before=before,
            after=after,
            actor=actor,
        )


def of_account(row: AccountRow) -> Values:
    """What of an account can change."""
    return {name: value for name, value in asdict(row).items() if name not in _NOT_OF_ACCOUNTS}


def of_key(row: KeyRow) -> Values:
    """What of a key can change, and the end of its secret, by which people know it."""
    limit = row.credit_limit_nanos
    return {
        "kind": row.kind,
        "name": row.name,
        "hint": row.last6,
        "is_enabled": row.is_enabled,
        "expires_at": moment(row.expires_ms),
        "user_id": row.user_id,
        "project_id": row.project_id,
        "environment": row.environment,
        "description": row.description,
        "labels": dict(row.labels),
        "label_names": _list(row.label_names),
        "models": _list(row.models),
        "endpoints": _list(row.endpoints),
        "networks": _list(row.networks),
        "credit_limit": None if limit is None else format_usd(limit),
    }


def of_limit(row: Allowance | None) -> Values | None:
    """What a limit says; None for one that is not set."""
    if row is None or (row.limit is None and row.soft is None):
        return None
    return _limits(row.ref.resource, limit=row.limit, soft_limit=row.soft)


def of_member(row: MemberRow) -> Values:
    """What an account knows of a person and can change."""
    return {"email": row.email, "name": row.name, "role": row.role, "is_enabled": row.is_enabled}


def of_plan_limit(line: PlanLimit | None) -> Values | None:
    """What a limit of a plan says; None for one that is not there."""
    if line is None:
        return None
    return _limits(line.resource, default_limit=line.default, most_limit=line.most)


def of_price(row: Price | None) -> Values | None:
    """A version of a price; None where there was none."""
    if row is None:
        return None
    return {
        "model": row.model,
        "product": row.product,
        "is_free": row.is_free,
        "per_million": _rates(row.per_token, per=_PER_MILLION),
        "per_unit": _rates(row.per_unit),
        "tiers": [
            {
                "above_input_tokens": tier.above_input_tokens,
                "per_million": _rates(tier.per_token, per=_PER_MILLION),
            }
            for tier in row.tiers
        ],
        "context_window": row.context_window,
        "max_output_tokens": row.max_output_tokens,
        "effective_at": moment(row.effective_ms),
        "source": row.source,
    }


def of_project(row: ProjectRow) -> Values:
    """What of a project can change."""
    return {"name": row.name, "description": row.description, "labels": dict(row.labels)}


def plan_limit_target(plan_id: int, line: PlanLimit) -> str:
    """What a limit of a plan is called."""
    name = f"plan:{plan_id}/{line.scope_kind}/{line.resource}/{line.window}"
    return f"{name}/{line.model}" if line.model else name


def moment(at_ms: int | None) -> str | None:
    """A moment as ISO 8601 in UTC."""
    if at_ms is None:
        return None
    return f"{datetime.fromtimestamp(at_ms / 1_000, UTC).replace(tzinfo=None).isoformat()}Z"


def _limits(resource: str, **amounts: int | None) -> Values:
    is_money = resource == Resource.COST
    return {
        name: format_usd(amount) if is_money and amount is not None else amount
        for name, amount in amounts.items()
    }


def _list(items: tuple[str, ...] | None) -> list[str] | None:
    return None if items is None else list(items)


def _rates(rates: Mapping[str, int], *, per: int = 1) -> dict[str, str]:
    return {meter: format_rate(rate, per=per) for meter, rate in rates.items()}
