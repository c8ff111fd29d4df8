"""Nobody grants more than they have: what a provisioning key that is confined may not do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.installations import OPERATOR, Api

KEYS = "/v1/account/keys"
LIMITS = "/v1/account/limits"
PROJECTS = "/v1/account/projects"
USERS = "/v1/account/users"
# Each of these alone confines a key; requests of these tests come from 192.0.2.1.
CONFINEMENTS: dict[str, dict[str, Any]] = {
    "environment": {"environment": "test"},
    "models": {"models": ["sandbox/*"]},
    "endpoints": {"endpoints": ["chat.completions"]},
    "networks": {"networks": ["192.0.2.0/24", "2001:db8::/32"]},
    "project": {"project_id": 1},
}
LIMIT = {"resource": "requests", "window": "day", "limit": 5}
CONFINED = (403, "confined_key")
EXCEEDS = (403, "exceeds_own_rights")


@pytest.fixture
def database_url(sqlite_database_url: str) -> str:
    return sqlite_database_url


async def provisioning(api: Api, **confinement: Any) -> str:
    fields = {"name": "CI", "kind": "provisioning", **confinement}
    secret: str = (await api.post("/v1/operator/accounts/1/keys", fields, caller=OPERATOR))["key"]
    return secret


async def told(api: Api, method: str, path: str, caller: str, json: Any = None) -> tuple[int, str]:
    response = await api.call(method, path, caller=caller, json=json)
    code = response.json()["error"]["code"] if response.status_code >= 400 else ""
    return response.status_code, code


async def furnish(api: Api) -> int:
    """A project with a limit, and limits of the account and its user; the project's id is 1."""
    project = await api.post(PROJECTS, {"name": "Project"})
    for scope in ("account", "user:1", f"project:{project['id']}"):
        await api.call("PUT", LIMITS, json={**LIMIT, "scope": scope})
    return int(project["id"])


@pytest.mark.parametrize("confinement", list(CONFINEMENTS))
async def test_a_confined_key_gives_nobody_rights_that_it_has_not(
    api: Api, confinement: str
) -> None:
    project_id = await furnish(api)
    caller = await provisioning(api, **CONFINEMENTS[confinement])
    before = [await api.get(path) for path in (USERS, PROJECTS, LIMITS)]
    asked: list[tuple[str, str, Any]] = [
        ("POST", USERS, {"email": "new@example.test", "role": "owner"}),
        ("POST", USERS, {"email": "new@example.test", "role": "viewer"}),
        ("PATCH", f"{USERS}/1", {"role": "admin"}),
        ("DELETE", f"{USERS}/1", None),
        ("GET", "/v1/account/invitations", None),
        ("DELETE", "/v1/account/invitations/1", None),
        ("POST", PROJECTS, {"name": "Another"}),
        ("PATCH", f"{PROJECTS}/{project_id}", {"name": "Renamed"}),
        ("DELETE", f"{PROJECTS}/{project_id}", None),
        ("POST", f"{PROJECTS}/{project_id}/members", {"user_id": 1}),
        ("DELETE", f"{PROJECTS}/{project_id}/members/1", None),
    ]
    for scope in ("account", "user:1", f"project:{project_id}"):
        place = f"scope={scope}&resource=requests&window=day"
        asked += [
            ("PUT", LIMITS, {**LIMIT, "scope": scope, "limit": 50}),
            ("DELETE", f"{LIMITS}?{place}", None),
        ]
    for method, path, body in asked:
        assert await told(api, method, path, caller, body) == CONFINED, (method, path, body)
    assert [await api.get(path) for path in (USERS, PROJECTS, LIMITS)] == before
    assert before[0] == await api.get(USERS, caller=caller)


@pytest.mark.parametrize("confinement", list(CONFINEMENTS))
async def test_a_confined_key_can_stop_keys_that_may_do_more_and_nothing_else(
    api: Api, confinement: str
) -> None:
    await furnish(api)
    caller = await provisioning(api, **CONFINEMENTS[confinement])
    key = f"{KEYS}/{(await api.post(KEYS, {'name': 'Wide', 'description': 'd'}))['id']}"
    scope = {"scope": key.replace(f"{KEYS}/", "key:")}
    assert (await told(api, "GET", key, caller))[0] == 200
    assert (await told(api, "PATCH", key, caller, {"name": "Renamed"}))[0] == 200
    assert (await told(api, "PATCH", key, caller, {"is_enabled": False}))[0] == 200
    before = await api.get(key)
    for change in (
        {"is_enabled": True},
        {"credit_limit": 5},
        {"credit_limit": None},
        {"name": "x", "is_enabled": True},
        {"is_enabled": False, "credit_limit": 500},
    ):
        assert await told(api, "PATCH", key, caller, change) == EXCEEDS, change
    assert await told(api, "POST", f"{key}/rotate", caller, {}) == EXCEEDS
    assert await told(api, "PUT", LIMITS, caller, {**LIMIT, **scope}) == EXCEEDS
    place = f"scope={scope['scope']}&resource=cost&window=lifetime"
    await api.call("PATCH", key, json={"credit_limit": 1})
    assert await told(api, "DELETE", f"{LIMITS}?{place}", caller) == EXCEEDS
    await api.call("PATCH", key, json={"credit_limit": None})
    assert await api.get(key) == before
    assert (await told(api, "DELETE", key, caller))[0] == 204


@pytest.mark.parametrize("confinement", list(CONFINEMENTS))
async def test_a_confined_key_does_all_with_keys_that_are_confined_as_it_is(
    api: Api, confinement: str
) -> None:
    await furnish(api)
    caller = await provisioning(api, **CONFINEMENTS[confinement])
    fields = {"name": "Own", **CONFINEMENTS[confinement]}
    made = await api.post(KEYS, fields, caller=caller)
    key = f"{KEYS}/{made['id']}"
    limit = {**LIMIT, "scope": f"key:{made['id']}"}
    for change in ({"is_enabled": False}, {"is_enabled": True}, {"credit_limit": 5}):
        assert (await told(api, "PATCH", key, caller, change))[0] == 200
    assert (await told(api, "PUT", LIMITS, caller, limit))[0] == 200
    place = f"scope={limit['scope']}&resource=requests&window=day"
    assert (await told(api, "DELETE", f"{LIMITS}?{place}", caller))[0] == 204
    assert (await told(api, "POST", f"{key}/rotate", caller, {}))[0] == 200


async def test_keys_of_a_key_with_networks_are_for_those_networks(api: Api) -> None:
    caller = await provisioning(api, **CONFINEMENTS["networks"])
    for networks in (["192.0.2.7"], ["192.0.2.128/25", "2001:db8:1::/48"], ["192.0.2.0/24"]):
        made = await api.post(KEYS, {"name": "Key", "networks": networks}, caller=caller)
        path = f"{KEYS}/{made['id']}"
        for wider in (None, ["192.0.0.0/16"], ["192.0.2.7", "198.51.100.1"], ["2001:db8::/31"]):
            found = await told(api, "POST", KEYS, caller, {"name": "Key", "networks": wider})
            assert found == EXCEEDS, wider
            found = await told(api, "PATCH", path, caller, {"networks": wider})
            assert found == EXCEEDS, wider
    assert await told(api, "POST", KEYS, caller, {"name": "No networks"}) == EXCEEDS


async def test_a_key_that_may_do_more_is_not_widened_where_the_caller_is_not_confined(
    api: Api,
) -> None:
    caller = await provisioning(api, **CONFINEMENTS["models"])
    made = await api.post(KEYS, {"name": "Wide", "endpoints": ["embeddings"]})
    path = f"{KEYS}/{made['id']}"
    assert await told(api, "PATCH", path, caller, {"endpoints": None}) == EXCEEDS
    # Less than it had is no more than anybody has.
    await api.call("PATCH", path, json={"endpoints": None})
    assert (await told(api, "PATCH", path, caller, {"endpoints": ["embeddings"]}))[0] == 200
    assert (await told(api, "PATCH", path, caller, {"models": ["sandbox/echo"]}))[0] == 200
    assert (await told(api, "PATCH", path, caller, {"endpoints": None}))[0] == 200


async def test_an_expiry_confines_nothing_but_how_long_its_keys_live(api: Api) -> None:
    caller = await provisioning(api, expires_at="2027-01-01T00:00:00Z")
    invitation = {"email": "new@example.test", "role": "viewer"}
    assert (await told(api, "POST", USERS, caller, invitation))[0] == 202
    assert (await told(api, "POST", PROJECTS, caller, {"name": "Project"}))[0] == 201
    limit = {**LIMIT, "scope": "account"}
    assert (await told(api, "PUT", LIMITS, caller, limit))[0] == 200
    made = await api.post(KEYS, {"name": "Older"})
    path = f"{KEYS}/{made['id']}"
    for change in ({"is_enabled": True}, {"credit_limit": 5}, {"models": ["sandbox/*"]}):
        assert (await told(api, "PATCH", path, caller, change))[0] == 200
    assert await told(api, "PATCH", path, caller, {"expires_at": None}) == EXCEEDS
    assert await told(api, "POST", f"{path}/rotate", caller, {}) == EXCEEDS
    assert await told(api, "POST", KEYS, caller, {"name": "For ever"}) == EXCEEDS
