"""The way to an SQLite file: how a connection is prepared, and that the file is still the same.

Owns the pragmas and the bounds of waiting. Must not know transactions or tables.
"""

import errno
import os
from pathlib import Path
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from bursar.store.connections import Link

_BUSY_TIMEOUT_MS: Final = 5_000
_POOL_TIMEOUT_S: Final = 5.0


class SqliteLink(Link):
    """One SQLite file. The file that was opened first is the only one that is ever used.

    Whoever deletes or replaces it under a running program would otherwise have charges written to
    a file that nobody can find, and the next connection would make an empty one in its place.
    """

    def __init__(self, url: URL, *, connections: int) -> None:
        self._path = Path(url.database) if url.database else None
        self._identity: tuple[int, int] | None = None
        self.engine = create_async_engine(
            url,
            pool_size=connections - connections // 2,
            max_overflow=connections // 2,
            pool_timeout=_POOL_TIMEOUT_S,
        )
        event.listen(self.engine.sync_engine, "connect", self._prepare)
        event.listen(self.engine.sync_engine, "begin", _begin)

    def check(self) -> None:
        """Raise OSError when the file is gone or another one has taken its place."""
        if self._identity is None or self._path is None:
            return
        if self._find_identity(self._path) != self._identity:
            raise FileNotFoundError(
                errno.ENOENT, "the database file was deleted or replaced", str(self._path)
            )

    def mistrust(self) -> None:
        """Nothing: the connections of a file do not break together."""

    def _prepare(self, connection: Any, _record: object) -> None:
        # The driver's own transaction control would begin deferred transactions behind our back.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}",
            "PRAGMA journal_mode = WAL",
            # NORMAL syncs nothing at COMMIT in WAL mode: a power cut would take charges back.
            "PRAGMA synchronous = FULL",
            "PRAGMA foreign_keys = ON",
        ):
            cursor.execute(pragma)
        cursor.close()
        if self._identity is None and self._path is not None:
            self._identity = self._find_identity(self._path)

    @staticmethod
    def _find_identity(path: Path) -> tuple[int, int] | None:
        try:
            found = os.stat(path)
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _begin(connection: Any) -> None:
    writes = connection.get_execution_options().get("bursar_write", False)
    # A deferred transaction that wants to write later can fail with SQLITE_BUSY at once and
    # without waiting; an immediate one queues for the lock at its beginning.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
