"""The installation that a command works on: its settings, its data directory, its database.

Owns how they are found and opened. A command beside a running server is one more program with a
short transaction; what it changes reaches the server through the change feed. Must not know which
command is run.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bursar.cli.output import Output
from bursar.core.audit.events import Origin
from bursar.core.errors import Conflict, NotFound

if TYPE_CHECKING:
    from bursar.config import Settings
    from bursar.store.database import Database, WriteTx

ACTOR: Final = "command line"
MAX_ID: Final = 10**18
_PRIVATE: Final = 0o700

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """What every command has: which installation it is about, and where its data goes."""

    data_dir: Path | None
    config: Path | None
    out: Output

    def settings(self, **overrides: Any) -> "Settings":
        """The settings, with this command's own options on top; raises ConfigError."""
        from bursar.config import Settings

        return Settings.load(self.config, {"data_dir": self.data_dir, **overrides})

    def run(self, work: "Callable[[Database], Awaitable[T]]") -> T:
        """Do `work` on the installation's database.

        Raises NotFound (`not_initialised`) where there is none and Conflict (`database_old`) where
        the database is older than the program.
        """
        quiet_logs()
        return asyncio.run(_with_database(self.settings(), work, must_exist=True))

    def change(self, work: "Callable[[WriteTx], Awaitable[T]]") -> T:
        """Do `work` in one write transaction of the installation's database, as `run` does."""

        async def in_transaction(database: "Database") -> T:
            return await database.transact(work)

        return self.run(in_transaction)


def set_up(settings: "Settings", work: "Callable[[Database], Awaitable[T]]") -> T:
    """Make the data directory, bring the database to this program's schema, and do `work` on it."""
    settings.data_dir.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    return asyncio.run(_with_database(settings, work, must_exist=False))


def quiet_logs() -> None:
    """Keep what libraries and use cases log from mixing with a command's output."""
    from bursar import telemetry

    telemetry.set_up_logs(log_format="console", level="error")


async def _with_database(
    settings: "Settings", work: "Callable[[Database], Awaitable[T]]", *, must_exist: bool
) -> T:
    from bursar import bootstrap
    from bursar.store import migrations

    database = bootstrap.open_database(settings)
    try:
        if must_exist:
            await require_installation(database)
        else:
            await migrations.upgrade(database)
        return await work(database.of(Origin(ACTOR)))
    finally:
        await database.close()


async def require_installation(database: "Database") -> None:
    """Raise NotFound (`not_initialised`) or Conflict (`database_old`) where nothing can be done."""
    from bursar.store import migrations

    # Connecting to an SQLite file that is not there would make it.
    is_there = database.path is None or database.path.exists()
    revision = await migrations.current(database) if is_there else None
    if revision is None:
        place = "in this database" if database.path is None else f"at {database.path}"
        raise NotFound("not_initialised", f"There is no installation {place}.")
    if revision != migrations.head():
        raise Conflict("database_old", "The database does not have this program's schema.")
