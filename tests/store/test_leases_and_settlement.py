"""Leases and settlement do in SQL what the pure model says, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from bursar.core.allowances import Allowance, AllowanceRef
from bursar.core.errors import InvariantViolated
from bursar.core.money import MAX_NANOS
from bursar.store.database import Database, ReadTx
from bursar.store.limits import allowances
from bursar.store.plane import leases, settlement, workers
from bursar.store.plane.leases import Want
from bursar.store.tables import leases as lease_rows
from bursar.store.tables import transfers, usage_daily, usage_events, usage_hourly
from tests.databases import Clock
from tests.factories import AT_MS, KEY_LIMIT, WALLET, charge, move, open_account


async def prepare(
    database: Database, *, wallet_nanos: int = 1_000, key_limit_nanos: int | None = None
) -> int:
    async with database.write() as tx:
        await open_account(tx, wallet_nanos=wallet_nanos, key_limit_nanos=key_limit_nanos)
        return await workers.insert_worker(tx, host="here")


async def take(
    database: Database, worker_id: int, need: int, *, ref: AllowanceRef = WALLET, start_ms: int = 0
) -> int:
    async with database.write() as tx:
        want = Want(ref, start_ms, need, need, 0)
        grants = await leases.take(tx, worker_id=worker_id, wants=[want])
    return grants[ref].granted


async def allowance(database: Database, ref: AllowanceRef = WALLET) -> Allowance:
    async with database.write() as tx:
        return (await leases.lock(tx, refs=[ref]))[0]


async def count(tx: ReadTx, table: object) -> int:
    return int((await tx.execute(select(func.count()).select_from(table))).scalar_one())  # type: ignore[arg-type]


async def test_a_lease_is_taken_from_what_is_free(database: Database) -> None:
    worker_id = await prepare(database)
    assert await take(database, worker_id, 600) == 600
    assert await take(database, worker_id, 600) == 0
    assert await take(database, worker_id, 400) == 400
    row = await allowance(database)
    assert (row.used, row.leased, row.free) == (0, 1_000, 0)


async def test_what_is_returned_can_be_leased_again(database: Database) -> None:
    worker_id = await prepare(database)
    await take(database, worker_id, 1_000)
    async with database.write() as tx:
        await leases.give_back(tx, worker_id=worker_id, returns=[(WALLET, 0, 300)])
    assert await take(database, worker_id, 301) == 0
    assert await take(database, worker_id, 300) == 300


async def test_a_closed_worker_takes_nothing(database: Database) -> None:
    worker_id = await prepare(database)
    async with database.write() as tx:
        await workers.close(tx, worker_id=worker_id)
    with pytest.raises(workers.Fenced):
        await take(database, worker_id, 1)


async def test_a_closed_worker_that_wakes_returns_nothing_a_second_time(
    database: Database,
) -> None:
    stopped = await prepare(database)
    await take(database, stopped, 400)
    async with database.write() as tx:
        other = await workers.insert_worker(tx, host="there")
        await workers.close(tx, worker_id=stopped)
        await leases.release_all(tx, worker_id=stopped)
    await take(database, other, 1_000)
    with pytest.raises(workers.Fenced):
        async with database.write() as tx:
            await leases.give_back(tx, worker_id=stopped, returns=[(WALLET, 0, 400)])
    assert (await allowance(database)).leased == 1_000


async def test_a_new_window_forgets_what_was_used_and_leased(database: Database) -> None:
    worker_id = await prepare(database, key_limit_nanos=100)
    assert await take(database, worker_id, 100, ref=KEY_LIMIT) == 100
    assert await take(database, worker_id, 100, ref=KEY_LIMIT, start_ms=60_000) == 100
    row = await allowance(database, KEY_LIMIT)
    assert (row.used, row.leased, row.window_start_ms) == (0, 100, 60_000)


async def test_a_worker_whose_clock_is_behind_leases_nothing_of_the_new_window(
    database: Database,
) -> None:
    worker_id = await prepare(database, key_limit_nanos=100)
    await take(database, worker_id, 10, ref=KEY_LIMIT, start_ms=60_000)
    async with database.write() as tx:
        late = Want(KEY_LIMIT, 0, 1, 1, 0)
        assert await leases.take(tx, worker_id=worker_id, wants=[late]) == {}


async def test_a_batch_moves_leases_to_used_and_writes_every_row(database: Database) -> None:
    worker_id = await prepare(database)
    await take(database, worker_id, 900)
    async with database.write() as tx:
        batch = [charge(1, 100), charge(2, 250)]
        assert await settlement.settle(tx, worker_id=worker_id, charges=batch)
    row = await allowance(database)
    assert (row.used, row.leased) == (350, 550)
    assert (await allowance(database, KEY_LIMIT)).used == 350
    async with database.read() as tx:
        assert await count(tx, usage_events) == 2
        for table in (usage_hourly, usage_daily):
            total = (await tx.execute(select(table))).one()
            assert (total.requests, total.cost_nanos, total.input_tokens) == (2, 350, 20)


async def test_roll_ups_add_up_over_batches(database: Database) -> None:
    worker_id = await prepare(database)
    await take(database, worker_id, 900)
    for seq in (1, 2, 3):
        async with database.write() as tx:
            await settlement.settle(tx, worker_id=worker_id, charges=[charge(seq, 7)])
    async with database.read() as tx:
        total = (await tx.execute(select(usage_hourly))).one()
        assert (total.requests, total.cost_nanos) == (3, 21)


async def test_a_batch_sent_again_changes_nothing(database: Database) -> None:
    worker_id = await prepare(database)
    await take(database, worker_id, 900)
    for is_new in (True, False, False):
        async with database.write() as tx:
            batch = [charge(1, 100), charge(2, 250)]
            assert await settlement.settle(tx, worker_id=worker_id, charges=batch) is is_new
    assert (await allowance(database)).used == 350


async def test_a_batch_beyond_its_lease_changes_nothing(database: Database) -> None:
    worker_id = await prepare(database)
    await take(database, worker_id, 100)
    with pytest.raises(settlement.NotCovered):
        async with database.write() as tx:
            await settlement.settle(tx, worker_id=worker_id, charges=[charge(1, 101)])
    row = await allowance(database)
    assert (row.used, row.leased) == (0, 100)
    async with database.read() as tx:
        assert await count(tx, usage_events) == 0
        assert await workers.get_settled_seq(tx, worker_id=worker_id) == 0


async def test_a_charge_without_its_lease_is_paid_from_what_is_free(database: Database) -> None:
    worker_id = await prepare(database)
    await take(database, worker_id, 100)
    async with database.write() as tx:
        await leases.release_all(tx, worker_id=worker_id)
    async with database.write() as tx:
        assert await settlement.settle_one(tx, worker_id=worker_id, charge=charge(1, 100)) == (
            True,
            0,
        )
    row = await allowance(database)
    assert (row.used, row.leased) == (100, 0)


async def test_what_nobody_can_pay_becomes_overrun_and_the_wallet_stays_at_zero(
    database: Database,
) -> None:
    worker_id = await prepare(database, wallet_nanos=100)
    await take(database, worker_id, 60)
    async with database.write() as tx:
        late = charge(1, 60, excess_nanos=90)
        assert await settlement.settle_one(tx, worker_id=worker_id, charge=late) == (True, 50)
    row = await allowance(database)
    assert (row.limit, row.used, row.leased) == (100, 100, 0)
    assert (await allowance(database, KEY_LIMIT)).used == 100
    async with database.read() as tx:
        usage = (await tx.execute(select(usage_events))).one()
        assert (usage.cost_nanos, usage.overrun_nanos) == (100, 50)
        overrun = (await tx.execute(select(transfers))).one()
        assert (overrun.source, overrun.target, overrun.amount_nanos) == ("operator", "overrun", 50)


async def test_the_tightest_allowance_decides_what_a_late_charge_pays(database: Database) -> None:
    worker_id = await prepare(database, wallet_nanos=1_000, key_limit_nanos=40)
    both = [
        move(WALLET, from_lease=100, used=100),
        move(KEY_LIMIT, from_lease=100, used=100),
    ]
    async with database.write() as tx:
        late = charge(1, 100, moves=both)
        assert await settlement.settle_one(tx, worker_id=worker_id, charge=late) == (True, 60)
    assert (await allowance(database)).used == 40
    assert (await allowance(database, KEY_LIMIT)).used == 40


async def test_a_charge_of_an_ended_window_counts_only_for_longer_ones(database: Database) -> None:
    worker_id = await prepare(database, key_limit_nanos=500)
    await take(database, worker_id, 100)
    await take(database, worker_id, 100, ref=KEY_LIMIT)
    await take(database, worker_id, 10, ref=KEY_LIMIT, start_ms=60_000)
    both = [
        move(WALLET, from_lease=100, used=100),
        move(KEY_LIMIT, from_lease=100, used=100, start_ms=0),
    ]
    async with database.write() as tx:
        await settlement.settle(tx, worker_id=worker_id, charges=[charge(1, 100, moves=both)])
    assert (await allowance(database)).used == 100
    row = await allowance(database, KEY_LIMIT)
    assert (row.used, row.leased) == (0, 10)


async def test_a_dead_workers_leases_all_come_back(database: Database) -> None:
    worker_id = await prepare(database, key_limit_nanos=500)
    await take(database, worker_id, 700)
    await take(database, worker_id, 500, ref=KEY_LIMIT)
    async with database.write() as tx:
        assert await leases.release_all(tx, worker_id=worker_id) == 2
    assert (await allowance(database)).leased == 0
    assert (await allowance(database, KEY_LIMIT)).leased == 0
    async with database.read() as tx:
        assert await count(tx, lease_rows) == 0


async def test_leases_of_windows_that_ended_long_ago_are_forgotten_and_no_others(
    database: Database, clock: Clock
) -> None:
    worker_id = await prepare(database, key_limit_nanos=500)
    minute = AllowanceRef(WALLET.account_id, "account", "requests", "minute")
    async with database.write() as tx:
        await allowances.insert_allowance(tx, ref=minute, limit=100)
    began_ms = clock() - clock() % 60_000
    await take(database, worker_id, 5)
    for number in range(4):
        assert await take(database, worker_id, 7, ref=minute, start_ms=began_ms + number * 60_000)
    clock.advance(3_600_000 + 60_000)
    async with database.write() as tx:
        assert await leases.delete_ended(tx) == 1
        assert await leases.delete_ended(tx) == 0
    clock.advance(86_400_000)
    async with database.write() as tx:
        assert await leases.delete_ended(tx) == 2
    async with database.read() as tx:
        left = {row.scope: row.amount for row in await tx.execute(select(lease_rows))}
    # The one that its allowance still stands in can be returned.
    assert left == {"wallet": 5, "account": 7}
    row = await allowance(database, minute)
    assert (row.leased, row.window_start_ms) == (7, began_ms + 3 * 60_000)


async def test_a_call_that_outlasts_its_windows_lease_is_charged_all_the_same(
    database: Database, clock: Clock
) -> None:
    worker_id = await prepare(database, key_limit_nanos=500)
    start_ms = clock() - clock() % 60_000
    minute = AllowanceRef(WALLET.account_id, "account", "cost", "minute")
    async with database.write() as tx:
        await allowances.insert_allowance(tx, ref=minute, limit=100)
    await take(database, worker_id, 50)
    for number in (0, 1):
        await take(database, worker_id, 50, ref=minute, start_ms=start_ms + number * 60_000)
    clock.advance(10 * 3_600_000)
    async with database.write() as tx:
        assert await leases.delete_ended(tx) == 1
    both = [
        move(WALLET, from_lease=50, used=50),
        move(minute, from_lease=50, used=50, start_ms=start_ms),
    ]
    late = charge(1, 50, moves=both)
    with pytest.raises(settlement.NotCovered):
        async with database.write() as tx:
            await settlement.settle(tx, worker_id=worker_id, charges=[late])
    async with database.write() as tx:
        assert await settlement.settle_one(tx, worker_id=worker_id, charge=late) == (True, 0)
    assert (await allowance(database)).used == 50
    assert (await allowance(database, minute)).used == 0


async def test_a_charge_is_booked_though_a_limit_that_it_counted_for_is_not_known(
    database: Database,
) -> None:
    """As after a restore: what a plan gives gets its row by the first lease."""
    worker_id = await prepare(database)
    given = AllowanceRef(WALLET.account_id, "account", "requests", "minute")
    both = [
        move(WALLET, from_lease=100, used=100),
        move(given, from_lease=1, used=1),
    ]
    async with database.write() as tx:
        late = charge(1, 100, moves=both)
        assert await settlement.settle_one(tx, worker_id=worker_id, charge=late) == (True, 0)
    assert (await allowance(database)).used == 100
    unknown = AllowanceRef(WALLET.account_id, "key:99", "cost", "lifetime")
    with pytest.raises(InvariantViolated):
        async with database.write() as tx:
            nobodys = charge(2, 100, moves=[move(unknown, from_lease=100, used=100)])
            await settlement.settle_one(tx, worker_id=worker_id, charge=nobodys)


async def test_what_stops_nobody_is_leased_up_to_all_that_there_can_be(database: Database) -> None:
    worker_id = await prepare(database)
    hour = AllowanceRef(WALLET.account_id, "account", "cost", "hour")
    async with database.write() as tx:
        await allowances.insert_allowance(tx, ref=hour, limit=None)
    half = MAX_NANOS // 2
    for start_ms, amounts in ((0, [half, half, 2, 1]), (3_600_000, [MAX_NANOS, 1])):
        granted = [
            await take(database, worker_id, amount, ref=hour, start_ms=start_ms)
            for amount in amounts
        ]
        assert sum(granted) == MAX_NANOS
        row = await allowance(database, hour)
        assert (row.limit, row.used, row.leased) == (None, 0, MAX_NANOS)
        assert row.window_start_ms == start_ms


async def test_a_roll_up_knows_its_last_use_whatever_order_charges_come_in(
    database: Database,
) -> None:
    worker_id = await prepare(database)
    await take(database, worker_id, 900)
    for seq, at_ms in ((1, AT_MS), (2, AT_MS + 5_000), (3, AT_MS + 1_000)):
        async with database.write() as tx:
            made = charge(seq, 7, at_ms=at_ms)
            await settlement.settle(tx, worker_id=worker_id, charges=[made])
    async with database.read() as tx:
        for table in (usage_hourly, usage_daily):
            assert (await tx.execute(select(table))).one().last_ms == AT_MS + 5_000
