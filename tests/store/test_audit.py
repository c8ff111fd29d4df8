"""The audit log has what was committed, in one unbroken chain an account."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from bursar.core.audit import chains
from bursar.core.audit.chains import Link
from bursar.core.audit.events import AuditAction, AuditEvent, Origin
from bursar.core.errors import InvariantViolated
from bursar.core.secrets import KeyKind, mint
from bursar.store import audit, changes
from bursar.store.database import Database, WriteTx
from bursar.store.tables import audit as rows
from bursar.store.tables import audit_heads as heads

ORIGIN = Origin("user:5", "203.0.113.7", "req_1")
SECRET = mint(KeyKind.INFERENCE, random_bytes=b"a secret of thirty-two bytes, ok")


def an_event(target: str = "key:1", account_id: int = 1, **others: Any) -> AuditEvent:
    """Something that was changed."""
    action = AuditAction.KEY_UPDATE
    return AuditEvent(account_id=account_id, action=action, target=target, **others)


async def read(database: Database, account_id: int = 1) -> list[Any]:
    """The rows of a chain, after their hashes and its end were found right."""
    async with database.read() as tx:
        found = (
            await tx.execute(
                select(rows).where(rows.c.account_id == account_id).order_by(rows.c.id)
            )
        ).all()
        head = (await tx.execute(select(heads).where(heads.c.account_id == account_id))).first()
    previous = chains.START
    for number, row in enumerate(found, start=1):
        fields = {name: row._mapping[name] for name in Link.__dataclass_fields__}
        previous = chains.digest(Link(**fields), previous=previous)
        assert (row.id, bytes(row.hash)) == (number, previous)
    assert (head is None and not found) or tuple(head or ()) == (account_id, len(found), previous)
    return list(found)


async def test_a_row_says_who_did_what_from_where(database: Database) -> None:
    async with database.of(ORIGIN).write() as tx:
        before, after = {"name": "é", "limit": None}, {"name": "b", "limit": "1.00"}
        audit.record(tx, an_event(before=before, after=after))
        audit.record(tx, an_event("key:2", actor="key:9"))
    first, second = await read(database)
    assert (first.actor, first.address, first.request_id) == ("user:5", "203.0.113.7", "req_1")
    assert (first.action, first.target, first.at_ms) == ("key.update", "key:1", tx.now_ms)
    assert first.before == '{"limit":null,"name":"\\u00e9"}'
    assert first.after == '{"limit":"1.00","name":"b"}'
    assert (second.actor, second.before, second.after) == ("key:9", None, None)


async def test_what_is_rolled_back_is_in_no_log(database: Database) -> None:
    with pytest.raises(ConnectionError):
        async with database.write() as tx:
            audit.record(tx, an_event())
            raise ConnectionError
    assert await read(database) == []


async def test_every_account_has_a_chain_of_its_own(database: Database) -> None:
    async with database.write() as tx:
        for number, account_id in enumerate((2, 0, 1, 2)):
            audit.record(tx, an_event(f"key:{number}", account_id))
    assert [[row.target for row in await read(database, each)] for each in (0, 1, 2)] == [
        ["key:1"],
        ["key:2"],
        ["key:0", "key:3"],
    ]


async def test_many_who_write_at_once_make_one_unbroken_chain(database: Database) -> None:
    async def change(number: int) -> None:
        async def work(tx: WriteTx) -> None:
            # Both orders of accounts, and an announcement, which takes the last lock of all.
            for account_id in (1, 2) if number % 2 else (2, 1):
                audit.record(tx, an_event(f"key:{number}", account_id))
            tx.announce(changes.KEY, account_id=1, subject=str(number))

        await database.transact(work)

    await asyncio.gather(*(change(number) for number in range(24)))
    for account_id in (1, 2):
        found = await read(database, account_id)
        assert sorted(row.target for row in found) == sorted(f"key:{n}" for n in range(24))


async def test_no_key_gets_into_the_log_whatever_field_it_is_in(database: Database) -> None:
    async with database.write() as tx:
        after = {"name": f"my {SECRET}!", "models": [SECRET], "labels": {"a": SECRET}, SECRET: 1}
        audit.record(tx, an_event(after=after))
        with pytest.raises(InvariantViolated):
            audit.record(tx, an_event(after={"password": "x"}))
    (row,) = await read(database)
    assert SECRET[4:] not in str(row)
    assert row.after.startswith('{"bsk_\\u2026":1,"labels":{"a":"bsk_\\u2026"}')
