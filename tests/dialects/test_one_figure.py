"""One number: whatever client asks, each of their own making, every figure is the same.

The clients are OpenAI's (as NagaAI's account API is called with it), venice-sdk, venice-py and
cerevox, each from the registry, and our own SDK. Each of them spends; then each is asked for what
was spent and what is left, and all of it is what the upstream's own ledger says, to the nano-USD.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest

from bursar import Bursar
from bursar.store import prices
from bursar.store.prices import NewPrice
from tests.dialects.cerevox_clients import SYNC as CEREVOX
from tests.dialects.clients import BUILD_S, Client
from tests.dialects.venice_clients import PY, SDK
from tests.serving import MODEL, House, serving

# The first test of a run may have to wait for the clients' installation.
pytestmark = pytest.mark.timeout(BUILD_S + 60)

HELLO = [{"role": "user", "content": "hello there, all of you"}]
CREDIT_NANOS = 40 * 10**9
DOCUMENT_NANOS = 12_345_678
DOCUMENTS = 7
Clients = Callable[[str], Client]


def nanos(amount: object) -> int:
    """An amount in USD, as whichever kind of number a client has it, in whole nano-USD."""
    exact = Decimal(str(amount)) * 10**9
    assert exact == exact.to_integral_value(), amount
    return int(exact)


def total(amounts: Iterable[object]) -> int:
    """The sum of amounts in USD, in nano-USD."""
    return sum(map(nanos, amounts))


@pytest.fixture
async def house(sqlite_database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A served installation with 40 USD, and a price for documents."""
    async with serving(sqlite_database_url, tmp_path, credit="40") as served:
        async with served.server.database.write() as tx:
            await prices.insert_price(
                tx,
                price=NewPrice(
                    model="",
                    product="hippo",
                    per_million={},
                    per_unit={"documents": Decimal(DOCUMENT_NANOS) / 10**9},
                    tiers=(),
                    is_free=False,
                    context_window=None,
                    max_output_tokens=None,
                    effective_ms=0,
                    source="test",
                ),
            )
        yield served


async def test_five_clients_agree_on_every_figure(
    house: House, venice_processes: Clients, cerevox_processes: Clients
) -> None:
    keys = house.installation
    venice = {name: venice_processes(name) for name in (SDK, PY[0])}
    with (
        Bursar(keys.inference_key, base_url=house.url) as caller,
        Bursar(keys.provisioning_key, base_url=house.url) as ours,
        openai.OpenAI(api_key=keys.inference_key, base_url=f"{house.url}/v1") as other,
    ):
        costs = await asyncio.to_thread(spend, caller, other, ours)
        for name, client in venice.items():
            at = client.at(house.url, keys.inference_key)
            method = "chat.complete" if name == SDK else "chat.completions.create"
            assert await at(method, model=MODEL, messages=HELLO)
        # What the upstream's ledger says, and what was metered beside it.
        spent = house.sold_nanos() + DOCUMENTS * DOCUMENT_NANOS
        calls = len(house.upstream.sales)
        assert calls == 5
        assert costs == sum(house.cost(sale) for sale in house.upstream.sales[:3])
        key_id = (await asyncio.to_thread(caller.api_keys.current)).id
        await asyncio.to_thread(check_ours, ours, key_id, spent, house.sold_nanos())
        provisioning = other.with_options(api_key=keys.provisioning_key)
        await asyncio.to_thread(check_nagaai, provisioning, spent)
    await check_venice_sdk(venice[SDK].at(house.url, keys.provisioning_key), spent)
    await check_venice_py(venice[PY[0]].at(house.url, keys.provisioning_key), spent)
    cerevox = cerevox_processes(CEREVOX).at(house.url, keys.provisioning_key)
    await check_cerevox(cerevox, spent, house.sold_nanos())


def spend(caller: Bursar, other: openai.OpenAI, ours: Bursar) -> int:
    """Three calls and a report of documents; what the clients say that the calls have cost."""
    whole = other.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)  # type: ignore[arg-type]
    cost = nanos(whole.headers["x-bursar-cost"])
    usage = whole.parse().usage
    assert usage is not None
    assert usage.prompt_tokens * 1_000 + usage.completion_tokens * 2_000 == cost
    for part in other.chat.completions.create(
        model=MODEL,
        messages=HELLO,  # type: ignore[arg-type]
        stream=True,
        stream_options={"include_usage": True},
    ):
        if part.usage is not None:
            cost += part.usage.prompt_tokens * 1_000 + part.usage.completion_tokens * 2_000
    answer = caller.chat.complete(model=MODEL, messages=HELLO)
    receipt = ours.meter.record(
        [{"id": "batch-1", "product": "hippo", "quantities": {"documents": DOCUMENTS}}]
    )
    assert (receipt.accepted, receipt.rejected) == (1, ())
    return cost + nanos(answer.cost)


def check_ours(client: Bursar, key_id: int, spent: int, sold: int) -> None:
    """Our own SDK."""
    assert nanos(client.billing.balance().balance) == CREDIT_NANOS - spent
    assert nanos(client.account.get().balance) == CREDIT_NANOS - spent
    assert total(event.cost for event in client.usage.events()) == spent
    assert total(event.cost for event in client.usage.events(key_id=key_id)) == sold
    moved = client.billing.transactions().all()
    assert total(each.amount for each in moved) == CREDIT_NANOS - spent
    [own] = client.limits.list(scope=f"key:{key_id}")
    assert nanos(own.used) == sold
    report = client.usage.activity(days=2, fresh=True)
    assert nanos(report.total_stats.total_cost) == spent
    assert total(day.total_cost for day in report.daily_stats) == spent
    assert nanos(report.api_key_usage[0].total_cost) == sold
    summary = client.usage.summary(group_by="model")
    assert nanos(summary.total.total_cost) == spent
    assert total(group.total_cost for group in summary.groups) == spent
    bill = client.billing.month()
    assert nanos(bill.total_cost) == spent
    costs = {each.product: nanos(each.cost) for each in bill.products}
    assert costs.pop("hippo") == spent - sold
    assert list(costs.values()) == [sold]
    table = client.usage.events().to_frame()
    assert nanos(table["cost"].sum()) == spent


def check_nagaai(client: openai.OpenAI, spent: int) -> None:
    """OpenAI's client, as it is used with NagaAI's account API."""
    balance: Any = client.get("/account/balance", cast_to=object)
    assert nanos(balance["balance"]) == CREDIT_NANOS - spent
    report: Any = client.get("/account/activity?days=2&fresh=true", cast_to=object)
    assert nanos(report["total_stats"]["total_cost"]) == spent
    assert total(day["total_cost"] for day in report["daily_stats"]) == spent


async def check_venice_sdk(client: Client, spent: int) -> None:
    """venice-sdk, whose credits are thousandths of a USD."""
    balance = await client("billing.get_balance")
    assert nanos(balance["balances"]["usd"]) == CREDIT_NANOS - spent
    assert nanos(balance["total_spent"]) == spent
    usage = await client("billing.get_usage")
    assert usage["total_usage"] == spent // 10**6
    assert usage["credits_remaining"] == (CREDIT_NANOS - spent) // 10**6
    report = await client("billing.get_usage_analytics", lookback="2d")
    assert total(day["USD"] for day in report["byDate"]) == spent


async def check_venice_py(client: Client, spent: int) -> None:
    """venice-py."""
    balance = await client("billing.get_balance")
    assert nanos(balance["balances"]["usd"]) == CREDIT_NANOS - spent
    entries = await client("billing.iter_usage_history", page_size=10)
    assert total(-Decimal(str(entry["amount"])) for entry in entries) == spent
    report = await client("billing.get_usage_analytics", lookback="2d")
    assert total(day["USD"] for day in report["byDate"]) == spent


async def check_cerevox(client: Client, spent: int, sold: int) -> None:
    """cerevox, and with its own way of sending what its documentation has and it has not."""
    usage = await client("get_account_usage", account_id="my")
    assert usage["files"]["processed"] == DOCUMENTS
    used = await client("request", method="GET", endpoint="/accounts/my/usage")
    assert nanos(used["estimated_cost"]) == spent
    assert used["documents_processed"] == DOCUMENTS
    assert used["total_requests"] == 6
    bill = await client("request", method="GET", endpoint="/accounts/my/billing")
    assert nanos(bill["total_cost"]) == spent
    assert nanos(bill["breakdown"]["hippo_cost"]) == DOCUMENTS * DOCUMENT_NANOS
    assert total(bill["breakdown"].values()) == spent
    assert nanos(bill["breakdown"]["hippo_cost"]) == spent - sold
