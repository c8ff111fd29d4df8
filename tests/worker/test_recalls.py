"""Credit that lies idle in another worker's lease can be spent here, within a second."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from bursar.core.allowances import Allowance, AllowanceRef
from bursar.core.refusals import Deny, Reason
from bursar.store.database import Database
from bursar.store.plane import leases
from bursar.store.tables import changes
from bursar.telemetry import Metrics
from bursar.worker.plane import Worker
from bursar.worker.purse import Hold
from tests import soak
from tests.databases import Clock
from tests.factories import KEY_ID, KEY_LIMIT, WALLET, open_account
from tests.serving import until
from tests.worker.conftest import limits
from tests.worker.test_plane import needs, spend, stored

WORKERS = 3
WALLET_NANOS = 900_000
KEY_NANOS = 600_000
pytestmark = pytest.mark.soak


class Key:
    """What admission sees of a key at one of the workers."""

    account_id, key_id, user_id, project_id = WALLET.account_id, KEY_ID, None, None

    def __init__(self, worker: Worker) -> None:
        self.slots = tuple(
            worker.purse.slot_for(
                Allowance(ref, limit, 0, 0, 0), zone="UTC", now_ms=worker.clock_ms()
            )
            for ref, limit in ((KEY_LIMIT, KEY_NANOS), (WALLET, WALLET_NANOS))
        )


class Team:
    """Several workers on one database, each with connections, a feed and a purse of its own."""

    def __init__(self, workers: list[Worker], clock: Clock) -> None:
        self.workers = workers
        self.clock = clock
        self.keys: list[Any] = [Key(worker) for worker in workers]

    async def hold(self, number: int, cost: int) -> Hold | Deny:
        """One request at this worker."""
        return await self.workers[number].hold(self.keys[number].slots, needs(cost))

    async def hoard(self, number: int, cost: int) -> None:
        """Let this worker have so much, idle."""
        answer = await self.hold(number, cost)
        assert isinstance(answer, Hold), answer
        answer.release()

    def idle(self, ref: AllowanceRef) -> list[int]:
        """What each worker has available of it."""
        found = (worker.purse.slots[ref] for worker in self.workers)
        return [slot.lease.available for slot in found]


@pytest.fixture
async def team(
    database: Database, database_url: str, clock: Clock, tmp_path: Path
) -> AsyncIterator[Team]:
    async with database.write() as tx:
        await open_account(tx, wallet_nanos=WALLET_NANOS, key_limit_nanos=KEY_NANOS)
    async with AsyncExitStack() as parts:
        workers = []
        for number in range(WORKERS):
            own = Database(database_url, clock_ms=clock)
            parts.push_async_callback(own.close)
            worker = Worker(own, limits(tmp_path / str(number)), Metrics(), clock_ms=clock)
            await worker.start()
            parts.push_async_callback(worker.stop)
            workers.append(worker)
        for worker in workers[:-1]:
            # Each start on SQLite closes those before it, for only one server may own a file.
            await worker._replace_identity()
        yield Team(workers, clock)


async def told(database: Database) -> int:
    """How often workers have told each other that they are short."""
    async with database.read() as tx:
        query = select(func.count()).where(changes.c.topic == leases.WANTED)
        return int((await tx.execute(query)).scalar_one())


async def test_what_lies_idle_in_another_workers_lease_is_spent_here_within_a_second(
    team: Team, database: Database
) -> None:
    await team.hoard(0, KEY_NANOS)
    assert team.idle(KEY_LIMIT) == [KEY_NANOS, 0, 0]
    began = time.monotonic()
    answer = await team.hold(1, KEY_NANOS)
    assert time.monotonic() - began < 1
    assert isinstance(answer, Hold)
    spend(team.workers[1], answer, KEY_NANOS)
    await team.workers[1].settlement.flush()
    assert (await stored(database, KEY_LIMIT)).used == KEY_NANOS
    refused = await team.hold(0, 1)
    assert isinstance(refused, Deny)
    assert (refused.reason, refused.left) == (Reason.QUOTA, 0)


async def test_credit_scattered_over_all_workers_pays_for_one_request(team: Team) -> None:
    for number in range(WORKERS):
        await team.hoard(number, KEY_NANOS // 6)
    assert min(team.idle(KEY_LIMIT)) >= KEY_NANOS // 6
    answer = await team.hold(2, KEY_NANOS)
    assert isinstance(answer, Hold)
    answer.release()


async def test_credit_that_requests_elsewhere_hold_is_refused_after_a_second_at_most(
    team: Team, database: Database
) -> None:
    held = await team.hold(0, KEY_NANOS)
    assert isinstance(held, Hold)
    before = await told(database)
    began = time.monotonic()
    answers = await asyncio.gather(*(team.hold(1, 1_000) for _ in range(50)))
    assert time.monotonic() - began < soak.at_most(1.5)
    assert {each.reason for each in answers if isinstance(each, Deny)} == {Reason.CREDIT_HELD}
    assert not any(isinstance(each, Hold) for each in answers)
    # However many wait: one says so, and reminds the others until its patience ends.
    assert await told(database) - before <= 5
    held.release()
    while isinstance(answer := await team.hold(1, 1_000), Deny):
        assert time.monotonic() - began < 5
        # The test's clock stands still, and refusals are remembered for half a second of it.
        team.clock.advance(600)
    answer.release()


async def test_nobody_is_asked_when_nobody_has_anything(team: Team, database: Database) -> None:
    await team.hoard(0, KEY_NANOS)
    before = await told(database)
    began = time.monotonic()
    assert isinstance(await team.hold(0, KEY_NANOS + 1), Deny)
    assert time.monotonic() - began < soak.at_most(0.25)
    assert await told(database) == before


async def test_two_workers_that_each_have_half_do_not_take_it_from_each_other_for_ever(
    team: Team,
) -> None:
    for _ in range(soak.times(3, soaked=100)):
        await team.hoard(0, KEY_NANOS // 2)
        await team.hoard(1, KEY_NANOS // 2)
        answers = await asyncio.gather(*(team.hold(number, KEY_NANOS) for number in (0, 1)))
        held = [each for each in answers if isinstance(each, Hold)]
        assert len(held) == 1, "both were refused, and either could have been paid for"
        held[0].release()
        team.clock.advance(600)


@pytest.mark.parametrize("seed", range(soak.times(2, soaked=50)))
async def test_what_fits_together_is_admitted_together_whoever_has_it_leased(
    team: Team, database: Database, seed: int
) -> None:
    chance = random.Random(seed)
    left = KEY_NANOS
    for _ in range(8):
        asked = _split(chance, left, into=chance.randrange(1, 12))
        answers = await asyncio.gather(
            *(team.hold(chance.randrange(WORKERS), cost) for cost in asked)
        )
        refused = [each for each in answers if isinstance(each, Deny)]
        assert not refused, f"{asked} of {left}: {refused}"
        for worker, hold, cost in _ended(team, answers, asked):
            if chance.random() < 0.5:
                hold.release()
            else:
                used = chance.randrange(cost // 4 + 1)
                spend(worker, hold, used)
                left -= used
        for worker in team.workers:
            await worker.settlement.flush()
        row = await stored(database, KEY_LIMIT)
        assert row.used == KEY_NANOS - left
        assert row.used + row.leased <= KEY_NANOS


def _split(chance: random.Random, amount: int, *, into: int) -> list[int]:
    """Costs of requests that come to no more than the amount, and sometimes to all of it."""
    cuts = sorted(chance.randrange(amount) for _ in range(into - 1))
    parts = [b - a for a, b in zip([0, *cuts], [*cuts, amount], strict=True)]
    return [part for part in parts if part]


def _ended(team: Team, answers: list[Any], asked: list[int]) -> list[tuple[Worker, Hold, int]]:
    found = []
    for hold, cost in zip(answers, asked, strict=True):
        slot = hold._parts[0][0]
        worker = next(w for w in team.workers if w.purse.slots.get(slot.ref) is slot)
        found.append((worker, hold, cost))
    return found


async def test_what_was_returned_can_be_leased_again_at_once(team: Team) -> None:
    """That the store had no more is known of the time when all of it was here."""
    await team.hoard(0, KEY_NANOS)
    worker = team.workers[0]
    slot = worker.purse.slots[KEY_LIMIT]
    worker.leasing.refill([slot])
    await until(lambda: slot.exhausted_until_ms > team.clock.now_ms)
    worker.leasing.recall([slot])
    await until(lambda: not slot.lease.available)
    assert isinstance(await team.hold(0, KEY_NANOS), Hold)
