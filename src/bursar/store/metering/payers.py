"""Payers: whose allowances pay for what is reported to have been used.

Owns reading keys, living or not, with the limits of their scopes. Must not know what was used, or
when a deleted key may still have been.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sqlalchemy import and_, select

from bursar.core.allowances import Allowance
from bursar.core.secrets import KeyKind
from bursar.store import credentials
from bursar.store.database import ReadTx
from bursar.store.keys import decode_labels
from bursar.store.limits import allowances, plans
from bursar.store.tables import accounts, keys, projects

# The key of what no key was used for.
NOBODY = 0


@dataclass(frozen=True, slots=True)
class Payer:
    """A key, or nobody (the account alone), and the limits that apply, in the order of locking.

    `deleted_ms` None is a living key; `labels` go with whatever it is used for.
    """

    key_id: int
    user_id: int | None
    project_id: int | None
    deleted_ms: int | None
    limits: tuple[Allowance, ...] = field(hash=False)
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)


async def list_payers(tx: ReadTx, *, account_id: int, key_ids: Collection[int]) -> dict[int, Payer]:
    """Return the account's inference keys of these ids, and nobody; unknown ones are absent."""
    query = (
        select(
            keys.c.id,
            keys.c.user_id,
            keys.c.project_id,
            keys.c.deleted_ms,
            keys.c.labels,
            projects.c.labels.label("project_labels"),
        )
        .select_from(
            keys.outerjoin(
                projects,
                and_(
                    projects.c.account_id == keys.c.account_id, projects.c.id == keys.c.project_id
                ),
            )
        )
        .where(
            keys.c.account_id == account_id,
            keys.c.kind == KeyKind.INFERENCE,
            keys.c.id.in_(key_ids),
        )
    )
    rows = list(await tx.execute(query))
    scopes = {row.id: credentials.scopes_of(row) for row in rows}
    scopes[NOBODY] = ("wallet", "account")
    wanted = {(account_id, scope) for each in scopes.values() for scope in each}
    limits = await allowances.list_by_scope(tx, wanted=wanted)
    plan_id = (
        await tx.execute(select(accounts.c.plan_id).where(accounts.c.id == account_id))
    ).scalar_one()
    lines = (await plans.list_limits(tx, plan_ids=[plan_id]))[plan_id]

    def limits_of(key_id: int) -> tuple[Allowance, ...]:
        return credentials.limits_of(limits, account_id, scopes[key_id], lines=lines)

    found = {NOBODY: Payer(NOBODY, None, None, None, limits_of(NOBODY))}
    for row in rows:
        labels = {**decode_labels(row.project_labels), **decode_labels(row.labels)}
        found[row.id] = Payer(
            row.id, row.user_id, row.project_id, row.deleted_ms, limits_of(row.id), labels
        )
    return found
