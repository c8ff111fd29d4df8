"""Keys, limits and credit are changed while they are being spent: each change counts once."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any

import pytest

from bursar.core.money import format_usd
from tests import crowd, loads, soak
from tests.live import Installation
from tests.upstream_double import Behaviour, ScriptedUpstream

pytestmark = [pytest.mark.faults, pytest.mark.soak, soak.ended_after(120)]
CREDIT_NANOS = 100_000_000_000


@pytest.fixture(autouse=True)
def served(made: Installation, upstream: ScriptedUpstream) -> None:
    """A server whose calls take a moment."""
    upstream.models[loads.EXACT] = Behaviour(
        prompt_tokens=loads.EXACT_INPUT, tokens=loads.EXACT_OUTPUT, delay_s=0.15
    )
    made.start()


def require_books(made: Installation, upstream: ScriptedUpstream, answers: int) -> None:
    """Fail unless upstream, rows and callers agree, and the proof holds after the stop."""
    assert made.stop() == 0
    rows = made.rows()
    assert len(rows) == len({row.event_id for row in rows}) == len(upstream.sales) == answers
    assert sum(row.cost_nanos for row in rows) == upstream.sold_nanos(loads.cost)
    assert made.leased() == 0
    made.verify()


def operate(made: Installation, path: str, body: Any, **headers: str) -> bytes:
    """A call of the operator about the account, as bytes."""
    path = f"/v1/operator/accounts/{made.secrets.account_id}/{path}"
    return crowd.ask("POST", path, made.secrets.operator_key, body, **headers)


def test_a_key_deleted_during_its_calls_refuses_the_next_and_those_calls_are_charged_to_it(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    paid = 0
    for _ in range(soak.times(3, soaked=1_000)):
        key_id, secret = made.make_key(limit_usd=1)
        delete = crowd.ask("DELETE", f"/v1/account/keys/{key_id}", made.secrets.provisioning_key)
        calls = [crowd.chat(secret, model=loads.EXACT) for _ in range(6)]

        async def work(calls: list[bytes] = calls, delete: bytes = delete) -> list[Any]:
            before = len(upstream.sales)
            running = asyncio.create_task(crowd.at_once(made.url, calls))
            await crowd.until(lambda: len(upstream.sales) == before + len(calls))
            (gone,) = await crowd.at_once(made.url, [delete])
            assert gone.status in (200, 204), gone
            after = await crowd.at_once(made.url, calls)
            return [*await running, *after]

        answers = crowd.run(work())
        assert [answer.status for answer in answers] == [200] * 6 + [401] * 6
        paid += 6
    require_books(made, upstream, paid)


def test_a_limit_set_below_what_is_being_spent_lets_calls_end_and_the_next_one_in_vain(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    key_id, secret = made.make_key(limit_usd=1)
    lower = crowd.ask(
        "PATCH",
        f"/v1/account/keys/{key_id}",
        made.secrets.provisioning_key,
        {"credit_limit": loads.EXACT_NANOS / 1e9},
    )
    calls = [crowd.chat(secret, model=loads.EXACT) for _ in range(20)]

    async def work() -> None:
        running = asyncio.create_task(crowd.at_once(made.url, calls))
        await crowd.until(lambda: len(upstream.sales) == len(calls))
        (lowered,) = await crowd.at_once(made.url, [lower])
        assert lowered.status == 200, lowered
        (refused,) = await crowd.at_once(made.url, calls[:1])
        assert refused.status in (402, 429), refused
        assert {answer.status for answer in await running} == {200}
        (after,) = await crowd.at_once(made.url, calls[:1])
        assert (after.status, after.code) == (402, "insufficient_quota")
        assert b'"left":"0.00"' in after.body.replace(b" ", b"")

    crowd.run(work())
    require_books(made, upstream, len(calls))


def test_a_hundred_changes_of_credit_and_limit_at_once_come_to_what_some_order_would(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    key_id, secret = made.make_key(limit_usd=2)
    chance = random.Random(54)
    spent = balance = 0
    for _ in range(soak.times(1, soaked=100)):
        asked: list[tuple[int, bytes]] = []
        for number in range(100):
            amount = chance.randrange(1, 1_000_000_000)
            match number % 4:
                case 0:
                    asked.append((0, crowd.chat(secret, model=loads.EXACT)))
                case 1:
                    body = {"amount": format_usd(amount)}
                    asked.append((amount, operate(made, "credit", body)))
                case 2:
                    body = {"amount": format_usd(-amount), "reason": "test"}
                    asked.append((-amount, operate(made, "corrections", body)))
                case _:
                    path, limit = f"/v1/account/keys/{key_id}", {"credit_limit": number}
                    owner = made.secrets.provisioning_key
                    asked.append((0, crowd.ask("PATCH", path, owner, limit)))
        chance.shuffle(asked)
        answers = crowd.run(crowd.at_once(made.url, [request for _, request in asked]))
        counts = Counter(answer.status for answer in answers)
        assert set(counts) <= {200, 201, 402, 409, 429}, counts
        for (amount, request), answer in zip(asked, answers, strict=True):
            balance += amount if answer.status == 201 else 0
            spent += b"/chat/" in request and answer.status == 200
    assert made.balance_nanos() == CREDIT_NANOS + balance - spent * loads.EXACT_NANOS
    require_books(made, upstream, spent)


def test_one_idempotency_key_a_hundred_times_at_once_has_one_effect_also_after_a_kill(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    rounds = soak.times(1, soaked=20)
    for number in range(rounds):
        body = {"amount": "1.25", "note": f"round {number}"}
        request = operate(made, "credit", body, idempotency_key=f"round-{number}")
        answers = crowd.run(crowd.at_once(made.url, [request] * 100))
        good = {answer.body for answer in answers if answer.status == 201}
        assert len(good) == 1
        assert {answer.status for answer in answers} <= {201, 409}
        # Once more, while the process is killed: whoever got no answer asks again and learns it.
        late = operate(made, "credit", body, idempotency_key=f"late-{number}")

        async def work(late: bytes = late) -> list[crowd.Answer]:
            running = asyncio.create_task(crowd.at_once(made.url, [late] * 20))
            await asyncio.sleep(random.random() * 0.05)
            await asyncio.to_thread(made.kill)
            return await running

        before = {answer.body for answer in crowd.run(work()) if answer.status == 201}
        made.start()
        (again,) = crowd.run(crowd.at_once(made.url, [late]))
        deadline = time.monotonic() + 10
        while again.status == 409:
            assert time.monotonic() < deadline, again
            (again,) = crowd.run(crowd.at_once(made.url, [late]))
        assert again.status == 201, again
        assert before <= {again.body}
        (replayed,) = crowd.run(crowd.at_once(made.url, [request]))
        assert (replayed.status, {replayed.body}) == (201, good)
    assert made.balance_nanos() == CREDIT_NANOS + 2 * rounds * 1_250_000_000
    require_books(made, upstream, 0)
