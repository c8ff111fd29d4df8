"""Eight workers on two hosts admit exactly what a rate limit lets through, in every window."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import crowd, loads, soak
from tests.faults.fleet import Fleet, fleet
from tests.live import Installation
from tests.upstream_double import Behaviour, ScriptedUpstream

WORKERS = 8
LIMIT = 60
PER_SECOND = 500
LINES = 64
MINUTE_S = 60
# By default the end of one minute and the beginning of the next; each has room for all it may.
WINDOWS = soak.times(2, soaked=10)
BEFORE_S, AFTER_S = (MINUTE_S - 1, MINUTE_S - 1) if soak.IS_ON else (12, 10)
pytestmark = [
    pytest.mark.faults,
    pytest.mark.soak,
    soak.ended_after(240),
    pytest.mark.parametrize("kind", ["postgres"]),
]


@pytest.fixture
def eight(made: Installation, upstream: ScriptedUpstream, tmp_path: Path) -> Iterator[Fleet]:
    """Two hosts with four workers each."""
    upstream.models[loads.EXACT] = Behaviour(
        prompt_tokens=loads.EXACT_INPUT, tokens=loads.EXACT_OUTPUT
    )
    with fleet(made, upstream, tmp_path, hosts=2, BURSAR_WORKERS=str(WORKERS // 2)) as running:
        yield running


def test_sixty_a_minute_are_exactly_sixty_in_each_minute_whatever_is_asked(eight: Fleet) -> None:
    key_id, secret = eight.first.make_key()
    limit = {"scope": f"key:{key_id}", "resource": "requests", "window": "minute", "limit": LIMIT}
    eight.first.control("PUT", "/v1/account/limits", json=limit)
    # Every server knows it within a second; and what is left of the minute must do for sixty.
    time.sleep(1.5)
    second = time.time() % MINUTE_S
    if not MINUTE_S - BEFORE_S <= second <= MINUTE_S - BEFORE_S / 2:
        time.sleep((MINUTE_S - BEFORE_S - second) % MINUTE_S)
    until = (time.time() // MINUTE_S + WINDOWS - 1) * MINUTE_S + AFTER_S
    began = time.monotonic()
    answers = crowd.run(call_until(eight, secret, until))
    rate = len(answers) / (time.monotonic() - began)
    statuses = Counter(answer.status for answer in answers)
    print(f"{rate:.0f} requests a second, {dict(statuses)}")
    assert rate > (PER_SECOND * 0.9 if soak.IS_ON else 50)
    assert set(statuses) == {200, 429}
    assert {answer.code for answer in answers if answer.status == 429} == {"rate_limit_exceeded"}
    rows = [row for row in eight.first.rows() if row.key_id == key_id]
    assert len(rows) == statuses[200]
    by_minute = Counter(row.at_ms // 1000 // MINUTE_S for row in rows)
    assert list(by_minute.values()) == [LIMIT] * WINDOWS, by_minute
    assert len({row.worker_id for row in rows}) > 1
    eight.require_books()


async def call_until(running: Fleet, secret: str, until: float) -> list[crowd.Answer]:
    """So many calls a second to all hosts in turn, until that moment."""
    answers: list[crowd.Answer] = []

    async def caller(number: int) -> None:
        host = running.hosts[number % len(running.hosts)]
        due = time.monotonic() + number / PER_SECOND
        async with crowd.Line(host.url) as line:
            while time.time() < until:
                await asyncio.sleep(due - time.monotonic())
                answers.append(await line.call(crowd.chat(secret, model=loads.EXACT)))
                # Who was kept waiting makes up for nothing: that would be a burst.
                due = max(due + LINES / PER_SECOND, time.monotonic())

    await asyncio.gather(*(caller(number) for number in range(LINES)))
    return answers
