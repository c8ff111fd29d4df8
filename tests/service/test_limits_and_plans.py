"""Limits and plans, against a model of them and against each other.

Whatever people and operators do, in whatever order or at once, a limit is what was set, else what
the plan gives, and never more than the plan allows.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import pytest
from sqlalchemy import select

from bursar.core.allowances import AllowanceRef, Resource
from bursar.core.errors import BursarError, Invalid, NotFound
from bursar.core.windows import Window
from bursar.service.accounts import Installation
from bursar.service.limits import allowances, plans
from bursar.service.limits.allowances import Filter
from bursar.service.limits.rules import Scope
from bursar.store.database import Database, WriteTx
from bursar.store.limits import plans as stored_plans
from bursar.store.plane import leases, workers
from bursar.store.plane.leases import Want
from bursar.store.tables import allowances as rows
from tests.databases import Clock

SCOPES = (Scope("account", 0), Scope("key", 3), Scope("user", 1))
KINDS = ("account", "key", "user")
WHAT = (
    (Resource.REQUESTS, Window.DAY, ""),
    (Resource.TOKENS, Window.MONTH, "gpt-*"),
    (Resource.COST, Window.LIFETIME, ""),
)
Line = tuple[str, Resource, Window, str]
Shown = tuple[int | None, int | None, str]
PLAN_IDS = (1, 2)


@dataclass
class Model:
    """What the limits should be."""

    plan_id: int = 1
    lines: dict[int, dict[Line, tuple[int | None, int | None]]] = field(
        default_factory=lambda: {plan_id: {} for plan_id in PLAN_IDS}
    )
    own: dict[tuple[Scope, Line], tuple[int | None, int | None]] = field(default_factory=dict)

    def most(self, line: Line) -> int | None:
        """The plan's bound."""
        return self.lines[self.plan_id].get(line, (None, None))[1]

    def clamp(self) -> None:
        """Lower what is above the present plan's bounds."""
        for (scope, line), (limit, soft) in self.own.items():
            most = self.most(line)
            if most is not None and (limit is None or limit > most):
                self.own[scope, line] = (most, soft)

    def shown(self, scope: Scope) -> dict[str, Shown]:
        """What the scope should be shown."""
        found: dict[str, Shown] = {}
        for what in WHAT:
            line: Line = (scope.kind, *what)
            name = AllowanceRef(1, scope.name, *what).name
            given = self.lines[self.plan_id].get(line)
            if (scope, line) in self.own:
                found[name] = (*self.own[scope, line], "own")
            elif given is not None:
                found[name] = (given[1] if given[0] is None else given[0], None, "plan")
            elif name == "key:3/cost/lifetime":
                found[name] = (None, None, "own")
        return found


async def set_limit(
    database: Database, scope: Scope, line: Line, limit: int | None, soft: int | None
) -> None:
    async def work(tx: WriteTx) -> None:
        _, resource, window, model = line
        await allowances.set_limit(
            tx,
            account_id=1,
            scope=scope,
            resource=resource,
            window=window,
            model=model,
            limit=limit,
            soft=soft,
        )

    await database.transact(work)


async def remove_limit(database: Database, scope: Scope, line: Line) -> None:
    async def work(tx: WriteTx) -> None:
        _, resource, window, model = line
        await allowances.remove_limit(
            tx, account_id=1, scope=scope, resource=resource, window=window, model=model
        )

    await database.transact(work)


async def set_line(
    database: Database, plan_id: int, line: Line, default: int | None, most: int | None
) -> None:
    async def work(tx: WriteTx) -> None:
        kind, resource, window, model = line
        await plans.set_limit(
            tx,
            plan_id=plan_id,
            kind=kind,
            resource=resource,
            window=window,
            model=model,
            default=default,
            most=most,
        )

    await database.transact(work)


async def remove_line(database: Database, plan_id: int, line: Line) -> None:
    async def work(tx: WriteTx) -> None:
        kind, resource, window, model = line
        await plans.remove_limit(
            tx, plan_id=plan_id, kind=kind, resource=resource, window=window, model=model
        )

    await database.transact(work)


async def give(database: Database, plan_id: int) -> None:
    async def work(tx: WriteTx) -> None:
        await plans.give(tx, account_id=1, plan_id=plan_id)

    await database.transact(work)


async def lease_one(database: Database, worker_id: int, scope: Scope, line: Line) -> None:
    """Lease from it as a worker does that knows it only from the plan."""

    async def work(tx: WriteTx) -> None:
        ref = AllowanceRef(1, scope.name, *line[1:])
        want = Want(ref, 0, 1, 1, 0, is_stored=False)
        await leases.take(tx, worker_id=worker_id, wants=[want])

    await database.transact(work)


async def shown(database: Database, scope: Scope, clock: Clock) -> dict[str, Shown]:
    async with database.read() as tx:
        found = await allowances.list_limits(
            tx, account_id=1, now_ms=clock.now_ms, where=Filter(scope=scope)
        )
    return {
        limit.allowance.ref.name: (
            limit.allowance.limit,
            limit.allowance.soft,
            limit.allowance.origin,
        )
        for limit in found
    }


async def make_worker(database: Database) -> int:
    async with database.write() as tx:
        await plans.create(tx, name="Other")
        return await workers.insert_worker(tx, host="test")


def amounts(rng: random.Random) -> tuple[int | None, int | None]:
    """The larger of two amounts and the smaller one, or only one of them."""
    small, large = sorted(rng.sample(range(1, 40), 2))
    return rng.choice([(large, small), (large, None), (None, small)])


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_limit_is_what_was_set_else_the_plans_and_never_above_its_bound(
    database: Database, installation: Installation, clock: Clock, seed: int
) -> None:
    rng = random.Random(seed)
    model = Model()
    worker_id = await make_worker(database)
    for step in range(50):
        scope = rng.choice(SCOPES)
        line: Line = (scope.kind, *rng.choice(WHAT))
        what = rng.choice(["set", "set", "remove", "line", "line", "unline", "give", "lease"])
        if what == "lease":
            await lease_one(database, worker_id, scope, line)
        elif what in {"set", "remove"}:
            await change_own(database, model, rng, scope, line, is_set=what == "set")
        else:
            await change_plan(database, model, rng, line, what=what)
        model.clamp()
        for each in SCOPES:
            assert await shown(database, each, clock) == model.shown(each), (seed, step, what)


async def change_own(
    database: Database, model: Model, rng: random.Random, scope: Scope, line: Line, *, is_set: bool
) -> None:
    if not is_set:
        if model.own.pop((scope, line), None) is None:
            with pytest.raises(NotFound):
                await remove_limit(database, scope, line)
        else:
            await remove_limit(database, scope, line)
        return
    limit, soft = amounts(rng)
    most = model.most(line)
    if most is not None and limit is not None and limit > most:
        with pytest.raises(Invalid, match="does not allow that much"):
            await set_limit(database, scope, line, limit, soft)
        return
    await set_limit(database, scope, line, limit, soft)
    model.own[scope, line] = (most if limit is None else limit, soft)


async def change_plan(
    database: Database, model: Model, rng: random.Random, line: Line, *, what: str
) -> None:
    plan_id = rng.choice(PLAN_IDS)
    if what == "line":
        most, default = amounts(rng)
        await set_line(database, plan_id, line, default, most)
        model.lines[plan_id][line] = (default, most)
    elif what == "give":
        await give(database, plan_id)
        model.plan_id = plan_id
    elif model.lines[plan_id].pop(line, None) is None:
        with pytest.raises(NotFound):
            await remove_line(database, plan_id, line)
    else:
        await remove_line(database, plan_id, line)


async def open_transaction(
    database: Database, first: Callable[[WriteTx], Awaitable[object]], then: Awaitable[None]
) -> asyncio.Task[None]:
    """Do `first`, and begin `then` before that is committed: it has to wait."""
    async with database.write() as tx:
        await first(tx)
        task = asyncio.ensure_future(then)
        await asyncio.sleep(0.2)
        assert not task.done(), "it did not wait for what it depends on"
    return task


KEY: Final = SCOPES[1]
DAY: Final = WHAT[0]
OWN_LIMIT: Final[dict[str, Any]] = {
    "account_id": 1,
    "scope": KEY,
    "resource": DAY[0],
    "window": DAY[1],
    "model": DAY[2],
}
PLAN_LINE: Final[dict[str, Any]] = {
    "plan_id": 1,
    "kind": "key",
    "resource": DAY[0],
    "window": DAY[1],
    "model": DAY[2],
}


async def test_a_bound_waits_for_limits_that_were_judged_without_it(
    database: Database, installation: Installation
) -> None:
    task = await open_transaction(
        database,
        partial(allowances.set_limit, **OWN_LIMIT, limit=40, soft=None),
        set_line(database, 1, ("key", *DAY), None, 10),
    )
    await task
    await require_agreement(database, least=1)


async def test_a_limit_waits_for_the_bound_that_it_is_judged_by(
    database: Database, installation: Installation
) -> None:
    setting = partial(plans.set_limit, **PLAN_LINE, default=None, most=10)
    lifting = partial(plans.remove_limit, **PLAN_LINE)
    for change, code in ((setting, "limit_above_bound"), (lifting, None)):
        task = await open_transaction(
            database, change, set_limit(database, KEY, ("key", *DAY), 40, None)
        )
        (refused,) = await asyncio.gather(task, return_exceptions=True)
        assert getattr(refused, "code", None) == code
        await require_agreement(database, least=1 if code is None else 0)


async def test_a_row_that_a_first_lease_makes_waits_for_the_accounts_new_plan(
    database: Database, installation: Installation, clock: Clock
) -> None:
    worker_id = await make_worker(database)
    await set_line(database, 1, ("key", *DAY), 10, None)
    await set_line(database, 2, ("key", *DAY), 20, None)
    task = await open_transaction(
        database,
        partial(plans.give, account_id=1, plan_id=2),
        lease_one(database, worker_id, KEY, ("key", *DAY)),
    )
    await task
    assert (await shown(database, KEY, clock))["key:3/requests/day"] == (20, None, "plan")
    await require_agreement(database, least=1)


async def test_limits_plans_and_leases_that_change_at_once_agree_afterwards(
    database: Database, installation: Installation
) -> None:
    worker_id = await make_worker(database)
    cases = [(scope, (scope.kind, *what)) for scope in SCOPES for what in WHAT]
    turns = itertools.count()

    async def setter(rng: random.Random) -> None:
        scope, line = rng.choice(cases)
        limit, soft = amounts(rng)
        if rng.random() < 0.3:
            await remove_limit(database, scope, line)
        else:
            await set_limit(database, scope, line, limit, soft)

    async def planner(rng: random.Random) -> None:
        _, line = rng.choice(cases)
        plan_id = rng.choice(PLAN_IDS)
        most, default = amounts(rng)
        if rng.random() < 0.3:
            await remove_line(database, plan_id, line)
        else:
            await set_line(database, plan_id, line, default, most)

    async def mover(rng: random.Random) -> None:
        await give(database, next(turns) % 2 + 1)

    async def leaser(rng: random.Random) -> None:
        await lease_one(database, worker_id, *rng.choice(cases))

    async def repeat(work: Callable[[random.Random], Awaitable[None]], seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(15):
            try:
                await work(rng)
            except BursarError as error:
                # What another one has lifted, or bounded, meanwhile.
                if error.code not in {"not_found", "limit_above_bound"}:
                    raise

    await asyncio.gather(
        *(
            repeat(work, seed)
            for seed, work in enumerate([setter, setter, planner, planner, mover, leaser, leaser])
        )
    )
    await require_agreement(database)


async def require_agreement(database: Database, *, least: int = 4) -> None:
    """Fail unless every row says what the account's plan and its owner say."""
    async with database.read() as tx:
        lines = {
            (line.scope_kind, line.resource, line.window, line.model): line
            for line in await stored_plans.list_account_limits(tx, account_id=1)
        }
        found: list[Any] = list(
            await tx.execute(select(rows).where(rows.c.account_id == 1, rows.c.scope != "wallet"))
        )
    assert len(found) >= least
    for row in found:
        kind = row.scope.partition(":")[0]
        line = lines.get((kind, row.resource, row.window_name, row.model))
        is_empty = row.limit_amount is None and row.soft_amount is None
        if row.origin == "plan" or is_empty:
            assert row.origin == ("own" if line is None else "plan"), row
            assert row.limit_amount == (None if line is None else line.effective), row
        elif line is not None and line.most is not None:
            assert row.limit_amount is not None, row
            assert row.limit_amount <= line.most, row
