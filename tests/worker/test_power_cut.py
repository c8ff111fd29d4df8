"""After a power cut a journal may have lost any of its pages: what is whole is charged, once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bursar.store.database import Database
from bursar.store.plane import workers
from bursar.telemetry import Metrics
from bursar.worker import recovery
from bursar.worker.journal import Journal, JournalDamaged, find_dead, records
from bursar.worker.journal.locks import Identity, Lock
from bursar.worker.plane import Worker
from tests.factories import charge
from tests.worker.test_checkpoints import PLENTY, charged

PAGE = 4_096
SEGMENT = 16 * PAGE
COUNT = 60


def written(directory: Path, *, first: int = 1, worker_id: int = 1, born_ms: int = 5) -> Path:
    """The journal of a worker that ended without settling `COUNT` charges, from `first` on."""
    journal = Journal(
        directory, worker_id, born_ms=born_ms, max_bytes=PLENTY, segment_bytes=SEGMENT
    )
    if first > 1:
        # Charges that were settled: the file is begun anew, and its pages were once others.
        for seq in range(1, first):
            journal.append(charge(seq, seq))
        journal.settled(first - 1)
    for seq in range(first, first + COUNT):
        journal.append(charge(seq, seq))
    journal.close(is_settled=False)
    return directory / f"{worker_id:08d}-000001.journal"


def cut_power(directory: Path, *, worker_id: int = 1, born_ms: int = 5) -> None:
    """Let the worker have lived in another boot of the machine."""
    lock = Lock(directory / f"{worker_id:08d}.lock")
    assert lock.make(Identity(born_ms, "11111111-2222-3333-4444-555555555555"))
    lock.release(remove=False)


def without(data: bytes, pages: set[int], *, instead: bytes) -> bytes:
    """The file with these pages as they stand in `instead`: zeroes, or an older file."""
    parts = []
    for start in range(0, len(data), PAGE):
        source = instead if start // PAGE in pages else data
        parts.append(source[start : start + PAGE])
    return b"".join(parts)


def found(directory: Path) -> tuple[list[int], int]:
    """The numbers of the charges that are found, and how many gaps."""
    (dead,) = find_dead(directory)
    with dead:
        charges = list(dead.charges())
        assert all(each == charge(each.seq, each.seq) for each in charges), "one was made up"
        assert dead.born_ms == 5
        return [each.seq for each in charges], dead.gaps


PAGES = st.sets(st.integers(0, 4), max_size=5)


@settings(max_examples=40, deadline=None)
@given(lost=PAGES)
def test_whatever_pages_are_missing_every_whole_charge_is_found_and_none_made_up(
    tmp_path_factory: pytest.TempPathFactory, lost: set[int]
) -> None:
    directory = tmp_path_factory.mktemp("cut")
    path = written(directory)
    data = path.read_bytes()
    ends = _ends(data)
    path.write_bytes(without(data, lost, instead=bytes(len(data))))
    cut_power(directory)
    seqs, _ = found(directory)
    whole = [
        seq
        for seq, (start, end) in enumerate(ends, 1)
        if not lost & set(range(start // PAGE, (end - 1) // PAGE + 1))
    ]
    assert seqs == whole


@settings(max_examples=40, deadline=None)
@given(lost=PAGES, first=st.integers(2, 150))
def test_pages_from_before_the_file_was_begun_anew_bring_back_only_what_was_settled(
    tmp_path_factory: pytest.TempPathFactory, lost: set[int], first: int
) -> None:
    directory = tmp_path_factory.mktemp("stale")
    older = tmp_path_factory.mktemp("older")
    journal = Journal(older, 1, born_ms=5, max_bytes=PLENTY, segment_bytes=SEGMENT)
    for seq in range(1, first):
        journal.append(charge(seq, seq))
    journal.close(is_settled=False)
    path = written(directory, first=first)
    stale = (older / path.name).read_bytes()
    path.write_bytes(without(path.read_bytes(), lost, instead=stale))
    cut_power(directory)
    seqs, _ = found(directory)
    assert seqs == sorted(set(seqs))
    if not lost:
        assert [seq for seq in seqs if seq >= first] == list(range(first, first + COUNT))


def test_the_same_damage_without_a_new_boot_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    data = path.read_bytes()
    path.write_bytes(without(data, {1}, instead=bytes(len(data))))
    (dead,) = find_dead(tmp_path)
    with dead, pytest.raises(JournalDamaged):
        list(dead.charges())


def test_a_whole_journal_has_no_gap_after_a_new_boot(tmp_path: Path) -> None:
    written(tmp_path)
    cut_power(tmp_path)
    assert found(tmp_path) == (list(range(1, COUNT + 1)), 0)


async def test_what_is_left_after_a_power_cut_is_charged_and_the_file_is_kept_for_a_person(
    worker: Worker, database: Database, tmp_path: Path
) -> None:
    directory = tmp_path / "journal"
    async with database.write() as tx:
        dead = await workers.insert_worker(tx, host="gone")
        born_ms = tx.now_ms
    path = written(directory, worker_id=dead, born_ms=born_ms)
    data = path.read_bytes()
    damaged = without(data, {0, 2}, instead=bytes(len(data)))
    path.write_bytes(damaged)
    cut_power(directory, worker_id=dead, born_ms=born_ms)
    replayed = await recovery.replay_journals(database, directory, Metrics())
    assert 0 < replayed < COUNT
    assert len(await charged(database)) == replayed
    (kept,) = directory.glob("*.damaged")
    assert kept.read_bytes() == damaged
    kept.unlink()
    assert await recovery.replay_journals(database, directory, Metrics()) == 0


@pytest.mark.parametrize("text", ["", "5", "5 boot", "x boot 00000000", "5 boot 00000000\n"])
def test_a_lock_that_does_not_say_whose_it_is_excuses_no_damage(tmp_path: Path, text: str) -> None:
    path = written(tmp_path)
    data = path.read_bytes()
    path.write_bytes(without(data, {1}, instead=bytes(len(data))))
    (tmp_path / "00000001.lock").write_text(text)
    (dead,) = find_dead(tmp_path)
    with dead, pytest.raises(JournalDamaged):
        list(dead.charges())


def test_a_kill_while_the_file_is_begun_anew_is_no_damage(tmp_path: Path) -> None:
    path = written(tmp_path)
    data = path.read_bytes()
    end = len(data.rstrip(b"\0"))
    for zeroed in (12, 13, 100, 5_000, end - records.BEGIN):
        torn = data[: records.BEGIN] + bytes(zeroed) + data[records.BEGIN + zeroed :]
        path.write_bytes(torn)
        # The charges that are left are settled: it is the caller who leaves them out.
        assert all(each == charge(each.seq, each.seq) for each in records.read(path, is_last=True))


def test_a_kill_that_tears_the_last_charge_in_any_order_is_no_damage(tmp_path: Path) -> None:
    path = written(tmp_path)
    data = path.read_bytes()
    start, end = _ends(data)[-1]
    for missing in (range(start, start + 12), range(start, end - 5), range(start + 20, start + 40)):
        torn = bytearray(data)
        for position in missing:
            torn[position] = 0
        path.write_bytes(torn)
        seqs = [each.seq for each in records.read(path, is_last=True)]
        assert seqs == list(range(1, COUNT))


def _ends(data: bytes) -> list[tuple[int, int]]:
    """Where each record begins and ends."""
    places = []
    position = records.BEGIN
    while records.is_head(data, position):
        length = records.HEAD.unpack_from(data, position)[0]
        places.append((position, position + records.HEAD.size + length))
        position = places[-1][1]
    return places
