"""An upstream that refuses our key again and again is left alone for a while."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bursar.gateway.routing import Route, Upstream
from bursar.gateway.upstreams.aside import IN_A_ROW, Aside
from bursar.gateway.upstreams.sandbox import Sandbox
from bursar.store.database import sqlite_url
from tests import books
from tests.serving import House, serving
from tests.upstream_double import Behaviour

REFUSED = Behaviour(status=401)


class Clock:
    """Seconds that pass when the test says so."""

    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def upstream(name: str, *, aside_s: float = 30.0) -> Upstream:
    return Upstream(name, Sandbox(), (), ("*",), {}, aside_s=aside_s)


FIRST, SECOND = Route(upstream("first"), "m"), Route(upstream("second"), "m")


@asynccontextmanager
async def opened(migrated_sqlite: Path, directory: Path, **settings: Any) -> AsyncIterator[House]:
    """A house whose one upstream has these settings."""
    path = directory / "bursar.db"
    shutil.copyfile(migrated_sqlite, path)
    more: Mapping[str, Any] = settings
    async with serving(sqlite_url(path), directory, upstream_settings=more) as house:
        yield house


async def aside_of(house: House) -> float:
    """How many upstreams the metrics show as left alone."""
    text = (await house.http.get("/metrics")).text
    found = re.search(r"^bursar_upstreams_aside (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_only_refusals_in_a_row_set_an_upstream_aside() -> None:
    aside = Aside(clock_s=Clock())
    for _ in range(10):
        for _ in range(IN_A_ROW - 1):
            aside.refused(FIRST.upstream)
        assert aside.is_needed
        assert aside.choose([FIRST, SECOND]) == [FIRST, SECOND]
        aside.answered(FIRST.upstream)
        assert not aside.is_needed
    assert aside.count == 0


def test_it_is_tried_again_after_its_time_and_left_alone_again_at_the_first_refusal() -> None:
    clock = Clock()
    aside = Aside(clock_s=clock)
    for _ in range(IN_A_ROW):
        aside.refused(FIRST.upstream)
    assert (aside.choose([FIRST, SECOND]), aside.choose([FIRST]), aside.count) == ([SECOND], [], 1)
    clock.now_s += 29.9
    assert aside.choose([FIRST]) == []
    clock.now_s += 0.1
    assert (aside.choose([FIRST, SECOND]), aside.count) == ([FIRST, SECOND], 0)
    aside.refused(FIRST.upstream)
    assert (aside.choose([FIRST]), aside.count) == ([], 1)
    clock.now_s += 30
    aside.answered(FIRST.upstream)
    aside.refused(FIRST.upstream)
    assert aside.choose([FIRST]) == [FIRST]


def test_one_that_is_not_to_be_left_alone_never_is() -> None:
    aside = Aside(clock_s=Clock())
    for _ in range(10):
        aside.refused(upstream("sandbox", aside_s=0))
    assert (aside.is_needed, aside.count) == (False, 0)


async def test_calls_to_it_are_answered_without_it_and_cost_nothing(
    migrated_sqlite: Path, tmp_path: Path
) -> None:
    async with opened(migrated_sqlite, tmp_path, refused_aside_s=0.5) as house:
        house.upstream.default = REFUSED
        before = await books.read(house)
        for _ in range(10):
            answer = await house.chat()
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_auth")
        assert len(house.upstream.sales) == IN_A_ROW
        assert await aside_of(house) == 1
        after = await books.read(house)
        assert (after.balance_nanos, after.rows, after.holds_open) == (before.balance_nanos, 0, 0)
        # Somebody has put a good key in.
        house.upstream.default = Behaviour()
        assert (await house.chat()).status_code == 502
        await asyncio.sleep(0.5)
        assert (await house.chat()).status_code == 200
        assert await aside_of(house) == 0


async def test_refusals_of_what_a_request_contains_set_nothing_aside(
    migrated_sqlite: Path, tmp_path: Path
) -> None:
    async with opened(migrated_sqlite, tmp_path) as house:
        house.upstream.default = Behaviour(status=403)
        for _ in range(2 * IN_A_ROW):
            assert (await house.chat()).status_code == 502
        assert len(house.upstream.sales) == 2 * IN_A_ROW
        assert await aside_of(house) == 0
