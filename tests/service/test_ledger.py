"""Credit moves by lines that are never changed, and never more of it than there is."""

from __future__ import annotations

import asyncio

import pytest

from bursar.core.errors import BursarError, Conflict, Invalid, NotFound
from bursar.core.money import MAX_NANOS
from bursar.service import accounts, ledger
from bursar.service.ledger import Posting
from bursar.store import changes
from bursar.store.database import Database
from bursar.store.ledger import Entry, EntryKind, Position
from bursar.store.limits import allowances
from bursar.store.plane import leases
from tests.databases import Clock
from tests.installations import NANOS, a_charge, lease, use

pytestmark = pytest.mark.usefixtures("installation")
WALLET = allowances.wallet(1)


async def grant(database: Database, amount_nanos: int, account_id: int = 1) -> Posting:
    async with database.write() as tx:
        return await ledger.grant(
            tx, account_id=account_id, amount_nanos=amount_nanos, note="Thanks", actor="key:1"
        )


async def correct(database: Database, amount_nanos: int, reason: str = "Mistake") -> Posting:
    async with database.write() as tx:
        return await ledger.correct(
            tx, account_id=1, amount_nanos=amount_nanos, reason=reason, actor="key:1"
        )


async def balance(database: Database) -> int:
    async with database.read() as tx:
        return await ledger.get_balance(tx, account_id=1)


async def pages(database: Database, size: int) -> list[Entry]:
    entries: list[Entry] = []
    behind = None
    async with database.read() as tx:
        while page := await ledger.list_entries(tx, account_id=1, behind=behind, limit=size):
            entries += page
            behind = Position(page[-1].at_ms, page[-1].type, page[-1].id)
    return entries


async def test_a_grant_adds_to_the_balance_and_to_the_statement(database: Database) -> None:
    posting = await grant(database, 10 * NANOS)
    assert posting.balance_nanos == await balance(database) == 110 * NANOS
    assert (posting.entry.kind, posting.entry.amount_nanos) == ("grant", 10 * NANOS)
    assert (await pages(database, 10))[0] == posting.entry


@pytest.mark.parametrize("amount_nanos", [0, -1])
async def test_a_grant_is_above_nothing(database: Database, amount_nanos: int) -> None:
    with pytest.raises(Invalid) as refusal:
        await grant(database, amount_nanos)
    assert refusal.value.code == "invalid_amount"


async def test_a_balance_that_would_not_fit_is_refused_and_stays(database: Database) -> None:
    await grant(database, MAX_NANOS - 100 * NANOS - 1)
    with pytest.raises(Invalid) as refusal:
        await grant(database, 2)
    assert refusal.value.code == "balance_overflow"
    assert await balance(database) == MAX_NANOS - 1
    await grant(database, 1)
    assert await balance(database) == MAX_NANOS


async def test_a_correction_goes_either_way(database: Database) -> None:
    up = await correct(database, 5)
    assert (up.entry.kind, up.entry.amount_nanos) == ("correction", 5)
    down = await correct(database, -7)
    assert (down.entry.kind, down.entry.amount_nanos) == ("correction", -7)
    assert await balance(database) == 100 * NANOS - 2


@pytest.mark.parametrize(
    ("amount_nanos", "reason", "code"),
    [
        (0, "Mistake", "invalid_amount"),
        (1, "", "invalid_name"),
        (-1, "  ", "invalid_name"),
        (-1, "x" * 501, "name_too_long"),
        (-1, "a\r\nb", "invalid_characters"),
    ],
)
async def test_a_correction_needs_an_amount_and_a_reason(
    database: Database, amount_nanos: int, reason: str, code: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        await correct(database, amount_nanos, reason)
    assert refusal.value.code == code
    assert await balance(database) == 100 * NANOS


async def test_what_is_used_cannot_be_taken_away(database: Database) -> None:
    await use(database, a_charge("a", 60 * NANOS))
    with pytest.raises(Conflict) as refusal:
        await correct(database, -41 * NANOS)
    assert refusal.value.code == "insufficient_credit"
    await correct(database, -40 * NANOS)
    assert await balance(database) == 0


async def test_what_is_leased_cannot_be_taken_away_until_it_is_returned(
    database: Database,
) -> None:
    worker_id = await lease(database, WALLET, 60 * NANOS)
    with pytest.raises(Conflict) as refusal:
        await correct(database, -41 * NANOS)
    assert refusal.value.code == "credit_leased"

    async def attempt() -> Posting:
        return await correct(database, -41 * NANOS)

    waiting = asyncio.create_task(
        ledger.when_leases_return(database, account_id=1, attempt=attempt)
    )
    async with database.read() as tx:
        seen = await changes.get_last(tx)
    await asyncio.sleep(0.3)
    assert not waiting.done()
    async with database.read() as tx:
        asked = {(c.topic, c.subject) for c in await changes.list_after(tx, cursor=seen)}
    assert asked == {("allowance", "wallet/cost/lifetime")}
    async with database.write() as tx:
        returned = [(WALLET, 0, 60 * NANOS)]
        await leases.give_back(tx, worker_id=worker_id, returns=returned)
    assert (await waiting).balance_nanos == 59 * NANOS


async def test_a_refusal_that_waiting_cannot_help_comes_at_once(database: Database) -> None:
    tries = 0

    async def attempt() -> Posting:
        nonlocal tries
        tries += 1
        return await correct(database, -101 * NANOS)

    with pytest.raises(Conflict):
        await ledger.when_leases_return(database, account_id=1, attempt=attempt)
    assert tries == 1


async def test_unknown_and_cancelled_accounts_get_nothing(database: Database) -> None:
    with pytest.raises(NotFound):
        await grant(database, 1, account_id=99)
    async with database.write() as tx:
        await accounts.cancel(tx, account_id=1)
    with pytest.raises(Conflict) as refusal:
        await grant(database, 1)
    assert refusal.value.code == "account_cancelled"


async def test_concurrent_corrections_cannot_take_the_same_credit_twice(
    database: Database,
) -> None:
    outcomes = await asyncio.gather(
        *(correct(database, -30 * NANOS) for _ in range(6)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, BursarError)]
    assert [error.code for error in refused] == ["insufficient_credit"] * 3
    assert await balance(database) == 10 * NANOS


@pytest.mark.parametrize("size", [1, 2, 3, 50])
async def test_a_statement_has_each_line_once_in_order_and_adds_up(
    database: Database, clock: Clock, size: int
) -> None:
    await use(database, *(a_charge(f"e{n}", 1 + n, at_ms=clock.now_ms) for n in range(3)))
    await grant(database, 50)
    clock.advance(1)
    await correct(database, -20)
    await use(database, a_charge("late", 9, at_ms=clock.now_ms), a_charge("free", 0))
    await grant(database, 1)
    clock.advance(1)
    await use(database, a_charge("last", 4, at_ms=clock.now_ms))
    entries = await pages(database, size)
    assert [(entry.kind, entry.amount_nanos) for entry in entries] == [
        ("usage", -4),
        ("grant", 1),
        ("correction", -20),
        ("usage", -9),
        ("grant", 50),
        ("grant", 100 * NANOS),
        ("usage", -3),
        ("usage", -2),
        ("usage", -1),
    ]
    assert sum(entry.amount_nanos for entry in entries) == await balance(database)
    assert {entry.type for entry in entries} == set(EntryKind)
