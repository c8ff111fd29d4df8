"""Row-level security: whoever acts in an account finds no other's rows, whatever they ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import BigInteger, LargeBinary, Table, delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from bursar.store import migrations
from bursar.store.database import TENANT_ROLE, Database
from bursar.store.migrations import walls
from bursar.store.tables import metadata
from tests.databases import START_MS, Clock
from tests.postgres import PostgresServer

MINE, OTHERS = 1_001, 1_002
TABLES = list(metadata.sorted_tables)
# Where a column takes only some texts or numbers.
FITTING: dict[tuple[str, str], object] = {
    ("accounts", "status"): "active",
    ("members", "role"): "viewer",
    ("workers", "state"): "live",
    ("usage_events", "at_ms"): START_MS,
}
INSUFFICIENT_PRIVILEGE = "42501"


def owner_of(table: Table) -> str | None:
    """The column that says whose a row is."""
    if table.name in {"accounts", "users"}:
        return "id"
    return next((name for name in ("account_id", "user_id") if name in table.c), None)


WALLED = [table for table in TABLES if owner_of(table)]


def row(table: Table, owner: int) -> dict[str, object]:
    """A row of that owner, person and account alike."""
    found: dict[str, object] = {}
    for column in table.columns:
        if column.name in {owner_of(table), "user_id"}:
            found[column.name] = owner
        elif (table.name, column.name) in FITTING:
            found[column.name] = FITTING[table.name, column.name]
        elif isinstance(column.type, LargeBinary):
            found[column.name] = f"{column.name} {owner}".encode()
        elif isinstance(column.type, BigInteger):
            found[column.name] = owner
        else:
            found[column.name] = f"{column.name} {owner}"
    return found


@pytest.fixture
async def filled(postgres_database_url: str, clock: Clock) -> AsyncIterator[Database]:
    """A database with a row of two accounts, and of a person of each, in every table."""
    database = Database(postgres_database_url, clock_ms=clock)
    async with database.write() as tx:
        for table in WALLED:
            for owner in (MINE, OTHERS):
                await tx.execute(insert(table).values(**row(table, owner)))
    yield database
    await database.close()


def mine(database: Database) -> Database:
    return database.bound(account_id=MINE, user_id=MINE)


async def count(database: Database, table: Table) -> list[int]:
    """Whose rows there are, as this database has it."""
    owner = table.c[owner_of(table) or ""]
    async with database.read() as tx:
        query = select(owner).where(owner.in_((MINE, OTHERS))).order_by(owner)
        return list((await tx.execute(query)).scalars())


async def refusal(database: Database, *statements: object) -> str:
    """How PostgreSQL refuses one of them; empty where it does not."""
    try:
        async with database.write() as tx:
            for statement in statements:
                await tx.execute(statement)  # type: ignore[arg-type]
    except DBAPIError as error:
        return str(getattr(error.orig, "sqlstate", ""))
    return ""


async def test_every_table_with_an_account_or_a_person_in_it_is_walled(filled: Database) -> None:
    async with filled.read() as tx:
        query = text(
            "SELECT relname FROM pg_class WHERE relrowsecurity AND NOT relispartition"
            " AND relnamespace = 'public'::regnamespace"
        )
        assert set((await tx.execute(query)).scalars()) == {table.name for table in WALLED}
    assert len(WALLED) >= 20


async def test_an_account_finds_its_own_rows_and_no_others(filled: Database) -> None:
    for table in WALLED:
        assert await count(filled, table) == [MINE, OTHERS], table.name
        assert await count(mine(filled), table) == [MINE], table.name
        async with mine(filled).peek() as tx:
            assert (await tx.execute(select(func.count()).select_from(table))).scalar_one() == 1


async def test_an_account_without_a_person_finds_nothing_that_is_somebodys(
    filled: Database,
) -> None:
    nobody = filled.bound(account_id=MINE, user_id=None)
    for table in WALLED:
        is_personal = owner_of(table) == "user_id"
        assert await count(nobody, table) == ([] if is_personal else [MINE]), table.name


async def test_an_account_changes_and_deletes_its_own_rows_alone(filled: Database) -> None:
    for table in WALLED:
        before = await _others(filled, table)
        column = next(c for c in table.columns if c.name not in table.primary_key.columns)
        statements = (update(table).values({column: column}), delete(table))
        for statement in statements:
            assert await refusal(mine(filled), statement) in {"", INSUFFICIENT_PRIVILEGE}
        assert await _others(filled, table) == before, table.name


async def test_an_account_makes_no_rows_of_anothers_and_gives_none_away(filled: Database) -> None:
    for table in WALLED:
        async with filled.write() as tx:
            if table.name not in {"audit", "transfers", "usage_events"}:
                await tx.execute(delete(table).where(table.c[owner_of(table) or ""] == OTHERS))
        made = insert(table).values(**row(table, OTHERS))
        given = update(table).values({owner_of(table) or "": OTHERS})
        assert await refusal(mine(filled), made) == INSUFFICIENT_PRIVILEGE, table.name
        assert await refusal(mine(filled), given) == INSUFFICIENT_PRIVILEGE, table.name


@pytest.mark.parametrize("name", ["audit", "transfers", "usage_events"])
async def test_an_account_cannot_touch_what_is_written_once(filled: Database, name: str) -> None:
    table = metadata.tables[name]
    for statement in (delete(table), update(table).values(account_id=MINE)):
        assert await refusal(mine(filled), statement) == INSUFFICIENT_PRIVILEGE


@pytest.mark.parametrize("name", ["prices", "plan_limits", "signing_keys", "plans"])
async def test_an_account_changes_nothing_that_all_have(filled: Database, name: str) -> None:
    table = metadata.tables[name]
    column = next(c for c in table.columns if c.name not in table.primary_key.columns)
    for statement in (delete(table), update(table).values({column: column})):
        assert await refusal(mine(filled), statement) == INSUFFICIENT_PRIVILEGE


async def test_whoever_says_no_account_finds_nothing(filled: Database) -> None:
    async with filled.read() as tx:
        await tx.driver("SELECT set_config('role', 'bursar_tenant', true)")
        for table in WALLED:
            assert not list(await tx.execute(select(table))), table.name


async def test_a_connection_is_nobodys_again_when_its_transaction_ends(filled: Database) -> None:
    table = metadata.tables["keys"]
    for statement in ("SELECT 1", "SELECT 1 / 0", "SELECT pg_terminate_backend(pg_backend_pid())"):
        try:
            async with mine(filled).write() as tx:
                await tx.execute(text(statement))
        except DBAPIError:
            assert statement != "SELECT 1"
        for _ in range(20):
            assert await count(filled, table) == [MINE, OTHERS]


async def test_accounts_at_the_same_time_do_not_see_each_other(filled: Database) -> None:
    table = metadata.tables["keys"]
    views = [filled, *(filled.bound(account_id=each, user_id=None) for each in (MINE, OTHERS))]
    found = await asyncio.gather(*(count(views[n % 3], table) for n in range(60)))
    assert [found[n] for n in range(3)] == [[MINE, OTHERS], [MINE], [OTHERS]]
    assert all(each == found[n % 3] for n, each in enumerate(found))


# Who may have a wall


@contextmanager
def a_role(server: PostgresServer, name: str, rights: str) -> Iterator[str]:
    """A database of a login role that is no superuser; its URL."""
    server.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'plain' {rights}")
    with server.database() as url:
        database = url.rpartition("/")[2]
        server.execute(f'ALTER DATABASE "{database}" OWNER TO {name}')
        place = url.partition("@")[2]
        yield f"postgresql+asyncpg://{name}:plain@{place}"
        server.execute(f"REASSIGN OWNED BY {name} TO bursar", database=database)
        server.execute(f"DROP OWNED BY {name}", database=database)
    server.execute(f"DROP ROLE {name}")


async def _gap(url: str, clock: Clock) -> str | None:
    database = Database(url, clock_ms=clock)
    try:
        await migrations.upgrade(database)
        gap = await walls.find_gap(database)
        if gap is None:
            async with database.bound(account_id=MINE, user_id=None).write() as tx:
                role = await tx.driver("SELECT current_user")
                assert role.scalar_one() == TENANT_ROLE
        return gap
    finally:
        await database.close()


def test_the_role_of_the_how_to_has_a_wall_once_it_is_granted_one(clock: Clock) -> None:
    with PostgresServer() as server, a_role(server, "plain", "") as url:
        assert asyncio.run(_gap(url, clock)) == "there is no role bursar_tenant"
        server.execute("CREATE ROLE bursar_tenant NOLOGIN")
        gap = asyncio.run(_gap(url, clock))
        assert gap == "the role bursar_tenant is not granted to this server's role"
        server.execute("GRANT bursar_tenant TO plain")
        assert asyncio.run(_gap(url, clock)) is None


def test_a_role_that_may_make_roles_makes_the_wall_by_itself(clock: Clock) -> None:
    with PostgresServer() as server, a_role(server, "maker", "CREATEROLE") as url:
        assert asyncio.run(_gap(url, clock)) is None


def test_on_sqlite_there_is_no_wall_to_be_bound_by(sqlite_database_url: str, clock: Clock) -> None:
    database = Database(sqlite_database_url, clock_ms=clock)
    assert database.bound(account_id=1, user_id=None) is database


async def _others(database: Database, table: Table) -> list[tuple[object, ...]]:
    owner = table.c[owner_of(table) or ""]
    async with database.read() as tx:
        return [tuple(each) for each in await tx.execute(select(table).where(owner == OTHERS))]
