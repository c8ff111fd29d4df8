"""Another upstream is tried before the first byte, never after it; who sold is who is billed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bursar.store.database import sqlite_url
from tests import books
from tests.serving import House, serving
from tests.upstream_double import Behaviour, ScriptedUpstream

CREDIT = "10"
TIMEOUTS = {"connect_timeout_s": 0.5, "headers_timeout_s": 0.6, "idle_timeout_s": 0.6}


@dataclass
class Pair:
    """A house with two upstreams for the same models."""

    house: House
    first: ScriptedUpstream
    second: ScriptedUpstream

    async def sellers(self) -> list[str]:
        """Whose sale each usage row is."""
        await books.at_rest(self.house)
        return [row.upstream for row in await books.usage_rows(self.house)]

    def calls(self) -> tuple[int, int]:
        """How often each was asked."""
        return len(self.first.sales), len(self.second.sales)


@asynccontextmanager
async def paired(
    migrated_sqlite: Path, directory: Path, *, first_url: str | None = None
) -> AsyncIterator[Pair]:
    path = directory / "bursar.db"
    shutil.copyfile(migrated_sqlite, path)
    async with ScriptedUpstream() as first, ScriptedUpstream() as second:
        upstreams: list[dict[str, Any]] = [
            {
                "name": "first",
                "base_url": first_url or first.base_url,
                "models": ["gpt-*"],
                "rename": {"gpt-test": "first-name"},
                **TIMEOUTS,
            },
            {"name": "second", "base_url": second.base_url, "models": ["gpt-*"], **TIMEOUTS},
        ]
        async with serving(
            sqlite_url(path), directory, credit=CREDIT, settings={"upstreams": upstreams}
        ) as house:
            yield Pair(house, first, second)
            books.require_consistent(await books.at_rest(house), credit=CREDIT)


@pytest_asyncio.fixture
async def pair(migrated_sqlite: Path, tmp_path: Path) -> AsyncIterator[Pair]:
    async with paired(migrated_sqlite, tmp_path) as made:
        yield made


async def test_the_first_that_serves_a_model_is_asked_first(pair: Pair) -> None:
    assert (await pair.house.chat()).status_code == 200
    assert pair.calls() == (1, 0)
    assert await pair.sellers() == ["first"]
    assert pair.first.sales[0].model == "first-name"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(Behaviour(status=401), id="401"),
        pytest.param(Behaviour(status=503), id="503"),
        pytest.param(Behaviour(status=500), id="500"),
        pytest.param(Behaviour(status=529), id="529"),
        pytest.param(Behaviour(status=429, retry_after=60), id="429"),
        pytest.param(Behaviour(drop=True), id="hangs up"),
        pytest.param(Behaviour(raw=(b"nonsense\r\n\r\n",)), id="nonsense"),
    ],
)
async def test_an_upstream_that_does_not_begin_is_followed_by_the_next(
    pair: Pair, behaviour: Behaviour, *, stream: bool
) -> None:
    pair.first.default = behaviour
    answer = await pair.house.chat(stream=stream)
    assert answer.status_code == 200, answer.text
    assert pair.calls() == (1, 1)
    assert await pair.sellers() == ["second"]
    sale = pair.second.sales[0]
    assert sale.model == "gpt-test"
    assert (await books.read(pair.house)).charged_nanos == pair.house.cost(sale)
    assert answer.headers.get("retry-after") is None


@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_that_is_not_there_is_followed_by_the_next(
    migrated_sqlite: Path, tmp_path: Path, *, stream: bool
) -> None:
    url = "http://127.0.0.1:1/v1"
    async with paired(migrated_sqlite, tmp_path, first_url=url) as pair:
        assert (await pair.house.chat(stream=stream)).status_code == 200
        assert pair.calls() == (0, 1)
        assert await pair.sellers() == ["second"]


@pytest.mark.parametrize(("status", "answered"), [(400, 400), (403, 502), (404, 404), (422, 422)])
async def test_a_refusal_that_another_would_repeat_is_final(
    pair: Pair, status: int, answered: int
) -> None:
    pair.first.default = Behaviour(status=status)
    assert (await pair.house.chat()).status_code == answered
    assert pair.calls() == (1, 0)
    assert await pair.sellers() == []


@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_that_may_be_at_work_is_not_paid_twice(
    pair: Pair, *, stream: bool
) -> None:
    pair.first.default = Behaviour(hang_before_headers=True)
    answer = await pair.house.chat(stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
    assert pair.calls() == (1, 0)
    assert await pair.sellers() == []


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(Behaviour(tokens=9, cut_after=3), id="cut"),
        pytest.param(Behaviour(tokens=9, hang_after=3), id="hangs"),
        pytest.param(Behaviour(tokens=9, in_band_error=True), id="error"),
    ],
)
async def test_after_the_first_byte_nobody_else_is_asked(pair: Pair, behaviour: Behaviour) -> None:
    pair.first.default = behaviour
    answer = await pair.house.chat(stream=True)
    assert answer.status_code == 200
    assert '"error"' in answer.text
    assert pair.calls() == (1, 0)
    assert await pair.sellers() == ["first"]


async def test_when_all_fail_the_last_one_is_the_answer(pair: Pair) -> None:
    pair.first.default = Behaviour(status=503)
    pair.second.default = Behaviour(status=429, retry_after=7)
    answer = await pair.house.chat()
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert answer.json()["error"]["code"] == "upstream_rate_limited"
    assert pair.calls() == (1, 1)
    assert await pair.sellers() == []
    failures = pair.house.server.metrics.upstream_failures
    assert failures == {"503": 1, "429": 1}
