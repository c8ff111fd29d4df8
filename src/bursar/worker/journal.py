"""The journal: a worker's charges on local disk, from before the answer's last byte until settled.

Owns the file format and its recovery. A record is a charge behind its length, its CRC-32 and a
CRC-32 of those two (without which a damaged length would look like a torn end). A process that is
killed loses nothing, because the write has reached the kernel; a torn last record, from a machine
that lost power, is dropped. Damage anywhere else is refused, never skipped. Must not know the
database.

A worker's journal is a row of segments, `<worker>-<segment>.journal`; a segment is deleted when its
last charge is settled. `<worker>.lock` is locked while the worker lives, so that whoever can lock
it has found a dead worker's journal.
"""

import fcntl
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from types import TracebackType

import msgspec

from bursar.store.plane.charges import Charge

MAGIC = b"BURSAR-JOURNAL-1\n"
_HEAD = Struct("<III")
_CHECKED = Struct("<II")
_SEGMENT_BYTES = 8 * 1024 * 1024


class JournalFull(Exception):
    """The charge could not be written: no space, or the journal has reached its bound."""


class JournalDamaged(Exception):
    """A record in the middle of a journal is not what was written; somebody must look."""


@dataclass(slots=True)
class _Segment:
    path: Path
    last_seq: int
    size: int


class Journal:
    """The journal of one live worker. Appending is a plain call that returns once written."""

    def __init__(self, directory: Path, worker_id: int, *, max_bytes: int) -> None:
        self._directory = directory
        self._worker_id = worker_id
        self._max_bytes = max_bytes
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _Lock(_lock_path(directory, worker_id))
        if not self._lock.acquire():
            raise RuntimeError(f"worker {worker_id} has a journal that is in use")
        self._encode = msgspec.msgpack.Encoder().encode
        self._segments: list[_Segment] = []
        self._fd = -1
        self.size_bytes = 0
        self._begin_segment()

    def append(self, charge: Charge) -> None:
        """Write one charge. Raises JournalFull with the file as it was before."""
        payload = self._encode(charge)
        record = _head(payload) + payload
        segment = self._segments[-1]
        if self.size_bytes + len(record) > self._max_bytes:
            raise JournalFull("the journal has reached its bound")
        try:
            written = os.write(self._fd, record)
        except OSError as error:
            raise JournalFull(str(error)) from error
        if written != len(record):
            os.ftruncate(self._fd, segment.size)
            raise JournalFull("the disk took only a part of a record")
        segment.size += written
        self.size_bytes += written
        segment.last_seq = charge.seq
        if segment.size > _SEGMENT_BYTES:
            self._begin_segment()

    def sync(self) -> None:
        """Force what was appended to the disk itself; blocks, so call it from a thread."""
        os.fdatasync(self._fd)

    def settled(self, seq: int) -> None:
        """Forget segments whose charges are all settled."""
        while len(self._segments) > 1 and self._segments[0].last_seq <= seq:
            done = self._segments.pop(0)
            done.path.unlink(missing_ok=True)
            self.size_bytes -= done.size
        current = self._segments[-1]
        if len(self._segments) == 1 and current.last_seq <= seq and current.size > len(MAGIC):
            # Everything is settled: begin again in place, which is cheaper than a new file.
            os.ftruncate(self._fd, len(MAGIC))
            current.size = self.size_bytes = len(MAGIC)

    def close(self, *, is_settled: bool) -> None:
        """Close; the files go only when every charge in them is settled."""
        os.close(self._fd)
        if is_settled:
            for segment in self._segments:
                segment.path.unlink(missing_ok=True)
        self._lock.release(remove=is_settled)

    def _begin_segment(self) -> None:
        number = int(self._segments[-1].path.stem.split("-")[1]) + 1 if self._segments else 1
        path = self._directory / f"{self._worker_id:08d}-{number:06d}.journal"
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        os.write(self._fd, MAGIC)
        self.size_bytes += len(MAGIC)
        self._segments.append(_Segment(path, 0, len(MAGIC)))


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
    for path in sorted(directory.glob("*.lock")):
        with suppress(ValueError):
            lock = _Lock(path)
            if lock.acquire():
                yield DeadJournal(directory, int(path.stem), lock)


def read(path: Path, *, is_last: bool) -> Iterator[Charge]:
    """The charges of one segment; a torn tail is dropped if it is the last."""
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        if is_last and MAGIC.startswith(data):
            return
        raise JournalDamaged(f"{path.name} does not begin like a journal")
    decode = msgspec.msgpack.Decoder(Charge).decode
    position = len(MAGIC)
    while position < len(data):
        end, payload = _record(data, position)
        if payload is None:
            if is_last and end >= len(data):
                return
            raise JournalDamaged(f"{path.name} is damaged at byte {position}")
        yield decode(payload)
        position = end


def _record(data: bytes, position: int) -> tuple[int, bytes | None]:
    """Where the record at `position` ends, and its payload if it is whole."""
    if position + _HEAD.size > len(data):
        return len(data), None
    length, crc, check = _HEAD.unpack_from(data, position)
    start = position + _HEAD.size
    if check != zlib.crc32(_CHECKED.pack(length, crc)) or length == 0:
        # A file that grew before its bytes arrived, as some file systems leave it after a crash,
        # ends in zeroes; anything else was written and has changed.
        return (position + 1 if any(data[position:]) else len(data)), None
    payload = data[start : start + length]
    whole = len(payload) == length and zlib.crc32(payload) == crc
    return start + length, payload if whole else None


def _head(payload: bytes) -> bytes:
    length, crc = len(payload), zlib.crc32(payload)
    return _HEAD.pack(length, crc, zlib.crc32(_CHECKED.pack(length, crc)))


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
