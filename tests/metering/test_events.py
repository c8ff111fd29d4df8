"""What is reported to have been used is priced and charged once, within every limit of cost."""

from __future__ import annotations

from decimal import Decimal

import pytest

from bursar.core import windows
from bursar.core.allowances import OWN, AllowanceRef, Resource
from bursar.core.windows import Window
from bursar.service import accounts, keys, projects, usage
from bursar.service.keys.fields import KeyChange, KeySettings
from bursar.service.limits import plans
from bursar.service.metering import fields
from bursar.service.metering.fields import NewEvent
from bursar.store import ledger as statement
from bursar.store.database import Database
from bursar.store.limits import allowances
from bursar.store.plane import leases
from bursar.store.usage import EventFilter, EventRow
from tests.databases import START_MS, Clock
from tests.installations import NANOS, Randomness, lease
from tests.metering.meters import (
    DOCUMENT,
    QUESTION,
    codes,
    differences,
    documents,
    price,
    price_all,
    report,
    stored,
)

pytestmark = pytest.mark.usefixtures("installation")
WALLET = allowances.wallet(1)
KEY = 3
DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
async def prices(database: Database) -> None:
    await price_all(database)


async def used(database: Database, ref: AllowanceRef) -> int:
    async with database.write() as tx:
        rows = await leases.lock(tx, refs=[ref])
    return rows[0].used if rows else 0


async def limit(
    database: Database, ref: AllowanceRef, amount: int | None, *, zone: str = "UTC"
) -> None:
    window = windows.bounds(Window(ref.window), now_ms=database.clock_ms(), zone=zone)
    async with database.write() as tx:
        await allowances.put_limit(
            tx, ref=ref, limit=amount, soft=None, origin=OWN, window_start_ms=window.start_ms
        )


async def events(database: Database, account_id: int = 1) -> list[EventRow]:
    async with database.read() as tx:
        return await usage.list_events(
            tx, account_id=account_id, where=EventFilter(), behind=None, limit=99
        )


async def test_an_event_is_charged_to_the_wallet_and_its_key_by_its_quantities(
    database: Database, clock: Clock
) -> None:
    event = NewEvent(
        "evt-1",
        {"documents": 3, "questions": 2},
        product="hippo",
        key_id=KEY,
        at_ms=clock.now_ms - 1,
        labels={"team": "search"},
    )
    assert (await report(database, event)).accepted == 1
    cost = 3 * DOCUMENT + 2 * QUESTION
    assert await used(database, WALLET) == cost
    assert await used(database, allowances.credit_limit(1, KEY)) == cost
    (row,) = await events(database)
    assert (row.event_id, row.key_id, row.product, row.model) == ("evt-1", KEY, "hippo", "hippo")
    assert (row.cost_nanos, row.at_ms, row.endpoint) == (cost, clock.now_ms - 1, "meter")
    assert row.quantities == '{"documents": 3, "questions": 2}'
    assert row.labels == '{"team":"search"}'
    assert row.user_id == 1, "the key acts for the first user"
    assert await differences(database) == []


async def test_an_event_without_a_key_is_the_accounts(database: Database) -> None:
    assert (await report(database, documents("a"))).accepted == 1
    assert await used(database, WALLET) == DOCUMENT
    assert [(row.key_id, row.user_id) for row in await events(database)] == [(None, None)]
    async with database.read() as tx:
        lines = await statement.list_entries(tx, account_id=1, behind=None, limit=9)
        report_ = await usage.report(tx, account_id=1, days=1, now_ms=START_MS)
    assert [(line.amount_nanos, line.key_id) for line in lines] == [
        (100 * NANOS, None),
        (-DOCUMENT, None),
    ]
    assert (report_.total.cost_nanos, report_.by_key) == (DOCUMENT, [])
    assert [name for name, _ in report_.by_model] == ["hippo"]
    assert await differences(database) == []


async def test_an_id_is_charged_once_whatever_is_sent_again(
    database: Database, clock: Clock
) -> None:
    first = await report(database, documents("a"), documents("a", 5), documents("b"))
    assert (first.accepted, first.duplicates) == (2, 1)
    clock.advance(DAY_MS)
    again = await report(
        database, documents("b"), documents("a", at_ms=clock.now_ms), stored("c", 1)
    )
    assert (again.accepted, again.duplicates, again.rejected) == (1, 2, {})
    assert await used(database, WALLET) == 2 * DOCUMENT + 3


async def test_another_accounts_ids_are_its_own(database: Database) -> None:
    async with database.write() as tx:
        other = await accounts.create(
            tx, name="Other", time_zone="UTC", credit_nanos=NANOS, actor="test"
        )
    await report(database, documents("a"))
    found = await report(database, documents("a"), account_id=other.row.id)
    assert (found.accepted, found.duplicates) == (1, 0)
    stolen = await report(database, documents("b", key_id=KEY), account_id=other.row.id)
    unknown = await report(database, documents("b", key_id=999), account_id=other.row.id)
    assert stolen == unknown
    assert codes(stolen) == {0: "not_found"}
    assert await used(database, allowances.credit_limit(1, KEY)) == 0


async def test_one_bad_event_keeps_none_of_the_others_from_being_charged(
    database: Database, clock: Clock
) -> None:
    now = clock.now_ms
    found = await report(
        database,
        documents("good"),
        documents("req_1"),
        documents("spaced id"),
        documents(""),
        documents("a", -1),
        documents("b", 10**16),
        NewEvent("c", {}, product="hippo"),
        NewEvent("d", {"Documents": 1}, product="hippo"),
        NewEvent("e", {"documents": 1}),
        documents("f", product="unknown"),
        NewEvent("g", {"documents": 1, "pages": 1}, product="hippo"),
        documents("h", at_ms=now - 36 * DAY_MS),
        documents("i", at_ms=now + 6 * 60_000),
        documents("j", key_id=2),
        documents("k", labels={"Not A Name": "x"}),
        documents("l", product="two words"),
        documents("good-too"),
    )
    assert found.accepted == 2
    invalid, unpriced = "invalid_value", "model_not_priced"
    assert list(codes(found).values()) == [
        *(invalid,) * 7,
        "missing_field",
        unpriced,
        unpriced,
        "invalid_timestamp",
        "invalid_timestamp",
        "not_found",
        "invalid_label",
        invalid,
    ]
    assert await used(database, WALLET) == 2 * DOCUMENT
    assert await differences(database) == []


async def test_the_price_is_the_one_of_the_moment_of_use(database: Database, clock: Clock) -> None:
    now = clock.now_ms
    await price(database, product="hippo", per_unit={"documents": 7}, effective_ms=now - 1_000)
    await report(database, documents("old", at_ms=now - 1_001), documents("new", at_ms=now - 1_000))
    assert await used(database, WALLET) == DOCUMENT + 7


async def test_a_models_own_price_goes_before_its_products(database: Database) -> None:
    await price(
        database,
        model="hippo-large",
        per_unit={"documents": 5, "requests": 100},
        per_million={"input_tokens": Decimal("1.00")},
    )
    large = NewEvent("a", {"documents": 1, "input_tokens": 3}, product="hippo", model="hippo-large")
    await report(database, large, documents("b", model="hippo-small"))
    assert await used(database, WALLET) == (5 + 100 + 3_000) + DOCUMENT
    found = {row.event_id: row for row in await events(database)}
    assert (found["a"].input_tokens, found["a"].model) == (3, "hippo-large")
    assert (found["b"].product, found["b"].model) == ("hippo", "hippo-small")


async def test_every_last_nano_can_be_spent_and_not_one_more(database: Database) -> None:
    whole = 100 * NANOS
    found = await report(
        database,
        stored("most", whole // 3 - 5),
        documents("too-much", 2),
        stored("rest", 5),
        stored("none-left", 1),
    )
    assert codes(found) == {1: "insufficient_quota", 3: "insufficient_quota"}
    spent = await used(database, WALLET)
    assert whole - 3 < spent <= whole
    assert "wallet/cost/lifetime" in found.rejected[3].message
    assert await differences(database) == []


async def test_what_was_refused_can_be_sent_again_and_is_charged_then(database: Database) -> None:
    ref = allowances.credit_limit(1, KEY)
    await limit(database, ref, DOCUMENT - 1)
    event = documents("a", key_id=KEY)
    assert codes(await report(database, event)) == {0: "insufficient_quota"}
    await limit(database, ref, DOCUMENT)
    assert (await report(database, event)).accepted == 1
    assert await used(database, ref) == DOCUMENT


@pytest.mark.parametrize(
    ("scope", "window", "model"),
    [
        ("account", "month", ""),
        ("account", "day", "hippo"),
        ("project:1", "month", "h*"),
        ("user:1", "hour", ""),
        (f"key:{KEY}", "minute", ""),
    ],
)
async def test_every_limit_of_cost_of_the_key_refuses(
    database: Database, scope: str, window: str, model: str
) -> None:
    async with database.write() as tx:
        project = await projects.create(tx, account_id=1, name="P")
        change = KeyChange(project_id=project.id)
        await keys.update(tx, account_id=1, key_id=KEY, change=change)
    ref = AllowanceRef(1, scope, "cost", window, model)
    await limit(database, ref, 2 * DOCUMENT)
    found = await report(database, *(documents(f"e{n}", key_id=KEY) for n in range(3)))
    assert (found.accepted, codes(found)) == (2, {2: "insufficient_quota"})
    assert await used(database, ref) == 2 * DOCUMENT
    assert await differences(database) == []


async def test_limits_of_requests_and_tokens_count_and_refuse_nothing(database: Database) -> None:
    requests = AllowanceRef(1, "account", "requests", "day")
    tokens = AllowanceRef(1, f"key:{KEY}", "tokens", "hour")
    await price(
        database,
        model="m",
        per_unit={},
        per_million={"input_tokens": Decimal(1), "output_tokens": Decimal(2)},
    )
    await limit(database, requests, 1)
    await limit(database, tokens, 1)
    event = {"input_tokens": 10, "output_tokens": 5}
    found = await report(
        database, *(NewEvent(f"e{n}", event, model="m", key_id=KEY) for n in range(3))
    )
    assert (found.accepted, found.rejected) == (3, {})
    assert (await used(database, requests), await used(database, tokens)) == (3, 45)
    assert await differences(database) == []


async def test_use_counts_in_the_window_in_which_it_happened(
    database: Database, clock: Clock
) -> None:
    day = AllowanceRef(1, "account", "cost", "day")
    await limit(database, day, DOCUMENT)
    yesterday = clock.now_ms - DAY_MS
    first = await report(database, documents("before", at_ms=yesterday), documents("now"))
    assert first.accepted == 2
    late = await report(database, documents("late", at_ms=yesterday), documents("too-much"))
    assert (late.accepted, codes(late)) == (1, {1: "insufficient_quota"})
    assert await used(database, day) == DOCUMENT
    assert await used(database, WALLET) == 3 * DOCUMENT
    clock.advance(DAY_MS)
    assert (await report(database, documents("tomorrow"))).accepted == 1
    assert await differences(database) == []


async def test_days_are_those_of_the_accounts_time_zone(database: Database, clock: Clock) -> None:
    async with database.write() as tx:
        change = accounts.AccountChange(time_zone="Pacific/Auckland")
        await accounts.update(tx, account_id=1, change=change)
    day = AllowanceRef(1, "account", "cost", "day")
    await limit(database, day, DOCUMENT, zone="Pacific/Auckland")
    # 12:34 in UTC is half past one of the next day in Auckland, where midnight was at 11:00.
    morning = clock.now_ms - 2 * 3_600_000
    found = await report(database, documents("a", at_ms=morning), documents("b"))
    assert (found.accepted, await used(database, day)) == (2, DOCUMENT)
    assert await differences(database) == []


async def test_a_plans_default_binds_from_the_first_event(database: Database) -> None:
    async with database.write() as tx:
        await plans.set_limit(
            tx,
            plan_id=1,
            kind="key",
            resource=Resource.COST,
            window=Window.DAY,
            model="",
            default=DOCUMENT,
            most=None,
        )
    found = await report(database, documents("a", key_id=KEY), documents("b", key_id=KEY))
    assert (found.accepted, codes(found)) == (1, {1: "insufficient_quota"})
    assert (await report(database, documents("c"))).accepted == 1
    assert await differences(database) == []


async def test_a_deleted_key_pays_for_what_was_used_before(
    database: Database, clock: Clock
) -> None:
    async with database.write() as tx:
        await keys.delete(tx, account_id=1, key_id=KEY)
    deleted_ms = clock.now_ms
    clock.advance(60_000)
    found = await report(
        database,
        documents("before", key_id=KEY, at_ms=deleted_ms - 1),
        documents("after", key_id=KEY),
    )
    assert (found.accepted, codes(found)) == (1, {1: "not_found"})


async def test_a_clock_that_is_a_little_ahead_reports_what_is_now(
    database: Database, clock: Clock
) -> None:
    await report(database, documents("a", at_ms=clock.now_ms + 60_000))
    assert [row.at_ms for row in await events(database)] == [clock.now_ms]


async def test_labels_of_the_key_and_its_project_go_with_what_it_is_used_for(
    database: Database,
) -> None:
    async with database.write() as tx:
        made = await keys.create(
            tx,
            account_id=1,
            user_id=None,
            name="labelled",
            random_bytes=Randomness(),
            settings=KeySettings(labels={"env": "prod", "team": "a"}),
        )
    await report(database, documents("a", key_id=made.key.id, labels={"team": "b"}))
    assert [row.labels for row in await events(database)] == ['{"env":"prod","team":"b"}']


async def test_credit_that_calls_in_flight_hold_is_worth_waiting_for(
    database: Database, sqlite_only: None
) -> None:
    await lease(database, WALLET, 100 * NANOS - DOCUMENT)
    found = await report(database, documents("fits"), documents("waits"))
    assert (found.accepted, codes(found)) == (1, {1: "credit_held"})
    assert await differences(database) == []


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM metered_events WHERE event_id = 'a'",
        "UPDATE metered_events SET event_id = 'c' WHERE event_id = 'a'",
        "INSERT INTO metered_events (account_id, event_id, at_ms) VALUES (1, 'c', 1)",
    ],
)
async def test_an_id_without_its_charge_is_found_by_the_proof_and_a_charge_without_its_id(
    database: Database, statement: str
) -> None:
    await report(database, documents("a"), documents("b"))
    assert await differences(database) == []
    async with database.write() as tx:
        await tx.driver(statement)
    assert any("metered event" in each for each in await differences(database))


@pytest.fixture
def sqlite_only(database: Database) -> None:
    """Leases are the same on both; this one takes three seconds."""
    if database.path is None:
        pytest.skip("once is enough for what takes three seconds")


def test_a_report_may_be_as_late_as_its_bill() -> None:
    assert fields.MOST_LATE_MS > 31 * DAY_MS
