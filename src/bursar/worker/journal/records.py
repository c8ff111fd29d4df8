"""How a charge stands in a file: a record behind its length and two checksums.

Owns the layout of a segment, and what may be wrong with one. The second checksum covers length and
first checksum, without which a damaged length would look like a torn end. Must not know workers.
"""

import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct

import msgspec

from bursar.store.plane.charges import Charge

MAGIC = b"BURSAR-JOURNAL-2\n"
HEAD = Struct("<III")
_CHECKED = Struct("<II")
_BORN = Struct("<QI")
BEGIN = len(MAGIC) + _BORN.size
_NOT_ZERO = re.compile(rb"[^\0]")


class JournalDamaged(Exception):
    """A record in the middle of a journal is not what was written; somebody must look."""


def encoder() -> Callable[[Charge], bytes]:
    """A function that makes a record of a charge."""
    encode = msgspec.msgpack.Encoder().encode

    def make(charge: Charge) -> bytes:
        payload = encode(charge)
        length, crc = len(payload), zlib.crc32(payload)
        return HEAD.pack(length, crc, zlib.crc32(_CHECKED.pack(length, crc))) + payload

    return make


def read(path: Path, *, is_last: bool) -> Iterator[Charge]:
    """The charges of one segment; a torn end is dropped if the segment is the last."""
    data = path.read_bytes()
    written = len(data.rstrip(b"\0"))
    if born_ms_of(data) is None:
        if is_last and written <= BEGIN and data.startswith(MAGIC[:written]):
            return
        raise JournalDamaged(f"{path.name} does not begin like a journal")
    decode = msgspec.msgpack.Decoder(Charge).decode
    position = BEGIN
    while position < written:
        end, payload = _record(data, position)
        if payload is None:
            if is_last and (end >= written or _next_head(data, position + 1, written) == written):
                # A kill tore the last record; a copy need not go from front to back.
                return
            if position == BEGIN and not any(data[BEGIN : BEGIN + 4]):
                # A kill tore the zeroes that begin the file anew: what is left has been settled.
                yield from (charge for charge in salvage(path) if charge is not None)
                return
            raise JournalDamaged(f"{path.name} is damaged at byte {position}")
        yield decode(payload)
        position = end


def salvage(path: Path) -> Iterator[Charge | None]:
    """Every whole charge of a segment that a power cut has damaged, and None for each gap.

    Pages may be missing anywhere, or be there as they were written earlier, so that charges may
    come in any order and again; what has been settled is for the caller to leave out. A record is
    taken for whole by two checksums.
    """
    data = path.read_bytes()
    written = len(data.rstrip(b"\0"))
    decode = msgspec.msgpack.Decoder(Charge).decode
    is_whole = born_ms_of(data) is not None
    if written and not is_whole:
        yield None
    position = BEGIN if is_whole else 0
    while position < written:
        end, payload = _record(data, position)
        if payload is not None:
            yield decode(payload)
            position = end
            continue
        yield None
        position = _next_head(data, position + 1, written)


def beginning(born_ms: int) -> bytes:
    """The first bytes of a segment."""
    moment = born_ms.to_bytes(8, "little")
    return MAGIC + _BORN.pack(born_ms, zlib.crc32(moment))


def born_ms_of(data: bytes) -> int | None:
    """The moment in a segment's beginning; None if that is not what was written."""
    if len(data) < BEGIN or not data.startswith(MAGIC):
        return None
    born_ms: int = _BORN.unpack_from(data, len(MAGIC))[0]
    return born_ms if data.startswith(beginning(born_ms)) else None


def is_head(data: bytes, position: int) -> bool:
    """Whether the head of a record that has a payload stands there."""
    if position + HEAD.size > len(data):
        return False
    length, crc, check = HEAD.unpack_from(data, position)
    return bool(length) and check == zlib.crc32(_CHECKED.pack(length, crc))


def payload_at(data: bytes, position: int) -> bytes | None:
    """The payload of the record at `position`; None when it is not whole."""
    return _record(data, position)[1] if is_head(data, position) else None


def _next_head(data: bytes, position: int, written: int) -> int:
    """Where the next record may begin; `written` when there is none."""
    while position < written and not is_head(data, position):
        position += 1
        if position < written and not data[position]:
            # Missing pages are zeroes. A length, of four bytes, is not.
            found = _NOT_ZERO.search(data, position)
            position = max(position, found.start() - 3) if found else written
    return position


def _record(data: bytes, position: int) -> tuple[int, bytes | None]:
    """Where the record at `position` ends, and its payload if it is whole."""
    if position + HEAD.size > len(data):
        return len(data), None
    length, crc, check = HEAD.unpack_from(data, position)
    start = position + HEAD.size
    if check != zlib.crc32(_CHECKED.pack(length, crc)):
        # A head of which only a part arrived is followed by nothing but zeroes.
        is_torn = not any(data[start:])
        return (len(data) if is_torn else position + 1), None
    payload = data[start : start + length]
    whole = len(payload) == length and zlib.crc32(payload) == crc
    return start + length, payload if whole else None
