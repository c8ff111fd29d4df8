"""What a running stream has cost is on disk, once, until its charge is; whatever a kill tears."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from bursar.store.database import Database
from bursar.store.plane import leases, workers
from bursar.store.tables import usage_events
from bursar.telemetry import Metrics
from bursar.worker import recovery
from bursar.worker.journal import Journal, checkpoints, find_dead
from bursar.worker.journal.checkpoints import HALF_BYTES, Checkpoints
from bursar.worker.plane import Worker
from tests.factories import WALLET, charge

PLENTY = 1 << 30


def noted(path: Path) -> dict[str, int]:
    """What each stream has cost so far, as it stands on disk."""
    return {found.event_id: found.cost_nanos for found in checkpoints.read(path)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "00000001.streams"


def test_the_last_checkpoint_of_each_stream_counts(path: Path) -> None:
    live = Checkpoints(path)
    assert not path.exists()
    for cost in (10, 20, 30):
        assert live.write(charge(0, cost, event_id="a"))
        assert live.write(charge(0, cost + 1, event_id="b"))
    assert noted(path) == {"a": 30, "b": 31}
    live.forget("a")
    live.forget("never noted")
    assert noted(path) == {"b": 31}
    live.close(delete=True)
    assert not path.exists()


def test_a_slot_is_used_again_and_the_file_grows_only_with_streams_that_run(path: Path) -> None:
    live = Checkpoints(path)
    for number in range(1_000):
        live.write(charge(0, number + 1, event_id=f"short_{number}"))
        live.forget(f"short_{number}")
    size = path.stat().st_size
    for number in range(200):
        assert live.write(charge(0, number + 1, event_id=f"long_{number}"))
    assert path.stat().st_size == 4 * size
    assert noted(path) == {f"long_{number}": number + 1 for number in range(200)}
    live.close(delete=False)


def test_a_checkpoint_that_does_not_fit_is_not_taken_and_harms_no_other(path: Path) -> None:
    live = Checkpoints(path)
    assert live.write(charge(0, 5, event_id="a"))
    assert not live.write(charge(0, 6, event_id="b" * HALF_BYTES))
    assert noted(path) == {"a": 5}
    live.close(delete=False)


@settings(max_examples=60)
@given(written=st.integers(0, 400), backwards=st.booleans())
def test_a_checkpoint_torn_at_any_byte_leaves_the_one_before_it(
    tmp_path_factory: pytest.TempPathFactory, written: int, backwards: bool
) -> None:
    path = tmp_path_factory.mktemp("torn") / "00000001.streams"
    live = Checkpoints(path)
    live.write(charge(0, 10, event_id="a"))
    before = path.read_bytes()
    live.write(charge(0, 20, event_id="a"))
    after = path.read_bytes()
    live.close(delete=False)
    record = after[HALF_BYTES:].rstrip(b"\0")
    part = min(written, len(record))
    kept = bytes(len(record) - part) + record[-part:] if backwards and part else record[:part]
    torn = bytearray(before)
    torn[HALF_BYTES : HALF_BYTES + len(kept)] = kept
    path.write_bytes(torn)
    assert noted(path) == {"a": 20 if part == len(record) else 10}


async def dead_with(
    database: Database, directory: Path, *, charges: int, streams: dict[str, int]
) -> int:
    """A worker that was killed with these charges in its journal and these streams running."""
    async with database.write() as tx:
        dead = await workers.insert_worker(tx, host="gone")
        born_ms = tx.now_ms
        await leases.take(tx, worker_id=dead, wants=[leases.Want(WALLET, 0, 5_000, 5_000, 0)])
    journal = Journal(directory, dead, born_ms=born_ms, max_bytes=PLENTY)
    for seq in range(1, charges + 1):
        journal.append(charge(seq, 100, event_id=f"whole_{seq}"))
    for event_id, cost in streams.items():
        journal.checkpoints.write(charge(0, cost, event_id=event_id))
    journal.close(is_settled=False)
    return dead


async def charged(database: Database) -> dict[str, int]:
    async with database.read() as tx:
        rows = await tx.execute(select(usage_events.c.event_id, usage_events.c.cost_nanos))
        return {row.event_id: row.cost_nanos for row in rows}


async def test_a_stream_that_was_running_is_charged_for_its_checkpoint_once(
    worker: Worker, database: Database, tmp_path: Path
) -> None:
    directory = tmp_path / "journal"
    dead = await dead_with(database, directory, charges=2, streams={"cut_a": 70, "cut_b": 80})
    for expected in (4, 0):
        assert await recovery.replay_journals(database, directory, Metrics()) == expected
    assert await charged(database) == {"whole_1": 100, "whole_2": 100, "cut_a": 70, "cut_b": 80}
    async with database.read() as tx:
        row = await workers.find(tx, worker_id=dead)
    assert row is not None
    assert row.settled_seq == 4
    assert not any(path.name.startswith(f"{dead:08d}") for path in directory.iterdir())


async def test_a_stream_whose_charge_was_written_is_not_charged_for_its_checkpoint_too(
    worker: Worker, database: Database, tmp_path: Path
) -> None:
    """Killed between the charge and the end of its checkpoint; or fenced, and charged elsewhere."""
    directory = tmp_path / "journal"
    await dead_with(database, directory, charges=0, streams={"whole_1": 60, "cut": 5})
    await dead_with(database, directory, charges=1, streams={"whole_1": 70})
    assert await recovery.replay_journals(database, directory, Metrics()) == 2
    assert await charged(database) == {"whole_1": 100, "cut": 5}


def test_a_worker_that_left_nothing_but_checkpoints_is_found(tmp_path: Path) -> None:
    live = Checkpoints(tmp_path / "00000007.streams")
    live.write(charge(0, 10, event_id="a"))
    live.close(delete=False)
    (dead,) = find_dead(tmp_path)
    with dead:
        assert dead.worker_id == 7
        assert [found.event_id for found in dead.checkpoints()] == ["a"]
