"""Eight workers, on two hosts, and one set of books: nothing is spent twice, nothing is lost."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bursar.store.database import Database
from bursar.store.limits import allowances
from bursar.worker.plane import wall_clock_ms
from tests import crowd, loads, soak
from tests.faults.fleet import Fleet, fleet
from tests.live import Installation
from tests.upstream_double import Behaviour, ScriptedUpstream

WORKERS = 8
TOP_UP, TAKEN = "0.50", "-0.25"
CALLERS = soak.times(200, soaked=1_600)
RUSHES = soak.times(5, soaked=50)
CALLS = soak.times(3_000, soaked=1_000_000)
PART = 20_000
pytestmark = [
    pytest.mark.faults,
    pytest.mark.soak,
    # Starting eight processes alone takes a while on a busy machine.
    soak.ended_after(150),
    pytest.mark.parametrize("kind", ["postgres"]),
]


@pytest.fixture
def eight(made: Installation, upstream: ScriptedUpstream, tmp_path: Path) -> Iterator[Fleet]:
    """Two hosts with four workers each."""
    upstream.models[loads.EXACT] = Behaviour(
        prompt_tokens=loads.EXACT_INPUT, tokens=loads.EXACT_OUTPUT, delay_s=0.02
    )
    with fleet(made, upstream, tmp_path, hosts=2, BURSAR_WORKERS=str(WORKERS // 2)) as running:
        yield running


async def rush(running: Fleet, requests: list[bytes]) -> list[crowd.Answer]:
    """All at the same time, each host its share."""
    hosts = running.hosts
    parts = [requests[number :: len(hosts)] for number in range(len(hosts))]
    shares = zip(hosts, parts, strict=True)
    found = await asyncio.gather(*(crowd.at_once(host.url, part) for host, part in shares))
    return [answer for answers in found for answer in answers]


def test_of_all_callers_at_eight_workers_exactly_one_succeeds_where_one_can_be_paid_for(
    eight: Fleet,
) -> None:
    for _ in range(RUSHES):
        _, secret = eight.first.make_key(limit_usd=loads.EXACT_NANOS / 1e9)
        requests = [crowd.chat(secret, model=loads.EXACT) for _ in range(CALLERS)]
        answers = crowd.run(rush(eight, requests))
        counts = Counter(answer.status for answer in answers)
        assert counts[200] == 1, counts
        assert set(counts) <= {200, 402, 429}
    assert len(eight.upstream.sales) == RUSHES
    assert eight.upstream.sold_nanos(loads.cost) == RUSHES * loads.EXACT_NANOS
    eight.require_books()


def test_the_last_cent_is_spent_wherever_it_lies_and_nobody_waits_for_it_longer_than_a_second(
    eight: Fleet,
) -> None:
    """Small calls strand leases at every worker; large ones then need what all have together."""
    # What a call of a thousand tokens may cost, and its prompt of a hundred bytes and some.
    left = 1_000 * loads.OUTPUT_NANOS + 250 * loads.INPUT_NANOS
    for _ in range(soak.times(2, soaked=50)):
        _, secret = eight.first.make_key(limit_usd=(left + 40 * loads.EXACT_NANOS) / 1e9)
        small = [crowd.chat(secret, model=loads.EXACT) for _ in range(40)]
        assert {a.status for a in crowd.run(rush(eight, small))} == {200}
        asked = crowd.chat(secret, model=loads.WHOLE, max_tokens=1_000)
        began = time.monotonic()
        (answer,) = crowd.run(crowd.at_once(eight.first.url, [asked]))
        assert answer.status == 200, answer.body
        assert time.monotonic() - began < soak.at_most(1.5)
    eight.require_books()


class Keys:
    """The keys that callers use, some of which are changed under their hands."""

    def __init__(self, made: Installation, count: int) -> None:
        self._made = made
        self.limits: dict[int, int] = {}
        self.secrets: dict[int, str] = {}
        self.deleted: dict[int, float] = {}
        for _ in range(count):
            self.make()

    def make(self) -> None:
        """Another key; a third of them have next to nothing to spend."""
        calls = random.choice((20, 500, 1_000_000))
        limit = calls * loads.EXACT_NANOS
        key_id, secret = self._made.make_key(limit_usd=limit / 1e9)
        self.limits[key_id], self.secrets[key_id] = limit, secret

    def any_secret(self) -> str:
        """A key's secret; now and then of one that is gone."""
        return random.choice(list(self.secrets.values()))


async def change_things(running: Fleet, keys: Keys, granted: Counter[str], is_over: Any) -> None:
    """Top up, correct, raise and lower limits, delete and make keys, until the calls are done."""
    made = running.first
    operator = f"/v1/operator/accounts/{made.secrets.account_id}"
    while not is_over():
        await asyncio.sleep(0.05)
        key_id = random.choice(list(keys.limits))
        match random.randrange(6):
            case 0:
                await _ask(made, "POST", f"{operator}/credit", {"amount": TOP_UP}, granted)
            case 1:
                body = {"amount": TAKEN, "reason": "test"}
                await _ask(made, "POST", f"{operator}/corrections", body, granted)
            case 2 | 3:
                limit = keys.limits[key_id] * random.choice((1, 2, 3)) // 2
                keys.limits[key_id] = max(limit, keys.limits[key_id])
                raised = {"credit_limit": limit / 1e9}
                await _ask(made, "PATCH", f"/v1/account/keys/{key_id}", raised, granted)
            case 4 if len(keys.limits) > 8:
                del keys.limits[key_id]
                await _ask(made, "DELETE", f"/v1/account/keys/{key_id}", None, granted)
                del keys.secrets[key_id]
            case _:
                await asyncio.to_thread(keys.make)


async def _ask(
    made: Installation, method: str, path: str, body: Any, granted: Counter[str]
) -> None:
    is_operators = path.startswith("/v1/operator")
    secret = made.secrets.operator_key if is_operators else made.secrets.provisioning_key
    async with httpx2.AsyncClient(timeout=20) as http:
        headers = {"authorization": f"Bearer {secret}"}
        answer = await http.request(method, f"{made.url}{path}", json=body, headers=headers)
    assert answer.status_code in (200, 201, 204, 409), answer.text
    if is_operators and answer.is_success:
        granted[body["amount"]] += 1


def test_any_mixture_of_calls_and_changes_overspends_nothing_and_loses_nothing(
    eight: Fleet,
) -> None:
    keys = Keys(eight.first, 12)
    sold = rows = 0
    granted: Counter[str] = Counter()
    statuses: Counter[int] = Counter()
    while sum(statuses.values()) < CALLS:
        part = min(PART, CALLS - sum(statuses.values()))
        answers = crowd.run(_part(eight, keys, granted, part))
        statuses += Counter(answer.status for answer in answers)
        # The two ledgers, and what callers had in their hands.
        sales, eight.upstream.sales = eight.upstream.sales, []
        sold += sum(map(loads.cost, sales))
        rows += len(sales)
        assert sum(answer.status == 200 for answer in answers) == len(sales)
    print(f"{dict(statuses)}, changes of credit {dict(granted)}")
    assert set(statuses) <= {200, 401, 402, 429}
    assert statuses[200] > CALLS // 4
    assert statuses[402] + statuses[429]
    for host in eight.hosts:
        assert host.stop() == 0
    charged = eight.first.rows()
    assert (len(charged), sum(row.cost_nanos for row in charged)) == (rows, sold)
    assert len({row.event_id for row in charged}) == rows
    spent = Counter[int]()
    for row in charged:
        spent[row.key_id] += row.cost_nanos
    assert all(spent[key_id] <= limit for key_id, limit in keys.limits.items())
    checked = eight.first.verify()
    assert checked
    assert eight.first.leased() == 0
    changes = sum(round(float(amount) * 1e9) * n for amount, n in granted.items())
    assert crowd.run(wallet(eight.first)) == (100_000_000_000 + changes, sold, 0)


async def wallet(made: Installation) -> tuple[int, int, int]:
    """Credit, what is used of it, and what is leased."""
    database = Database(made.database_url, clock_ms=wall_clock_ms)
    try:
        async with database.read() as tx:
            row = await allowances.get_wallet(tx, account_id=made.secrets.account_id)
    finally:
        await database.close()
    return row.limit or 0, row.used, row.leased


async def _part(
    running: Fleet, keys: Keys, granted: Counter[str], count: int
) -> list[crowd.Answer]:
    answers: list[crowd.Answer] = []
    callers = 64
    left = iter(range(count))

    async def caller(url: str) -> None:
        async with crowd.Line(url) as line:
            for _ in left:
                secret = keys.any_secret()
                answers.append(await line.call(crowd.chat(secret, model=loads.EXACT)))

    urls = [running.hosts[number % 2].url for number in range(callers)]
    calling = asyncio.gather(*(caller(url) for url in urls))
    await asyncio.gather(calling, change_things(running, keys, granted, calling.done))
    return answers
