"""A backup is one moment, whole; a restored copy is a database of its own."""

from __future__ import annotations

import gzip
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from bursar.core.allowances import AllowanceRef
from bursar.core.errors import BursarError, InvariantViolated
from bursar.service import backup, verify
from bursar.store import migrations, tables
from bursar.store.backup import archives
from bursar.store.database import Database, sqlite_url
from bursar.store.plane import epochs, leases, settlement, workers
from tests.databases import Clock
from tests.factories import ACCOUNT_ID, AT_MS, WALLET, charge, move, open_account


def quiet(_table: str, _count: int) -> None:
    """Nobody looks."""


@pytest.fixture(params=["sqlite", "postgres"])
def copy_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database without a schema, of each kind: the target of a restore."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "copy.db")
    url: str = request.getfixturevalue("postgres_database")
    return url


@pytest.fixture
async def copy(copy_url: str, clock: Clock) -> AsyncIterator[Database]:
    """The target of a restore."""
    found = Database(copy_url, clock_ms=clock)
    yield found
    await found.close()


async def sell(database: Database) -> int:
    """An account that has spent, with a worker that holds a lease; the worker's id."""
    async with database.write() as tx:
        await open_account(tx, wallet_nanos=1_000)
        await tx.execute(
            insert(tables.transfers).values(
                account_id=ACCOUNT_ID,
                id=1,
                at_ms=AT_MS,
                kind="grant",
                source="funding",
                target="wallet",
                amount_nanos=1_000,
                note="Käse 'quoted' \\ \u2603",
            )
        )
        await tx.execute(
            tables.counters.update().where(tables.counters.c.name == "transfers").values(value=1)
        )
        await tx.execute(
            insert(tables.keys).values(
                account_id=ACCOUNT_ID,
                id=3,
                kind="inference",
                name="key",
                secret_hash=bytes(range(32)),
                prefix="bsk_",
                last6="abcdef",
                created_ms=AT_MS,
            )
        )
        await tx.execute(
            tables.counters.update().where(tables.counters.c.name == "keys").values(value=3)
        )
        await tx.execute(
            tables.counters.update()
            .where(tables.counters.c.name == "accounts")
            .values(value=ACCOUNT_ID)
        )
        worker_id = await workers.insert_worker(tx, host="here")
        await leases.take(tx, worker_id=worker_id, wants=[leases.Want(WALLET, 0, 600, 600, 0)])
    async with database.write() as tx:
        batch = [charge(1, 100), charge(2, 250, at_ms=AT_MS - 90 * 86_400_000)]
        assert await settlement.settle(tx, worker_id=worker_id, charges=batch)
    return worker_id


async def back_up(database: Database, path: Path) -> archives.Written:
    async with database.read() as tx:
        return await backup.back_up(tx, path=path, taken_ms=AT_MS, report=quiet)


async def restore(
    database: Database, path: Path, *, replaces: bool = False, takes_over: bool = False
) -> backup.Restored:
    async with database.write() as tx:
        return await backup.restore(
            tx, path=path, replaces=replaces, takes_over=takes_over, alive_s=30, report=quiet
        )


async def rows_of(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    async with database.read() as tx:
        return {
            name: sorted(map(tuple, await tx.execute(select(table))), key=repr)
            for name, table in tables.metadata.tables.items()
        }


async def test_every_row_arrives_as_it_was_and_the_books_are_right(
    database: Database, copy: Database, tmp_path: Path
) -> None:
    worker_id = await sell(database)
    written = await back_up(database, tmp_path / "backup")
    before = await rows_of(database)
    restored = await restore(copy, tmp_path / "backup")
    after = await rows_of(copy)
    assert restored.rows == written.rows == {name: len(rows) for name, rows in before.items()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"allowances", "leases", "workers", "counters"}
    async with copy.read() as tx:
        assert (await verify.verify(tx, now_ms=copy.clock_ms())).differences == []
        wallet = tables.allowances.c
        found = await tx.execute(
            select(wallet.limit_amount, wallet.used, wallet.leased).where(wallet.scope == "wallet")
        )
        assert tuple(found.one()) == (1_000, 350, 0)
    assert restored.voided == (1, 1)
    assert after["leases"] == []
    assert [row[:2] for row in after["workers"]] == [(worker_id, workers.CLOSED)]
    assert await migrations.is_current(copy)


async def test_what_is_never_changed_cannot_be_changed_in_a_copy_either(
    database: Database, copy: Database, tmp_path: Path
) -> None:
    await sell(database)
    await back_up(database, tmp_path / "backup")
    await restore(copy, tmp_path / "backup")
    for table in (tables.transfers, tables.usage_events):
        with pytest.raises(Exception, match="never changed"):
            async with copy.write() as tx:
                await tx.execute(table.delete())


async def test_a_worker_of_the_original_can_take_nothing_from_the_copy(
    database: Database, tmp_path: Path, copy: Database
) -> None:
    worker_id = await sell(database)
    await back_up(database, tmp_path / "backup")
    async with database.write() as tx:
        later = await workers.insert_worker(tx, host="here")
    await restore(copy, tmp_path / "backup")
    async with copy.write() as tx:
        own = await workers.insert_worker(tx, host="there")
    assert own > later
    for stranger in (worker_id, later):
        with pytest.raises(workers.Fenced):
            async with copy.write() as tx:
                await leases.take(tx, worker_id=stranger, wants=[leases.Want(WALLET, 0, 1, 1, 0)])
        with pytest.raises(settlement.Behind):
            async with copy.write() as tx:
                await settlement.settle_one(tx, worker_id=stranger, charge=charge(9, 10))
    async with copy.write() as tx:
        # All that the original had leased and not spent is free here, to the copy's own worker.
        grants = await leases.take(tx, worker_id=own, wants=[leases.Want(WALLET, 0, 650, 650, 0)])
    assert grants[WALLET].granted == 650


async def test_copies_of_one_backup_are_strangers_to_each_other(
    database: Database, copy: Database, tmp_path: Path, clock: Clock
) -> None:
    await sell(database)
    await back_up(database, tmp_path / "backup")
    ids = []
    for _ in range(3):
        clock.advance(5)
        await restore(copy, tmp_path / "backup", replaces=True)
        for _ in range(3):
            async with copy.write() as tx:
                ids.append(await workers.insert_worker(tx, host="there"))
                await workers.close(tx, worker_id=ids[-1])
    assert ids == sorted(set(ids))


@pytest.mark.parametrize("takes_over", [False, True])
async def test_journals_of_the_original_are_the_copys_only_if_it_takes_its_place(
    database: Database, copy: Database, tmp_path: Path, takes_over: bool
) -> None:
    worker_id = await sell(database)
    await back_up(database, tmp_path / "backup")
    await restore(copy, tmp_path / "backup", takes_over=takes_over)
    async with copy.read() as tx:
        assert (await epochs.get_last_former(tx) < worker_id) == takes_over


async def test_a_charge_of_a_key_that_a_copy_does_not_know_is_refused_and_not_half_booked(
    database: Database,
) -> None:
    worker_id = await sell(database)
    key = AllowanceRef(ACCOUNT_ID, "key:99", "cost", "lifetime")
    moves = [move(WALLET, from_lease=10, used=10), move(key, from_lease=0, used=10)]
    unknown = charge(3, 10, moves=moves)
    with pytest.raises(InvariantViolated, match="key:99"):
        async with database.write() as tx:
            await settlement.settle_one(tx, worker_id=worker_id, charge=unknown)


async def test_a_target_that_is_not_empty_stays_as_it_is_until_told_otherwise(
    database: Database, tmp_path: Path, clock: Clock
) -> None:
    worker_id = await sell(database)
    await back_up(database, tmp_path / "backup")
    before = await rows_of(database)
    with pytest.raises(BursarError) as refusal:
        await restore(database, tmp_path / "backup")
    assert refusal.value.code == "not_empty"
    if database.path is None:
        with pytest.raises(BursarError) as refusal:
            await restore(database, tmp_path / "backup", replaces=True)
        assert refusal.value.code == "servers_running"
    assert await rows_of(database) == before
    async with database.write() as tx:
        await workers.close(tx, worker_id=worker_id)
    await restore(database, tmp_path / "backup", replaces=True)
    assert (await rows_of(database))["usage_events"] == before["usage_events"]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_at_the_end(data: bytes) -> bytes:
    return data[:-9]


def add(data: bytes) -> bytes:
    return data + gzip.compress(b"[1]\n")


def change_a_figure(data: bytes) -> bytes:
    plain = gzip.decompress(data)
    assert b",1000,350," in plain
    return gzip.compress(plain.replace(b",1000,350,", b",1000,340,"))


def leave_a_row_out(data: bytes) -> bytes:
    lines = gzip.decompress(data).splitlines(keepends=True)
    del lines[lines.index(b'{"table":"usage_events"}\n') + 1]
    return gzip.compress(b"".join(lines))


def replace_it(_data: bytes) -> bytes:
    return b"SQLite format 3\0"


def empty_it(_data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(
    "damage",
    [cut, cut_at_the_end, add, change_a_figure, leave_a_row_out, replace_it, empty_it],
    ids=lambda damage: damage.__name__,
)
async def test_a_damaged_backup_is_noticed_and_changes_nothing(
    database: Database, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    worker_id = await sell(database)
    path = tmp_path / "backup"
    await back_up(database, path)
    async with database.write() as tx:
        await workers.close(tx, worker_id=worker_id)
    before = await rows_of(database)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BursarError) as refusal:
        await restore(database, path, replaces=True)
    assert refusal.value.code == "backup_damaged"
    assert await rows_of(database) == before


async def test_a_backup_of_a_newer_program_is_refused(
    database: Database, copy: Database, tmp_path: Path
) -> None:
    await sell(database)
    path = tmp_path / "backup"
    await back_up(database, path)
    plain = gzip.decompress(path.read_bytes())
    ours, newer = (f'"schema":"{name}"'.encode() for name in (migrations.head(), "9999"))
    path.write_bytes(gzip.compress(plain.replace(ours, newer)))
    with pytest.raises(BursarError) as refusal:
        await restore(copy, path)
    assert refusal.value.code == "backup_newer"
    assert await migrations.current(copy) is None


async def test_a_backup_is_its_owners_alone_and_replaces_nothing(
    database: Database, tmp_path: Path
) -> None:
    await sell(database)
    folder = tmp_path / "backups"
    folder.mkdir()
    path = folder / "backup"
    await back_up(database, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    with pytest.raises(BursarError) as refusal:
        await back_up(database, path)
    assert refusal.value.code == "backup_exists"
    assert [each.name for each in folder.iterdir()] == ["backup"]
    assert path.read_bytes() == before


async def test_a_backup_that_fails_leaves_no_file(database: Database, tmp_path: Path) -> None:
    await sell(database)
    folder = tmp_path / "backups"
    folder.mkdir()
    header = archives.describe(schema="0001", taken_ms=0, database="sqlite", tables={"a": ["b"]})
    with pytest.raises(OSError, match="full"), archives.writing(folder / "a", header) as writer:
        writer.begin("a")
        raise OSError("the disk is full")
    assert list(folder.iterdir()) == []
