"""What an account calls people, and tokens that a key was traded for, in the control API."""

from __future__ import annotations

import os

from bursar.core.secrets import KeyKind
from bursar.service import access, keys
from bursar.service.access import ProvisioningPrincipal
from bursar.service.keys import sessions as of_keys
from bursar.store.tenants import users
from tests.people.house import PASSWORD, House, code_of


async def other_account(house: House) -> tuple[int, str]:
    """Another account, and its key."""
    return await house.api.open_account()


async def test_whoever_is_invited_has_the_name_of_the_invitation_unless_they_say_another(
    house: House,
) -> None:
    for email, said, expected in (
        ("ann@example.com", None, "Ann of Sales"),
        ("bob@example.com", "Bobby", "Bobby"),
    ):
        body = {"email": email, "name": "Ann of Sales"}
        made = await house.api.call("POST", "/v1/account/users", json=body)
        assert made.json()["name"] == "Ann of Sales"
        listed = await house.api.get("/v1/account/invitations")
        assert [each["name"] for each in listed["invitations"]] == ["Ann of Sales"]
        accepted = {"token": house.link_token(), "password": PASSWORD, "name": said}
        joined = await house.call("POST", "/v1/auth/invitations/accept", accepted)
        user = await house.api.get(f"/v1/account/users/{joined.json()['user_id']}")
        assert user["name"] == expected


async def test_an_account_renames_somebody_for_itself_alone(house: House) -> None:
    user_id = await house.add("ann@example.com")
    account_id, foreign = await other_account(house)
    async with house.database.write() as tx:
        await users.insert_member(tx, account_id=account_id, user_id=user_id, role="member")
    path = f"/v1/account/users/{user_id}"

    async def names() -> list[str]:
        return [(await house.api.get(path, caller=c))["name"] for c in ("provisioning", foreign)]

    renamed = await house.api.call("PATCH", path, json={"name": "Ann of Sales"})
    assert (renamed.json()["name"], renamed.json()["role"]) == ("Ann of Sales", "member")
    assert await names() == ["Ann of Sales", "ann"]
    refused = await house.api.call("PATCH", path, json={"name": " "})
    assert code_of(refused) == (422, "invalid_name")
    await house.api.call("PATCH", path, caller=foreign, json={"name": "Ann of Acme"})
    assert await names() == ["Ann of Sales", "Ann of Acme"]
    # Who somebody is, they say themselves in the end, in all accounts and whatever the database.
    token = await house.token("ann@example.com")
    await house.call("PATCH", "/v1/account/users/me", {"name": "Annie"}, token=token)
    assert await names() == ["Annie", "Annie"]


async def test_what_a_key_was_traded_for_reaches_what_the_key_reaches_and_nobodys_own(
    house: House,
) -> None:
    async with house.database.write() as tx:
        made = await keys.create(
            tx,
            account_id=1,
            user_id=1,
            name="traded",
            random_bytes=os.urandom,
            kind=KeyKind.PROVISIONING,
        )
    async with house.database.write() as tx:
        key = await access.authenticate(
            tx, secret=made.secret, wanted=ProvisioningPrincipal, now_ms=tx.now_ms
        )
        traded = await of_keys.trade(
            tx, people=house.people, key=key, device="test", address="192.0.2.1"
        )
    token = traded.access.text
    assert (await house.call("GET", "/v1/account", token=token)).status_code == 200
    me = await house.call("GET", "/v1/account/users/me", token=token)
    assert me.json()["id"] == 1
    for method, path in (
        ("GET", "/v1/auth/sessions"),
        ("POST", "/v1/auth/logout-all"),
        ("GET", "/v1/auth/second-factor"),
    ):
        refused = await house.call(method, path, token=token)
        assert code_of(refused) == (401, "wrong_key_type"), path
    body = {"refresh_token": traded.refresh_token}
    refused = await house.call("POST", "/v1/auth/refresh", body)
    assert code_of(refused) == (401, "invalid_refresh_token")
    operator = await house.call("GET", "/v1/operator/accounts", token=token)
    assert code_of(operator) == (401, "wrong_key_type")
    log = await house.api.get("/v1/account/audit?action=session.sign_in")
    [noted] = log["events"]
    assert (noted["actor"], noted["after"]) == (
        f"key:{made.key.id}",
        {"key": f"key:{made.key.id}"},
    )
    assert traded.refresh_token not in str(log)
    async with house.database.write() as tx:
        await keys.delete(tx, account_id=1, key_id=made.key.id, kind=KeyKind.PROVISIONING)
    gone = await house.call("GET", "/v1/account", token=token)
    assert code_of(gone) == (401, "invalid_token")
