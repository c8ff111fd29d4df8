"""How long a statement may take: little for who serves, as long as it takes for a command."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from bursar import bootstrap
from bursar.config import Settings
from bursar.store.database import UNAVAILABLE, Database
from tests.databases import Clock

SLOW = text("SELECT pg_sleep(0.5), 1")


async def test_server_gives_a_silent_database_up(postgres_database_url: str) -> None:
    database = Database(postgres_database_url, clock_ms=Clock(), command_timeout_s=0.1)
    with pytest.raises(UNAVAILABLE):
        async with database.read() as tx:
            await tx.execute(SLOW)
    await database.close()


async def test_command_waits_for_a_long_proof(postgres_database_url: str) -> None:
    database = bootstrap.open_database(
        Settings(database_url=postgres_database_url)  # type: ignore[arg-type]
    )
    async with database.read() as tx:
        raw = await tx.connection.get_raw_connection()
        assert raw.driver_connection._config.command_timeout is None  # type: ignore[union-attr]
        assert (await tx.execute(SLOW)).one()[1] == 1
    await database.close()
