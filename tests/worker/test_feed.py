"""The change feed reaches a worker in order, all of it, and silence is noticed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from bursar.store.database import Change, Database, ReadTx
from bursar.worker.feed import Feed
from tests.databases import Clock


class Heard:
    """What a feed has handed on."""

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self.forgotten = 0
        self.something = asyncio.Event()

    def apply(self, news: Sequence[Change]) -> None:
        self.subjects += [change.subject for change in news]
        self.something.set()

    def forget(self) -> None:
        self.forgotten += 1
        self.something.set()


async def announce(database: Database, *subjects: str) -> None:
    async with database.write() as tx:
        for subject in subjects:
            tx.announce("key", account_id=1, subject=subject)


@pytest.mark.parametrize("count", [3, 2_500])
async def test_another_process_changes_arrive_in_order_and_all_of_them(
    database: Database, database_url: str, count: int
) -> None:
    heard = Heard()
    other = Database(database_url, clock_ms=database.clock_ms)
    feed = Feed(database, heard.apply, heard.forget, stale_s=5)
    await feed.start()
    task = asyncio.create_task(feed.run())
    await announce(other, *(str(n) for n in range(count)))
    async with asyncio.timeout(20):
        while len(heard.subjects) < count:
            heard.something.clear()
            await heard.something.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await other.close()
    assert heard.subjects == [str(n) for n in range(count)]
    assert heard.forgotten == 0


class Late(Database):
    """Something changes, and is announced, while the answer to a question is on its way."""

    other: Database | None = None

    @asynccontextmanager
    async def peek(self) -> AsyncIterator[ReadTx]:
        async with super().peek() as tx:
            yield tx
        if self.other is not None:
            other, self.other = self.other, None
            await announce(other, "late")
            await asyncio.sleep(0.2)


async def test_what_is_announced_while_the_feed_is_being_read_is_heard_at_once(
    postgres_database_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bursar.worker.feed._NOTIFIED_POLL_S", 3.0)
    heard = Heard()
    database = Late(postgres_database_url, clock_ms=clock)
    other = Database(postgres_database_url, clock_ms=clock)
    feed = Feed(database, heard.apply, heard.forget, stale_s=5)
    await feed.start()
    task = asyncio.create_task(feed.run())
    # The first question is also the one from which on notifications arrive.
    await announce(other, "first")
    async with asyncio.timeout(5):
        await heard.something.wait()
    heard.something.clear()
    database.other = other
    await announce(other, "second")
    began = time.monotonic()
    async with asyncio.timeout(5):
        while "late" not in heard.subjects:
            heard.something.clear()
            await heard.something.wait()
    # Polling underneath would have found it after three seconds.
    assert time.monotonic() - began < 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await database.close()
    await other.close()


async def test_this_process_hears_its_own_changes_before_the_commit_returns(
    database: Database,
) -> None:
    heard = Heard()
    Feed(database, heard.apply, heard.forget, stale_s=5)
    await announce(database, "7")
    assert heard.subjects == ["7"]


async def test_a_silent_database_makes_the_feed_stale_and_a_return_forgets_what_was_known(
    database: Database,
) -> None:
    heard = Heard()
    feed = Feed(database, heard.apply, heard.forget, stale_s=0.05)
    await feed.start()
    assert not feed.is_stale
    await asyncio.sleep(0.1)
    assert feed.is_stale
    task = asyncio.create_task(feed.run())
    async with asyncio.timeout(10):
        while not heard.forgotten:
            heard.something.clear()
            await heard.something.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert heard.forgotten >= 1
