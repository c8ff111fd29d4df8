"""The operator's accounts over HTTP: what is agreed with them, and how they end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.installations import INFERENCE, OPERATOR, PROVISIONING, Api

ACCOUNTS = "/v1/operator/accounts"
ONE = f"{ACCOUNTS}/1"


async def change(api: Api, **fields: object) -> Any:
    response = await api.call("PATCH", ONE, json=fields, caller=OPERATOR)
    assert response.status_code == 200, response.text
    return response.json()


async def test_an_account_is_opened_with_what_is_agreed(api: Api) -> None:
    opened = await api.post(
        ACCOUNTS,
        {"name": "Acme", "currency": "EUR", "features": {"max_users": 5, "beta": True}},
        caller=OPERATOR,
    )
    assert (opened["currency"], opened["features"]) == ("EUR", {"beta": True, "max_users": 5})
    assert await api.get(f"{ACCOUNTS}/{opened['id']}", caller=OPERATOR) == opened


async def test_an_account_sees_its_own_terms_and_cannot_change_them(api: Api) -> None:
    await change(api, currency="CHF", features={"hippo_enabled": True})
    seen = await api.get("/v1/account")
    assert (seen["currency"], seen["features"]) == ("CHF", {"hippo_enabled": True})
    for method, path in (("PATCH", "/v1/account"), ("PATCH", ONE), ("POST", f"{ONE}/cancel")):
        for caller in (PROVISIONING, INFERENCE, None):
            response = await api.call(method, path, json={"features": {}}, caller=caller)
            assert response.status_code in {401, 404, 405}, (method, path, caller)
    assert await api.get("/v1/account") == seen


async def test_named_features_change_and_others_stay(api: Api) -> None:
    await change(api, features={"a": 1, "b": "x"})
    after = await change(api, features={"a": None, "c": False}, name="Renamed")
    assert (after["features"], after["name"]) == ({"b": "x", "c": False}, "Renamed")
    assert (await change(api, time_zone="Europe/Rome"))["features"] == {"b": "x", "c": False}


@pytest.mark.parametrize(
    "fields",
    [
        {"currency": "euro"},
        {"currency": 978},
        {"features": {"Not A Name": 1}},
        {"features": {"a": [1]}},
        {"features": {"a": 0.5}},
        {"features": "all"},
        {"status": "active"},
        {"balance": "1.00"},
    ],
)
async def test_a_refused_change_changes_nothing(api: Api, fields: dict[str, object]) -> None:
    before = await api.get(ONE, caller=OPERATOR)
    sent = {"name": "Never", **fields}
    response = await api.call("PATCH", ONE, json=sent, caller=OPERATOR)
    assert response.status_code == 422, response.text
    assert await api.get(ONE, caller=OPERATOR) == before


async def test_a_cancelled_account_is_refused_for_good(api: Api) -> None:
    assert (await api.post(f"{ONE}/cancel", None, caller=OPERATOR))["status"] == "cancelled"
    refused = await api.call("GET", "/v1/account")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "account_suspended")
    for step in ("resume", "suspend", "cancel"):
        response = await api.call("POST", f"{ONE}/{step}", caller=OPERATOR)
        assert response.status_code == 409
        assert response.json()["error"]["code"] == "account_cancelled"
    assert (await api.get(ONE, caller=OPERATOR))["status"] == "cancelled"
