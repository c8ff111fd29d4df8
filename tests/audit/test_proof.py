"""Whatever is done to a log behind its back is found, and nothing is found in one that is whole."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Executable, delete, insert, select, text, update

from bursar.core.audit import chains
from bursar.core.audit.chains import Link
from bursar.core.audit.events import AuditAction, AuditEvent
from bursar.service import verify
from bursar.service.audit import proof
from bursar.store import audit as recorder
from bursar.store.audit.rows import Head
from bursar.store.database import POSTGRESQL, Database, ReadTx, WriteTx
from bursar.store.tables import audit, audit_heads

Harm = Callable[[WriteTx], Awaitable[object]]
ROWS = 6


@pytest.fixture
async def logs(database: Database) -> Database:
    """A database with a log of six rows for each of two accounts, which nothing guards."""
    for number in range(ROWS):
        async with database.write() as tx:
            for account_id in (1, 2):
                event = AuditEvent(
                    account_id=account_id,
                    action=AuditAction.KEY_UPDATE,
                    target=f"key:{number}",
                    before={"name": "before"},
                    after={"name": f"after {number}"},
                )
                recorder.record(tx, event)
    async with database.write() as tx:
        if tx.dialect == POSTGRESQL:
            await tx.execute(text("ALTER TABLE audit DISABLE TRIGGER USER"))
        else:
            await tx.execute(text("DROP TRIGGER audit_no_update"))
            await tx.execute(text("DROP TRIGGER audit_no_delete"))
    return database


class _Undo(Exception):
    """Ends a transaction without a trace."""


async def breaks(tx: ReadTx, *noted: Head) -> list[tuple[int, int, str]]:
    """What the proof finds."""
    found = proof.find_breaks(tx, noted=noted)
    return [(each.account_id, each.id, each.words) async for each in found]


async def harmed(database: Database, harm: Harm, *noted: Head) -> list[tuple[int, int, str]]:
    """What the proof finds after this was done to the database, which is undone then."""
    found: list[tuple[int, int, str]] = []
    with suppress(_Undo):
        async with database.write() as tx:
            await harm(tx)
            found = await breaks(tx, *noted)
            raise _Undo
    return found


def doing(statement: Executable) -> Harm:
    """The harm that one statement does."""
    return lambda tx: tx.execute(statement)


def one(number: int, account_id: int = 1) -> Any:
    """The condition that a row is this one."""
    return (audit.c.account_id == account_id) & (audit.c.id == number)


async def test_a_log_that_nobody_has_touched_is_whole(logs: Database) -> None:
    async with logs.read() as tx:
        heads = await proof.list_heads(tx)
        assert await breaks(tx, *heads) == []
    assert [head.id for head in heads] == [ROWS, ROWS]


async def test_any_field_of_any_row_that_was_changed_is_found(logs: Database) -> None:
    others: dict[str, Any] = {"hash": bytes(32), "at_ms": 1, "id": 99, "account_id": 7}
    for column in (each.name for each in audit.columns):
        for number in (1, 3, ROWS):
            harm = update(audit).where(one(number)).values({column: others.get(column, "x")})
            found = await harmed(logs, doing(harm))
            assert found, (column, number)
            assert {account_id for account_id, _, _ in found} <= {1, 7}


async def test_a_row_that_was_removed_is_found(logs: Database) -> None:
    for number in (1, 3):
        assert (1, number + 1, f"rows before it are missing, from {number} on") in await harmed(
            logs, doing(delete(audit).where(one(number)))
        )


async def test_rows_that_have_changed_places_are_found(logs: Database) -> None:
    async def swap(tx: WriteTx) -> None:
        for was, becomes in ((2, 99), (3, 2), (99, 3)):
            await tx.execute(update(audit).where(one(was)).values(id=becomes))

    found = await harmed(logs, swap)
    assert {number for _, number, _ in found} >= {2, 3}


async def test_a_row_that_was_put_between_others_is_found(logs: Database) -> None:
    async def forge(tx: WriteTx) -> None:
        for number in range(ROWS, 2, -1):
            await tx.execute(update(audit).where(one(number)).values(id=number + 1))
        row = (await tx.execute(select(audit).where(one(2)))).mappings().one()
        await tx.execute(insert(audit).values({**row, "id": 3, "target": "key:77"}))

    assert {number for _, number, _ in await harmed(logs, forge)} >= {3, ROWS + 1}


async def test_rows_that_were_cut_off_are_found_by_the_end_that_is_kept(logs: Database) -> None:
    cut = delete(audit).where(audit.c.account_id == 2, audit.c.id > 4)
    assert await harmed(logs, doing(cut)) == [(2, ROWS, "rows are missing after 4")]
    whole = delete(audit).where(audit.c.account_id == 2)
    assert await harmed(logs, doing(whole)) == [(2, ROWS, "the log should end here, and is empty")]
    ends = delete(audit_heads).where(audit_heads.c.account_id == 1)
    assert (1, ROWS, "nothing says where the log ends") in await harmed(logs, doing(ends))


async def test_a_log_that_was_written_anew_is_found_with_an_end_noted_elsewhere(
    logs: Database,
) -> None:
    """Whoever knows the hash can make a chain that is right in itself: only what was kept tells."""
    async with logs.read() as tx:
        noted = await proof.list_heads(tx)

    async def rewrite(tx: WriteTx) -> None:
        await tx.execute(delete(audit).where(audit.c.account_id == 1, audit.c.id > 5))
        rows = (await tx.execute(select(audit).where(audit.c.account_id == 1))).mappings().all()
        previous = chains.START
        for row in sorted(rows, key=lambda row: row["id"]):
            link = Link(**{name: row[name] for name in Link.__dataclass_fields__})
            link = dataclasses.replace(link, actor="user:9")
            previous = chains.digest(link, previous=previous)
            values = {"actor": "user:9", "hash": previous}
            await tx.execute(update(audit).where(one(link.id)).values(values))
        ends = update(audit_heads).where(audit_heads.c.account_id == 1)
        await tx.execute(ends.values(last_id=5, hash=previous))

    async def go_on(tx: WriteTx) -> None:
        await rewrite(tx)
        event = AuditEvent(account_id=1, action=AuditAction.KEY_DELETE, target="key:1")
        recorder.record(tx, event)
        for step in tx.closing:
            await step()

    gone = (1, ROWS, "was noted elsewhere, and is not there any more")
    other = (1, ROWS, "is not the row that was noted elsewhere")
    assert await harmed(logs, rewrite) == await harmed(logs, go_on) == []
    assert await harmed(logs, rewrite, *noted) == [gone]
    assert await harmed(logs, go_on, *noted) == [other]


async def test_the_proof_of_the_books_has_the_logs_in_it(logs: Database) -> None:
    async with logs.write() as tx:
        await tx.execute(update(audit).where(one(2)).values(actor="user:9"))
    async with logs.read() as tx:
        report = await verify.verify(tx, now_ms=logs.clock_ms())
    assert [str(each) for each in report.differences] == [
        "account 1: audit row 2 does not fit its hash and the row before it (audit)"
    ]
    assert report.checked["audit"] == 2 * ROWS


def compact(value: object) -> str:
    """The one JSON text of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


async def test_the_guides_recipe_gives_the_hash_that_is_stored(logs: Database) -> None:
    """Whoever has an export can prove it without this program."""
    async with logs.read() as tx:
        found = await tx.execute(select(audit).where(audit.c.account_id == 1).order_by(audit.c.id))
        rows = found.mappings().all()
    previous = bytes(32)
    for row in rows:
        event = {**row, "before": json.loads(row["before"]), "after": json.loads(row["after"])}
        form = compact(
            [1, 1, event["id"], event["at_ms"], event["action"], event["target"], event["actor"],
             event["address"], event["request_id"], compact(event["before"]),
             compact(event["after"])]
        )  # fmt: skip
        previous = hashlib.sha256(previous + form.encode()).digest()
        assert bytes(row["hash"]) == previous
