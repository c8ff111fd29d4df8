"""What a secret's hash leads to: the key, its account's state, and exactly its own limits."""

from __future__ import annotations

import pytest
from sqlalchemy import delete

from bursar.core.allowances import AllowanceRef
from bursar.store import credentials, keys, tables
from bursar.store.credentials import CredentialRow
from bursar.store.database import Database
from bursar.store.keys import SecretRow
from bursar.store.limits import allowances

HASH = bytes(range(32))


async def insert_key(database: Database, *, account_id: int = 1, kind: str = "inference") -> int:
    async with database.write() as tx:
        return await keys.insert_key(
            tx,
            account_id=account_id,
            kind=kind,
            secret=SecretRow(HASH, "bsk_", "abcdef"),
            values={"name": "Key", "user_id": 5},
        )


async def find(database: Database, secret_hash: bytes = HASH) -> CredentialRow | None:
    async with database.read() as tx:
        return await credentials.find_credential(tx, secret_hash=secret_hash)


@pytest.mark.usefixtures("installation")
async def test_a_key_is_found_with_its_own_limits_in_the_order_of_locking(
    database: Database,
) -> None:
    key_id = await insert_key(database)
    applying = [
        AllowanceRef(1, "account", "tokens", "hour", "gpt-4o"),
        AllowanceRef(1, f"key:{key_id}", "requests", "minute"),
        AllowanceRef(1, f"key:{key_id}", "cost", "lifetime"),
        AllowanceRef(1, "user:5", "cost", "month"),
    ]
    others = [
        AllowanceRef(1, "user:6", "cost", "month"),
        AllowanceRef(1, f"key:{key_id}0", "cost", "lifetime"),
        AllowanceRef(2, "account", "cost", "month"),
        AllowanceRef(2, f"key:{key_id}", "cost", "lifetime"),
    ]
    async with database.write() as tx:
        for ref in applying + others:
            await allowances.insert_allowance(tx, ref=ref, limit=10)
    found = await find(database)
    assert found is not None
    refs = [row.ref for row in found.allowances]
    assert refs == sorted([*applying, allowances.wallet(1)])


@pytest.mark.usefixtures("installation")
async def test_only_the_whole_hash_finds_a_key(database: Database) -> None:
    await insert_key(database)
    for other in (
        HASH[:-1],
        HASH[:20],
        HASH + b"\x00",
        HASH[:-1] + b"\xff",
        b"",
        HASH.hex().encode(),
    ):
        assert await find(database, other) is None


@pytest.mark.usefixtures("installation")
async def test_a_key_whose_account_is_gone_opens_nothing(database: Database) -> None:
    await insert_key(database)
    async with database.write() as tx:
        await tx.execute(delete(tables.accounts))
    found = await find(database)
    assert found is not None
    assert found.account_status == "cancelled"


async def test_a_key_of_the_installation_itself_needs_no_account(database: Database) -> None:
    await insert_key(database, account_id=keys.OPERATOR_ACCOUNT_ID, kind="operator")
    found = await find(database)
    assert found is not None
    assert (found.account_status, found.time_zone, found.allowances) == ("active", "UTC", ())
