"""The file of a backup: written whole or not at all, and read to the last byte before it counts.

Owns the format. It is gzip around lines of JSON: what this is, then for each table its name and a
line for each row (an array; bytes as base64), at the end how many rows each table has and the
SHA-256 of everything before. So it is read and written in one pass, in the memory of one row, and a
file that was cut off or changed is noticed. Must not know databases.
"""

import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import msgspec

from bursar.core.errors import Conflict, NotFound, Unreadable

FORMAT: Final = "bursar-backup"
_VERSION: Final = 1
_LEVEL: Final = 3
_LONGEST_LINE: Final = 64 * 1024 * 1024
_PRIVATE: Final = 0o600


class Header(msgspec.Struct, frozen=True):
    """What a backup says of itself: whose schema its rows have, and the moment of the snapshot."""

    format: str
    version: int
    schema: str
    taken_ms: int
    database: str
    tables: dict[str, list[str]]


class Written(NamedTuple):
    """A finished file: its size, its SHA-256 in hex, and how many rows of each table are in it."""

    size_bytes: int
    sha256: str
    rows: dict[str, int]


class _Section(msgspec.Struct, frozen=True):
    table: str


class _End(msgspec.Struct, frozen=True):
    rows: dict[str, int]
    sha256: str


def describe(*, schema: str, taken_ms: int, database: str, tables: dict[str, list[str]]) -> Header:
    """The header of a new backup."""
    return Header(FORMAT, _VERSION, schema, taken_ms, database, tables)


class Writer:
    """Writes one backup; rows come table by table."""

    def __init__(self, raw: IO[bytes], header: Header) -> None:
        self._raw = raw
        self._file_hash = hashlib.sha256()
        self._hash = hashlib.sha256()
        self._encode = msgspec.json.Encoder().encode
        self._size_bytes = 0
        self._rows: dict[str, int] = {}
        self._table = ""
        self._zipped = gzip.GzipFile(
            fileobj=self, mode="wb", compresslevel=_LEVEL, mtime=0, filename=""
        )
        self._line(header)

    def begin(self, table: str) -> None:
        """What follows are rows of this table."""
        self._table = table
        self._rows[table] = 0
        self._line(_Section(table))

    def add(self, row: Sequence[Any]) -> None:
        """One row, in the order of the header's columns."""
        self._line(row)
        self._rows[self._table] += 1

    def finish(self) -> Written:
        """Write the end; nothing can follow."""
        self._line(_End(self._rows, self._hash.hexdigest()))
        self._zipped.close()
        return Written(self._size_bytes, self._file_hash.hexdigest(), self._rows)

    def write(self, data: bytes) -> int:
        """Take what the compressor gives."""
        self._file_hash.update(data)
        self._size_bytes += len(data)
        return self._raw.write(data)

    def flush(self) -> None:
        """Nothing is kept here."""

    def _line(self, value: object) -> None:
        line = self._encode(value) + b"\n"
        self._hash.update(line)
        self._zipped.write(line)


@contextmanager
def writing(path: Path, header: Header) -> Iterator[Writer]:
    """Write a backup that is at `path`, whole and on the disk, once the block has ended.

    Readable by its owner alone: it has what secrets are checked against. Raises Conflict
    (`backup_exists`) rather than replace a file, and leaves nothing behind when it fails.
    """
    if path.exists():
        raise _exists(path)
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        os.fchmod(fd, _PRIVATE)
        with os.fdopen(fd, "wb") as raw:
            yield Writer(raw, header)
            raw.flush()
            os.fsync(raw.fileno())
        _publish(Path(name), path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


class Reader:
    """Reads one backup; what it yields is true only once it has come to its end."""

    def __init__(self, zipped: gzip.GzipFile) -> None:
        self._zipped = zipped
        self._hash = hashlib.sha256()
        self._decode = msgspec.json.Decoder().decode
        self.header = self._read_header()

    def rows(self) -> Iterator[tuple[str, list[Any]]]:
        """Every row with its table. Raises Unreadable (`backup_damaged`), perhaps at the end."""
        counts: dict[str, int] = {}
        table = ""
        while True:
            digest = self._hash.hexdigest()
            line = self._read_line()
            value = self._parse(line)
            if isinstance(value, list):
                if len(value) != len(self.header.tables.get(table, ())):
                    raise _damaged(f"a row of {table or 'no table'} has {len(value)} columns")
                counts[table] += 1
                yield table, value
            elif isinstance(value, dict) and value.get("table") in self.header.tables:
                table = value["table"]
                counts[table] = 0
            elif value == {"rows": counts, "sha256": digest}:
                break
            else:
                raise _damaged("it is not what was written")
        if self._read(1):
            raise _damaged("something follows its end")

    def _read_header(self) -> Header:
        try:
            header = msgspec.json.decode(self._read_line(), type=Header)
        except msgspec.MsgspecError as error:
            raise _damaged("it does not begin like a backup") from error
        if header.format != FORMAT:
            raise _damaged("it does not begin like a backup")
        if header.version > _VERSION:
            raise Conflict("backup_newer", "A newer version of Bursar made this backup.")
        return header

    def _parse(self, line: bytes) -> Any:
        try:
            return self._decode(line)
        except msgspec.MsgspecError as error:
            raise _damaged("it is not what was written") from error

    def _read_line(self) -> bytes:
        line = self._read(_LONGEST_LINE, is_line=True)
        if not line.endswith(b"\n"):
            raise _damaged("it ends too early")
        self._hash.update(line)
        return line

    def _read(self, most: int, *, is_line: bool = False) -> bytes:
        try:
            return self._zipped.readline(most) if is_line else self._zipped.read(most)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise _damaged("it ends too early, or it is not what was written") from error


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    """Read a backup. Raises NotFound (`backup_missing`) and Unreadable (`backup_damaged`)."""
    try:
        raw = path.open("rb")
    except FileNotFoundError as error:
        raise NotFound("backup_missing", f"There is no backup {path}.") from error
    with raw, gzip.GzipFile(fileobj=raw, mode="rb") as zipped:
        yield Reader(zipped)


def _publish(partial: Path, path: Path) -> None:
    try:
        os.link(partial, path)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError:
        # A file system without links: the name was free a moment ago.
        os.replace(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _exists(path: Path) -> Conflict:
    return Conflict("backup_exists", f"{path} exists already, and a backup replaces nothing.")


def _damaged(why: str) -> Unreadable:
    return Unreadable("backup_damaged", f"This backup cannot be used: {why}.")
