"""Transactions that the database has give way to others are done again, a few times."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError

from bursar.store import counters
from bursar.store.database import Database, WriteTx


class GaveWay(Exception):
    """What a driver raises for a deadlock."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__("deadlock detected")
        self.sqlstate = sqlstate


class Work:
    """Advances a counter, and gives way so many times behind that."""

    def __init__(self, times: int, sqlstate: str = "40P01") -> None:
        self.times = times
        self.sqlstate = sqlstate
        self.done = 0

    async def __call__(self, tx: WriteTx) -> int:
        self.done += 1
        value = await counters.advance(tx, name="transfers")
        if self.done <= self.times:
            raise DBAPIError("", {}, GaveWay(self.sqlstate))
        return value


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
async def test_what_must_give_way_is_done_again_and_counts_once(
    database: Database, sqlstate: str
) -> None:
    work = Work(4, sqlstate)
    assert await database.transact(work) == 1
    assert work.done == 5
    async with database.read() as tx:
        assert await counters.get(tx, name="transfers") == 1


async def test_what_gives_way_for_ever_is_given_up_with_nothing_done(database: Database) -> None:
    work = Work(99)
    with pytest.raises(DBAPIError):
        await database.transact(work)
    assert work.done == 5
    async with database.read() as tx:
        assert await counters.get(tx, name="transfers") == 0


async def test_another_failure_is_not_tried_again(database: Database) -> None:
    work = Work(1, "23505")
    with pytest.raises(DBAPIError):
        await database.transact(work)
    assert work.done == 1
