"""A request that is too large for the credit left stands in nobody else's way."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from bursar.store.database import sqlite_url
from tests.serving import House, serving


@pytest_asyncio.fixture
async def house(migrated_sqlite: Path, tmp_path: Path) -> AsyncIterator[House]:
    path = tmp_path / "bursar.db"
    shutil.copyfile(migrated_sqlite, path)
    async with serving(sqlite_url(path), tmp_path, credit="0.001") as served:
        yield served


async def test_a_small_request_is_admitted_right_after_one_that_was_too_large(house: House) -> None:
    assert (await house.chat(max_tokens=1_000)).status_code == 402
    small = await house.chat(max_tokens=5)
    assert small.status_code == 200, small.text


async def test_one_key_that_asks_for_too_much_does_not_starve_the_others(house: House) -> None:
    _, other = await house.make_key()
    for _ in range(5):
        assert (await house.chat(max_tokens=1_000)).status_code == 402
        answer = await house.chat(other, max_tokens=5)
        assert answer.status_code == 200, answer.text
