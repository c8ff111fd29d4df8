"""Limits hold over all workers at once: rates, tokens, calls at once, patterns, changes."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bursar.core import permissions
from bursar.core.allowances import AllowanceRef, Resource
from bursar.core.refusals import Deny, Reason
from bursar.core.windows import Window
from bursar.service import keys
from bursar.service.keys import KeyChange
from bursar.service.limits import allowances
from bursar.service.limits.rules import Scope
from bursar.store.database import Database
from tests import soak
from tests.databases import Clock
from tests.worker.teams import MODEL, Call, Team, gathered

WORKERS = 3
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
pytestmark = pytest.mark.soak


@pytest.fixture
async def team(database: Database, clock: Clock, tmp_path: Path) -> AsyncIterator[Team]:
    async with gathered(database, clock, tmp_path, count=WORKERS) as found:
        yield found


async def change(
    team: Team, ref: AllowanceRef, amount: int | None, *, soft: int | None = None
) -> None:
    """Set a limit as people do; workers hear of it when they do."""
    kind, _, number = ref.scope.partition(":")
    async with team.database.write() as tx:
        await allowances.set_limit(
            tx,
            account_id=ref.account_id,
            scope=Scope(kind, int(number or 0)),
            resource=Resource(ref.resource),
            window=Window(ref.window),
            model=ref.model,
            limit=amount,
            soft=soft,
        )


async def limit(
    team: Team, ref: AllowanceRef, amount: int | None, *, soft: int | None = None
) -> None:
    """Set a limit that all workers know of."""
    await change(team, ref, amount, soft=soft)
    for worker in team.workers:
        worker.keyring.clear()


async def pass_time(team: Team) -> None:
    """A moment later: what was refused lately is not asked for again at once."""
    await asyncio.sleep(0.01)
    team.clock.advance(20)


async def admitted(team: Team, count: int, *, model: str = MODEL, tokens: int = 15) -> list[Call]:
    """Try so many calls at once, over all workers; those that were admitted."""
    answers = await asyncio.gather(
        *(team.call(number, model=model, tokens=tokens) for number in range(count))
    )
    return [answer for answer in answers if isinstance(answer, Call)]


async def exhaust(team: Team, count: int, *, model: str = MODEL) -> int:
    """Call and sell, many at once, until nothing more is to be had; how many that were."""
    total = 0
    while True:
        calls = await admitted(team, count, model=model)
        for call in calls:
            call.sell()
        total += len(calls)
        if not calls:
            return total


@pytest.mark.parametrize(("window", "length_ms"), [("minute", MINUTE_MS), ("day", DAY_MS)])
async def test_each_window_admits_exactly_its_limit_over_all_workers(
    team: Team, window: str, length_ms: int
) -> None:
    ref = team.ref("account", "requests", window)
    await limit(team, ref, 20)
    for _ in range(2):
        assert await exhaust(team, 15) == 20
        assert await team.used(ref) == 20
        refused = await team.call()
        assert isinstance(refused, Deny)
        assert (refused.reason, refused.allowance, refused.limit) == (Reason.RATE, ref.name, 20)
        assert refused.resets_at_ms is not None
        assert 0 < refused.resets_at_ms - team.clock() <= length_ms
        assert await team.differences() == []
        team.clock.advance(length_ms)


async def test_tokens_are_held_by_estimate_and_settled_by_truth(team: Team) -> None:
    ref = team.ref("key", "tokens", "minute")
    await limit(team, ref, 1_000)
    first = await team.call(tokens=400)
    assert isinstance(first, Call)
    # What is held is not to be had, wherever one asks.
    refused = await team.call(1, tokens=700)
    assert isinstance(refused, Deny)
    assert (refused.resource, refused.left) == ("tokens", 1_000)
    assert "in flight" in refused.message
    first.sell(tokens=100)
    assert await team.used(ref) == 100
    team.clock.advance(1_000)
    second = await team.call(1, tokens=700)
    assert isinstance(second, Call)
    # More than estimated counts too, though nobody had asked for it.
    second.sell(tokens=950)
    assert await team.used(ref) == 1_050
    assert isinstance(await team.call(2, tokens=15), Deny)
    team.clock.advance(MINUTE_MS)
    third = await team.call(2, tokens=1_000)
    assert isinstance(third, Call)
    third.sell(tokens=15)
    assert await team.used(ref) == 15


async def test_no_more_calls_run_at_once_than_may_over_all_workers(team: Team) -> None:
    ref = team.ref("account", "concurrency", "lifetime")
    await limit(team, ref, 5)
    running = most = done = 0

    async def call(number: int) -> None:
        nonlocal running, most, done
        answer = await team.call(number)
        if isinstance(answer, Deny):
            assert (answer.reason, answer.allowance, answer.left) == (Reason.RATE, ref.name, 0)
            return
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1
        done += 1
        answer.sell()

    for _ in range(soak.times(4, soaked=200)):
        await asyncio.gather(*(call(number) for number in range(20)))
    assert most == 5
    assert done > 5
    assert await team.used(ref) == 0
    # All of it is there again, at whichever worker.
    held = await admitted(team, 1)
    while len(held) < 5:
        held += await admitted(team, 1)
    assert isinstance(await team.call(1), Deny)
    for each in held:
        each.hold.release()


async def test_all_models_that_a_pattern_means_share_its_limit_and_others_do_not(
    team: Team,
) -> None:
    ref = team.ref("key", "requests", "minute", "gpt-4?-*")
    await limit(team, ref, 10)
    both = await exhaust(team, 4, model="gpt-4o-mini") + await exhaust(team, 4, model="gpt-4x-max")
    assert both == 10
    for model in ("gpt-4-max", "claude", "Gpt-4o-mini"):
        call = await team.call(model=model)
        assert isinstance(call, Call)
        call.sell()
    assert await team.used(ref) == 10


async def test_a_refusal_consumes_nothing_of_any_other_limit(team: Team) -> None:
    wide, narrow = team.ref("account", "requests", "minute"), team.ref("key", "tokens", "hour", "x")
    await limit(team, wide, 40)
    await limit(team, narrow, 30)
    for _ in range(5):
        for call in await admitted(team, 10, model="x"):
            call.sell()
    assert await team.used(wide) == 2
    # So all the rest of it is there for others.
    assert await exhaust(team, 10, model="y") == 38
    assert await team.used(narrow) == 30


async def test_a_soft_limit_stops_nobody_and_is_counted_window_by_window(team: Team) -> None:
    refs = [
        team.ref("account", "requests", "hour"),
        team.ref("key", "cost", "month"),
        team.ref("key", "cost", "lifetime"),
        team.ref("account", "cost", "lifetime"),
    ]
    for ref in refs:
        await limit(team, ref, None, soft=3)
    for expected in (12, 24):
        calls = await admitted(team, 12)
        assert len(calls) == 12
        for call in calls:
            call.sell(cost=1)
        assert [await team.used(ref) for ref in refs] == [12, expected, expected, expected]
        assert await team.differences() == []
        team.clock.advance(HOUR_MS)


async def test_a_soft_limit_stops_nobody_whose_clock_is_behind_the_ledgers_window(
    team: Team,
) -> None:
    ref = team.ref("account", "requests", "hour")
    await limit(team, ref, None, soft=3)
    late = team.workers[1]
    for number in (0, 1):
        assert await team.sell(number) is None
    now_ms = team.clock()
    late.clock_ms = lambda: now_ms
    late.leasing._clock_ms = late.clock_ms
    team.clock.advance(HOUR_MS)
    ahead, behind = await team.call(0), await team.call(1)
    for each in (ahead, behind):
        assert isinstance(each, Call)
        each.sell()
    assert await team.used(ref) == 1


async def test_a_lowered_and_a_raised_limit_count_everywhere_within_a_second(team: Team) -> None:
    ref = team.ref("account", "requests", "hour")
    await limit(team, ref, 1_000)
    for call in await admitted(team, 12):
        call.sell()
    await change(team, ref, 12)
    began_s, last_s = time.monotonic(), 0.0
    while time.monotonic() < began_s + 2:
        calls = await admitted(team, WORKERS)
        for call in calls:
            call.hold.release()
            last_s = time.monotonic() - began_s
        await pass_time(team)
    assert last_s < soak.at_most(1)
    await change(team, ref, 15)
    began_s = time.monotonic()
    for number in range(WORKERS):
        while isinstance(await team.sell(number), Deny):
            assert time.monotonic() - began_s < soak.at_most(2)
            await pass_time(team)
    assert await team.used(ref) == 15


async def test_what_is_used_stays_used_however_a_limit_or_its_key_changes(team: Team) -> None:
    ref = team.ref("key", "requests", "day")
    await limit(team, ref, 6)
    for number in range(4):
        assert await team.sell(number) is None
    for change in (KeyChange(name="another"), KeyChange(is_enabled=True)):
        async with team.database.write() as tx:
            await keys.update(tx, account_id=team.account_id, key_id=team.key_id, change=change)
    for amount in (5, 50, 7):
        await limit(team, ref, amount)
        assert await team.used(ref) == 4
    async with team.database.write() as tx:
        made = await keys.rotate(
            tx, account_id=team.account_id, key_id=team.key_id, random_bytes=os.urandom
        )
    before, after = team.secret, made.secret.encode()
    for secret in (before, after):
        team.secret = secret
        assert await team.sell() is None
    # Whichever secret is used: it is one key's limit.
    assert await exhaust(team, 4) == 1
    team.secret = before
    assert isinstance(await team.sell(), Deny)
    assert await team.used(ref) == 7


@pytest.mark.parametrize("seed", range(soak.times(2, soaked=100)))
async def test_no_limit_is_ever_exceeded_whatever_calls_and_clocks_do(
    team: Team, seed: int
) -> None:
    chance = random.Random(seed)
    models = ("gpt-4o", "gpt-5", "claude-1")
    limits = {
        team.ref("account", "requests", "minute"): 25,
        team.ref("account", "tokens", "minute", "gpt-*"): 1_200,
        team.ref("key", "requests", "hour", "gpt-5"): 9,
        team.ref("key", "cost", "day"): 900,
        team.ref("key", "concurrency", "lifetime", "claude-*"): 3,
        team.ref("key", "requests", "month", "*"): 10_000,
    }
    for ref, amount in limits.items():
        await limit(team, ref, amount, soft=2 if ref.window == "hour" else None)
    used: Counter[tuple[AllowanceRef, int]] = Counter()
    running: Counter[AllowanceRef] = Counter()

    def apply(model: str) -> list[AllowanceRef]:
        return [ref for ref in limits if not ref.model or permissions.matches(ref.model, model)]

    async def call(number: int) -> None:
        model, tokens = chance.choice(models), chance.randint(10, 90)
        answer = await team.call(number, model=model, cost=chance.randint(1, 40), tokens=tokens)
        if isinstance(answer, Deny):
            return
        windows = {slot.ref: slot.lease.start_ms for slot in answer.credential.slots}
        for ref in apply(model):
            running[ref] += 1
            assert ref.resource != "concurrency" or running[ref] <= limits[ref]
        await asyncio.sleep(chance.random() / 200)
        for ref in apply(model):
            running[ref] -= 1
        if chance.random() < 0.2:
            answer.hold.release()
            return
        cost, true = chance.randint(1, answer.hold.cost_nanos), chance.randint(1, tokens)
        answer.sell(cost=cost, tokens=true)
        for ref in apply(model):
            amount = {"requests": 1, "tokens": true, "cost": cost}.get(ref.resource, 0)
            used[ref, windows[ref]] += amount

    for _ in range(3):
        for _ in range(2):
            await asyncio.gather(*(call(number) for number in range(30)))
        assert await team.differences() == []
        team.clock.advance(MINUTE_MS)
    assert used.total() > 0
    for (ref, _), amount in used.items():
        assert amount <= limits[ref]
