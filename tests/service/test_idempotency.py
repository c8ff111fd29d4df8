"""A request that is sent again is answered again, for a day, to whoever has the secret."""

from __future__ import annotations

import dataclasses

import pytest
from cryptography.exceptions import InvalidTag
from sqlalchemy import select

from bursar.core.errors import Conflict, Invalid, Unreadable
from bursar.service import idempotency
from bursar.service.idempotency import Answer, Request, Running
from bursar.store import tables
from bursar.store.database import Database
from tests.databases import Clock
from tests.installations import Randomness

REQUEST = Request(
    account_id=1,
    key_id=2,
    route="POST /v1/account/keys",
    key="one",
    body=b'{"name":"x"}',
    secret=b"bpk_secret",
)
ANSWER = Answer(201, b'{"key":"bsk_shown_once"}')


async def keep(database: Database, request: Request = REQUEST, answer: Answer = ANSWER) -> None:
    async with database.write() as tx:
        assert await idempotency.find_answer(tx, request=request) is None
        await idempotency.keep_answer(tx, request=request, answer=answer, random_bytes=Randomness())


async def find(database: Database, request: Request = REQUEST) -> Answer | None:
    async with database.write() as tx:
        return await idempotency.find_answer(tx, request=request)


async def test_the_same_request_gets_the_same_bytes(database: Database) -> None:
    await keep(database)
    assert await find(database) == ANSWER
    assert await find(database) == ANSWER


async def test_another_body_under_the_key_is_refused(database: Database) -> None:
    await keep(database)
    with pytest.raises(Invalid) as refusal:
        await find(database, dataclasses.replace(REQUEST, body=b"{}"))
    assert refusal.value.code == "idempotency_key_reused"


@pytest.mark.parametrize(
    "fields", [{"account_id": 2, "key_id": 9}, {"key_id": 9}, {"route": "POST /x"}, {"key": "two"}]
)
async def test_another_caller_route_or_key_is_another_request(
    database: Database, fields: dict[str, object]
) -> None:
    await keep(database)
    other = dataclasses.replace(REQUEST, **fields)  # type: ignore[arg-type]
    await keep(database, other, Answer(200, b"other"))
    assert await find(database) == ANSWER
    assert await find(database, other) == Answer(200, b"other")


async def test_an_answer_is_forgotten_after_a_day(database: Database, clock: Clock) -> None:
    await keep(database)
    clock.advance(idempotency.KEPT_MS - 1)
    assert await find(database) == ANSWER
    clock.advance(1)
    later = Answer(201, b"later")
    await keep(database, answer=later)
    assert await find(database) == later


async def test_an_answer_is_stored_sealed(database: Database) -> None:
    await keep(database)
    async with database.read() as tx:
        rows = (await tx.execute(select(tables.idempotency))).all()
    assert len(rows) == 1
    stored = b"".join(value for value in rows[0] if isinstance(value, bytes))
    for visible in (b"shown", b"bpk_secret", b"name"):
        assert visible not in stored
    with pytest.raises(InvalidTag):
        await find(database, dataclasses.replace(REQUEST, secret=b"bpk_another"))


async def test_nothing_is_kept_of_what_fails(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.write() as tx:
            await idempotency.keep_answer(
                tx, request=REQUEST, answer=ANSWER, random_bytes=Randomness()
            )
            raise ZeroDivisionError
    assert await find(database) is None


async def test_a_request_of_another_process_is_in_progress(postgres_database_url: str) -> None:
    here = Database(postgres_database_url, clock_ms=Clock())
    there = Database(postgres_database_url, clock_ms=Clock())
    async with there.write() as tx:
        assert await idempotency.find_answer(tx, request=REQUEST) is None
        with pytest.raises(Conflict) as refusal:
            await find(here)
        assert refusal.value.code == "idempotency_in_progress"
    assert await find(here) is None
    await here.close()
    await there.close()


def test_a_request_of_this_process_is_in_progress_until_it_ends() -> None:
    running = Running()
    other = dataclasses.replace(REQUEST, key="two")
    with running.hold(REQUEST), running.hold(other):
        with pytest.raises(Conflict) as refusal, running.hold(REQUEST):
            pass
        assert refusal.value.code == "idempotency_in_progress"
    with pytest.raises(ZeroDivisionError), running.hold(REQUEST):
        raise ZeroDivisionError
    with running.hold(REQUEST):
        pass


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a\nb", "a\x7fb", "\x00", "\uff11"])
def test_a_key_is_1_to_255_printable_ascii_characters(key: str) -> None:
    with pytest.raises(Unreadable) as refusal:
        idempotency.check_key(key)
    assert refusal.value.code == "invalid_idempotency_key"
    for good in ("x", "x" * 255, "with space", "~!@#"):
        assert idempotency.check_key(good) == good


def test_secrets_are_not_in_what_is_printed() -> None:
    assert "secret" not in repr(REQUEST).replace("secret=", "")
    assert "shown" not in repr(ANSWER)
