"""Transactions on SQLite and PostgreSQL.

Owns how a transaction begins, ends and tells others about it, and which one may be tried again.
Knows no table but the change feed's and its counter's, and no rule; connections are `connections`.
A use case gets a `Tx`; whether it may write is its type.
"""

import asyncio
import copy
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, TypeVar

from sqlalchemy import CursorResult, Executable, exc, insert, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from bursar.core.audit.events import SYSTEM, AuditEvent, Origin
from bursar.core.errors import InvariantViolated
from bursar.store.connections.postgresql import PostgresLink
from bursar.store.connections.sqlite import SqliteLink
from bursar.store.tables import changes, counters

# What a database that cannot answer now, or a connection to it, raises: try again.
UNAVAILABLE: Final = (SQLAlchemyError, OSError, TimeoutError)
# What a database raises that refuses these very values: trying again is in vain.
REFUSED: Final = (IntegrityError, InvariantViolated, OverflowError)

CHANNEL: Final = "bursar_changes"
TENANT_ROLE: Final = "bursar_tenant"
# Until the transaction ends: whose rows there are, and the role that sees no others.
_BIND: Final = """
    SELECT set_config('bursar.account', $1, true), set_config('bursar.user', $2, true),
           set_config('role', 'bursar_tenant', true)
"""
POSTGRESQL: Final = "postgresql"
SQLITE: Final = "sqlite"
# What a database says to the one of two transactions that must give way to the other.
_GAVE_WAY: Final = frozenset(("40001", "40P01"))
_TRIES: Final = 5
_JITTER_S: Final = 0.02
_LOCK_WAIT_S: Final = 5.0

T = TypeVar("T")


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
    """A transaction that may write; what it announces is published when it commits.

    `origin` is who has it written. `closing` are its last steps, before what is announced.
    """

    now_ms: int
    announced: list[tuple[str, int, str]]
    origin: Origin = SYSTEM
    audited: list[AuditEvent] = field(default_factory=list)
    closing: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    def announce(self, topic: str, *, account_id: int, subject: str = "") -> None:
        """Tell every worker, at commit, that `subject` of this topic has changed."""
        self.announced.append((topic, account_id, subject))


class Database:
    """One database: the way to it, its write lock (SQLite) and its local listeners.

    Guarantees: a write transaction holds SQLite's write lock from its beginning, so that it never
    fails half-way for want of it; changes are numbered in the order of their commits. A statement
    that PostgreSQL does not answer within `command_timeout_s` fails, and so does one that waits
    for others for most of that time; None waits for ever.
    """

    def __init__(
        self,
        url: str,
        *,
        clock_ms: Callable[[], int],
        connections: int = 16,
        command_timeout_s: float | None = 5.0,
    ) -> None:
        self.url: URL = make_url(url)
        self.dialect = self.url.get_backend_name()
        self.clock_ms = clock_ms
        # Whether row-level security holds what is `bound`; on PostgreSQL, until somebody finds that
        # it does not.
        self.has_wall = self.dialect == POSTGRESQL
        self._bound_to: tuple[str, str] | None = None
        self._link = _find_way(self.url, self.dialect, connections, command_timeout_s)
        self.engine: AsyncEngine = self._link.engine
        self._write_lock = asyncio.Lock()
        self._listeners: list[Callable[[Sequence[Change]], None]] = []
        self._barriers: list[Callable[[], Awaitable[None]]] = []
        self._origin = SYSTEM

    @property
    def path(self) -> Path | None:
        """The SQLite file; None on PostgreSQL."""
        return Path(self.url.database) if self.dialect == SQLITE and self.url.database else None

    @property
    def timeline(self) -> int:
        """How often a standby has taken the database's place, as far as is known; 0 on SQLite.

        Where it rises, commits that were acknowledged shortly before may be gone.
        """
        return self._link.timeline if isinstance(self._link, PostgresLink) else 0

    def bound(self, *, account_id: int, user_id: int | None) -> Self:
        """The same database as one account has it, and somebody in it.

        Where there is a wall, its transactions see and change no other account's rows, whatever
        they ask for: row-level security, in case that a condition of ours is missing.
        """
        if not self.has_wall:
            return self
        found = copy.copy(self)
        found._bound_to = (str(account_id), "" if user_id is None else str(user_id))
        return found

    def unbound(self) -> Self:
        """The same database as all accounts have it, for what somebody does to themselves in all.

        No wall is behind what it is used for: a statement there names whose rows it changes.
        """
        found = copy.copy(self)
        found._bound_to = None
        return found

    def of(self, origin: Origin) -> Self:
        """The same database for one caller: the audit log names them as who has things written."""
        found = copy.copy(self)
        found._origin = origin
        return found

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """A connection without a transaction, in the pool's bounds."""
        self._link.check()
        async with self.engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadTx]:
        """One consistent snapshot, never blocked by writers."""
        async with self.connect() as connection:
            if self.dialect == POSTGRESQL:
                await connection.execution_options(isolation_level="REPEATABLE READ")
            async with self._transaction(connection):
                tx = ReadTx(connection, self.dialect)
                await self._bind(tx)
                yield tx

    @asynccontextmanager
    async def peek(self) -> AsyncIterator[ReadTx]:
        """For one statement alone: it sees one snapshot without a transaction around it.

        On PostgreSQL that is one way there and back instead of three or more.
        """
        if self.dialect == SQLITE or self._bound_to is not None:
            async with self.read() as tx:
                yield tx
            return
        async with self.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            async with self._transaction(connection):
                yield ReadTx(connection, self.dialect)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[WriteTx]:
        """One transaction, committed at the end of the block and rolled back by any exception."""
        if self.dialect == SQLITE:
            async with asyncio.timeout(_LOCK_WAIT_S):
                await self._write_lock.acquire()
            try:
                async with self._write() as tx:
                    yield tx
            finally:
                self._write_lock.release()
        else:
            async with self._write() as tx:
                yield tx

    async def transact(self, work: Callable[[WriteTx], Awaitable[T]]) -> T:
        """Return what `work` returns, done in one transaction.

        It is done again, a few times, where the database had it give way to another transaction;
        so it must do nothing that a rollback does not undo.
        """
        for attempt in range(1, _TRIES):
            try:
                async with self.write() as tx:
                    return await work(tx)
            except DBAPIError as error:
                if not _gave_way(error):
                    raise
            # Two that got into each other's way must not meet again: not a secret, only a spread.
            await asyncio.sleep(random.uniform(0, _JITTER_S * 2**attempt))  # noqa: S311
        async with self.write() as tx:
            return await work(tx)

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[WriteTx]:
        published: Sequence[Change] = ()
        async with self.connect() as connection:
            await connection.execution_options(bursar_write=True)
            async with self._transaction(connection):
                tx = WriteTx(connection, self.dialect, self.clock_ms(), [], self._origin)
                await self._bind(tx)
                yield tx
                for step in tx.closing:
                    await step()
                if tx.announced:
                    published = await _publish(tx)
        if published:
            for listener in self._listeners:
                listener(published)

    async def _bind(self, tx: ReadTx) -> None:
        if self._bound_to is not None:
            await tx.driver(_BIND, self._bound_to)

    @asynccontextmanager
    async def _transaction(self, connection: AsyncConnection) -> AsyncIterator[None]:
        transaction = await connection.begin()
        try:
            yield
            await transaction.commit()
        except TimeoutError:
            # Whoever did not answer would not answer to a ROLLBACK either.
            self._link.mistrust()
            await connection.invalidate()
            raise
        except DBAPIError as error:
            if error.connection_invalidated:
                self._link.mistrust()
            raise

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


def _find_way(
    url: URL, dialect: str, connections: int, command_timeout_s: float | None
) -> SqliteLink | PostgresLink:
    if dialect == SQLITE:
        return SqliteLink(url, connections=connections)
    if dialect == POSTGRESQL:
        return PostgresLink(url, connections=connections, command_timeout_s=command_timeout_s)
    raise ValueError(f"a database is sqlite+aiosqlite or postgresql+asyncpg, not {dialect!r}")


def _gave_way(error: DBAPIError) -> bool:
    """Whether the database undid a transaction only because of another one."""
    return getattr(error.orig, "sqlstate", None) in _GAVE_WAY


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
