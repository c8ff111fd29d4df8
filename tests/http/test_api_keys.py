"""Keys over HTTP: NagaAI's shapes, exact amounts, strict fields."""

from __future__ import annotations

import json

from tests.databases import Clock
from tests.installations import INFERENCE, OPERATOR, Api

# The six of NagaAI's documentation, and ours.
FIELDS = {
    *("id", "name", "created_at", "expires_at", "is_enabled", "credit_limit"),
    *("user_id", "project_id", "environment", "description", "hint", "labels", "label_names"),
    *("models", "endpoints", "networks", "rotated_at", "previous_secret_until", "leaked_at"),
    *("last_used_at", "spent_7_days", "limits"),
}


async def test_a_key_is_made_shown_changed_and_deleted_as_documented(api: Api) -> None:
    response = await api.call(
        "POST",
        "/v1/account/keys",
        json={
            "name": "Production API Key",
            "credit_limit": 500.00,
            "expires_at": "2027-01-20T15:45:00+01:00",
        },
    )
    assert response.status_code == 201
    made = response.json()
    assert set(made) == FIELDS | {"key", "message"}
    assert made["key"].startswith("bsk_")
    assert made["message"] == "Store this key securely. It will not be shown again."
    assert made["created_at"] == "2026-11-21T12:34:56Z"
    assert made["expires_at"] == "2027-01-20T14:45:00Z"
    assert made["is_enabled"] is True
    assert b'"credit_limit":500.00' in response.content

    path = f"/v1/account/keys/{made['id']}"
    shown = {name: made[name] for name in FIELDS}
    assert await api.get(path) == shown
    assert shown in (await api.get("/v1/account/keys"))["keys"]
    assert made["key"] not in json.dumps(await api.get("/v1/account/keys"))

    response = await api.call(
        "PATCH",
        path,
        json={"name": "Updated Key Name", "is_enabled": False, "credit_limit": 200.00},
    )
    assert response.status_code == 200
    changed = {"name": "Updated Key Name", "is_enabled": False, "credit_limit": 200.0}
    limits = [{**shown["limits"][0], "limit": "200.00", "left": "200.00"}]
    assert response.json() == {**shown, **changed, "limits": limits}

    response = await api.call("DELETE", path)
    assert (response.status_code, response.content) == (204, b"")
    assert "content-type" not in response.headers
    assert (await api.call("GET", path)).status_code == 404
    assert (await api.call("DELETE", path)).status_code == 404


async def test_absent_is_unchanged_and_null_lifts_limits_only(api: Api) -> None:
    made = await api.post(
        "/v1/account/keys",
        {"name": "Key", "credit_limit": 5, "expires_at": "2027-01-01T00:00:00Z"},
    )
    path = f"/v1/account/keys/{made['id']}"
    before = await api.get(path)
    for unchanged in ({}, {"name": None}, {"is_enabled": None}):
        assert (await api.call("PATCH", path, json=unchanged)).json() == before
    lifted = (await api.call("PATCH", path, json={"credit_limit": None})).json()
    limits = [{**before["limits"][0], "limit": None, "left": None}]
    assert lifted == {**before, "credit_limit": None, "limits": limits}
    lifted = (await api.call("PATCH", path, json={"expires_at": None})).json()
    assert lifted == {**before, "credit_limit": None, "limits": limits, "expires_at": None}


async def test_a_change_of_the_wrong_type_is_refused(api: Api) -> None:
    for fields in ({"is_enabled": 1}, {"is_enabled": "true"}, {"name": 5}):
        response = await api.call("PATCH", "/v1/account/keys/3", json=fields)
        assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_value")


async def test_a_key_sees_itself_and_not_the_balance(api: Api, clock: Clock) -> None:
    await api.call("PATCH", "/v1/account/keys/3", json={"credit_limit": 5})
    seen = await api.get("/v1/key", caller=INFERENCE)
    limit = {
        "name": "key:3/cost/lifetime",
        "scope": "key:3",
        "resource": "cost",
        "unit": "usd",
        "window": "lifetime",
        "model": None,
        "limit": "5.00",
        "soft_limit": None,
        "used": "0.00",
        "leased": "0.00",
        "left": "5.00",
        "origin": "own",
        "resets_at": None,
        "next_resets": [],
    }
    assert seen == {
        "id": 3,
        "name": "First inference key",
        "created_at": "2026-11-21T12:34:56Z",
        "expires_at": None,
        "limits": [limit],
    }
    assert "100.00" not in json.dumps(seen)


async def test_an_operator_makes_keys_of_both_kinds(api: Api) -> None:
    for kind, prefix in (("inference", "bsk_"), ("provisioning", "bpk_")):
        made = await api.post(
            "/v1/operator/accounts/1/keys", {"name": "Key", "kind": kind}, caller=OPERATOR
        )
        assert made["key"].startswith(prefix)
    assert len((await api.get("/v1/account/keys", caller=made["key"]))["keys"]) == 2
    refused = {
        "operator": ({"name": "x", "kind": "operator"}, 422),
        "limit": ({"name": "x", "kind": "provisioning", "credit_limit": 1}, 422),
        "unknown": ({"name": "x", "role": "admin"}, 422),
    }
    for fields, status in refused.values():
        response = await api.call(
            "POST", "/v1/operator/accounts/1/keys", json=fields, caller=OPERATOR
        )
        assert response.status_code == status
    response = await api.call(
        "POST", "/v1/operator/accounts/9/keys", json={"bogus": 1}, caller=OPERATOR
    )
    assert response.status_code == 404
