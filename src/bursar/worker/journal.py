"""The journal: a worker's charges on local disk, from before the answer's last byte until settled.

Owns the file format and its recovery. A record is a charge behind its length, its CRC-32 and a
CRC-32 of those two (without which a damaged length would look like a torn end). Segments are mapped
into memory, at a size that the disk has promised: appending is a copy, not a system call, and what
was copied outlives the process, because the kernel owns the pages. A record that a power cut tore
is dropped if it is the last; damage anywhere else is refused, never skipped. Must not know the
database.

A worker's journal is a row of segments, `<worker>-<segment>.journal`; a segment is deleted when its
last charge is settled. Each begins with the moment at which the worker registered: databases count
their workers alike, and only that tells one's journal from another's. `<worker>.lock` is locked
while the worker lives, so that whoever can lock it has found a dead worker's journal.
"""

import fcntl
import mmap
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from types import TracebackType

import msgspec

from bursar.store.plane.charges import Charge

MAGIC = b"BURSAR-JOURNAL-2\n"
SEGMENT_BYTES = 8 * 1024 * 1024
_HEAD = Struct("<III")
_CHECKED = Struct("<II")
_BORN = Struct("<QI")
_BEGIN = len(MAGIC) + _BORN.size


class JournalFull(Exception):
    """The charge could not be written: no space, or the journal has reached its bound."""


class JournalDamaged(Exception):
    """A record in the middle of a journal is not what was written; somebody must look."""


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
        self.map[:_BEGIN] = _beginning(born_ms)
        self.end = _BEGIN

    def rewind(self) -> None:
        """Forget every record; what follows the end of a journal is always zeroes."""
        self.map[_BEGIN : self.end] = bytes(self.end - _BEGIN)
        self.end = _BEGIN

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
        self._lock = _Lock(_lock_path(directory, worker_id))
        if not self._lock.acquire():
            raise RuntimeError(f"worker {worker_id} has a journal that is in use")
        self._encode = msgspec.msgpack.Encoder().encode
        self._made = 0
        self._segments: list[_Segment] = []
        self._begin_segment(segment_bytes)
        self.size_bytes = 0

    def append(self, charge: Charge) -> None:
        """Write one charge. Raises JournalFull with the journal as it was before."""
        payload = self._encode(charge)
        length, crc = len(payload), zlib.crc32(payload)
        record = _HEAD.pack(length, crc, zlib.crc32(_CHECKED.pack(length, crc))) + payload
        size = len(record)
        if self.size_bytes + size > self._max_bytes:
            raise JournalFull("the journal has reached its bound")
        segment = self._segments[-1]
        end = segment.end + size
        if end > len(segment.map):
            segment = self._begin_segment(size + _BEGIN)
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
            self.size_bytes -= done.end - _BEGIN
            done.close(delete=True)
        current = self._segments[-1]
        if len(self._segments) == 1 and current.last_seq <= seq:
            current.rewind()
            self.size_bytes = 0

    def close(self, *, is_settled: bool) -> None:
        """Close; the files go only when every charge in them is settled."""
        for segment in self._segments:
            segment.close(delete=is_settled)
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

    def __init__(self, directory: Path, worker_id: int, lock: "_Lock") -> None:
        self.worker_id = worker_id
        self._paths = _segments(directory, worker_id)
        self._lock = lock

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
        if not self._paths:
            return None
        with self._paths[0].open("rb") as file:
            return _born_ms(file.read(_BEGIN))

    def charges(self) -> Iterator[Charge]:
        """Every whole charge, in order; raises JournalDamaged."""
        for number, path in enumerate(self._paths):
            yield from read(path, is_last=number == len(self._paths) - 1)

    def delete(self) -> None:
        """Forget the journal: everything in it is settled."""
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._lock.release(remove=True)


def find_dead(directory: Path) -> Iterator[DeadJournal]:
    """Each journal whose worker no longer lives, locked for the caller."""
    named = [*directory.glob("*.lock"), *directory.glob("*-*.journal")]
    numbers = {path.stem.partition("-")[0] for path in named}
    for worker_id in sorted(int(number) for number in numbers if number.isdecimal()):
        lock = _Lock(_lock_path(directory, worker_id))
        if lock.acquire():
            yield DeadJournal(directory, worker_id, lock)


def read(path: Path, *, is_last: bool) -> Iterator[Charge]:
    """The charges of one segment; a torn end is dropped if the segment is the last."""
    data = path.read_bytes()
    written = len(data.rstrip(b"\0"))
    if _born_ms(data) is None:
        if is_last and written <= _BEGIN and data.startswith(MAGIC[:written]):
            return
        raise JournalDamaged(f"{path.name} does not begin like a journal")
    decode = msgspec.msgpack.Decoder(Charge).decode
    position = _BEGIN
    while position < written:
        end, payload = _record(data, position)
        if payload is None:
            if is_last and end >= written:
                return
            raise JournalDamaged(f"{path.name} is damaged at byte {position}")
        yield decode(payload)
        position = end


def _beginning(born_ms: int) -> bytes:
    moment = born_ms.to_bytes(8, "little")
    return MAGIC + _BORN.pack(born_ms, zlib.crc32(moment))


def _born_ms(data: bytes) -> int | None:
    """The moment in a segment's beginning; None if that is not what was written."""
    if len(data) < _BEGIN or not data.startswith(MAGIC):
        return None
    born_ms: int = _BORN.unpack_from(data, len(MAGIC))[0]
    return born_ms if data.startswith(_beginning(born_ms)) else None


def _record(data: bytes, position: int) -> tuple[int, bytes | None]:
    """Where the record at `position` ends, and its payload if it is whole."""
    if position + _HEAD.size > len(data):
        return len(data), None
    length, crc, check = _HEAD.unpack_from(data, position)
    start = position + _HEAD.size
    if check != zlib.crc32(_CHECKED.pack(length, crc)):
        # A head of which only a part arrived is followed by nothing but zeroes.
        is_torn = not any(data[start:])
        return (len(data) if is_torn else position + 1), None
    payload = data[start : start + length]
    whole = len(payload) == length and zlib.crc32(payload) == crc
    return start + length, payload if whole else None


class _Lock:
    """An exclusive lock on a file, held by this process's open descriptor."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def acquire(self) -> bool:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def release(self, *, remove: bool) -> None:
        if self._fd < 0:
            return
        if remove:
            self._path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1


def _lock_path(directory: Path, worker_id: int) -> Path:
    return directory / f"{worker_id:08d}.lock"


def _segments(directory: Path, worker_id: int) -> list[Path]:
    return sorted(directory.glob(f"{worker_id:08d}-*.journal"))
