"""Sessions: tokens take turns, and whatever ends them ends them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from bursar.service.people import sessions
from bursar.store.people import members
from tests.databases import Clock
from tests.people.house import PASSWORD, House, code_of

DAY_MS = 86_400_000
INVALID = (401, "invalid_refresh_token")
EMAIL = "ann@example.test"


async def refresh(house: House, token: str) -> Any:
    """Use a refresh token."""
    return await house.call("POST", "/v1/auth/refresh", {"refresh_token": token})


async def reads(house: House, token: str) -> tuple[int, str]:
    """What reading the account answers."""
    response = await house.call("GET", "/v1/account", token=token)
    return (200, "") if response.status_code == 200 else code_of(response)


@pytest.fixture
async def signed_in(house: House) -> dict[str, Any]:
    """Tokens of an admin."""
    await house.add(EMAIL, "admin")
    return await house.sign_in(EMAIL)


async def test_each_refresh_token_is_followed_by_another(
    house: House, signed_in: dict[str, Any], clock: Clock
) -> None:
    token, seen = signed_in["refresh_token"], set()
    for _ in range(5):
        clock.advance(DAY_MS)
        found = (await refresh(house, token)).json()
        assert await reads(house, found["access_token"]) == (200, "")
        token = found["refresh_token"]
        seen.add(token)
    assert len(seen) == 5


async def test_an_access_token_ends_after_a_quarter_of_an_hour(
    house: House, signed_in: dict[str, Any], clock: Clock
) -> None:
    clock.advance(899_000)
    assert await reads(house, signed_in["access_token"]) == (200, "")
    clock.advance(2_000)
    assert await reads(house, signed_in["access_token"]) == (401, "invalid_token")


async def test_a_refresh_token_ends_after_thirty_days(
    house: House, signed_in: dict[str, Any], clock: Clock
) -> None:
    clock.advance(30 * DAY_MS)
    assert code_of(await refresh(house, signed_in["refresh_token"])) == INVALID


async def test_a_lost_answer_is_given_again_for_ten_seconds(
    house: House, signed_in: dict[str, Any], clock: Clock
) -> None:
    first = (await refresh(house, signed_in["refresh_token"])).json()
    clock.advance(9_999)
    again = (await refresh(house, signed_in["refresh_token"])).json()
    assert again["refresh_token"] == first["refresh_token"]
    assert await reads(house, again["access_token"]) == (200, "")
    assert (await refresh(house, first["refresh_token"])).status_code == 200


async def test_a_token_that_comes_again_later_ends_the_session_for_both(
    house: House, signed_in: dict[str, Any], clock: Clock
) -> None:
    following = (await refresh(house, signed_in["refresh_token"])).json()
    clock.advance(10_000)
    reused = await refresh(house, signed_in["refresh_token"])
    assert code_of(reused) == (401, "refresh_reused")
    assert await reads(house, following["access_token"]) == (401, "invalid_token")
    assert code_of(await refresh(house, following["refresh_token"])) == INVALID


async def test_a_token_of_two_turns_ago_ends_the_session_however_soon(
    house: House, signed_in: dict[str, Any]
) -> None:
    second = (await refresh(house, signed_in["refresh_token"])).json()
    third = (await refresh(house, second["refresh_token"])).json()
    assert code_of(await refresh(house, signed_in["refresh_token"])) == (401, "refresh_reused")
    assert code_of(await refresh(house, third["refresh_token"])) == INVALID


async def test_of_two_clients_that_refresh_at_once_both_get_the_same_token(
    house: House, signed_in: dict[str, Any]
) -> None:
    found = await asyncio.gather(*(refresh(house, signed_in["refresh_token"]) for _ in range(6)))
    assert {response.status_code for response in found} == {200}
    assert len({response.json()["refresh_token"] for response in found}) == 1


async def test_whoever_knows_only_the_familys_half_of_a_token_cannot_end_it_from_outside(
    house: House, signed_in: dict[str, Any]
) -> None:
    # Nobody knows it but who had a token of the family: it counts as one that was used before.
    other = signed_in["refresh_token"][:36] + "0" * 32
    assert code_of(await refresh(house, other)) == (401, "refresh_reused")
    strangers = "brt_" + "0" * 32 + signed_in["refresh_token"][36:]
    assert code_of(await refresh(house, strangers)) == INVALID


@pytest.mark.parametrize(
    "token",
    ["", "brt_", "x" * 68, "brt_" + "0" * 64, "brt_" + "G" * 64, "é" * 68, "brt_" + "0" * 63],
)
async def test_what_is_no_refresh_token_is_refused_and_revoked_alike(
    house: House, token: str
) -> None:
    assert code_of(await refresh(house, token)) == INVALID
    revoked = await house.call("POST", "/v1/auth/revoke", {"token": token})
    assert (revoked.status_code, revoked.json()) == (200, {"revoked": True})


BODIES: dict[str, Callable[[str], dict[str, str]]] = {
    "/v1/auth/refresh": lambda made_up: {"refresh_token": f"brt_{made_up * 2}"},
    "/v1/auth/revoke": lambda made_up: {"token": f"brt_{made_up * 2}"},
    "/v1/auth/password-reset/confirm": lambda made_up: {
        "token": f"blt_{made_up}",
        "password": "a quite different phrase",
    },
    "/v1/auth/invitations/accept": lambda made_up: {
        "token": f"blt_{made_up}",
        "password": "a quite different phrase",
    },
}


@pytest.mark.parametrize("path", BODIES)
async def test_a_token_that_nobody_has_waits_for_no_write_and_is_refused_more_slowly_in_time(
    house: House, signed_in: dict[str, Any], clock: Clock, path: str
) -> None:
    first = await house.call("POST", path, BODIES[path]("0" * 32))
    # On SQLite nobody else could write now.
    async with house.database.write():
        for text in ("0" * 32, "1" * 32, "no token"):
            again = await house.call("POST", path, BODIES[path](text))
            assert again.status_code == first.status_code
    found = [(await house.call("POST", path, BODIES[path]("2" * 32))) for _ in range(57)]
    assert [each.status_code for each in found] == [first.status_code] * 56 + [429]
    assert 0 < int(found[-1].headers["retry-after"]) <= 60
    house.address = "203.0.113.7"
    assert (await refresh(house, signed_in["refresh_token"])).status_code == 200
    house.address = "192.0.2.1"
    clock.advance(60_000)
    again = await house.call("POST", path, BODIES[path]("3" * 32))
    assert again.status_code == first.status_code


async def test_one_kind_of_token_is_not_the_other(house: House, signed_in: dict[str, Any]) -> None:
    assert code_of(await refresh(house, signed_in["access_token"])) == INVALID
    assert await reads(house, signed_in["refresh_token"]) == (401, "invalid_api_key")
    in_query = await house.call("GET", f"/v1/account?access_token={signed_in['access_token']}")
    assert code_of(in_query) == (401, "key_in_query")


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_revoking_either_token_ends_both(
    house: House, signed_in: dict[str, Any], kind: str
) -> None:
    assert (
        await house.call("POST", "/v1/auth/revoke", {"token": signed_in[kind]})
    ).status_code == 200
    assert await reads(house, signed_in["access_token"]) == (401, "invalid_token")
    assert code_of(await refresh(house, signed_in["refresh_token"])) == INVALID


async def test_signing_out_everywhere_ends_all_of_ones_own_sessions_and_no_others(
    house: House, signed_in: dict[str, Any]
) -> None:
    await house.add("bob@example.test")
    mine, bobs = await house.token(EMAIL), await house.token("bob@example.test")
    ended = await house.call("POST", "/v1/auth/logout-all", token=mine)
    assert ended.json() == {"ended": 2}
    assert await reads(house, mine) == (401, "invalid_token")
    assert await reads(house, signed_in["access_token"]) == (401, "invalid_token")
    assert await reads(house, bobs) == (200, "")


async def test_sessions_are_listed_with_device_and_last_use_and_can_be_ended_one_by_one(
    house: House, signed_in: dict[str, Any], clock: Clock
) -> None:
    clock.advance(1_000)
    house.address = "203.0.113.9"
    second = await house.sign_in(EMAIL)
    listed = await house.call("GET", "/v1/auth/sessions", token=second["access_token"])
    rows = listed.json()["sessions"]
    assert [row["id"] for row in rows] == [second["session_id"], signed_in["session_id"]]
    assert [row["address"] for row in rows] == ["203.0.113.9", "192.0.2.1"]
    assert [row["is_current"] for row in rows] == [True, False]
    assert all(row["device"].startswith("python-httpx") for row in rows)
    path = f"/v1/auth/sessions/{signed_in['session_id']}"
    assert (await house.call("DELETE", path, token=second["access_token"])).status_code == 204
    assert await reads(house, signed_in["access_token"]) == (401, "invalid_token")
    again = await house.call("DELETE", path, token=second["access_token"])
    assert code_of(again) == (404, "not_found")


async def test_anothers_session_is_not_found(house: House, signed_in: dict[str, Any]) -> None:
    await house.add("bob@example.test", "owner")
    bobs = await house.token("bob@example.test")
    path = f"/v1/auth/sessions/{signed_in['session_id']}"
    assert code_of(await house.call("DELETE", path, token=bobs)) == (404, "not_found")
    assert await reads(house, signed_in["access_token"]) == (200, "")


@pytest.mark.parametrize("how", ["removed", "disabled", "disabled everywhere", "account suspended"])
async def test_an_access_token_ends_with_what_it_stands_on(
    house: House, signed_in: dict[str, Any], how: str
) -> None:
    user_id = signed_in["user_id"]
    if how == "account suspended":
        await house.api.post("/v1/operator/accounts/1/suspend", {}, caller="operator")
        assert await reads(house, signed_in["access_token"]) == (403, "account_suspended")
        return
    async with house.database.write() as tx:
        if how == "removed":
            await members.delete_member(tx, account_id=1, user_id=user_id)
        elif how == "disabled":
            await members.update_member(tx, account_id=1, user_id=user_id, is_enabled=False)
        else:
            await members.set_user_enabled(tx, user_id=user_id, is_enabled=False)
    assert await reads(house, signed_in["access_token"]) == (401, "invalid_token")
    assert code_of(await refresh(house, signed_in["refresh_token"])) == INVALID


async def test_another_role_holds_from_the_next_request_on(
    house: House, signed_in: dict[str, Any]
) -> None:
    token = signed_in["access_token"]
    body = {"name": "made by a person"}
    assert (await house.call("POST", "/v1/account/keys", body, token=token)).status_code == 201
    async with house.database.write() as tx:
        await members.update_member(tx, account_id=1, user_id=signed_in["user_id"], role="viewer")
    refused = await house.call("POST", "/v1/account/keys", body, token=token)
    assert code_of(refused) == (403, "insufficient_role")
    assert await reads(house, token) == (200, "")


async def test_another_password_ends_every_session_but_the_one_that_chose_it(
    house: House, signed_in: dict[str, Any]
) -> None:
    mine = await house.token(EMAIL)
    body = {"current_password": PASSWORD, "new_password": "a quite different phrase"}
    changed = await house.call("POST", "/v1/auth/password", body, token=mine)
    assert changed.status_code == 204
    assert await reads(house, mine) == (200, "")
    assert await reads(house, signed_in["access_token"]) == (401, "invalid_token")
    assert code_of(await house.try_in(EMAIL)) == (401, "invalid_credentials")
    assert (await house.try_in(EMAIL, "a quite different phrase")).status_code == 200


async def test_the_present_password_must_be_right_to_choose_another(
    house: House, signed_in: dict[str, Any]
) -> None:
    body = {"current_password": "wrong password", "new_password": "a quite different phrase"}
    token = signed_in["access_token"]
    for _ in range(9):
        refused = await house.call("POST", "/v1/auth/password", body, token=token)
        assert code_of(refused) == (401, "invalid_credentials")
    body["current_password"] = PASSWORD
    # A weak one is no try, however often it comes.
    weak = {**body, "new_password": "password1"}
    for _ in range(3):
        refused = await house.call("POST", "/v1/auth/password", weak, token=token)
        assert code_of(refused) == (422, "weak_password")
    done = await house.call("POST", "/v1/auth/password", body, token=token)
    assert done.status_code == 204
    assert (await house.call("GET", "/v1/account", token=token)).status_code == 200


async def test_an_answer_under_an_idempotency_key_outlives_the_access_token(
    house: House, signed_in: dict[str, Any], clock: Clock
) -> None:
    headers = {"idempotency-key": "once"}
    first = await house.api.call(
        "POST",
        "/v1/account/keys",
        caller=signed_in["access_token"],
        json={"name": "once"},
        headers=headers,
    )
    clock.advance(20 * 60_000)
    later = (await refresh(house, signed_in["refresh_token"])).json()["access_token"]
    again = await house.api.call(
        "POST", "/v1/account/keys", caller=later, json={"name": "once"}, headers=headers
    )
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"


async def test_of_more_than_a_hundred_sessions_the_one_unused_for_longest_ends(
    house: House, signed_in: dict[str, Any], clock: Clock
) -> None:
    async with house.database.write() as tx:
        member = await members.find_member(tx, account_id=1, user_id=signed_in["user_id"])
        assert member is not None
        for _ in range(99):
            await sessions.open_session(
                tx, people=house.people, member=member, device="", address=""
            )
    assert await reads(house, signed_in["access_token"]) == (200, "")
    clock.advance(1)
    await house.sign_in(EMAIL)
    assert await reads(house, signed_in["access_token"]) == (401, "invalid_token")
