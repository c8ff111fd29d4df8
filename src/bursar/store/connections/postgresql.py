"""The way to PostgreSQL: bounds in time, standbys refused, broken connections not used again.

Owns everything that a connection is told when it is made. Must not know transactions or tables.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import event, exc
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from bursar.store.connections import Link

_CONNECT_TIMEOUT_S: Final = 5.0
_POOL_TIMEOUT_S: Final = 5.0
# The server gives up before we do: it then says so, and the connection stays good. One that we
# have left in the middle of a transaction lets go of its locks by itself.
_INTRODUCTION: Final = """
SELECT set_config('lock_timeout', $1, false),
       set_config('statement_timeout', $2, false),
       set_config('idle_in_transaction_session_timeout', $3, false),
       set_config('tcp_user_timeout', $3, false),
       ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int AS timeline
"""
_SHARES: Final = (0.6, 0.9, 2.0)


class ReadOnlyServer(Exception):
    """Every server that the URL names is a standby, or read-only."""


class SteppedBack(Exception):
    """The server is on an older timeline than one that was used before."""


class PostgresLink(Link):
    """One PostgreSQL, or the one of several that takes writes.

    `timeline` is the server's: it rises when a standby is promoted, and with it may go what the
    old primary had acknowledged. A server on an older timeline is never used again.
    """

    def __init__(self, url: URL, *, connections: int, command_timeout_s: float | None) -> None:
        self.timeline = 0
        self._command_timeout_s = command_timeout_s
        self._trusted_from_s = 0.0
        self._last = 0
        # Commands may look at a standby; whoever serves must write, and so must whoever names
        # several servers: the one that takes writes is meant.
        is_server = command_timeout_s is not None
        takes_writes = is_server or "host" in url.query
        arguments: dict[str, Any] = {
            "async_creator_fn": self._connect,
            "timeout": _CONNECT_TIMEOUT_S,
            "command_timeout": command_timeout_s,
            "target_session_attrs": "read-write" if takes_writes else "any",
        }
        self.engine = create_async_engine(
            url,
            pool_size=connections - connections // 2,
            max_overflow=connections // 2,
            pool_timeout=_POOL_TIMEOUT_S,
            connect_args=arguments,
        )
        event.listen(self.engine.sync_engine, "connect", _note_birth)
        event.listen(self.engine.sync_engine, "checkout", self._require_trusted)
        event.listen(self.engine.sync_engine, "invalidate", _end)

    def check(self) -> None:
        """Nothing: each connection was checked when it was made."""

    def mistrust(self) -> None:
        """One connection has fallen silent or broken: use none that was made before now.

        What cut one has cut the others, and each would have to be waited for to find that out.
        """
        self._trusted_from_s = time.monotonic()

    async def _connect(self, *, host: Any = None, port: Any = None, **options: Any) -> Any:
        """A connection that is bound in time, to a server that has not forgotten what it said.

        Of several servers, the one that was taken last is tried first.
        """
        places = list(zip(host, port, strict=True)) if isinstance(host, list) else [(host, port)]
        order = sorted(range(len(places)), key=lambda number: number != self._last)
        for number in order:
            place_host, place_port = places[number]
            try:
                with driver_errors():
                    connection = await self._connect_to(host=place_host, port=place_port, **options)
            except (OSError, exc.OperationalError):
                if number == order[-1]:
                    raise
                continue
            self._last = number
            return connection
        raise OSError("the URL names no server")

    async def _connect_to(self, **options: Any) -> Any:
        import asyncpg

        connection = await asyncpg.connect(**options)
        try:
            await self._introduce(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _introduce(self, connection: Any) -> None:
        limit_s = self._command_timeout_s
        if limit_s is None:
            return
        bounds_ms = (str(round(limit_s * share * 1000)) for share in _SHARES)
        row = await connection.fetchrow(_INTRODUCTION, *bounds_ms)
        timeline = row["timeline"]
        if timeline < self.timeline:
            raise SteppedBack(f"timeline {timeline} after {self.timeline}: an old primary")
        if timeline > self.timeline:
            self.timeline = timeline
            self.mistrust()

    def _require_trusted(self, connection: Any, record: Any, _proxy: object) -> None:
        driver = connection.driver_connection
        if driver.is_closed() or record.info["born_s"] < self._trusted_from_s:
            driver.terminate()
            raise exc.DisconnectionError("ended, or made before the last outage")


@contextmanager
def driver_errors() -> Iterator[None]:
    """What the driver raises outside of SQLAlchemy's sight, as SQLAlchemy would raise it."""
    import asyncpg

    raised = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    try:
        yield
    except asyncpg.TargetServerAttributeNotMatched as error:
        cause = ReadOnlyServer("the server is a standby, or read-only")
        raise exc.OperationalError(None, None, cause) from error
    except (*raised, SteppedBack) as error:
        raise exc.OperationalError(None, None, error) from error


def _note_birth(_connection: object, record: Any) -> None:
    record.info["born_s"] = time.monotonic()


def _end(connection: Any, _record: object, _error: object) -> None:
    # Saying good-bye first would wait for an answer from whoever has stopped answering.
    connection.driver_connection.terminate()
