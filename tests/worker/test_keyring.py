"""Keys are verified by their whole digest, looked up once, and dropped when they change."""

from __future__ import annotations

import asyncio
import os

import pytest
from sqlalchemy import update

from bursar.core import secrets
from bursar.core.allowances import AllowanceRef
from bursar.core.errors import Unavailable
from bursar.core.money import parse_usd
from bursar.core.refusals import Reason
from bursar.core.secrets import KeyKind
from bursar.service import accounts, keys
from bursar.store.database import Change, Database
from bursar.store.limits import allowances
from bursar.store.tables import keys as key_rows
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


async def test_a_call_is_limited_by_what_is_for_its_model_and_for_every_model(
    database: Database, keyring: Keyring, account_id: int
) -> None:
    _, secret = await make(database, account_id)
    async with database.write() as tx:
        for model in ("gpt-*", "gpt-4o", "other"):
            ref = AllowanceRef(account_id, "account", "requests", "minute", model)
            await allowances.insert_allowance(tx, ref=ref, limit=5)
    keyring.clear()
    credential = await keyring.load(secret)
    assert isinstance(credential, Credential)

    def limited_by(model: str) -> set[str]:
        return {slot.ref.model for slot in credential.slots_for(model)}

    assert limited_by("gpt-4o") == {"", "gpt-*", "gpt-4o"}
    assert limited_by("gpt-5") == {"", "gpt-*"}
    assert limited_by("sandbox/echo") == {""}
    assert credential.slots_for("gpt-5") is credential.slots_for("gpt-5")
    for number in range(1_000):
        credential.slots_for(f"gpt-{number}")
    assert len(credential._by_model or ()) < 200


async def test_a_key_without_limits_by_model_asks_for_all_it_has_at_no_cost(
    database: Database, keyring: Keyring, account_id: int
) -> None:
    _, secret = await make(database, account_id)
    credential = await keyring.load(secret)
    assert isinstance(credential, Credential)
    assert credential.slots_for("gpt-4o") is credential.slots


async def test_both_secrets_of_a_rotated_key_are_dropped_together(
    database: Database, keyring: Keyring, account_id: int
) -> None:
    key_id, new = await make(database, account_id)
    old = secrets.mint(KeyKind.INFERENCE, random_bytes=os.urandom(32)).encode()
    async with database.write() as tx:
        values = {"previous_hash": secrets.digest(old), "previous_until_ms": tx.now_ms + 1_000}
        await tx.execute(update(key_rows).where(key_rows.c.id == key_id).values(**values))
    for secret in (new, old):
        assert isinstance(await keyring.load(secret), Credential)
    keyring.apply([Change(99, "key", account_id, str(key_id))])
    assert [keyring.find(secret) for secret in (new, old)] == [None, None]
    assert len(keyring) == 0
