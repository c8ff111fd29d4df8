"""Operators see everybody, let people in nowhere, and act in an account as its owners do."""

from __future__ import annotations

from typing import Any

import pytest

from bursar.service.people import members
from bursar.store.database import Database
from bursar.store.people import sessions
from bursar.store.tenants import users
from tests.installations import INFERENCE, OPERATOR, PROVISIONING, Api

PEOPLE = "/v1/operator/users"
USERS = "/v1/operator/accounts/1/users"


async def enter(
    database: Database, email: str, *, role: str = "member", account_id: int = 1
) -> int:
    async with database.write() as tx:
        user_id = await users.insert_user(tx, email=email, name=email[:3], password_hash="x")
        await users.insert_member(tx, account_id=account_id, user_id=user_id, role=role)
    return user_id


async def sign_in(database: Database, user_id: int) -> int:
    async with database.write() as tx:
        return await sessions.insert_session(
            tx,
            user_id=user_id,
            account_id=1,
            family_hash=b"f%d" % user_id,
            token_hash=b"t",
            device="",
            address="",
            expires_ms=tx.now_ms + 1_000_000,
        )


async def patch(api: Api, path: str, fields: object, *, status: int = 200) -> Any:
    response = await api.call("PATCH", path, json=fields, caller=OPERATOR)
    assert response.status_code == status, response.text
    return response.json()


async def test_everybody_is_seen_with_their_accounts_and_found_by_address(
    api: Api, database: Database
) -> None:
    other_id, _ = await api.open_account()
    ada = await enter(database, "ada@example.com", role="admin")
    async with database.write() as tx:
        await users.insert_member(tx, account_id=other_id, user_id=ada, role="owner")
    found = (await api.get(PEOPLE, caller=OPERATOR))["users"]
    assert [each["email"] for each in found] == ["admin@localhost", "ada@example.com"]
    assert found[1]["memberships"] == [
        {"account_id": 1, "role": "admin", "is_enabled": True},
        {"account_id": other_id, "role": "owner", "is_enabled": True},
    ]
    assert (await api.get(f"{PEOPLE}/{ada}", caller=OPERATOR)) == found[1]
    assert (await api.get(f"{PEOPLE}?email=ADA@Example.com", caller=OPERATOR))["users"] == found[1:]
    assert (await api.get(f"{PEOPLE}?email=no@example.com", caller=OPERATOR))["users"] == []
    assert "hash" not in str(found)


async def test_people_are_paged(api: Api, database: Database) -> None:
    for number in range(4):
        await enter(database, f"user{number}@example.com")
    seen: list[int] = []
    path = f"{PEOPLE}?limit=2"
    while True:
        page = await api.get(path, caller=OPERATOR)
        seen += [each["id"] for each in page["users"]]
        if page["next_cursor"] is None:
            break
        path = f"{PEOPLE}?limit=2&cursor={page['next_cursor']}"
    assert seen == sorted(seen)
    assert len(seen) == 5


async def test_who_is_let_in_nowhere_loses_sessions_and_their_keys_do_nothing(
    api: Api, database: Database
) -> None:
    session_id = await sign_in(database, 1)
    after = await patch(api, f"{PEOPLE}/1", {"is_enabled": False})
    assert (after["is_enabled"], after["memberships"][0]["is_enabled"]) == (False, False)
    async with database.read() as tx:
        row = await sessions.find_session(tx, session_id=session_id)
    assert row is not None
    assert row.ended_ms is not None
    assert (await api.call("GET", "/v1/account")).status_code == 401
    assert (await api.call("GET", "/v1/key", caller=INFERENCE)).status_code == 200
    await patch(api, f"{PEOPLE}/1", {"is_enabled": True})
    assert (await api.call("GET", "/v1/account")).status_code == 200


async def test_signing_somebody_out_ends_all_their_sessions_and_nothing_else(
    api: Api, database: Database
) -> None:
    ada = await enter(database, "ada@example.com")
    await sign_in(database, 1)
    await sign_in(database, ada)
    assert await api.post(f"{PEOPLE}/{ada}/logout-all", None, caller=OPERATOR) == {"ended": 1}
    assert await api.post(f"{PEOPLE}/{ada}/logout-all", None, caller=OPERATOR) == {"ended": 0}
    async with database.read() as tx:
        assert len(await sessions.list_open(tx, user_id=1, now_ms=database.clock_ms())) == 1


async def test_an_operator_manages_the_users_of_any_account_as_an_owner_does(
    api: Api, database: Database
) -> None:
    ada = await enter(database, "ada@example.com")
    listed = (await api.get(USERS, caller=OPERATOR))["users"]
    assert [(each["id"], each["role"]) for each in listed] == [(1, "owner"), (ada, "member")]
    assert (await patch(api, f"{USERS}/{ada}", {"role": "owner"}))["role"] == "owner"
    assert (await patch(api, f"{USERS}/1", {"role": "viewer"}))["role"] == "viewer"
    refused = await patch(api, f"{USERS}/{ada}", {"role": "member"}, status=409)
    assert refused["error"]["code"] == "last_owner"
    response = await api.call("DELETE", f"{USERS}/1", caller=OPERATOR)
    assert response.status_code == 204
    async with database.read() as tx:
        left = await members.list_members(tx, account_id=1, after_id=0, limit=9)
    assert [row.user_id for row in left] == [ada]


async def test_an_operator_invites_the_first_owner_of_a_new_account(api: Api) -> None:
    opened = await api.post("/v1/operator/accounts", {"name": "New"}, caller=OPERATOR)
    path = f"/v1/operator/accounts/{opened['id']}"
    body = {"email": "first@example.com", "role": "owner"}
    response = await api.call("POST", f"{path}/users", json=body, caller=OPERATOR)
    assert response.status_code == 202, response.text
    (invited,) = (await api.get(f"{path}/invitations", caller=OPERATOR))["invitations"]
    assert (invited["email"], invited["role"]) == ("first@example.com", "owner")
    withdrawn = await api.call("DELETE", f"{path}/invitations/{invited['id']}", caller=OPERATOR)
    assert withdrawn.status_code == 204
    assert (await api.get(f"{path}/invitations", caller=OPERATOR))["invitations"] == []
    assert (await api.get("/v1/operator/accounts/1/invitations", caller=OPERATOR)) == {
        "invitations": []
    }


@pytest.mark.parametrize("caller", [PROVISIONING, INFERENCE, None])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", PEOPLE),
        ("GET", f"{PEOPLE}/1"),
        ("PATCH", f"{PEOPLE}/1"),
        ("POST", f"{PEOPLE}/1/logout-all"),
        ("GET", USERS),
        ("POST", USERS),
        ("PATCH", f"{USERS}/1"),
        ("DELETE", f"{USERS}/1"),
        ("GET", "/v1/operator/accounts/1/invitations"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_nobody_but_an_operator_reaches_people_beyond_their_account(
    api: Api, method: str, path: str, caller: str | None
) -> None:
    body = {"is_enabled": False} if method in {"PATCH", "POST"} else None
    response = await api.call(method, path, json=body, caller=caller)
    assert response.status_code == 401


async def test_unknown_accounts_and_people_are_not_found_and_bad_fields_are_refused(
    api: Api,
) -> None:
    for path in (f"{PEOPLE}/99", "/v1/operator/accounts/99/users", f"{USERS}/99"):
        assert (await api.call("GET", path, caller=OPERATOR)).status_code == 404, path
    await patch(api, f"{PEOPLE}/99", {"bogus": 1}, status=404)
    for fields in ({}, {"is_enabled": None}, {"is_enabled": 1}, {"email": "x@example.com"}):
        await patch(api, f"{PEOPLE}/1", fields, status=422)
    response = await api.call("GET", f"{PEOPLE}?email=nobody", caller=OPERATOR)
    assert response.status_code == 422
