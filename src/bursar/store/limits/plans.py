"""Plans: what accounts get where they have set nothing, and the most that they may set.

Owns the tables `plans` and `plan_limits`, and keeping the allowances that follow from them true to
them. Whoever sets a limit holds the account's plan meanwhile (`hold_plan`), and whoever changes a
plan waits for them, so that no limit is judged by a plan that has just changed. Must not know who
may change a plan.

Order of locking: account and plan, then allowances, then everything else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from bursar.core.allowances import OWN, PLAN
from bursar.store import counters
from bursar.store.database import POSTGRESQL, ReadTx, WriteTx
from bursar.store.tables import accounts, allowances, plan_limits, plans

DEFAULT_PLAN_ID: Final = 1
_MANY: Final = 500
_PRIMARY_KEY: Final = tuple(allowances.primary_key.columns)


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A plan; its limits are `PlanLimit`s."""

    id: int
    name: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class PlanLimit:
    """What each scope of a kind gets, in the resource's unit: `default` unless it sets its own.

    Nobody may set more than `most`. None is no limit, and no bound.
    """

    scope_kind: str
    resource: str
    window: str
    model: str
    default: int | None
    most: int | None

    @property
    def effective(self) -> int | None:
        """The limit of whoever has set none: no limit at all is as much as one may have."""
        return self.most if self.default is None else self.default


async def hold_plan(tx: WriteTx, *, account_id: int) -> int | None:
    """Return the account's plan, and keep both from changing until commit; None: no account."""
    query = (
        select(plans.c.id)
        .join_from(accounts, plans, plans.c.id == accounts.c.plan_id)
        .where(accounts.c.id == account_id)
        .with_for_update(read=True)
    )
    found: int | None = (await tx.execute(query)).scalar_one_or_none()
    return found


async def lock_account(tx: WriteTx, *, account_id: int) -> int | None:
    """Return the account's plan, which the caller is going to change; None: no account."""
    query = select(accounts.c.plan_id).where(accounts.c.id == account_id).with_for_update()
    found: int | None = (await tx.execute(query)).scalar_one_or_none()
    return found


async def lock_plan(tx: WriteTx, *, plan_id: int) -> PlanRow | None:
    """Return a plan that the caller is going to change; others who hold it are waited for."""
    query = select(plans).where(plans.c.id == plan_id).with_for_update()
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else PlanRow(**row._mapping)


async def find_plan(tx: ReadTx, *, plan_id: int) -> PlanRow | None:
    """Return a plan, or None."""
    row = (await tx.execute(select(plans).where(plans.c.id == plan_id))).one_or_none()
    return None if row is None else PlanRow(**row._mapping)


async def find_plan_id(tx: ReadTx, *, name: str) -> int | None:
    """Return the id of the plan of this name, or None."""
    query = select(plans.c.id).where(plans.c.name == name)
    found: int | None = (await tx.execute(query)).scalar_one_or_none()
    return found


async def list_plans(tx: ReadTx, *, after_id: int, limit: int) -> list[PlanRow]:
    """Return plans with ids above `after_id`, oldest first."""
    query = select(plans).where(plans.c.id > after_id).order_by(plans.c.id).limit(limit)
    return [PlanRow(**row._mapping) for row in await tx.execute(query)]


async def insert_plan(tx: WriteTx, *, name: str) -> PlanRow:
    """Store a plan without limits under a fresh id."""
    row = PlanRow(await counters.advance(tx, name="plans"), name, tx.now_ms)
    await tx.execute(insert(plans).values(id=row.id, name=name, created_ms=row.created_ms))
    return row


async def rename_plan(tx: WriteTx, *, plan_id: int, name: str) -> None:
    """Replace the plan's name."""
    await tx.execute(update(plans).where(plans.c.id == plan_id).values(name=name))


async def delete_plan(tx: WriteTx, *, plan_id: int) -> None:
    """Delete a plan that no account has, with its limits."""
    await tx.execute(delete(plan_limits).where(plan_limits.c.plan_id == plan_id))
    await tx.execute(delete(plans).where(plans.c.id == plan_id))


async def is_in_use(tx: ReadTx, *, plan_id: int) -> bool:
    """Whether an account has the plan."""
    query = select(accounts.c.id).where(accounts.c.plan_id == plan_id).limit(1)
    return (await tx.execute(query)).first() is not None


async def set_account_plan(tx: WriteTx, *, account_id: int, plan_id: int) -> None:
    """Give the account another plan; its allowances follow by `align`."""
    await tx.execute(update(accounts).where(accounts.c.id == account_id).values(plan_id=plan_id))


async def list_limits(tx: ReadTx, *, plan_ids: Sequence[int]) -> dict[int, list[PlanLimit]]:
    """Return the limits of these plans, by plan id, each list in a fixed order."""
    found: dict[int, list[PlanLimit]] = {plan_id: [] for plan_id in plan_ids}
    query = select(plan_limits).where(plan_limits.c.plan_id.in_(plan_ids))
    for row in await tx.execute(query):
        found[row.plan_id].append(_line(row))
    for lines in found.values():
        lines.sort(key=lambda each: (each.scope_kind, each.resource, each.window, each.model))
    return found


async def list_account_limits(tx: ReadTx, *, account_id: int) -> list[PlanLimit]:
    """Return the limits of the account's plan."""
    query = (
        select(*plan_limits.columns)
        .join_from(accounts, plan_limits, plan_limits.c.plan_id == accounts.c.plan_id)
        .where(accounts.c.id == account_id)
    )
    return [_line(row) for row in await tx.execute(query)]


async def find_limit(
    tx: ReadTx, *, plan_id: int, scope_kind: str, resource: str, window: str, model: str
) -> PlanLimit | None:
    """Return one limit of a plan, or None."""
    query = select(plan_limits).where(_is(plan_id, scope_kind, resource, window, model))
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _line(row)


async def put_limit(tx: WriteTx, *, plan_id: int, line: PlanLimit) -> None:
    """Store a limit of a plan, or replace it; allowances follow by `align`."""
    values = {"default_amount": line.default, "most_amount": line.most}
    insertion: Any = postgresql.insert if tx.dialect == POSTGRESQL else sqlite.insert
    statement = insertion(plan_limits).values(
        plan_id=plan_id,
        scope_kind=line.scope_kind,
        resource=line.resource,
        window_name=line.window,
        model=line.model,
        **values,
    )
    await tx.execute(
        statement.on_conflict_do_update(index_elements=plan_limits.primary_key, set_=values)
    )


async def delete_limit(tx: WriteTx, *, plan_id: int, line: PlanLimit) -> None:
    """Delete a limit of a plan; allowances follow by `align`."""
    key = (line.scope_kind, line.resource, line.window, line.model)
    await tx.execute(delete(plan_limits).where(_is(plan_id, *key)))


async def lock_limits(tx: WriteTx, *, plan_ids: Sequence[int]) -> None:
    """Keep others from making allowances of these plans' limits until commit."""
    query = (
        select(plan_limits.c.plan_id)
        .where(plan_limits.c.plan_id.in_(plan_ids))
        .order_by(*plan_limits.primary_key.columns)
        .with_for_update()
    )
    await tx.execute(query)


async def align_plan(tx: WriteTx, *, plan_id: int, line: PlanLimit, is_gone: bool) -> None:
    """Have the allowances of all accounts of the plan follow one of its limits (see `align`)."""
    after_id = -1
    while True:
        # A statement must not take longer than a database may be silent, however many there are.
        query = (
            select(accounts.c.id)
            .where(accounts.c.plan_id == plan_id, accounts.c.id > after_id)
            .order_by(accounts.c.id)
            .limit(_MANY)
        )
        ids = list((await tx.execute(query)).scalars())
        if ids:
            await align(tx, account_ids=ids, line=line, is_gone=is_gone)
        if len(ids) < _MANY:
            return
        after_id = ids[-1]


async def align(tx: WriteTx, *, account_ids: Sequence[int], line: PlanLimit, is_gone: bool) -> None:
    """Have the allowances of these accounts follow a limit of their plan.

    Those that nobody has set get its default, and are nobody's when it `is_gone`; those that
    somebody has set above its bound are lowered to it. Windows, used and leased stay.
    """
    c = allowances.c
    rows = and_(
        c.account_id.in_(account_ids),
        c.scope == line.scope_kind
        if line.scope_kind == "account"
        else c.scope.startswith(f"{line.scope_kind}:"),
        c.resource == line.resource,
        c.window_name == line.window,
        c.model == line.model,
    )
    # In the order in which workers lock them, or two would wait for each other.
    locked = select(c.account_id).where(rows).order_by(*_PRIMARY_KEY).with_for_update().subquery()
    await tx.execute(select(func.count()).select_from(locked))
    nobodys = or_(c.origin == PLAN, and_(c.limit_amount.is_(None), c.soft_amount.is_(None)))
    values = {
        "limit_amount": None if is_gone else line.effective,
        "origin": OWN if is_gone else PLAN,
    }
    await tx.execute(update(allowances).where(rows, nobodys).values(**values))
    if line.most is not None and not is_gone:
        beyond = or_(c.limit_amount.is_(None), c.limit_amount > line.most)
        lowered = update(allowances).where(rows, beyond).values(limit_amount=line.most)
        await tx.execute(lowered)


def _line(row: Row[*tuple[Any, ...]]) -> PlanLimit:
    return PlanLimit(
        scope_kind=row.scope_kind,
        resource=row.resource,
        window=row.window_name,
        model=row.model,
        default=row.default_amount,
        most=row.most_amount,
    )


def _is(
    plan_id: int, scope_kind: str, resource: str, window: str, model: str
) -> ColumnElement[bool]:
    c = plan_limits.c
    return and_(
        c.plan_id == plan_id,
        c.scope_kind == scope_kind,
        c.resource == resource,
        c.window_name == window,
        c.model == model,
    )
