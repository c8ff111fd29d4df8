"""The journal gives back every whole charge, drops a torn end, and refuses damage."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bursar.worker import journal as journals
from bursar.worker.journal import Journal, JournalDamaged, JournalFull, find_dead
from tests.factories import charge

PLENTY = 1 << 30
BORN_MS = 5


def written(directory: Path, count: int) -> Path:
    """A journal with charges whose worker died."""
    journal = Journal(directory, 1, born_ms=BORN_MS, max_bytes=PLENTY)
    for seq in range(1, count + 1):
        journal.append(charge(seq, seq))
    journal.close(is_settled=False)
    return directory / "00000001-000001.journal"


def charge_size() -> int:
    """The bytes of a record, about."""
    return len(msgspec.msgpack.encode(charge(1, 1))) + 12


def replay(directory: Path) -> list[int]:
    found = []
    for dead in find_dead(directory):
        with dead:
            found += [each.seq for each in dead.charges()]
    return found


def test_what_was_appended_comes_back_whole(tmp_path: Path) -> None:
    path = written(tmp_path, 3)
    assert list(journals.read(path, is_last=True)) == [charge(n, n) for n in (1, 2, 3)]


def test_a_living_workers_journal_is_nobody_elses(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1, born_ms=BORN_MS, max_bytes=PLENTY)
    journal.append(charge(1, 1))
    assert list(find_dead(tmp_path)) == []
    journal.close(is_settled=False)
    assert replay(tmp_path) == [1]


def test_whoever_looks_while_a_worker_begins_does_not_take_it_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, looked = fcntl.flock, []

    def look_first(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        looked.append(list(find_dead(tmp_path)))
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", look_first)
    journal = Journal(tmp_path, 1, born_ms=BORN_MS, max_bytes=PLENTY)
    assert looked == [[]]
    assert list(find_dead(tmp_path)) == []
    journal.close(is_settled=True)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_is_found_and_knows_its_worker_without_its_lock(tmp_path: Path) -> None:
    written(tmp_path, 2)
    (tmp_path / "00000001.lock").unlink()
    (dead,) = find_dead(tmp_path)
    with dead:
        assert (dead.worker_id, dead.born_ms, dead.name) == (1, BORN_MS, "00000001-000001.journal")
        assert len(list(dead.charges())) == 2


def test_a_settled_journal_leaves_no_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1, born_ms=BORN_MS, max_bytes=PLENTY)
    journal.append(charge(1, 1))
    journal.settled(1)
    journal.close(is_settled=True)
    assert list(tmp_path.iterdir()) == []


def test_settled_charges_make_room_and_later_ones_stay(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1, born_ms=BORN_MS, max_bytes=PLENTY, segment_bytes=1_000)
    for seq in range(1, 40):
        journal.append(charge(seq, seq))
    before = journal.size_bytes
    journal.settled(30)
    assert 0 < journal.size_bytes < before
    journal.close(is_settled=False)
    found = replay(tmp_path)
    assert found[-1] == 39
    assert set(range(31, 40)) <= set(found)


def test_a_settled_journal_begins_again_in_the_same_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1, born_ms=BORN_MS, max_bytes=PLENTY)
    for seq in (1, 2, 3):
        journal.append(charge(seq, seq))
    journal.settled(3)
    assert journal.size_bytes == 0
    journal.append(charge(4, 4))
    journal.close(is_settled=False)
    assert replay(tmp_path) == [4]


def test_what_a_killed_process_appended_is_there(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys\n"
        "from bursar.worker.journal import Journal\n"
        "from tests.factories import charge\n"
        "Journal(pathlib.Path(sys.argv[1]), 1, born_ms=5, max_bytes=10**6).append(charge(1, 1))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert replay(tmp_path) == [1]


def test_a_full_journal_says_so_and_stays_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 1, born_ms=BORN_MS, max_bytes=charge_size() * 5 // 2)
    journal.append(charge(1, 1))
    journal.append(charge(2, 2))
    with pytest.raises(JournalFull):
        journal.append(charge(3, 3))
    journal.close(is_settled=False)
    found = replay(tmp_path)
    assert found == list(range(1, len(found) + 1))


@settings(max_examples=60)
@given(cut=st.integers(1, 400))
def test_a_torn_end_is_dropped_and_the_rest_kept(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = written(tmp_path_factory.mktemp("journal"), 4)
    data = path.read_bytes()
    end = len(data.rstrip(b"\0"))
    path.write_bytes(data[: end - cut] + bytes(len(data) - end + cut))
    found = [each.seq for each in journals.read(path, is_last=True)]
    assert found == list(range(1, len(found) + 1))
    assert len(found) < 4
    path.write_bytes(data[: end - cut])
    assert [each.seq for each in journals.read(path, is_last=True)] == found


@settings(max_examples=60)
@given(where=st.floats(0, 0.4), bit=st.integers(0, 7))
def test_damage_in_the_middle_is_refused_never_skipped(
    tmp_path_factory: pytest.TempPathFactory, where: float, bit: int
) -> None:
    path = written(tmp_path_factory.mktemp("journal"), 6)
    data = bytearray(path.read_bytes())
    data[int(len(data.rstrip(b"\0")) * where)] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(JournalDamaged):
        list(journals.read(path, is_last=True))
