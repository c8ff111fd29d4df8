"""Verify: right books have no difference, and whatever is changed behind their back is found."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec
import pytest
from sqlalchemy import text

from bursar.core import windows
from bursar.core.allowances import AllowanceRef
from bursar.core.windows import Window
from bursar.service import accounts, keys, ledger, verify
from bursar.store.database import POSTGRESQL, SQLITE, Database, WriteTx
from bursar.store.limits import allowances
from bursar.store.plane import leases, settlement, workers
from bursar.store.plane.charges import Charge, Move
from bursar.store.plane.leases import Want
from bursar.store.tenants import users
from tests.databases import START_MS, Clock
from tests.factories import charge

MODEL = "gpt-4o-mini"
USER, PROJECT = 5, 9
ZONE = "Asia/Kathmandu"
GUARDS_OFF = {
    POSTGRESQL: ["SET LOCAL session_replication_role = replica"],
    SQLITE: [
        f"DROP TRIGGER {table}_no_{verb}"
        for table in ("transfers", "usage_events")
        for verb in ("update", "delete")
    ],
}
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def refs(account_id: int, key_id: int) -> list[AllowanceRef]:
    """Allowances of every scope, resource and window, some of one model."""
    return [
        allowances.wallet(account_id),
        allowances.credit_limit(account_id, key_id),
        AllowanceRef(account_id, "account", "requests", "minute"),
        AllowanceRef(account_id, "account", "cost", "day", MODEL),
        AllowanceRef(account_id, f"key:{key_id}", "tokens", "hour"),
        AllowanceRef(account_id, f"user:{USER}", "cost", "month"),
        AllowanceRef(account_id, f"project:{PROJECT}", "cost", "week"),
        AllowanceRef(account_id, "account", "concurrency", "lifetime"),
        AllowanceRef(account_id, f"user:{USER}", "tokens", "day", "gpt-*"),
        AllowanceRef(account_id, f"project:{PROJECT}", "requests", "lifetime", "g?t-*-m?ni"),
    ]


def start_ms(ref: AllowanceRef, now_ms: int) -> int:
    """When the allowance's window began."""
    return windows.bounds(Window(ref.window), now_ms=now_ms, zone=ZONE).start_ms


def moves(wanted: Sequence[AllowanceRef], made: Charge, now_ms: int) -> list[Move]:
    """What a charge does to each of these allowances, all of it leased."""
    used = {
        "cost": made.cost_nanos,
        "requests": 1,
        "tokens": made.input_tokens + made.output_tokens,
    }
    return [
        Move(ref.scope, ref.resource, ref.window, ref.model, start_ms(ref, now_ms), amount, amount)
        for ref in wanted
        if (amount := used.get(ref.resource, 0))
    ]


@pytest.fixture
async def books(database: Database, clock: Clock) -> Database:
    """Two accounts with grants, corrections, limits, leases, charges and an overrun."""
    async with database.write() as tx:
        for name in ("Acme", "Bolt"):
            account = await accounts.create(
                tx, name=name, time_zone=ZONE, credit_nanos=1_000_000, actor="test"
            )
            account_id = account.row.id
            await users.insert_member(tx, account_id=account_id, user_id=USER, role="member")
            await keys.create(
                tx,
                account_id=account_id,
                user_id=USER,
                name="key",
                random_bytes=os.urandom,
                credit_limit_nanos=900_000,
            )
        await ledger.grant(tx, account_id=1, amount_nanos=500, note="", actor="test")
        await ledger.correct(tx, account_id=1, amount_nanos=-200, reason="typo", actor="test")
        for ref in refs(1, 1)[2:]:
            await allowances.insert_allowance(tx, ref=ref, limit=1_000_000)
        worker_id = await workers.insert_worker(tx, host="test")
    for seq in (1, 2, 3):
        await _charge(database, worker_id, seq, clock())
        clock.advance(1_000)
    async with database.write() as tx:
        await _overspend(tx, worker_id, 4, clock())
    return database


async def _charge(database: Database, worker_id: int, seq: int, now_ms: int) -> None:
    made = msgspec.structs.replace(
        charge(seq, 1_000 * seq, at_ms=now_ms),
        account_id=1,
        key_id=1,
        user_id=USER,
        project_id=PROJECT,
        moves=[],
    )
    wanted = refs(1, 1)
    wants = [Want(ref, start_ms(ref, now_ms), 4_000, 4_000, 0) for ref in wanted]
    async with database.write() as tx:
        await leases.take(tx, worker_id=worker_id, wants=wants)
    made.moves = moves(wanted, made, now_ms)
    async with database.write() as tx:
        await settlement.settle(tx, worker_id=worker_id, charges=[made])


async def _overspend(tx: WriteTx, worker_id: int, seq: int, now_ms: int) -> None:
    made = msgspec.structs.replace(
        charge(seq, 0, at_ms=now_ms, excess_nanos=950_000), account_id=2, key_id=2, moves=[]
    )
    made.moves = [
        Move(ref.scope, ref.resource, ref.window, ref.model, 0, 0, 0) for ref in refs(2, 2)[:2]
    ]
    _, overrun = await settlement.settle_one(tx, worker_id=worker_id, charge=made)
    assert overrun == 50_000


async def proved(database: Database, clock: Clock) -> list[str]:
    """The differences, as people read them."""
    async with database.read() as tx:
        report = await verify.verify(tx, now_ms=clock())
    return [str(difference) for difference in report.differences]


async def proved_after(database: Database, clock: Clock, statement: str) -> list[verify.Difference]:
    """The differences once somebody has gone behind everybody's back; undone afterwards."""
    async with database.engine.connect() as connection:
        await connection.execution_options(bursar_write=True)
        async with connection.begin() as transaction:
            tx = WriteTx(connection, database.dialect, clock(), [])
            for guard in GUARDS_OFF[database.dialect]:
                await tx.execute(text(guard))
            assert (await tx.execute(text(statement))).rowcount > 0
            report = await verify.verify(tx, now_ms=clock())
            await transaction.rollback()
    return report.differences


async def test_empty_books_are_right(database: Database, clock: Clock) -> None:
    assert await proved(database, clock) == []


async def test_right_books_have_no_difference(books: Database, clock: Clock) -> None:
    assert await proved(books, clock) == []


async def test_everything_is_counted(books: Database, clock: Clock) -> None:
    async with books.read() as tx:
        report = await verify.verify(tx, now_ms=clock())
    assert report.checked == {
        "accounts": 2,
        "allowances": 12,
        "leases": 10,
        "transfers": 5,
        "usage_events": 4,
        "usage_hourly": 2,
        "usage_daily": 2,
        "workers": 1,
        "audit": 8,
    }


async def test_window_that_has_ended_is_not_compared(books: Database, clock: Clock) -> None:
    clock.advance(62 * DAY_MS)
    assert await proved(books, clock) == []


async def test_lease_of_a_window_that_has_ended_is_no_difference(
    books: Database, clock: Clock
) -> None:
    clock.advance(60_000)
    async with books.write() as tx:
        ref = refs(1, 1)[2]
        await leases.take(tx, worker_id=1, wants=[Want(ref, start_ms(ref, clock()), 1, 1, 0)])
    assert await proved(books, clock) == []


SURPLUS_TRANSFER = """
    INSERT INTO transfers (account_id, id, at_ms, kind, source, target, amount_nanos)
    VALUES (1, 99, 1, 'grant', 'funding', 'wallet', 1)
"""
SURPLUS_CELL = """
    INSERT INTO usage_daily SELECT account_id, day_ms + 86400000, key_id, project_id, user_id,
        model, endpoint, outcome, 0, 0, 0, 0, 0, 0, 0, 0 FROM usage_daily
"""
MADE_NOW = f"UPDATE allowances SET created_ms = {START_MS}"
CORRUPTIONS = [
    ("UPDATE allowances SET limit_amount = limit_amount + 1 WHERE scope = 'wallet'", "credit"),
    ("DELETE FROM allowances WHERE scope = 'wallet' AND account_id = 2", "credit"),
    ("DELETE FROM allowances WHERE scope = 'wallet' AND account_id = 2", "uncounted"),
    ("DELETE FROM allowances WHERE scope = 'key:2'", "uncounted"),
    ("DELETE FROM allowances WHERE resource = 'concurrency'", "lost leases"),
    ("UPDATE allowances SET used = used + 1 WHERE scope = 'wallet' AND account_id = 1", "used"),
    ("UPDATE allowances SET used = used - 1 WHERE scope = 'key:1'", "used"),
    ("UPDATE allowances SET used = used + 1 WHERE resource = 'concurrency'", "used"),
    *[
        (f"UPDATE allowances SET used = used + 1 WHERE window_name = '{window}'", "used")
        for window in ("minute", "hour", "day", "week", "month")
    ],
    *[
        (f"UPDATE allowances SET used = used {change} WHERE model LIKE '%*%'", "used")
        for change in ("- 1", "+ 1")
    ],
    ("UPDATE allowances SET model = 'gpt-_*' WHERE model = 'gpt-*'", "used"),
    ("UPDATE allowances SET model = 'G*' WHERE model = 'gpt-*'", "used"),
    (f"{MADE_NOW}, used = used + 1 WHERE window_name = 'day'", "used"),
    (f"{MADE_NOW}, used = used - 1 WHERE scope = 'wallet' AND used > 0", "used"),
    (f"{MADE_NOW}, used = used - 1 WHERE scope = 'key:1' AND resource = 'cost'", "used"),
    (f"{MADE_NOW} - {DAY_MS}, used = used - 1 WHERE window_name = 'minute'", "used"),
    ("UPDATE allowances SET window_start_ms = 5 WHERE window_name = 'month'", "used"),
    ("UPDATE allowances SET window_start_ms = 5 WHERE window_name = 'lifetime'", "windows"),
    ("UPDATE allowances SET model = 'other' WHERE window_name = 'day'", "used"),
    ("UPDATE allowances SET scope = 'user:6' WHERE scope = 'user:5'", "used"),
    ("UPDATE allowances SET leased = leased + 1 WHERE scope = 'key:1'", "leased"),
    ("UPDATE allowances SET leased = 0 WHERE scope = 'wallet'", "leased"),
    ("UPDATE leases SET amount = amount - 1 WHERE scope = 'wallet'", "leased"),
    ("DELETE FROM leases WHERE scope = 'wallet'", "leased"),
    ("UPDATE leases SET window_start_ms = window_start_ms + 1 WHERE scope = 'user:5'", "leased"),
    ("UPDATE leases SET scope = 'user:6' WHERE scope = 'user:5'", "lost leases"),
    ("UPDATE workers SET state = 'closed'", "dead leases"),
    ("UPDATE workers SET settled_seq = 3", "sequence"),
    ("DELETE FROM workers", "sequence"),
    ("DELETE FROM workers", "dead leases"),
    ("UPDATE transfers SET amount_nanos = amount_nanos + 1 WHERE kind = 'grant'", "credit"),
    ("UPDATE transfers SET amount_nanos = amount_nanos + 1 WHERE kind = 'correction'", "credit"),
    ("UPDATE transfers SET amount_nanos = amount_nanos + 1 WHERE kind = 'overrun'", "overrun"),
    ("UPDATE transfers SET reference = 'other' WHERE kind = 'overrun'", "overrun"),
    ("UPDATE transfers SET account_id = 2 WHERE id = 3", "credit"),
    ("DELETE FROM transfers WHERE kind = 'correction'", "credit"),
    ("DELETE FROM transfers WHERE kind = 'overrun'", "overrun"),
    ("DELETE FROM transfers WHERE kind = 'correction'", "transfers"),
    (SURPLUS_TRANSFER, "counters"),
    (SURPLUS_TRANSFER, "credit"),
    ("UPDATE usage_events SET cost_nanos = cost_nanos + 1 WHERE seq = 1", "used"),
    ("UPDATE usage_events SET cost_nanos = cost_nanos + 1 WHERE seq = 1", "usage_hourly"),
    ("UPDATE usage_events SET overrun_nanos = overrun_nanos + 1 WHERE seq = 4", "overrun"),
    ("UPDATE usage_events SET seq = 5 WHERE seq = 4", "sequence"),
    ("UPDATE usage_events SET seq = 0 WHERE seq = 4", "sequence"),
    ("UPDATE usage_events SET seq = 2 WHERE seq = 3", "charged twice"),
    ("UPDATE usage_events SET worker_id = 8 WHERE seq = 3", "sequence"),
    ("UPDATE usage_events SET key_id = 8 WHERE seq = 3", "uncounted"),
    ("UPDATE usage_events SET account_id = 8 WHERE seq = 3", "uncounted"),
    (f"UPDATE usage_events SET at_ms = at_ms - {2 * HOUR_MS} WHERE seq = 3", "usage_hourly"),
    (f"UPDATE usage_events SET at_ms = at_ms - {DAY_MS} WHERE seq = 3", "usage_daily"),
    ("DELETE FROM usage_events WHERE seq = 3", "used"),
    ("DELETE FROM usage_events WHERE account_id = 1", "usage_hourly"),
    *[
        (f"UPDATE {table} SET {column} = {column} + 1 WHERE account_id = 1", table)
        for table in ("usage_hourly", "usage_daily")
        for column in (
            "requests",
            "input_tokens",
            "cached_input_tokens",
            "output_tokens",
            "reasoning_tokens",
            "cost_nanos",
            "overrun_nanos",
            "key_id",
            "user_id",
            "project_id",
            "last_ms",
        )
    ],
    ("DELETE FROM usage_hourly WHERE account_id = 2", "usage_hourly"),
    ("DELETE FROM usage_daily WHERE account_id = 2", "usage_daily"),
    ("UPDATE usage_daily SET day_ms = day_ms + 86400000 WHERE account_id = 1", "usage_daily"),
    ("UPDATE usage_hourly SET model = 'other' WHERE account_id = 1", "usage_hourly"),
    (SURPLUS_CELL, "usage_daily"),
    ("DELETE FROM accounts WHERE id = 2", "owners"),
    ("UPDATE counters SET value = value - 1 WHERE name = 'keys'", "counters"),
    ("UPDATE counters SET value = value - 1 WHERE name = 'accounts'", "counters"),
    ("UPDATE counters SET value = 0 WHERE name = 'workers'", "counters"),
    ("UPDATE counters SET value = 0 WHERE name = 'changes'", "counters"),
    ("DELETE FROM counters WHERE name = 'transfers'", "counters"),
]


async def test_whatever_is_changed_is_found(
    books: Database, clock: Clock, subtests: pytest.Subtests
) -> None:
    for statement, check in CORRUPTIONS:
        with subtests.test(statement, check=check):
            found = await proved_after(books, clock, statement)
            assert check in {difference.check for difference in found}, found


async def test_an_allowance_that_was_made_within_its_window_may_have_less(
    books: Database, clock: Clock
) -> None:
    statement = f"{MADE_NOW}, used = used - 1 WHERE window_name <> 'lifetime'"
    assert await proved_after(books, clock, statement) == []


async def test_difference_names_the_figure_and_both_values(books: Database, clock: Clock) -> None:
    statement = "UPDATE allowances SET used = 7 WHERE scope = 'wallet' AND account_id = 1"
    assert [str(difference) for difference in await proved_after(books, clock, statement)] == [
        "account 1: wallet/cost/lifetime used is 7, expected 6000 (used)"
    ]


async def test_missing_row_of_a_roll_up_is_one_difference(books: Database, clock: Clock) -> None:
    statement = "DELETE FROM usage_daily WHERE account_id = 2"
    (difference,) = await proved_after(books, clock, statement)
    assert difference.subject.startswith("row of ")
    assert (difference.account_id, difference.expected, difference.found) == (2, 1, 0)


def test_fixture_stays_within_one_minute() -> None:
    assert 3_000 < START_MS % 60_000 < 57_000
