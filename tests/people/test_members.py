"""Roles: who may do what in an account, at writing and at use, on every route."""

from __future__ import annotations

import asyncio
import re
from itertools import product

import pytest

from bursar.api.registry import Route
from bursar.api.routes import ROUTES
from bursar.core.people import roles
from bursar.core.people.roles import Role
from bursar.core.secrets import KeyKind
from bursar.edge.calls import default_action
from bursar.service import keys
from bursar.service.access import ProvisioningPrincipal, UserPrincipal
from bursar.store.people import members
from bursar.store.tenants import users
from tests.installations import INFERENCE, OPERATOR, Randomness
from tests.people.house import House, code_of

OF_ACCOUNTS = [
    route
    for route in ROUTES
    if isinstance(route.principal, type) and issubclass(route.principal, ProvisioningPrincipal)
]
LAST_OWNER = (409, "last_owner")
BEYOND = (403, "exceeds_own_role")
NOT_FOUND = (404, "not_found")


def address(route: Route) -> str:
    """A path of the route with ids that nobody has."""
    return re.sub(r"\{\w+\}", "999999", route.path)


async def change(house: House, token: str, user_id: int, **fields: object) -> tuple[int, str]:
    """Change a user."""
    response = await house.call("PATCH", f"/v1/account/users/{user_id}", fields, token=token)
    return (200, "") if response.status_code == 200 else code_of(response)


async def remove(house: House, token: str, who: int | str) -> tuple[int, str]:
    """Remove a user."""
    response = await house.call("DELETE", f"/v1/account/users/{who}", token=token)
    return (204, "") if response.status_code == 204 else code_of(response)


async def test_every_route_asks_for_the_role_that_the_table_says_and_for_no_key_of_another_kind(
    house: House,
) -> None:
    tokens = {}
    for role in Role:
        await house.add(f"{role}@example.test", role)
        tokens[role] = await house.token(f"{role}@example.test")
    for route in OF_ACCOUNTS:
        if route.path in {"/v1/auth/logout-all", "/v1/account/users/me"}:
            continue
        needed = route.action or default_action(route.method)
        for role, token in tokens.items():
            body = {"bogus": 1} if route.body else None
            response = await house.call(route.method, address(route), body, token=token)
            is_refused = (
                response.status_code == 403
                and response.json()["error"]["code"] == "insufficient_role"
            )
            assert is_refused is not roles.may(role, needed), (route.method, route.path, role)
            assert response.status_code not in {401, 500}, (route.method, route.path, role)


async def test_whoever_has_signed_in_calls_neither_models_nor_the_operators_routes(
    house: House,
) -> None:
    await house.add("ann@example.test", "owner")
    token = await house.token("ann@example.test")
    for path in ("/v1/key", "/v1/operator/accounts"):
        refused = await house.call("GET", path, token=token)
        assert code_of(refused) == (401, "wrong_key_type")


async def test_routes_about_oneself_take_no_key(house: House) -> None:
    own = [route for route in ROUTES if route.principal is UserPrincipal]
    assert len(own) >= 8
    for route in own:
        body = {} if route.body else None
        for caller in ("provisioning", INFERENCE, OPERATOR):
            response = await house.api.call(route.method, address(route), caller=caller, json=body)
            assert code_of(response) == (401, "wrong_key_type"), (route.path, caller)


async def test_nobody_gives_or_takes_a_role_beyond_their_own(house: House) -> None:
    ids = {role: await house.add(f"{role}@example.test", role) for role in Role}
    for by, of, to in product((Role.OWNER, Role.ADMIN), Role, Role):
        token = await house.token(f"{by}@example.test")
        if ids[of] == ids[by]:
            continue
        found = await change(house, token, ids[of], role=to)
        allowed = by is Role.OWNER or Role.OWNER not in {of, to}
        assert found == ((200, "") if allowed else BEYOND), (by, of, to)
        async with house.database.write() as tx:
            await members.update_member(tx, account_id=1, user_id=ids[of], role=of)


async def test_the_last_owner_neither_leaves_nor_steps_down_nor_is_shut_out(house: House) -> None:
    own = await house.add("owner@example.test", "owner")
    token = await house.token("owner@example.test")
    # The installation's first user owns the account, too.
    assert await change(house, token, 1, role="viewer") == (200, "")
    assert await change(house, token, own, role="admin") == LAST_OWNER
    assert await change(house, token, own, is_enabled=False) == LAST_OWNER
    assert await remove(house, token, own) == LAST_OWNER
    assert await remove(house, token, "me") == LAST_OWNER
    assert await change(house, token, 1, role="owner") == (200, "")
    assert await remove(house, token, "me") == (204, "")


async def test_an_owner_whom_the_operator_lets_in_nowhere_is_none_to_leave_the_account_to(
    house: House,
) -> None:
    own = await house.add("owner@example.test", "owner")
    token = await house.token("owner@example.test")
    async with house.database.write() as tx:
        await members.set_user_enabled(tx, user_id=1, is_enabled=False)
    assert await change(house, token, own, role="admin") == LAST_OWNER
    assert await remove(house, token, "me") == LAST_OWNER
    async with house.database.write() as tx:
        await members.set_user_enabled(tx, user_id=1, is_enabled=True)
    assert await remove(house, token, "me") == (204, "")


async def test_of_two_owners_who_remove_each_other_at_once_one_stays(house: House) -> None:
    one = await house.add("one@example.test", "owner")
    two = await house.add("two@example.test", "owner")
    token_one, token_two = [await house.token(f"{n}@example.test") for n in ("one", "two")]
    assert await remove(house, token_one, 1) == (204, "")
    found = await asyncio.gather(remove(house, token_one, two), remove(house, token_two, one))
    assert found.count((204, "")) <= 1
    async with house.database.read() as tx:
        left = await members.list_members(tx, account_id=1, after_id=0, limit=9)
    assert [row.role for row in left].count("owner") >= 1


async def test_a_removed_users_provisioning_keys_end_at_once_and_inference_keys_go_on(
    house: House,
) -> None:
    await house.add("owner@example.test", "owner")
    user_id = await house.add("ann@example.test", "admin")
    made = {}
    async with house.database.write() as tx:
        for number, kind in enumerate((KeyKind.PROVISIONING, KeyKind.INFERENCE)):
            random_bytes = Randomness()
            random_bytes.calls = 500 + number
            new = await keys.create(
                tx,
                account_id=1,
                user_id=user_id,
                name="Ann's",
                random_bytes=random_bytes,
                kind=kind,
            )
            made[kind] = new.secret
    paths = {KeyKind.PROVISIONING: "/v1/account", KeyKind.INFERENCE: "/v1/key"}
    for kind, path in paths.items():
        assert (await house.api.call("GET", path, caller=made[kind])).status_code == 200
    token = await house.token("owner@example.test")
    assert await remove(house, token, user_id) == (204, "")
    gone = await house.api.call("GET", "/v1/account", caller=made[KeyKind.PROVISIONING])
    assert code_of(gone) == (401, "invalid_api_key")
    stays = await house.api.call("GET", "/v1/key", caller=made[KeyKind.INFERENCE])
    assert stays.status_code == 200
    # Whoever comes back does not get the keys back.
    async with house.database.write() as tx:
        await users.insert_member(tx, account_id=1, user_id=user_id, role="owner")
    gone = await house.api.call("GET", "/v1/account", caller=made[KeyKind.PROVISIONING])
    assert code_of(gone) == (401, "invalid_api_key")


async def test_a_provisioning_key_may_do_what_its_user_may_at_that_moment(house: House) -> None:
    await house.add("owner@example.test", "owner")
    body = {"name": "x"}
    key = "provisioning"
    assert (await house.api.call("POST", "/v1/account/keys", json=body)).status_code == 201
    async with house.database.write() as tx:
        await members.update_member(tx, account_id=1, user_id=1, role="viewer")
    refused = await house.api.call("POST", "/v1/account/keys", json=body, caller=key)
    assert code_of(refused) == (403, "insufficient_role")
    assert (await house.api.call("GET", "/v1/account", caller=key)).status_code == 200
    async with house.database.write() as tx:
        await members.update_member(tx, account_id=1, user_id=1, is_enabled=False)
    refused = await house.api.call("GET", "/v1/account", caller=key)
    assert code_of(refused) == (401, "invalid_api_key")


async def test_another_accounts_user_answers_as_an_unknown_one(house: House) -> None:
    account_id, _ = await house.api.open_account()
    stranger = await house.add("bob@example.test", "owner", account_id=account_id)
    await house.add("ann@example.test", "owner")
    token = await house.token("ann@example.test")
    for method, body in (
        ("GET", None),
        ("PATCH", {"role": "owner"}),
        ("PATCH", {"bogus": 1}),
        ("DELETE", None),
    ):
        answers = set()
        for user_id in (stranger, 999_999):
            response = await house.call(method, f"/v1/account/users/{user_id}", body, token=token)
            found = response.json()
            found["error"].pop("request_id")
            answers.add((response.status_code, str(found)))
        assert len(answers) == 1, method
        assert next(iter(answers))[0] == 404


@pytest.mark.parametrize(
    "field", ["email", "id", "password_hash", "account_id", "created_at", "disabled_ms"]
)
async def test_a_user_is_changed_in_no_other_field(house: House, field: str) -> None:
    user_id = await house.add("ann@example.test", "viewer")
    await house.add("owner@example.test", "owner")
    token = await house.token("owner@example.test")
    found = await change(house, token, user_id, role="admin", **{field: "x"})
    assert found == (422, "unknown_field")
    shown = await house.call("GET", f"/v1/account/users/{user_id}", token=token)
    assert shown.json()["role"] == "viewer"


async def test_somebody_changes_their_own_name_and_nothing_else_of_themselves(
    house: House,
) -> None:
    await house.add("ann@example.test", "viewer")
    token = await house.token("ann@example.test")
    path = "/v1/account/users/me"
    named = await house.call("PATCH", path, {"name": " Ann Lee "}, token=token)
    assert named.json()["name"] == "Ann Lee"
    refused = await house.call("PATCH", path, {"name": "Ann", "role": "owner"}, token=token)
    assert code_of(refused) == (422, "unknown_field")


async def test_users_are_listed_page_by_page(house: House) -> None:
    for number in range(5):
        await house.add(f"user{number}@example.test")
    token = await house.token("user0@example.test")
    seen: list[int] = []
    path = "/v1/account/users?limit=2"
    while True:
        page = (await house.call("GET", path, token=token)).json()
        seen += [row["id"] for row in page["users"]]
        if page["next_cursor"] is None:
            break
        path = f"/v1/account/users?limit=2&cursor={page['next_cursor']}"
    assert seen == [1, 2, 3, 4, 5, 6]


async def test_a_member_makes_rotates_and_deletes_their_own_keys_and_no_others(
    house: House,
) -> None:
    user_id = await house.add("ann@example.test", "member")
    token = await house.token("ann@example.test")
    path = "/v1/account/keys"
    made = (await house.call("POST", path, {"name": "mine"}, token=token)).json()
    assert made["user_id"] == user_id
    for others in ({"name": "x", "user_id": 1}, {"name": "x", "user_id": None}):
        refused = await house.call("POST", path, others, token=token)
        assert code_of(refused) == (403, "exceeds_own_rights")
    anothers = await house.api.post(path, {"name": "another's"})
    for key_id, is_own in ((made["id"], True), (anothers["id"], False)):
        changed = await house.call("PATCH", f"{path}/{key_id}", {"name": "y"}, token=token)
        assert code_of(changed) == (403, "insufficient_role")
        rotated = await house.call("POST", f"{path}/{key_id}/rotate", {}, token=token)
        deleted = await house.call("DELETE", f"{path}/{key_id}", token=token)
        found = (rotated.status_code, deleted.status_code)
        assert found == ((200, 204) if is_own else (403, 403))
