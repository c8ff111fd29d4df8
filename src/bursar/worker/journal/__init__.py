"""The journal: a worker's charges on local disk, from before the answer's last byte until settled.

Owns the files of live and dead workers. Segments are mapped into memory, at a size that the disk
has promised: appending is a copy, not a system call, and what was copied outlives the process,
because the kernel owns the pages. A record that a kill tore is dropped if it is the last; damage
anywhere else is refused, never skipped, unless the machine has lost its memory since: then pages
may be missing anywhere, and what is whole is charged. Must not know the database.

A worker's journal is a row of segments, `<worker>-<segment>.journal`; a segment is deleted when its
last charge is settled. Each begins with the moment at which the worker registered: databases count
their workers alike, and only that tells one's journal from another's. `<worker>.lock` is locked
while the worker lives, so that whoever can lock it has found a dead worker's journal, and says in
which boot of the machine it lived. `<worker>.streams` holds the checkpoints of its long streams.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from bursar import failpoints
from bursar.store.plane.charges import Charge
from bursar.worker.journal import checkpoints, records
from bursar.worker.journal.checkpoints import Checkpoints
from bursar.worker.journal.locks import Identity, Lock, this_boot
from bursar.worker.journal.records import BEGIN, JournalDamaged, beginning, born_ms_of, read

__all__ = [
    "DeadJournal",
    "Journal",
    "JournalDamaged",
    "JournalForeign",
    "JournalFull",
    "find_dead",
    "read",
]

SEGMENT_BYTES = 8 * 1024 * 1024


class JournalFull(Exception):
    """The charge could not be written: no space, or the journal has reached its bound."""


class JournalForeign(Exception):
    """A journal holds charges of a worker that this database does not know."""


class _Segment:
    """One mapped file: where its records end, and the last charge in it."""

    def __init__(self, path: Path, size: int, born_ms: int) -> None:
        self.path = path
        self.last_seq = 0
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # Without the disk's promise, a full disk would be a bus error at some later copy.
            os.posix_fallocate(fd, 0, size)
            self.map = mmap.mmap(fd, size)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(fd)
        self.map[:BEGIN] = beginning(born_ms)
        self.end = BEGIN

    def rewind(self) -> None:
        """Forget every record; what follows the end of a journal is always zeroes."""
        # The first length goes first: a kill half-way must not look like damage.
        self.map[BEGIN : BEGIN + records.HEAD.size] = bytes(records.HEAD.size)
        self.map[BEGIN : self.end] = bytes(self.end - BEGIN)
        self.end = BEGIN

    def close(self, *, delete: bool) -> None:
        self.map.close()
        if delete:
            self.path.unlink(missing_ok=True)


class Journal:
    """The journal of one live worker, registered at `born_ms`. Appending never awaits."""

    def __init__(
        self,
        directory: Path,
        worker_id: int,
        *,
        born_ms: int,
        max_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._directory = directory
        self._worker_id = worker_id
        self._born_ms = born_ms
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = Lock(_lock_path(directory, worker_id))
        if not self._lock.make(Identity(born_ms, this_boot())):
            raise RuntimeError(f"worker {worker_id} has a journal that is in use")
        self._encode = records.encoder()
        self.checkpoints = Checkpoints(_streams_path(directory, worker_id))
        self._made = 0
        self._segments: list[_Segment] = []
        self._begin_segment(segment_bytes)
        self.size_bytes = 0

    @failpoints.before("charge.known")
    @failpoints.after("charge.written")
    def append(self, charge: Charge) -> None:
        """Write one charge. Raises JournalFull with the journal as it was before."""
        record = self._encode(charge)
        size = len(record)
        if self.size_bytes + size > self._max_bytes:
            raise JournalFull("the journal has reached its bound")
        segment = self._segments[-1]
        end = segment.end + size
        if end > len(segment.map):
            segment = self._begin_segment(size + BEGIN)
            end = segment.end + size
        segment.map[segment.end : end] = record
        segment.end = end
        segment.last_seq = charge.seq
        self.size_bytes += size

    def sync(self) -> None:
        """Force what was appended to the disk itself; blocks, so call it from a thread."""
        self._segments[-1].map.flush()

    def settled(self, seq: int) -> None:
        """Forget segments whose charges are all settled."""
        while len(self._segments) > 1 and self._segments[0].last_seq <= seq:
            done = self._segments.pop(0)
            self.size_bytes -= done.end - BEGIN
            done.close(delete=True)
        current = self._segments[-1]
        if len(self._segments) == 1 and current.last_seq <= seq:
            current.rewind()
            self.size_bytes = 0

    def close(self, *, is_settled: bool) -> None:
        """Close; the files go only when every charge in them is settled."""
        for segment in self._segments:
            segment.close(delete=is_settled)
        self.checkpoints.close(delete=is_settled)
        self._lock.release(remove=is_settled)

    def _begin_segment(self, least: int) -> _Segment:
        self._made += 1
        path = self._directory / f"{self._worker_id:08d}-{self._made:06d}.journal"
        try:
            segment = _Segment(path, max(least, self._segment_bytes), self._born_ms)
        except OSError as error:
            self._made -= 1
            raise JournalFull(f"no room for another segment: {error.strerror}") from error
        self._segments.append(segment)
        return segment


class DeadJournal:
    """The journal of a worker that is gone; holds its lock until closed."""

    def __init__(self, directory: Path, worker_id: int, lock: Lock) -> None:
        self.worker_id = worker_id
        self._paths = _segments(directory, worker_id)
        self._streams = _streams_path(directory, worker_id)
        self._lock = lock
        self._identity = lock.read()
        self.gaps = 0

    def __enter__(self) -> "DeadJournal":
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._lock.release(remove=False)

    @property
    def name(self) -> str:
        """The name of its first file."""
        return self._paths[0].name if self._paths else f"{self.worker_id:08d}.lock"

    @property
    def born_ms(self) -> int | None:
        """When its worker registered; None where not even that was written."""
        if self._identity is not None:
            return self._identity.born_ms
        if not self._paths:
            return None
        with self._paths[0].open("rb") as file:
            return born_ms_of(file.read(BEGIN))

    @property
    def may_have_gaps(self) -> bool:
        """Whether the machine was started anew since: what was not on the disk then is gone."""
        boot_id = this_boot()
        return bool(self._identity and boot_id and self._identity.boot_id not in ("", boot_id))

    def charges(self) -> Iterator[Charge]:
        """Every whole charge, in order; raises JournalDamaged.

        Where there may be gaps they are counted in `gaps`, and passed over.
        """
        if self.may_have_gaps:
            yield from self._salvaged()
            return
        for number, path in enumerate(self._paths):
            yield from read(path, is_last=number == len(self._paths) - 1)

    def checkpoints(self) -> Iterator[Charge]:
        """What each stream that was running had cost so far; not numbered."""
        return checkpoints.read(self._streams)

    def set_aside(self) -> None:
        """Keep what has gaps beside the journals, for a person to look at."""
        for path in self._paths:
            path.rename(path.with_name(f"{path.name}.damaged"))

    def delete(self) -> None:
        """Forget the journal: everything in it is settled."""
        for path in (*self._paths, self._streams):
            path.unlink(missing_ok=True)
        self._lock.release(remove=True)

    def _salvaged(self) -> Iterator[Charge]:
        self.gaps = 0
        found: dict[int, Charge] = {}
        for path in self._paths:
            for charge in records.salvage(path):
                if charge is None:
                    self.gaps += 1
                else:
                    # A page may be as it was before the file was begun anew, with older charges.
                    found[charge.seq] = charge
        for _, charge in sorted(found.items()):
            yield charge


def find_dead(directory: Path) -> Iterator[DeadJournal]:
    """Each journal whose worker no longer lives, locked for the caller."""
    kinds = ("*.lock", "*-*.journal", "*.streams")
    named = [path for kind in kinds for path in directory.glob(kind)]
    numbers = {path.stem.partition("-")[0] for path in named}
    for worker_id in sorted(int(number) for number in numbers if number.isdecimal()):
        lock = Lock(_lock_path(directory, worker_id))
        if lock.acquire():
            yield DeadJournal(directory, worker_id, lock)


def _lock_path(directory: Path, worker_id: int) -> Path:
    return directory / f"{worker_id:08d}.lock"


def _streams_path(directory: Path, worker_id: int) -> Path:
    return directory / f"{worker_id:08d}.streams"


def _segments(directory: Path, worker_id: int) -> list[Path]:
    return sorted(directory.glob(f"{worker_id:08d}-*.journal"))
