"""What people know and carry is in no row of the database, no log line and no other answer."""

from __future__ import annotations

import base64

import pyotp
from sqlalchemy import select
from structlog.testing import capture_logs

from bursar.store.tables import metadata
from tests.databases import Clock
from tests.people.house import PASSWORD, House

EMAIL = "ann@example.test"
NEW = "canary phrase of a new password"


async def _everything(house: House) -> bytes:
    """All that the database has, as bytes in a row."""
    found: list[bytes] = []
    async with house.database.read() as tx:
        for table in metadata.tables.values():
            for row in await tx.execute(select(table)):
                found += [each if isinstance(each, bytes) else str(each).encode() for each in row]
    if house.database.path is not None:
        folder, name = house.database.path.parent, house.database.path.name
        found += [path.read_bytes() for path in folder.glob(f"{name}*")]
    return b"\n".join(found)


async def test_no_secret_of_a_person_is_stored_or_logged(house: House, clock: Clock) -> None:
    canaries: list[str] = [PASSWORD, NEW]
    with capture_logs() as logs:
        await house.add(EMAIL, "owner")
        first = await house.sign_in(EMAIL)
        second = await house.call(
            "POST", "/v1/auth/refresh", {"refresh_token": first["refresh_token"]}
        )
        token = second.json()["access_token"]
        canaries += [first["access_token"], first["refresh_token"][4:], token]
        canaries += [first["refresh_token"][36:], second.json()["refresh_token"][36:]]
        made = await house.call(
            "POST", "/v1/auth/second-factor", {"password": PASSWORD}, token=token
        )
        secret = made.json()["secret"]
        code = pyotp.TOTP(secret).at(clock.now_ms // 1_000)
        done = await house.call(
            "POST", "/v1/auth/second-factor/confirm", {"code": code}, token=token
        )
        canaries += [secret, *done.json()["recovery_codes"]]
        body = {"email": "bob@example.test"}
        await house.call("POST", "/v1/account/users", body, token=token)
        canaries.append(house.link_token())
        await house.call("POST", "/v1/auth/password-reset", {"email": EMAIL})
        canaries.append(house.link_token())
        answer = await house.try_in(EMAIL, NEW)
        other = await house.try_in(EMAIL, PASSWORD, code="000000")
    stored = await _everything(house)
    assert len(stored) > 1_000
    assert EMAIL.encode() in stored
    for canary in canaries:
        for form in (canary.encode(), canary.replace("-", "").encode()):
            assert form not in stored
        assert canary not in str(logs)
        assert canary not in answer.text + other.text
    assert base64.b32decode(secret) not in stored
    assert bytes.fromhex(first["refresh_token"][4:36]) not in stored
