"""The database of a simulation: real SQL on a real SQLite file, behind a network that fails.

Owns delays, lost requests, lost replies, commits that take place after their client has given up,
transactions that must give way, and locks that a dead client's transaction holds for a while. What
sees it is the product's own `Database`; of PostgreSQL it plays the part that matters here: many
clients, one of which writes, and each reads a snapshot. Must not know what is stored.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection as Raw
from sqlalchemy import Engine, create_engine, event, exc
from sqlalchemy.pool import QueuePool

from bursar.store.database import SQLITE, Database, ReadTx, WriteTx
from tests.simulation.loop import Process, SimulatedLoop

_LOCK_WAIT_S: Final = 3.0
_ANSWER_WAIT_S: Final = 5.0
_IDLE_S: Final = 10.0
_NEWEST: Final = "SELECT value FROM counters WHERE name = 'changes'"
_URL: Final = "postgresql+asyncpg://simulated/simulated"


@dataclass
class Weather:
    """How badly the network and the database behave at the moment; each a chance of one step."""

    mean_s: float = 0.0005
    lost: float = 0.0
    commit_lost: float = 0.0
    commit_unheard: float = 0.0
    commit_late: float = 0.0
    gives_way: float = 0.0
    is_away: bool = False
    is_silent: bool = False


class GaveWay(Exception):
    """What PostgreSQL says to the one of two transactions that it has undone."""

    sqlstate = "40P01"


class Server:
    """The one database; it lives as long as the simulation."""

    def __init__(self, loop: SimulatedLoop, seed: int, path: Path) -> None:
        self.loop = loop
        self.rng = random.Random(f"weather {seed}")
        self.weather = Weather()
        self.process = Process("database", "database")
        self.engine = _engine(path)
        self.on_commit: Callable[[str], None] = lambda _: None
        self.commits = 0
        self._newest = 0
        self._writer: Connection | None = None
        self._waiting: list[tuple[Connection, asyncio.Future[None]]] = []
        self._open: list[Connection] = []
        self._listeners: list[tuple[Process, Callable[..., None]]] = []
        # Processes that cannot reach the database at the moment.
        self.cut_off: set[Process] = set()

    def draw_s(self) -> float:
        """How long one way through the network takes this time."""
        return self.rng.expovariate(1 / self.weather.mean_s)

    def later(self, delay_s: float, work: Callable[..., object], *arguments: object) -> None:
        """Do something of the server's own, whatever becomes of the client."""
        self.loop.call_later(delay_s, work, *arguments, context=self.process.context)

    def forget(self, process: Process) -> None:
        """A process is gone: what it had begun is undone, once the server has noticed."""
        self._listeners = [each for each in self._listeners if each[0] is not process]
        for connection in [each for each in self._open if each.process is process]:
            self.later(self.rng.random() * 0.5, connection.undo)
        writer = self._writer
        if writer is not None and writer.process is process and writer not in self._open:
            # It got the lock, and died before it knew.
            self.later(self.rng.random() * 0.5, self.unlock, writer)

    def reach(self, process: Process) -> bool:
        """Whether this process can talk to the server."""
        return not (self.weather.is_away or process in self.cut_off)

    def listen(self, process: Process, notify: Callable[..., None]) -> None:
        """Tell a process of commits that published something."""
        self._listeners.append((process, notify))

    def hush(self, process: Process) -> None:
        """Tell it no more."""
        self._listeners = [each for each in self._listeners if each[0] is not process]

    async def lock(self, connection: Connection) -> None:
        """Wait until nobody else writes; raises what PostgreSQL raises for a lock held too long."""
        if self._writer is None:
            self._writer = connection
            return
        future: asyncio.Future[None] = self.loop.create_future()
        entry = (connection, future)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(_LOCK_WAIT_S):
                await future
        except BaseException as error:
            if entry in self._waiting:
                self._waiting.remove(entry)
            self.unlock(connection)
            if isinstance(error, TimeoutError):
                raise exc.OperationalError("lock", None, OSError("lock_timeout")) from error
            raise

    def unlock(self, connection: Connection) -> None:
        """Let the next one write, whichever that is."""
        if self._writer is not connection:
            return
        self._writer = None
        while self._waiting:
            pick = self.rng.randrange(len(self._waiting))
            waiter, future = self._waiting.pop(pick)
            if not future.done() and not waiter.process.is_dead:
                self._writer = waiter
                future.set_result(None)
                return

    def opened(self, connection: Connection) -> None:
        """A transaction has begun."""
        self._open.append(connection)
        self.later(_IDLE_S, connection.expire)

    def ended(self, connection: Connection) -> None:
        """A transaction has ended."""
        if connection in self._open:
            self._open.remove(connection)
        self.unlock(connection)

    def committed(self, connection: Connection) -> None:
        """Tell the observer and those who listen."""
        self.commits += 1
        self.on_commit(connection.process.name)
        if connection.newest > self._newest:
            self._newest = connection.newest
            for process, notify in self._listeners:
                if self.reach(process) and self.rng.random() >= self.weather.lost:
                    delay_s = self.draw_s()
                    self.loop.call_later(delay_s, notify, context=process.context)


class Connection:
    """What the product takes for SQLAlchemy's AsyncConnection."""

    def __init__(self, server: Server, process: Process, *, is_safe: bool) -> None:
        self.server = server
        self.process = process
        # The number of the newest change, as the transaction leaves it.
        self.newest = 0
        self._is_safe = is_safe
        self._writes = False
        self._raw: Raw | None = None
        self._is_broken = False
        # The server has the COMMIT: what becomes of it is no longer the client's matter.
        self._is_sent = False

    async def execution_options(self, **options: Any) -> Connection:
        self._writes = self._writes or bool(options.get("bursar_write"))
        return self

    async def begin(self) -> Connection:
        await self._hop()
        if self._writes:
            await self.server.lock(self)
        self._raw = raw = self.server.engine.connect()
        raw.execution_options(bursar_write=self._writes)
        raw.begin()
        self.server.opened(self)
        return self

    async def execute(self, statement: Any) -> Any:
        await self._hop()
        return self._living().execute(statement)

    async def exec_driver_sql(self, sql: str, parameters: Any) -> Any:
        await self._hop()
        return self._living().exec_driver_sql(sql, parameters)

    @asynccontextmanager
    async def stream(self, statement: Any, **options: Any) -> AsyncIterator[Any]:
        await self._hop()
        result = self._living().execute(statement, **options)

        async def rows() -> AsyncIterator[Any]:
            for row in result:
                yield row

        yield rows()

    async def commit(self) -> None:
        """Send COMMIT; what the client hears and what takes place are drawn apart."""
        server, weather = self.server, self.server.weather
        if not self._writes or self._is_safe:
            await self._hop()
            self._living()
            self._commit(None)
            return
        await self._hop()
        self._living()
        fate = server.rng.random()
        reply: asyncio.Future[None] = server.loop.create_future()
        if fate < weather.commit_lost:
            self._fail("COMMIT lost on its way")
        self._is_sent = True
        fate -= weather.commit_lost
        if fate < weather.commit_late:
            server.later(server.rng.random() * 2.5, self._commit, None)
            await asyncio.sleep(server.draw_s())
            self._fail("COMMIT takes place late")
        is_heard = fate - weather.commit_late >= weather.commit_unheard
        server.later(server.draw_s(), self._commit, reply if is_heard else None)
        if not is_heard:
            await asyncio.sleep(2 * server.draw_s())
            self._fail("COMMIT unheard")
        async with asyncio.timeout(_ANSWER_WAIT_S):
            await reply

    async def invalidate(self) -> None:
        self._is_broken = True

    async def get_raw_connection(self) -> Any:
        await self._hop()
        return _Notices(self.server, self.process)

    def close(self) -> None:
        """The client is done with the connection, in good order or not."""
        if not self._is_sent:
            self.undo()

    def undo(self) -> None:
        """Roll back, unless a COMMIT is on its way."""
        if self._raw is not None and not self._is_sent:
            self._end(commits=False)

    def expire(self) -> None:
        """The server has waited long enough for a transaction that does nothing."""
        if self._raw is not None and not self._is_sent:
            self._is_broken = True
            self.undo()

    def _commit(self, reply: asyncio.Future[None] | None) -> None:
        if self._raw is None:
            return
        self._end(commits=True)
        if self._writes:
            self.server.committed(self)
        if reply is not None:
            self.server.loop.call_later(
                self.server.draw_s(), _answer, reply, context=self.process.context
            )

    def _end(self, *, commits: bool) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            if commits:
                self.newest = int(raw.exec_driver_sql(_NEWEST).scalar_one())
                raw.commit()
            raw.close()
        self.server.ended(self)

    def _living(self) -> Raw:
        if self._raw is None or self._is_broken:
            self._fail("the connection is closed")
        return self._raw

    async def _hop(self) -> None:
        if self._is_safe:
            return
        server, weather = self.server, self.server.weather
        if server.loop.is_ending:
            raise ConnectionRefusedError("it is over")
        if weather.is_silent:
            await asyncio.sleep(_ANSWER_WAIT_S)
            self._is_broken = True
            raise TimeoutError
        await asyncio.sleep(server.draw_s())
        if self._is_broken or not server.reach(self.process):
            self._fail("no way to the database")
        if server.rng.random() < weather.lost:
            self._fail("the connection broke")
        if self._raw is not None and self._writes and server.rng.random() < weather.gives_way:
            self.undo()
            raise exc.DBAPIError("deadlock", None, GaveWay("deadlock detected"))

    def _fail(self, why: str) -> None:
        self._is_broken = True
        self.server.loop.note(f"{self.process.name}: {why}")
        if self.server.rng.random() < 0.5:
            raise ConnectionResetError(why)
        raise exc.OperationalError("simulated", None, OSError(why), connection_invalidated=True)


class SimulatedDatabase(Database):
    """The product's Database in front of the simulated server, as one process sees it.

    Its workers must behave as one of many (as they do on PostgreSQL) while their statements are
    SQLite's: so the database says the one, and its transactions the other.
    """

    def __init__(
        self,
        server: Server,
        process: Process,
        *,
        clock_ms: Callable[[], int],
        is_safe: bool = False,
    ) -> None:
        super().__init__(_URL, clock_ms=clock_ms)
        self._server = server
        self._process = process
        self._is_safe = is_safe

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Any]:
        connection = Connection(self._server, self._process, is_safe=self._is_safe)
        try:
            yield connection
        finally:
            connection.close()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadTx]:
        async with super().read() as tx:
            tx.dialect = SQLITE
            yield tx

    @asynccontextmanager
    async def peek(self) -> AsyncIterator[ReadTx]:
        async with super().peek() as tx:
            tx.dialect = SQLITE
            yield tx

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[WriteTx]:
        async with super()._write() as tx:
            tx.dialect = SQLITE
            yield tx


class _Notices:
    """What stands behind `get_raw_connection`: the driver's side of LISTEN."""

    def __init__(self, server: Server, process: Process) -> None:
        self._server = server
        self._process = process
        self.driver_connection = self

    async def add_listener(self, _channel: str, notify: Callable[..., None]) -> None:
        self._server.listen(self._process, notify)

    async def remove_listener(self, _channel: str, _notify: Callable[..., None]) -> None:
        self._server.hush(self._process)

    async def execute(self, _sql: str) -> None:
        await asyncio.sleep(self._server.draw_s())
        if not self._server.reach(self._process):
            self._server.hush(self._process)
            raise ConnectionResetError("no answer")

    def add_termination_listener(self, _ended: Callable[..., None]) -> None:
        """It ends only with its process, or without a word."""

    def remove_termination_listener(self, _ended: Callable[..., None]) -> None:
        self._server.hush(self._process)

    def is_closed(self) -> bool:
        return False


def _answer(reply: asyncio.Future[None]) -> None:
    if not reply.done():
        reply.set_result(None)


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", poolclass=QueuePool, pool_size=64)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = OFF", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Any) -> None:
    writes = connection.get_execution_options().get("bursar_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
