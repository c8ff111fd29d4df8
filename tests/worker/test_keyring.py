"""Keys are verified by their whole digest, looked up once, and dropped when they change."""

from __future__ import annotations

import asyncio
import os

import pytest

from bursar.core.errors import Unavailable
from bursar.core.money import parse_usd
from bursar.core.refusals import Reason
from bursar.service import accounts, keys
from bursar.store.database import Change, Database
from bursar.worker.keyring import Credential, Keyring
from bursar.worker.purse import Purse
from tests.databases import Clock


@pytest.fixture
async def account_id(database: Database) -> int:
    async with database.write() as tx:
        made = await accounts.create(
            tx, name="Acme", time_zone="UTC", credit_nanos=parse_usd("5"), actor="test"
        )
    return made.row.id


@pytest.fixture
def keyring(database: Database, clock: Clock) -> Keyring:
    ring = Keyring(database, Purse(), clock_ms=clock, most=100)
    database.listen(ring.apply)
    return ring


async def make(database: Database, account_id: int, name: str = "key") -> tuple[int, bytes]:
    async with database.write() as tx:
        made = await keys.create(
            tx, account_id=account_id, user_id=None, name=name, random_bytes=os.urandom
        )
    return made.key.id, made.secret.encode()


async def test_many_keys_at_once_are_looked_up_together(
    database: Database, keyring: Keyring, account_id: int
) -> None:
    made = [await make(database, account_id, f"key {n}") for n in range(50)]
    found = await asyncio.gather(*(keyring.load(secret) for _, secret in made))
    assert [each.key_id for each in found if isinstance(each, Credential)] == [n for n, _ in made]
    assert all(keyring.find(secret) is each for (_, secret), each in zip(made, found, strict=True))


async def test_an_unknown_secret_is_unknown_until_it_is_made(
    database: Database, keyring: Keyring, account_id: int
) -> None:
    assert await keyring.load(b"bsk_nonsense") is Reason.MALFORMED
    _, secret = await make(database, account_id)
    keyring.clear()
    assert isinstance(await keyring.load(secret), Credential)


async def test_a_key_that_changes_while_it_is_looked_up_is_looked_up_again(
    database: Database, keyring: Keyring, account_id: int
) -> None:
    key_id, secret = await make(database, account_id)
    keyring.clear()
    asked = asyncio.create_task(keyring.load(secret))
    await asyncio.sleep(0)
    async with database.write() as tx:
        await keys.delete(tx, account_id=account_id, key_id=key_id)
    found = await asked
    keyring_now = keyring.find(secret) or await keyring.load(secret)
    assert isinstance(found, Credential)
    assert isinstance(keyring_now, Credential)
    assert keyring_now.refused(0) is Reason.DELETED


async def test_a_change_drops_the_key_and_only_that_key(
    database: Database, keyring: Keyring, account_id: int
) -> None:
    (one, secret_one), (_, secret_two) = (
        await make(database, account_id, "one"),
        await make(database, account_id, "two"),
    )
    await keyring.load(secret_one)
    await keyring.load(secret_two)
    keyring.apply([Change(99, "key", account_id, str(one))])
    assert keyring.find(secret_one) is None
    assert keyring.find(secret_two) is not None


async def test_the_oldest_go_when_there_are_too_many(
    database: Database, clock: Clock, account_id: int
) -> None:
    ring = Keyring(database, Purse(), clock_ms=clock, most=3)
    made = [await make(database, account_id, f"key {n}") for n in range(5)]
    for _, secret in made:
        await ring.load(secret)
    assert len(ring) == 3
    assert [ring.find(secret) is not None for _, secret in made] == [False, False, True, True, True]


async def test_a_store_that_is_away_is_said_so(
    database: Database, keyring: Keyring, account_id: int
) -> None:
    _, secret = await make(database, account_id)
    keyring.clear()
    broken = Keyring(Away(), Purse(), clock_ms=lambda: 0, most=3)  # type: ignore[arg-type]
    with pytest.raises(Unavailable) as refusal:
        await broken.load(secret)
    assert refusal.value.code == "ledger_unavailable"


class Away:
    """A database that nobody reaches."""

    def read(self) -> None:
        raise ConnectionRefusedError("nobody is there")
