"""A worker spends what it leased, settles it once, and leaves nothing behind, on both databases."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from bursar.core.allowances import Allowance, AllowanceRef
from bursar.core.refusals import Deny, Reason
from bursar.store.database import Database, WriteTx
from bursar.store.plane import leases, workers
from bursar.store.plane.charges import Charge
from bursar.store.tables import allowances, usage_events, usage_hourly
from bursar.store.tables import leases as lease_rows
from bursar.telemetry import Metrics
from bursar.worker import recovery
from bursar.worker.journal import Journal, JournalFull
from bursar.worker.plane import Worker
from bursar.worker.purse import Amounts, Hold
from bursar.worker.watch import Watch
from tests.databases import Clock
from tests.factories import KEY_ID, KEY_LIMIT, WALLET, charge
from tests.worker.conftest import WALLET_NANOS


class Key:
    """What admission sees of a key."""

    account_id, key_id, user_id, project_id = WALLET.account_id, KEY_ID, None, None

    def __init__(self, worker: Worker, *refs_and_limits: tuple[AllowanceRef, int | None]) -> None:
        self.slots = tuple(
            worker.purse.slot_for(
                Allowance(ref, limit, 0, 0, 0), zone="UTC", now_ms=worker.clock_ms()
            )
            for ref, limit in refs_and_limits
        )


def limited(worker: Worker) -> Any:
    return Key(worker, (KEY_LIMIT, WALLET_NANOS // 2), (WALLET, WALLET_NANOS))


def needs(cost: int) -> Amounts:
    return Amounts(cost, 1, 0, 1)


def spend(worker: Worker, hold: Hold, cost: int) -> None:
    ended = hold.settle(needs(cost))
    number = random.randrange(1 << 62)
    made = charge(0, ended.covered_nanos, moves=ended.moves, event_id=f"req_{number}")
    made.excess_nanos = ended.excess_nanos
    worker.settlement.submit(made, ended.parts)


async def stored(database: Database, ref: AllowanceRef) -> Allowance:
    async with database.write() as tx:
        return (await leases.lock(tx, refs=[ref]))[0]


async def total(database: Database, column: Any, *where: Any) -> int:
    query = select(func.coalesce(func.sum(column), 0)).where(*where)
    async with database.read() as tx:
        return int((await tx.execute(query)).scalar_one())


async def test_many_at_once_never_spend_more_than_the_limit(
    worker: Worker, database: Database
) -> None:
    key, cost = limited(worker), 9_000
    most = WALLET_NANOS // 2 // cost

    async def call() -> bool:
        answer = await worker.hold(key.slots, needs(cost))
        if isinstance(answer, Deny):
            assert answer.reason in (Reason.QUOTA, Reason.CREDIT_HELD)
            assert answer.allowance == KEY_LIMIT.name
            return False
        await asyncio.sleep(random.random() / 100)
        spend(worker, answer, cost)
        return True

    admitted = sum(await asyncio.gather(*(call() for _ in range(200))))
    while await call():
        admitted += 1
    assert admitted == most
    await worker.settlement.flush()
    assert (await stored(database, KEY_LIMIT)).used == most * cost
    assert (await stored(database, WALLET)).used == most * cost
    assert await total(database, usage_events.c.cost_nanos) == most * cost


async def test_checking_first_and_acting_later_would_overspend(worker: Worker) -> None:
    """The negative control: the mistake that this design rules out does fail this test."""
    key, cost = limited(worker), 9_000
    slot = key.slots[0]
    await worker.leasing.wait_for([slot], needs(WALLET_NANOS // 2))
    spent = 0

    async def careless() -> None:
        nonlocal spent
        if slot.lease.available >= cost:
            await asyncio.sleep(0)
            slot.lease.available -= cost
            spent += cost

    await asyncio.gather(*(careless() for _ in range(200)))
    assert spent > WALLET_NANOS // 2
    slot.lease.available += spent


async def test_cancelled_requests_leave_no_hold(worker: Worker) -> None:
    key = limited(worker)

    async def call() -> None:
        hold = await worker.hold(key.slots, needs(1_000))
        assert isinstance(hold, Hold)
        try:
            await asyncio.sleep(10)
        finally:
            hold.release()

    tasks = [asyncio.create_task(call()) for _ in range(50)]
    await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [slot.lease.held for slot in key.slots] == [0, 0]


async def test_stopping_returns_every_lease_and_deletes_the_journal(
    database: Database, clock: Clock, tmp_path: Path, worker: Worker
) -> None:
    hold = await worker.hold(limited(worker).slots, needs(1_000))
    assert isinstance(hold, Hold)
    spend(worker, hold, 400)
    await worker.stop()
    row = await stored(database, WALLET)
    assert (row.used, row.leased) == (400, 0)
    assert list((tmp_path / "journal").iterdir()) == []
    await worker.start()


async def test_what_a_killed_worker_had_charged_is_settled_once_at_the_next_start(
    database: Database, clock: Clock, tmp_path: Path, worker: Worker
) -> None:
    async with database.write() as tx:
        dead = await workers.insert_worker(tx, host="gone")
        want = leases.Want(WALLET, 0, 5_000, 5_000, 0)
        await leases.take(tx, worker_id=dead, wants=[want])
    journal = Journal(tmp_path / "journal", dead, born_ms=clock(), max_bytes=1 << 20)
    for seq in range(1, 11):
        journal.append(charge(seq, 300, event_id=f"dead_{seq}"))
    journal.close(is_settled=False)
    for expected in (10, 0):
        metrics = Metrics()
        replayed = await recovery.replay_journals(database, tmp_path / "journal", metrics)
        assert replayed == expected
    row = await stored(database, WALLET)
    assert (row.used, row.leased) == (3_000, 0)
    assert await total(database, lease_rows.c.amount) == 0


async def test_a_charge_that_the_ledger_refuses_is_set_aside_and_the_rest_go_on(
    worker: Worker, database: Database, tmp_path: Path
) -> None:
    hold = await worker.hold(limited(worker).slots, needs(1_000))
    assert isinstance(hold, Hold)
    hold.release()
    bad = charge(0, -5, moves=[])
    for each in (charge(0, 10, event_id="a"), bad, charge(0, 20, event_id="b")):
        worker.settlement.submit(each, [])
    await worker.settlement.flush()
    assert await total(database, usage_events.c.cost_nanos) == 30
    assert worker.metrics.quarantined == 1
    (kept,) = (tmp_path / "journal").glob("*.quarantine")
    assert '"req_0"' in kept.read_text()
    kept.unlink()


async def test_a_fenced_worker_settles_what_it_had_and_goes_on_under_a_new_name(
    worker: Worker, database: Database
) -> None:
    key = limited(worker)
    hold = await worker.hold(key.slots, needs(1_000))
    assert isinstance(hold, Hold)
    before = worker.worker_id
    await recovery.retire(database, worker_id=before)
    await worker._replace_identity()
    assert worker.worker_id != before
    spend(worker, hold, 700)
    again = await worker.hold(key.slots, needs(1_000))
    assert isinstance(again, Hold)
    spend(worker, again, 50)
    await worker.settlement.flush()
    assert (await stored(database, WALLET)).used == 750
    assert await total(database, usage_events.c.cost_nanos) == 750


async def test_what_was_held_under_a_former_name_is_not_paid_by_leases_of_the_next(
    worker: Worker, database: Database
) -> None:
    key = limited(worker)
    early = await worker.hold(key.slots, needs(1_000))
    assert isinstance(early, Hold)
    await recovery.retire(database, worker_id=worker.worker_id)
    await worker._replace_identity()
    late = await worker.hold(key.slots, needs(1_000))
    assert isinstance(late, Hold)
    spend(worker, early, 700)
    await worker.settlement.flush()
    async with database.read() as tx:
        rows = await tx.execute(
            select(lease_rows.c.scope, lease_rows.c.amount).where(
                lease_rows.c.worker_id == worker.worker_id
            )
        )
        leased = {row.scope: row.amount for row in rows}
    assert {slot.ref.scope: slot.lease.total() for slot in key.slots} == leased
    assert (await stored(database, WALLET)).used == 700
    late.release()


async def test_what_comes_under_a_former_name_is_not_spent_or_returned_under_the_next(
    worker: Worker, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = limited(worker)
    before = worker.worker_id
    take, insert = leases.take, workers.insert_worker
    taken, answer = asyncio.Event(), asyncio.Event()

    async def take_late(tx: WriteTx, **asked: Any) -> Any:
        grants = await take(tx, **asked)
        if asked["worker_id"] == before:
            taken.set()
            await answer.wait()
        return grants

    async def insert_late(tx: WriteTx, **named: Any) -> int:
        await asyncio.sleep(0.6)
        return await insert(tx, **named)

    monkeypatch.setattr(leases, "take", take_late)
    monkeypatch.setattr(workers, "insert_worker", insert_late)
    asking = asyncio.create_task(worker.hold(key.slots, needs(1_000)))
    await taken.wait()
    # A database that may have forgotten something still knows this worker as living.
    worker._distrust()
    asyncio.get_running_loop().call_later(0.3, answer.set)
    hold = await asking
    async with worker._renamed:
        await worker._renamed.wait_for(lambda: worker.worker_id != before)
    await recovery.retire(database, worker_id=before)
    assert isinstance(hold, Hold)
    hold.release()
    await worker.leasing.reclaim(key.slots)
    leased = await total(database, lease_rows.c.amount, lease_rows.c.scope == WALLET.scope)
    assert (await stored(database, WALLET)).leased == leased == 0


async def test_a_checkpoint_of_a_former_name_leaves_its_cost_for_the_ledger_to_decide(
    worker: Worker, database: Database
) -> None:
    key = limited(worker)
    hold = await worker.hold(key.slots, needs(1_000))
    assert isinstance(hold, Hold)
    assert hold.outlook(needs(700)).covered_nanos == 700
    await recovery.retire(database, worker_id=worker.worker_id)
    await worker._replace_identity()
    seen = hold.outlook(needs(700))
    assert (seen.covered_nanos, seen.excess_nanos) == (0, 700)
    assert all(move.from_lease == 0 for move in seen.moves)
    hold.release()


async def test_a_request_that_finds_its_worker_closed_waits_for_its_next_name(
    worker: Worker, database: Database
) -> None:
    before = worker.worker_id
    await recovery.retire(database, worker_id=before)
    answers = await asyncio.gather(
        *(worker.hold(limited(worker).slots, needs(10)) for _ in range(5))
    )
    assert worker.worker_id != before
    for each in answers:
        assert isinstance(each, Hold)
        each.release()


async def test_a_silent_workers_leases_come_back(worker: Worker, database: Database) -> None:
    async with database.write() as tx:
        silent = await workers.insert_worker(tx, host="elsewhere")
        await leases.take(
            tx, worker_id=silent, wants=[leases.Want(WALLET, 0, WALLET_NANOS, WALLET_NANOS, 0)]
        )
    assert isinstance(await worker.hold(limited(worker).slots, needs(10)), Deny)
    watch = Watch(silent_s=0.2, apart_s=60)
    assert await recovery.reap(database, watch, but=worker.worker_id) == 0
    await asyncio.sleep(0.25)
    assert await recovery.reap(database, watch, but=worker.worker_id) == 1
    assert (await stored(database, WALLET)).leased == 0


async def test_a_rate_window_admits_exactly_its_limit_and_the_next_one_again(
    worker: Worker, database: Database, clock: Clock
) -> None:
    minute = AllowanceRef(WALLET.account_id, f"key:{KEY_ID}", "requests", "minute")
    async with database.write() as tx:
        await tx.execute(
            allowances.insert().values(
                account_id=minute.account_id,
                scope=minute.scope,
                resource="requests",
                window_name="minute",
                limit_amount=6,
            )
        )
    key: Any = Key(worker, (minute, 6), (WALLET, WALLET_NANOS))
    for _ in range(2):
        answers = await asyncio.gather(*(worker.hold(key.slots, needs(10)) for _ in range(20)))
        held = [each for each in answers if isinstance(each, Hold)]
        refused = [each for each in answers if isinstance(each, Deny)]
        assert len(held) == 6
        assert {each.reason for each in refused} == {Reason.RATE}
        for each in held:
            spend(worker, each, 1)
        await worker.settlement.flush()
        assert (await stored(database, minute)).used == 6
        clock.advance(60_000)


@pytest.mark.parametrize("seed", range(3))
async def test_rows_roll_ups_allowances_and_leases_agree_after_anything(
    worker: Worker, database: Database, seed: int
) -> None:
    chance = random.Random(seed)
    key = limited(worker)

    async def call() -> None:
        answer = await worker.hold(key.slots, needs(chance.randrange(1, 20_000)))
        if isinstance(answer, Deny):
            return
        await asyncio.sleep(chance.random() / 200)
        if chance.random() < 0.2:
            answer.release()
        else:
            spend(worker, answer, chance.randrange(0, 25_000))

    for _ in range(4):
        await asyncio.gather(*(call() for _ in range(60)))
        if chance.random() < 0.5:
            await worker.leasing.reclaim(key.slots)
    await worker.settlement.flush()
    rows = await total(database, usage_events.c.cost_nanos)
    assert rows == await total(database, usage_hourly.c.cost_nanos)
    for ref in (KEY_LIMIT, WALLET):
        row = await stored(database, ref)
        assert row.used == rows
        assert row.limit is not None
        assert row.used + row.leased <= row.limit
        async with database.read() as tx:
            query = select(func.coalesce(func.sum(lease_rows.c.amount), 0))
            leased = await tx.execute(query.where(lease_rows.c.scope == ref.scope))
            assert int(leased.scalar_one()) == row.leased


async def test_leases_stranded_by_an_outage_come_back(worker: Worker, database: Database) -> None:
    key = limited(worker)
    hold = await worker.hold(key.slots, needs(1_000))
    assert isinstance(hold, Hold)
    # As if the reply to a COMMIT had been lost: the store holds more for us than we know of.
    async with database.write() as tx:
        want = leases.Want(WALLET, 0, 7_000, 7_000, 0)
        await leases.take(tx, worker_id=worker.worker_id, wants=[want])
    known = sum(slot.lease.total() for slot in key.slots if slot.ref == WALLET)
    assert (await stored(database, WALLET)).leased == known + 7_000
    worker.leasing.doubt(key.slots)
    await worker.leasing.reclaim([])
    hold.release()
    known = sum(slot.lease.total() for slot in key.slots if slot.ref == WALLET)
    assert (await stored(database, WALLET)).leased == known


async def test_a_hole_in_a_journal_costs_the_hole_and_no_more(
    database: Database, tmp_path: Path, worker: Worker
) -> None:
    async with database.write() as tx:
        dead = await workers.insert_worker(tx, host="gone")
        born_ms = tx.now_ms
    journal = Journal(tmp_path / "journal", dead, max_bytes=1 << 20, born_ms=born_ms)
    for seq in (1, 2, 4, 5):
        journal.append(charge(seq, 300, event_id=f"holed_{seq}"))
    journal.close(is_settled=False)
    assert await recovery.replay_journals(database, tmp_path / "journal", Metrics()) == 4
    assert await total(database, usage_events.c.cost_nanos) == 1_200


async def test_a_journal_that_was_full_takes_charges_again_once_all_is_settled(
    worker: Worker, database: Database
) -> None:
    key = limited(worker)
    journal = worker.journal
    journal.append, kept = refuse_append, journal.append  # type: ignore[method-assign]
    hold = await worker.hold(key.slots, needs(1_000))
    assert isinstance(hold, Hold)
    spend(worker, hold, 10)
    assert worker.closed() is not None
    journal.append = kept  # type: ignore[method-assign]
    await worker.settlement.flush()
    assert worker.closed() is None
    assert await total(database, usage_events.c.cost_nanos) == 10


def refuse_append(_: Charge) -> None:
    raise JournalFull("no room")
