"""An explanation has the limits that apply, in their present windows, whoever has set them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, select

from bursar.core.allowances import AllowanceRef, Resource
from bursar.core.errors import Invalid, NotFound
from bursar.core.windows import Window
from bursar.service import accounts, keys, projects
from bursar.service.accounts import AccountChange
from bursar.service.keys.fields import KeySettings
from bursar.service.limits import allowances as limits
from bursar.service.limits import explain, plans
from bursar.service.limits.explain import Explanation, Question
from bursar.service.limits.rules import Scope
from bursar.service.limits.verdicts import Standing
from bursar.store import prices, tables
from bursar.store.database import Database
from bursar.store.plane import leases, workers
from bursar.store.plane.leases import Want
from bursar.store.prices import NewPrice
from tests.databases import Clock
from tests.installations import NANOS, Randomness

pytestmark = pytest.mark.usefixtures("installation")
DAY_MS = 86_400_000


def serving(model: str) -> list[tuple[str, bool]]:
    """One upstream with a name of its own for a model, and another that has no price."""
    places = {"fast": [("gpt-small", False)], "gpt-small": [("gpt-small", False)]}
    return places.get(model, [("unpriced", False)] if model == "unpriced" else [])


@pytest.fixture(autouse=True)
async def price(database: Database, installation: Any) -> None:
    async with database.write() as tx:
        await prices.insert_price(
            tx,
            price=NewPrice(
                model="gpt-small",
                product="",
                per_million={"input_tokens": Decimal(1), "output_tokens": Decimal(2)},
                per_unit={},
                tiers=(),
                is_free=False,
                context_window=1_000,
                max_output_tokens=500,
                effective_ms=0,
                source="test",
            ),
        )


async def ask(database: Database, key_id: int = 3, **fields: Any) -> Explanation:
    given: dict[str, Any] = {"model": "gpt-small", "body_bytes": 400, **fields}
    question = Question(key_id=key_id, **given)
    async with database.read() as tx:
        return await explain.explain(
            tx, account_id=1, question=question, serving=serving, now_ms=database.clock_ms()
        )


async def set_limit(
    database: Database,
    scope: Scope,
    resource: Resource,
    window: Window,
    limit: int | None,
    **more: Any,
) -> None:
    given = {"model": "", "soft": None, **more}
    async with database.write() as tx:
        await limits.set_limit(
            tx, account_id=1, scope=scope, resource=resource, window=window, limit=limit, **given
        )


async def lease(database: Database, name: str, amount: int) -> int:
    """Have a worker lease this much of an allowance's present window; its id."""
    scope, resource, window, *model = name.split("/", 3)
    ref = AllowanceRef(1, scope, resource, window, *model)
    found = {row.allowance.ref: row for row in (await ask(database)).standings}
    want = Want(ref, found[ref].allowance.window_start_ms, amount, amount, 0)
    async with database.write() as tx:
        worker_id = await workers.insert_worker(tx, host="test")
        grants = await leases.take(tx, worker_id=worker_id, wants=[want])
        assert grants[ref].granted == amount
    return worker_id


def names(found: Explanation) -> list[str]:
    return [each.allowance.ref.name for each in found.standings]


def standing(found: Explanation, name: str) -> Standing:
    return next(each for each in found.standings if each.allowance.ref.name == name)


async def test_the_limits_of_wallet_account_project_user_and_key_apply(database: Database) -> None:
    async with database.write() as tx:
        project = await projects.create(tx, account_id=1, name="Search")
        made = await keys.create(
            tx,
            account_id=1,
            user_id=1,
            name="key",
            random_bytes=Randomness(),
            settings=KeySettings(project_id=project.id),
        )
    key_id = made.key.id
    scopes = [Scope("key", key_id), Scope("user", 1), Scope("project", project.id)]
    for scope in (*scopes, Scope("account", 0)):
        await set_limit(database, scope, Resource.REQUESTS, Window.HOUR, 10)
    others = Scope("key", 3)
    await set_limit(database, others, Resource.REQUESTS, Window.HOUR, 10)
    assert names(await ask(database, key_id)) == [
        "wallet/cost/lifetime",
        "account/requests/hour",
        f"project:{project.id}/requests/hour",
        "user:1/requests/hour",
        f"key:{key_id}/requests/hour",
    ]


async def test_a_plans_default_applies_before_it_has_a_row_and_asking_makes_none(
    database: Database,
) -> None:
    async with database.write() as tx:
        await plans.create(tx, name="Small")
        await plans.set_limit(
            tx,
            plan_id=2,
            kind="key",
            resource=Resource.TOKENS,
            window=Window.MINUTE,
            model="gpt-*",
            default=100,
            most=None,
        )
        await accounts.update(tx, account_id=1, change=AccountChange(plan_id=2))
    found = await ask(database, max_output=1)
    tokens = standing(found, "key:3/tokens/minute/gpt-*")
    assert (tokens.allowance.limit, tokens.needs, tokens.would_refuse) == (100, 101, True)
    assert found.verdict.refusal is not None
    assert found.verdict.refusal.allowance == "key:3/tokens/minute/gpt-*"
    async with database.read() as tx:
        query = select(func.count()).where(tables.allowances.c.resource == "tokens")
        assert (await tx.execute(query)).scalar_one() == 0
    assert "key:3/tokens/minute/gpt-*" not in names(await ask(database, model="unpriced"))


async def test_a_window_that_has_ended_counts_no_longer(database: Database, clock: Clock) -> None:
    await set_limit(database, Scope("key", 3), Resource.REQUESTS, Window.DAY, 2)
    worker_id = await lease(database, "key:3/requests/day", 2)
    assert worker_id
    held = standing(await ask(database), "key:3/requests/day")
    assert (held.allowance.leased, held.is_held, held.would_refuse) == (2, True, False)
    assert not (await ask(database)).verdict.is_certain
    clock.advance(DAY_MS)
    fresh = standing(await ask(database), "key:3/requests/day")
    assert (fresh.allowance.leased, fresh.is_held) == (0, False)
    assert fresh.resets_at_ms == fresh.next_resets_ms[0] == held.next_resets_ms[1]
    assert (await ask(database)).verdict.is_certain


async def test_days_are_those_of_the_accounts_time_zone(database: Database) -> None:
    await set_limit(database, Scope("key", 3), Resource.REQUESTS, Window.DAY, 2)
    utc = standing(await ask(database), "key:3/requests/day").resets_at_ms
    async with database.write() as tx:
        change = AccountChange(time_zone="Asia/Kolkata")
        await accounts.update(tx, account_id=1, change=change)
    there = standing(await ask(database), "key:3/requests/day").resets_at_ms
    assert utc is not None
    assert there is not None
    assert (utc - there) % DAY_MS == 5.5 * 3_600_000


async def test_a_soft_limit_is_shown_and_refuses_nothing(database: Database) -> None:
    await set_limit(database, Scope("key", 3), Resource.TOKENS, Window.DAY, None, soft=1)
    found = await ask(database)
    tokens = standing(found, "key:3/tokens/day")
    assert (tokens.allowance.soft, tokens.allowance.limit, tokens.would_refuse) == (1, None, False)
    assert (found.verdict.refusal, found.verdict.is_certain) == (None, True)
    assert found.affordable_requests is not None


async def test_a_model_has_its_price_under_the_upstreams_name_and_its_limits_under_its_own(
    database: Database,
) -> None:
    await set_limit(database, Scope("key", 3), Resource.COST, Window.DAY, NANOS, model="fast")
    found = await ask(database, model="fast", max_output=100)
    assert found.bound is not None
    assert found.bound.cost_nanos == 400 * 1_000 + 100 * 2_000
    assert "key:3/cost/day/fast" in names(found)
    assert "key:3/cost/day/fast" not in names(await ask(database))


async def test_the_bound_is_the_gateways_window_and_maximum_included(database: Database) -> None:
    found = await ask(database, body_bytes=5_000, max_output=900, choices=2)
    assert found.bound is not None
    # A prompt is at most the model's window, an answer at most its maximum.
    assert (found.bound.prompt_tokens, found.bound.max_output) == (1_000, 500)
    assert found.bound.cost_nanos == 1_000 * 1_000 + 2 * 500 * 2_000
    assert found.affordable_output == 500


async def test_another_accounts_key_a_provisioning_key_and_a_deleted_one_are_not_found(
    database: Database,
) -> None:
    random_bytes = Randomness()
    async with database.write() as tx:
        opened = await accounts.create(
            tx, name="Other", time_zone="UTC", credit_nanos=0, actor="test"
        )
        foreign = await keys.create(
            tx, account_id=opened.row.id, user_id=None, name="x", random_bytes=random_bytes
        )
        deleted = await keys.create(
            tx, account_id=1, user_id=None, name="x", random_bytes=random_bytes
        )
        await keys.delete(tx, account_id=1, key_id=deleted.key.id)
    for key_id in (1, 2, foreign.key.id, deleted.key.id, 999):
        with pytest.raises(NotFound):
            await ask(database, key_id)


async def test_an_account_that_is_suspended_is_the_reason(database: Database) -> None:
    async with database.write() as tx:
        await accounts.suspend(tx, account_id=1)
    found = await ask(database)
    assert found.verdict.refusal is not None
    assert found.verdict.refusal.reason.code == "account_suspended"
    assert found.affordable_requests == 0
    # What it would have needed, and of what, is said all the same.
    assert found.bound is not None
    assert names(found) == ["wallet/cost/lifetime"]


async def test_embeddings_have_no_answer_to_limit(database: Database) -> None:
    found = await ask(database, endpoint="embeddings")
    assert found.bound is not None
    assert (found.bound.max_output, found.affordable_output) == (None, None)
    with pytest.raises(Invalid):
        await ask(database, endpoint="embeddings", max_output=5)
