"""Who is declared dead: a worker that has not spoken for so long, and never one that could not."""

from __future__ import annotations

import pytest

from bursar.store.database import Database
from bursar.store.plane import workers
from bursar.store.plane.workers import WorkerRow
from bursar.worker.watch import Watch
from tests.databases import Clock

HOURS_MS = 5 * 3_600_000


class Stage:
    """Workers that speak or are silent, and an observer that looks every three seconds."""

    def __init__(self) -> None:
        self.watch = Watch(silent_s=30, apart_s=10)
        self.now_s = 0.0
        self.beats = {1: 1_000, 2: 1_000}

    def let_pass(self, seconds: float, *, speaking: tuple[int, ...]) -> set[int]:
        """Who was found dead in this time."""
        dead = set()
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += 3
            for worker_id in speaking:
                self.beats[worker_id] += 3_000
            dead |= self.look()
        return dead

    def look(self) -> set[int]:
        rows = [WorkerRow(n, "live", "host", 0, 0, beat) for n, beat in self.beats.items()]
        return {row.id for row in self.watch.look(rows, asked_s=self.now_s, heard_s=self.now_s)}


def test_a_silent_worker_is_found_after_its_time_and_not_before() -> None:
    stage = Stage()
    stage.look()
    assert stage.let_pass(29, speaking=(1,)) == {2}
    stage = Stage()
    stage.look()
    assert stage.let_pass(26, speaking=(1,)) == set()


@pytest.mark.parametrize("jump_ms", [HOURS_MS, -HOURS_MS])
def test_a_jump_of_the_clock_that_heartbeats_show_closes_nobody_and_keeps_nobody(
    jump_ms: int,
) -> None:
    stage = Stage()
    stage.look()
    assert stage.let_pass(15, speaking=(1,)) == set()
    stage.beats[1] += jump_ms
    assert stage.let_pass(9, speaking=(1,)) == set()
    assert stage.let_pass(12, speaking=(1,)) == {2}


def test_after_an_outage_everybody_has_the_whole_time_to_be_heard_again() -> None:
    stage = Stage()
    stage.let_pass(6, speaking=(1, 2))
    stage.now_s += 3_600
    assert stage.look() == set()
    assert stage.let_pass(24, speaking=()) == set()
    assert stage.let_pass(3, speaking=(2,)) == set()
    assert stage.let_pass(6, speaking=(2,)) == {1}


async def test_a_heartbeat_is_never_the_one_before_even_if_the_clock_stands_still_or_goes_back(
    database: Database, clock: Clock
) -> None:
    async with database.write() as tx:
        worker_id = await workers.insert_worker(tx, host="here")
    beats = []
    for jump_ms in (0, 0, -HOURS_MS, HOURS_MS, 0):
        clock.advance(jump_ms)
        async with database.write() as tx:
            await workers.renew(tx, worker_id=worker_id)
        async with database.read() as tx:
            row = await workers.find(tx, worker_id=worker_id)
        assert row is not None
        beats.append(row.heartbeat_ms)
    assert beats == sorted(set(beats))


async def test_a_worker_that_spoke_meanwhile_is_not_closed(database: Database) -> None:
    async with database.write() as tx:
        worker_id = await workers.insert_worker(tx, host="here")
    async with database.read() as tx:
        (seen,) = await workers.list_live(tx)
    async with database.write() as tx:
        await workers.renew(tx, worker_id=worker_id)
    async with database.write() as tx:
        assert not await workers.close_silent(tx, worker=seen)
    async with database.read() as tx:
        (seen,) = await workers.list_live(tx)
    async with database.write() as tx:
        assert await workers.close_silent(tx, worker=seen)
    async with database.write() as tx:
        with pytest.raises(workers.Fenced):
            await workers.renew(tx, worker_id=worker_id)
