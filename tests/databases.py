"""The fixture `database`: every test that asks for it runs on SQLite and on PostgreSQL.

Each test gets a database of its own, copied from one that was migrated once. Its clock stands
still until the test moves it: ask for `clock`.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bursar.store import migrations
from bursar.store.database import Database, sqlite_url
from tests import canaries
from tests.postgres import PostgresServer

# 21 November 2026, 12:34:56.789 UTC: a Saturday, in no window's first second.
START_MS = 1_795_264_496_789
KINDS = ("sqlite", "postgres")


@dataclass
class Clock:
    """Milliseconds since the epoch, moved by hand."""

    now_ms: int = START_MS

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, milliseconds: int) -> None:
        """Let time pass."""
        self.now_ms += milliseconds


@pytest.fixture
def clock() -> Clock:
    """The clock of this test's database."""
    return Clock()


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: PostgresServer) -> str:
    """The migrated PostgreSQL database to copy."""
    return postgres_server.make_template("migrated", migrate)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("template") / "bursar.db"
    migrate(sqlite_url(path))
    return path


@pytest.fixture
def sqlite_database_url(migrated_sqlite: Path, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated SQLite file of this test's own, in which no secret may be left."""
    path = tmp_path / "bursar.db"
    shutil.copyfile(migrated_sqlite, path)
    yield sqlite_url(path)
    canaries.search(canaries.sqlite_files(path))


@pytest.fixture
def postgres_database_url(postgres_server: PostgresServer, migrated_postgres: str) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database of this test's own."""
    with postgres_server.database(template=migrated_postgres) as url:
        yield url


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a migrated database, once on SQLite and once on PostgreSQL."""
    url: str = request.getfixturevalue(f"{request.param}_database_url")
    return url


@pytest.fixture
async def database(database_url: str, clock: Clock) -> AsyncIterator[Database]:
    """A migrated database, once on SQLite and once on PostgreSQL."""
    found = Database(database_url, clock_ms=clock)
    yield found
    await found.close()


def migrate(url: str) -> None:
    """Bring the database to this program's schema; not from a running loop."""

    async def work() -> None:
        database = Database(url, clock_ms=Clock())
        await migrations.upgrade(database)
        await database.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(work())
