"""What limits there are in a simulation besides credit, and how they change.

Owns the draw: of keys' own limits, of those that only warn, of what a plan gives. Each that counts
is there before the first call. Must not know workers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import update

from bursar.core.allowances import AllowanceRef, Resource
from bursar.core.windows import Window
from bursar.service.limits import allowances, plans
from bursar.service.limits.rules import parse_scope
from bursar.store.limits import allowances as rows
from bursar.store.limits import plans as plan_rows
from bursar.store.limits.plans import DEFAULT_PLAN_ID
from bursar.store.tables import allowances as table

Change = tuple[str, Callable[[Any], Any]]


class Limitation(NamedTuple):
    """A limit that there may be: of what, for which models, and one of these amounts."""

    resource: str
    window: str
    model: str
    amounts: tuple[int, ...]


_HARD: Final = (
    Limitation("requests", "minute", "", (5, 20)),
    Limitation("requests", "hour", "mod*", (10, 40)),
    Limitation("tokens", "minute", "", (300, 3_000)),
    Limitation("tokens", "day", "other", (300, 3_000)),
    Limitation("cost", "hour", "", (2_000, 20_000)),
    Limitation("concurrency", "lifetime", "", (2, 4)),
    Limitation("concurrency", "lifetime", "mode?", (2, 4)),
)
# What stops nobody, and is counted all the same.
_SOFT: Final = (
    Limitation("cost", "hour", "", (1_000,)),
    Limitation("requests", "minute", "mode-?", (2,)),
    Limitation("cost", "lifetime", "", (1_000,)),
)
# What a plan gives to every key or account, the unlimited too: nothing that would keep the last
# cent back.
_GIVEN: Final = (
    ("key", Limitation("requests", "minute", "", (15, 60))),
    ("key", Limitation("concurrency", "lifetime", "", (6,))),
    ("account", Limitation("tokens", "hour", "mod*", (2_000, 20_000))),
)


async def make_plan(tx: Any, rng: random.Random) -> None:
    """What accounts have of their plan; nobody has a row for it until it is used."""
    for kind, limit in _GIVEN:
        if rng.random() < 0.3:
            await _set_plan(
                tx,
                kind=kind,
                resource=Resource(limit.resource),
                window=Window(limit.window),
                model=limit.model,
                default=None,
                most=rng.choice(limit.amounts),
            )


async def limit(tx: Any, rng: random.Random, account_id: int, key_id: int) -> None:
    """Limit a key."""
    for ref, amount in _draw(rng, _HARD, account_id, f"key:{key_id}"):
        await rows.insert_allowance(tx, ref=ref, limit=amount)


async def warn(tx: Any, rng: random.Random, account_id: int) -> None:
    """Have an account warned."""
    for ref, amount in _draw(rng, _SOFT, account_id, "account"):
        await rows.insert_allowance(tx, ref=ref, limit=None)
        c = table.c
        of_ref = (c.account_id == account_id, c.scope == ref.scope, c.resource == ref.resource)
        statement = update(table).where(*of_ref, c.window_name == ref.window)
        await tx.execute(statement.values(soft_amount=amount))


async def draw_change(tx: Any, rng: random.Random, account_id: int) -> Change | None:
    """Another amount for a limit that a key has: a new one would not count what was before."""
    found = await rows.list_limits(tx, account_id=account_id)
    refs = [
        row.ref
        for row in found
        if row.ref.scope.startswith("key:") and row.ref.window != Window.LIFETIME
    ]
    if not refs:
        return None
    ref, amount = rng.choice(refs), rng.choice((0, 5, 50, 500))
    return f"{ref.name} is {amount} now", partial(_set, ref=ref, amount=amount)


async def draw_plan_change(tx: Any, rng: random.Random) -> Change | None:
    """Another amount for what the plan gives."""
    lines = (await plan_rows.list_limits(tx, plan_ids=[DEFAULT_PLAN_ID]))[DEFAULT_PLAN_ID]
    if not lines:
        return None
    line, amount = rng.choice(lines), rng.choice((3, 30, 300))
    work = partial(
        _set_plan,
        kind=line.scope_kind,
        resource=Resource(line.resource),
        window=Window(line.window),
        model=line.model,
        default=amount,
        most=None,
    )
    return f"plan gives {amount} {line.resource}", work


def _draw(
    rng: random.Random, limits: Sequence[Limitation], account_id: int, scope: str
) -> list[tuple[AllowanceRef, int]]:
    return [
        (
            AllowanceRef(account_id, scope, each.resource, each.window, each.model),
            rng.choice(each.amounts),
        )
        for each in limits
        if rng.random() < 0.3
    ]


async def _set_plan(tx: Any, **values: Any) -> None:
    await plans.set_limit(tx, plan_id=DEFAULT_PLAN_ID, **values)


async def _set(tx: Any, *, ref: AllowanceRef, amount: int) -> None:
    await allowances.set_limit(
        tx,
        account_id=ref.account_id,
        scope=parse_scope(ref.scope),
        resource=Resource(ref.resource),
        window=Window(ref.window),
        model=ref.model,
        limit=amount,
        soft=None,
    )
