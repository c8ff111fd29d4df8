"""Connections and transactions on SQLite and PostgreSQL.

Owns how a transaction begins, ends and tells others about it. Knows no table but the change feed's
and its counter's, and no rule. A use case gets a `Tx`; whether it may write is its type.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import CursorResult, Executable, event, exc, insert, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bursar.core.errors import InvariantViolated
from bursar.store.tables import changes, counters

# What a database that cannot answer now, or a connection to it, raises: try again.
UNAVAILABLE: Final = (SQLAlchemyError, OSError, TimeoutError)
# What a database raises that refuses these very values: trying again is in vain.
REFUSED: Final = (IntegrityError, InvariantViolated, OverflowError)

CHANNEL: Final = "bursar_changes"
POSTGRESQL = "postgresql"
SQLITE = "sqlite"
_BUSY_TIMEOUT_MS = 5_000


class Change(NamedTuple):
    """One line of the change feed: what kind of thing changed, whose, and which one."""

    id: int
    topic: str
    account_id: int
    subject: str


@dataclass(slots=True)
class ReadTx:
    """A transaction that may read: one snapshot of the database."""

    connection: AsyncConnection
    dialect: str

    async def execute(self, statement: Executable) -> CursorResult[Any]:
        """Run one Core statement."""
        result: CursorResult[Any] = await self.connection.execute(statement)
        return result

    async def driver(
        self, sql: str, parameters: Sequence[Any] | list[tuple[Any, ...]] = ()
    ) -> CursorResult[Any]:
        """Run hand-written SQL of this database; a list of tuples runs it once for each."""
        many = parameters if isinstance(parameters, list) else tuple(parameters)
        return await self.connection.exec_driver_sql(sql, many)


@dataclass(slots=True)
class WriteTx(ReadTx):
    """A transaction that may write; what it announces is published when it commits."""

    now_ms: int
    announced: list[tuple[str, int, str]]

    def announce(self, topic: str, *, account_id: int, subject: str = "") -> None:
        """Tell every worker, at commit, that `subject` of this topic has changed."""
        self.announced.append((topic, account_id, subject))


class Database:
    """One database: an engine, its write lock (SQLite) and its local listeners.

    Guarantees: a write transaction holds SQLite's write lock from its beginning, so that it never
    fails half-way for want of it; changes are numbered in the order of their commits. A statement
    that PostgreSQL does not answer within `command_timeout_s` fails; None waits for ever.
    """

    def __init__(
        self,
        url: str,
        *,
        clock_ms: Callable[[], int],
        pool_size: int = 8,
        command_timeout_s: float | None = 30.0,
    ) -> None:
        self.url: URL = make_url(url)
        self.dialect = self.url.get_backend_name()
        self.clock_ms = clock_ms
        self.engine: AsyncEngine = _engine(self.url, self.dialect, pool_size, command_timeout_s)
        self._write_lock = asyncio.Lock()
        self._listeners: list[Callable[[Sequence[Change]], None]] = []
        self._barriers: list[Callable[[], Awaitable[None]]] = []

    @property
    def path(self) -> Path | None:
        """The SQLite file; None on PostgreSQL."""
        return Path(self.url.database) if self.dialect == SQLITE and self.url.database else None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadTx]:
        """One consistent snapshot, never blocked by writers."""
        async with self.engine.connect() as connection:
            if self.dialect == POSTGRESQL:
                await connection.execution_options(isolation_level="REPEATABLE READ")
            async with connection.begin():
                yield ReadTx(connection, self.dialect)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[WriteTx]:
        """One transaction, committed at the end of the block and rolled back by any exception."""
        if self.dialect == SQLITE:
            async with self._write_lock, self._write() as tx:
                yield tx
        else:
            async with self._write() as tx:
                yield tx

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[WriteTx]:
        published: Sequence[Change] = ()
        async with self.engine.connect() as connection:
            await connection.execution_options(bursar_write=True)
            async with connection.begin():
                tx = WriteTx(connection, self.dialect, self.clock_ms(), [])
                yield tx
                if tx.announced:
                    published = await _publish(tx)
        if published:
            for listener in self._listeners:
                listener(published)

    def listen(self, listener: Callable[[Sequence[Change]], None]) -> None:
        """Call `listener` (plain, quick) after each commit of this process that changed things."""
        self._listeners.append(listener)

    def add_barrier(self, barrier: Callable[[], Awaitable[None]]) -> None:
        """Register what must finish before figures are read: charges on their way to the ledger."""
        self._barriers.append(barrier)

    async def catch_up(self, *, timeout_s: float = 1.0) -> bool:
        """Wait until charges made in this process before the call are settled.

        Returns False when that took longer than `timeout_s` (the figures are then older).
        """
        try:
            async with asyncio.timeout(timeout_s):
                for barrier in self._barriers:
                    await barrier()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


async def _publish(tx: WriteTx) -> Sequence[Change]:
    """Write what the transaction announced; its last statements before the commit.

    Ids come from a counter row that stays locked until then, so a reader that has seen change N
    has seen every change before it: with a sequence, a slow transaction could commit an older
    number after the reader had passed it, and that change would be lost for good.
    """
    wanted = list(dict.fromkeys(tx.announced))
    count = counters.c.value + len(wanted)
    last = await tx.execute(
        update(counters)
        .where(counters.c.name == "changes")
        .values(value=count)
        .returning(counters.c.value)
    )
    newest = int(last.scalar_one())
    first = newest - len(wanted) + 1
    rows = [Change(first + n, *line) for n, line in enumerate(wanted)]
    values = [{**row._asdict(), "at_ms": tx.now_ms} for row in rows]
    await tx.execute(insert(changes).values(values))
    if tx.dialect == POSTGRESQL:
        await tx.driver("SELECT pg_notify($1, $2)", (CHANNEL, str(newest)))
    return rows


def _engine(url: URL, dialect: str, pool_size: int, command_timeout_s: float | None) -> AsyncEngine:
    if dialect == SQLITE:
        engine = create_async_engine(url, pool_size=pool_size, max_overflow=0)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    if dialect == POSTGRESQL:
        return create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=5,
            connect_args={"timeout": 5, "command_timeout": command_timeout_s},
        )
    raise ValueError(f"a database is sqlite+aiosqlite or postgresql+asyncpg, not {dialect!r}")


def _prepare_sqlite(connection: Any, _record: object) -> None:
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


def _begin_sqlite(connection: Any) -> None:
    writes = connection.get_execution_options().get("bursar_write", False)
    # A deferred transaction that wants to write later can fail with SQLITE_BUSY at once and
    # without waiting; an immediate one queues for the lock at its beginning.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def describe(error: BaseException) -> str:
    """What went wrong, without the values of a statement: they may be a customer's data."""
    origin = error.orig if isinstance(error, DBAPIError) and error.orig else error
    lines = str(origin).splitlines()
    return f"{type(origin).__name__}: {lines[0]}" if lines else type(origin).__name__


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite file."""
    return f"sqlite+aiosqlite:///{path}"


def is_outage(error: BaseException) -> bool:
    """Whether an exception says that the database cannot be asked now, and not that we asked wrong.

    Drivers report a lost connection in several ways, and some that a server is shutting down as a
    plain error: so what a statement itself can be blamed for is told apart, not the rest.
    """
    if isinstance(error, exc.IntegrityError | exc.DataError | exc.ProgrammingError):
        return False
    return isinstance(error, exc.DBAPIError | exc.TimeoutError | OSError | TimeoutError)
