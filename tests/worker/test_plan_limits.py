"""What an account's plan gives holds from the first call on, everywhere, and follows the plan."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bursar.core import windows
from bursar.core.allowances import OWN, PLAN, Resource
from bursar.core.refusals import Deny
from bursar.core.windows import Window
from bursar.service import accounts
from bursar.service.accounts import AccountChange
from bursar.service.limits import allowances, plans
from bursar.service.limits.rules import Scope
from bursar.store import changes
from bursar.store.database import Database
from bursar.store.limits.plans import DEFAULT_PLAN_ID
from tests import soak
from tests.crowd import until
from tests.databases import Clock
from tests.worker.teams import Call, Team, gathered
from tests.worker.test_limits import DAY_MS, HOUR_MS, WORKERS, admitted, exhaust, pass_time

pytestmark = pytest.mark.soak


@pytest.fixture
async def team(database: Database, clock: Clock, tmp_path: Path) -> AsyncIterator[Team]:
    async with gathered(database, clock, tmp_path, count=WORKERS) as found:
        yield found


async def plan(
    team: Team, kind: str, default: int | None, *, most: int | None = None, model: str = ""
) -> None:
    """Have the plan of all accounts give so many requests an hour; workers hear of it in time."""
    async with team.database.write() as tx:
        await plans.set_limit(
            tx,
            plan_id=DEFAULT_PLAN_ID,
            kind=kind,
            resource=Resource.REQUESTS,
            window=Window.HOUR,
            model=model,
            default=default,
            most=most,
        )


async def known(team: Team) -> None:
    """Return once every worker has heard of all that has happened, and will not hear it later."""
    async with team.database.read() as tx:
        newest = await changes.get_last(tx)
    for worker in team.workers:
        await until(lambda feed=worker.feed: feed._cursor >= newest)  # type: ignore[misc]
        worker.keyring.clear()


@pytest.mark.parametrize("kind", ["account", "key"])
async def test_a_plans_default_holds_from_the_first_call_on_over_all_workers(
    team: Team, kind: str
) -> None:
    ref = team.ref(kind, "requests", "hour")
    await plan(team, kind, 20)
    await known(team)
    assert await team.stored(ref) is None
    assert await exhaust(team, 15) == 20
    row = await team.stored(ref)
    assert row is not None
    assert (row.limit, row.used, row.origin) == (20, 20, PLAN)
    refused = await team.call()
    assert isinstance(refused, Deny)
    assert (refused.allowance, refused.limit) == (ref.name, 20)
    team.clock.advance(HOUR_MS)
    assert await exhaust(team, 15) == 20


async def test_what_is_set_goes_before_the_plan_and_what_is_lifted_falls_back_to_it(
    team: Team,
) -> None:
    ref = team.ref("key", "requests", "hour")
    await plan(team, "key", 5)
    async with team.database.write() as tx:
        await allowances.set_limit(
            tx,
            account_id=team.account_id,
            scope=Scope("key", team.key_id),
            resource=Resource.REQUESTS,
            window=Window.HOUR,
            model="",
            limit=8,
            soft=None,
        )
    await known(team)
    assert await exhaust(team, 6) == 8
    row = await team.stored(ref)
    assert row is not None
    assert (row.limit, row.origin) == (8, OWN)
    async with team.database.write() as tx:
        await allowances.remove_limit(
            tx,
            account_id=team.account_id,
            scope=Scope("key", team.key_id),
            resource=Resource.REQUESTS,
            window=Window.HOUR,
            model="",
        )
    row = await team.stored(ref)
    assert row is not None
    assert (row.limit, row.used, row.origin) == (5, 8, PLAN)


async def test_a_bound_without_a_default_is_what_everybody_gets(team: Team) -> None:
    await plan(team, "account", None, most=7, model="gpt-*")
    await known(team)
    assert await exhaust(team, 5) == 7
    assert isinstance(await team.call(model="claude"), Call)


async def test_a_changed_plan_counts_everywhere_within_a_second(team: Team) -> None:
    ref = team.ref("account", "requests", "hour")
    await plan(team, "account", 1_000)
    await known(team)
    for call in await admitted(team, 12):
        call.sell()
    await plan(team, "account", 3)
    began_s, last_s = time.monotonic(), 0.0
    while time.monotonic() < began_s + 2:
        for call in await admitted(team, WORKERS):
            call.hold.release()
            last_s = time.monotonic() - began_s
        await pass_time(team)
    assert last_s < soak.at_most(1)
    async with team.database.write() as tx:
        await plans.remove_limit(
            tx,
            plan_id=DEFAULT_PLAN_ID,
            kind="account",
            resource=Resource.REQUESTS,
            window=Window.HOUR,
            model="",
        )
    began_s = time.monotonic()
    for number in range(WORKERS):
        while isinstance(await team.sell(number), Deny):
            assert time.monotonic() - began_s < soak.at_most(2)
            await pass_time(team)
    row = await team.stored(ref)
    assert row is not None
    assert (row.limit, row.used) == (None, 12 + WORKERS)


async def test_first_calls_and_changes_of_the_plan_at_once_leave_the_plans_limit(
    team: Team,
) -> None:
    """Whichever goes first: no row keeps an amount that the plan has no more."""
    chance = random.Random(7)
    for amount in range(soak.times(6, soaked=200)):
        model = f"model-{amount}"
        ref = team.ref("account", "requests", "hour", model)
        await plan(team, "account", 100, model=model)
        await known(team)

        async def call(number: int, model: str = model) -> None:
            await asyncio.sleep(chance.random() / 100)
            answer = await team.call(number, model=model)
            if isinstance(answer, Call):
                answer.sell()

        async def change(amount: int = amount, model: str = model) -> None:
            await asyncio.sleep(chance.random() / 100)
            await plan(team, "account", amount, model=model)

        await asyncio.gather(*(call(number) for number in range(WORKERS)), change())
        await asyncio.gather(*(call(number) for number in range(WORKERS)))
        row = await team.stored(ref)
        assert row is None or row.limit == amount


async def test_an_account_that_moves_to_another_time_zone_is_not_locked_out_of_its_day(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    clock.now_ms += 12 * HOUR_MS  # 00:34 on Sunday, UTC
    async with gathered(database, clock, tmp_path, count=2) as team:
        day, month = team.ref("account", "requests", "day"), team.ref("key", "cost", "month")
        for ref, resource in ((day, Resource.REQUESTS), (month, Resource.COST)):
            async with team.database.write() as tx:
                await allowances.set_limit(
                    tx,
                    account_id=team.account_id,
                    scope=Scope("account", 0) if ref is day else Scope("key", team.key_id),
                    resource=resource,
                    window=Window(ref.window),
                    model="",
                    limit=10,
                    soft=None,
                )
        await known(team)
        for number in range(3):
            assert await team.sell(number) is None
        clock.advance(2 * HOUR_MS)
        for number in range(2):
            assert await team.sell(number) is None
        assert await team.used(day) == 5
        # There the day begins at one o'clock UTC, then at eight the day before.
        for zone, count in (("Atlantic/Cape_Verde", 2), ("America/Los_Angeles", 2)):
            async with team.database.write() as tx:
                change = AccountChange(time_zone=zone)
                await accounts.update(tx, account_id=team.account_id, change=change)
            await known(team)
            row = await team.stored(day)
            assert row is not None
            found = windows.bounds(Window.DAY, now_ms=clock(), zone=zone)
            assert (row.window_start_ms, row.leased, row.used) == (found.start_ms, 0, count)
            assert await team.used(month) == 5
            assert await team.differences() == []
        for number in range(2):
            assert await team.sell(number) is None
        assert (await team.used(day), await team.used(month)) == (4, 7)
        assert await team.differences() == []
        clock.advance(DAY_MS)
        assert await exhaust(team, 6) == 3  # the month's rest


async def test_a_worker_that_has_not_heard_of_the_new_time_zone_moves_no_window(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    async with gathered(database, clock, tmp_path, count=1) as team:
        day = team.ref("account", "requests", "day")
        async with team.database.write() as tx:
            await allowances.set_limit(
                tx,
                account_id=team.account_id,
                scope=Scope("account", 0),
                resource=Resource.REQUESTS,
                window=Window.DAY,
                model="",
                limit=10,
                soft=None,
            )
            await accounts.update(
                tx,
                account_id=team.account_id,
                change=AccountChange(time_zone="America/Los_Angeles"),
            )
        await known(team)
        assert await team.sell() is None
        (slot,) = [slot for slot in team.workers[0].purse.slots.values() if slot.ref == day]
        slot.move("UTC", clock())
        refused = await team.call()
        assert isinstance(refused, Deny)
        slot.move("America/Los_Angeles", clock())
        assert await team.sell() is None
        row = await team.stored(day)
        assert row is not None
        assert row.used == 2
