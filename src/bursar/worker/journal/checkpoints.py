"""Checkpoints: what streams that are still running have cost so far, for the case of a sudden end.

Owns one small file for each worker, of slots that are written over: each long stream has one, as
long as it runs. A slot has two halves, written in turn, so that a write that a kill has torn leaves
the one before it. Streams that end soon, and answers in one piece, never come here, and the file is
made when the first one does. Must not know how a stream is read, or what is settled.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bursar.store.plane.charges import Charge
from bursar.worker.journal import records

HALF_BYTES = 4_096
_FIRST_SLOTS = 64
_NOTHING = bytes(records.HEAD.size)


class Checkpoints:
    """The checkpoints of one live worker. Plain functions: nothing here awaits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._encode = records.encoder()
        self._map: mmap.mmap | None = None
        self._slots = 0
        self._free: list[int] = []
        # By event: the slot, and the half that the next checkpoint goes to.
        self._taken: dict[str, tuple[int, int]] = {}

    def write(self, charge: Charge) -> bool:
        """Note what a stream has cost so far; False when there is no room for it on the disk."""
        record = self._encode(charge)
        if len(record) > HALF_BYTES:
            return False
        found = self._taken.get(charge.event_id)
        if found is None:
            if not self._free and not self._grow():
                return False
            found = self._free.pop(), 0
        slot, half = found
        if self._map is None:
            return False
        place = (2 * slot + half) * HALF_BYTES
        self._map[place : place + len(record)] = record
        other = (2 * slot + 1 - half) * HALF_BYTES
        # The older one goes: of two whole halves nobody could tell which is the newer.
        self._map[other : other + records.HEAD.size] = _NOTHING
        self._taken[charge.event_id] = slot, 1 - half
        return True

    def forget(self, event_id: str) -> None:
        """The stream has ended, and its charge is written down; or it never was a long one."""
        found = self._taken.pop(event_id, None)
        if found is None or self._map is None:
            return
        slot = found[0]
        for half in (0, 1):
            place = (2 * slot + half) * HALF_BYTES
            self._map[place : place + records.HEAD.size] = _NOTHING
        self._free.append(slot)

    def close(self, *, delete: bool) -> None:
        """Close the file; it goes when every stream has ended."""
        if self._map is not None:
            self._map.close()
            self._map = None
        if delete:
            self._path.unlink(missing_ok=True)

    def _grow(self) -> bool:
        """Make room for as many again; False when the disk has none."""
        slots = 2 * self._slots or _FIRST_SLOTS
        size = slots * 2 * HALF_BYTES
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                # Without the disk's promise, a full disk would be a bus error at some later copy.
                os.posix_fallocate(fd, 0, size)
                grown = mmap.mmap(fd, size)
            finally:
                os.close(fd)
        except OSError:
            return False
        if self._map is not None:
            self._map.close()
        self._map = grown
        self._free += range(slots - 1, self._slots - 1, -1)
        self._slots = slots
        return True


def read(path: Path) -> Iterator[Charge]:
    """The last whole checkpoint of each stream; of one that was torn, the one before it."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    decode = msgspec.msgpack.Decoder(Charge).decode
    for place in range(0, len(data), 2 * HALF_BYTES):
        halves = [records.payload_at(data, place), records.payload_at(data, place + HALF_BYTES)]
        whole = [decode(payload) for payload in halves if payload is not None]
        if whole:
            # Both are whole when the process ended between writing one and taking the other away.
            yield max(whole, key=lambda charge: charge.cost_nanos)
