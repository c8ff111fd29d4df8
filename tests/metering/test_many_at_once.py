"""Reports from many at once, beside calls: never more than the limits allow, and each id once."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from bursar.core.allowances import OWN, AllowanceRef
from bursar.core.refusals import Deny
from bursar.service import accounts, keys, usage
from bursar.service.metering.fields import NewEvent
from bursar.store.database import Database
from bursar.store.limits import allowances
from bursar.store.usage import EventFilter, EventRow, Position
from tests.databases import Clock
from tests.installations import Randomness
from tests.metering.meters import BYTE, codes, differences, documents, price_all, report, stored
from tests.worker.teams import CREDIT_NANOS, gathered

MINUTE_MS, DAY_MS = 60_000, 86_400_000
SEEDS = range(4)


async def rows_of(database: Database, account_id: int) -> list[EventRow]:
    found: list[EventRow] = []
    behind = None
    async with database.read() as tx:
        while page := await usage.list_events(
            tx, account_id=account_id, where=EventFilter(), behind=behind, limit=500
        ):
            found += page
            behind = Position(page[-1].at_ms, page[-1].event_id)
    return found


class Model:
    """What reports should have done: plain sums by limit, in the order of the reports."""

    def __init__(self, wallet: int, limits: dict[tuple[str, str], int], now_ms: int) -> None:
        self.wallet = wallet
        self.limits = limits
        self.now_ms = now_ms
        self.spent: dict[tuple[str, str], int] = {}
        self.total = 0
        self.ids: set[str] = set()

    def report(self, event: NewEvent) -> str:
        """`accepted`, `duplicate` or `refused`."""
        if event.id in self.ids:
            return "duplicate"
        cost = event.quantities["storage_bytes"] * BYTE
        scopes = ["account"] if event.key_id is None else ["account", f"key:{event.key_id}"]
        applying = [
            (scope, window)
            for scope, window in self.limits
            if scope in scopes and (window != "day" or self.is_today(event))
        ]
        after = {name: self.spent.get(name, 0) + cost for name in applying}
        if self.total + cost > self.wallet:
            return "refused"
        if any(amount > self.limits[name] for name, amount in after.items()):
            return "refused"
        self.spent.update(after)
        self.total += cost
        self.ids.add(event.id)
        return "accepted"

    def is_today(self, event: NewEvent) -> bool:
        """Whether it happened on the day that it is now, in UTC."""
        return (event.at_ms or 0) >= self.now_ms - self.now_ms % DAY_MS


@pytest.mark.parametrize("seed", SEEDS)
async def test_any_reports_do_what_plain_sums_do(
    database: Database, clock: Clock, seed: int
) -> None:
    chance = random.Random(seed)
    await price_all(database)
    wallet = chance.randrange(1, 4_000)
    async with database.write() as tx:
        account_id = (
            await accounts.create(tx, name="A", time_zone="UTC", credit_nanos=wallet, actor="test")
        ).row.id
    limits: dict[tuple[str, str], int] = {}
    key_ids: list[int | None] = [None]
    for _ in range(3):
        amount = chance.choice([None, chance.randrange(2_000)])
        async with database.write() as tx:
            made = await keys.create(
                tx,
                account_id=account_id,
                user_id=None,
                name="K",
                random_bytes=Randomness(),
                credit_limit_nanos=amount,
            )
        key_ids.append(made.key.id)
        if amount is not None:
            limits[f"key:{made.key.id}", "lifetime"] = amount
    limits["account", "day"] = chance.randrange(3_000)
    today = clock.now_ms - clock.now_ms % DAY_MS
    async with database.write() as tx:
        await allowances.put_limit(
            tx,
            ref=AllowanceRef(account_id, "account", "cost", "day"),
            limit=limits["account", "day"],
            soft=None,
            origin=OWN,
            window_start_ms=today,
        )
    model = Model(wallet, limits, clock.now_ms)
    for _ in range(4):
        batch = [
            stored(
                f"e{chance.randrange(60)}",
                chance.randrange(120),
                key_id=chance.choice(key_ids),
                at_ms=clock.now_ms - chance.choice([0, 1, MINUTE_MS, 2 * DAY_MS]),
            )
            for _ in range(chance.randrange(1, 25))
        ]
        expected = [model.report(event) for event in batch]
        found = await report(database, *batch, account_id=account_id)
        assert found.accepted == expected.count("accepted"), f"seed {seed}"
        assert found.duplicates == expected.count("duplicate"), f"seed {seed}"
        refused = [place for place, what in enumerate(expected) if what == "refused"]
        assert list(codes(found)) == refused, f"seed {seed}"
    rows = await rows_of(database, account_id)
    assert sum(row.cost_nanos for row in rows) == model.total <= wallet
    assert {row.event_id for row in rows} == model.ids
    assert await differences(database) == []


@pytest.mark.usefixtures("installation")
async def test_reporters_at_once_never_charge_an_id_twice_nor_more_than_there_is(
    database: Database,
) -> None:
    await price_all(database)
    async with database.write() as tx:
        account = await accounts.create(
            tx, name="Shared", time_zone="UTC", credit_nanos=100 * BYTE, actor="test"
        )
    url = database.url.render_as_string(hide_password=False)
    async with AsyncExitStack() as parts:
        # Each is a server of its own; on SQLite they are one, as they must be.
        reporters = [database]
        for _ in range(0 if database.path else 3):
            other = Database(url, clock_ms=database.clock_ms)
            parts.push_async_callback(other.close)
            reporters.append(other)

        async def send(number: int) -> int:
            batch = [stored(f"e{n}", 1) for n in range(160)]
            random.Random(number).shuffle(batch)
            mine = reporters[number % len(reporters)]
            receipts = [
                await report(mine, *batch[n : n + 20], account_id=account.row.id)
                for n in range(0, len(batch), 20)
            ]
            assert {code for each in receipts for code in codes(each).values()} <= {
                "insufficient_quota"
            }
            return sum(each.accepted for each in receipts)

        accepted = sum(await asyncio.gather(*map(send, range(6))))
    rows = await rows_of(database, account.row.id)
    assert accepted == len(rows) == len({row.event_id for row in rows}) == 100
    async with database.read() as snapshot:
        wallet = await allowances.get_wallet(snapshot, account_id=account.row.id)
    assert (wallet.used, wallet.left) == (100 * BYTE, 0)
    assert await differences(database) == []


async def test_reports_and_calls_share_credit_to_the_last_nano(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    """Workers lease ahead for calls; a report is charged out of what they hold idle too."""
    await price_all(database)
    async with gathered(database, clock, tmp_path, count=2) as team:
        half = CREDIT_NANOS // 2 // BYTE
        sold = 0

        async def sell() -> None:
            nonlocal sold
            for number in range(40):
                if await team.sell(number, cost=10**9) is None:
                    sold += 10**9
                await asyncio.sleep(0)

        async def meter() -> int:
            receipts = [
                await report(
                    team.workers[n % 2].database,
                    stored(f"e{n}", half // 10, key_id=team.key_id),
                    account_id=team.account_id,
                )
                for n in range(10)
            ]
            assert all(not each.rejected for each in receipts)
            return sum(each.accepted for each in receipts)

        _, accepted = await asyncio.gather(sell(), meter())
        assert (accepted, sold) == (10, 40 * 10**9)
        wallet = allowances.wallet(team.account_id)
        assert await team.used(wallet) == sold + 10 * (half // 10) * BYTE
        # Almost all that is left, though both workers have leases of it that nobody uses.
        left = (CREDIT_NANOS - await team.used(wallet)) // BYTE
        last = await report(
            team.workers[0].database,
            stored("last", left),
            stored("beyond", 1),
            account_id=team.account_id,
        )
        assert (last.accepted, codes(last)) == (1, {1: "insufficient_quota"})
        assert CREDIT_NANOS - await team.used(wallet) < BYTE
        assert isinstance(await team.call(cost=BYTE), Deny)


async def test_a_thousand_events_are_one_report(database: Database) -> None:
    await price_all(database)
    async with database.write() as tx:
        account = await accounts.create(
            tx, name="Many", time_zone="UTC", credit_nanos=10**12, actor="test"
        )
    batch = [documents(f"doc-{n}") for n in range(1_000)]
    found = await report(database, *batch, account_id=account.row.id)
    assert (found.accepted, found.duplicates, found.rejected) == (1_000, 0, {})
    again = await report(database, *batch, account_id=account.row.id)
    assert (again.accepted, again.duplicates) == (0, 1_000)
