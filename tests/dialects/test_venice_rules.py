"""The Venice dialect in process: who may call what, what is refused and how, its odd corners."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from bursar.core.allowances import Resource
from bursar.core.secrets import KeyKind
from bursar.core.windows import Window
from bursar.dialects.venice import app, routes
from bursar.dialects.venice.fields import format_moment
from bursar.edge.calls import make_plane
from bursar.service import accounts, keys
from bursar.service.keys import KeySettings
from bursar.service.limits import allowances
from bursar.service.limits.rules import Scope
from bursar.store.database import Database
from tests.dialects import venice_stage
from tests.dialects.venice_stage import ACCOUNT_ID, PRICE, Spoken
from tests.installations import Randomness, a_charge, use

JSON = {"content-type": "application/json", "accept": "application/json"}
NEW = {"apiKeyType": "INFERENCE", "description": "new"}


@pytest.fixture
async def spoken(database: Database) -> AsyncIterator[Spoken]:
    """The dialect over an installation with a past."""
    async with venice_stage.speaking(database) as speaking:
        yield speaking


async def make(spoken: Spoken, **fields: Any) -> dict[str, Any]:
    """A key that was just made, as the answer has it."""
    response = await spoken.call("POST", "/api_keys", json={**NEW, **fields}, headers=JSON)
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


async def change(spoken: Spoken, key_id: str, **fields: Any) -> dict[str, Any]:
    """A key after a change."""
    response = await spoken.call("PATCH", "/api_keys", json={"id": key_id, **fields}, headers=JSON)
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


async def own_limits(spoken: Spoken, key_id: str) -> dict[str, int | None]:
    """What a key may spend, by window, as the ledger has it."""
    async with spoken.database.read() as tx:
        found = await allowances.list_key_limits(
            tx, account_id=ACCOUNT_ID, key_id=int(key_id), now_ms=spoken.database.clock_ms()
        )
    return {limit.allowance.ref.window: limit.allowance.limit for limit in found}


# ── Who may call ────────────────────────────────────────────────────────────────────────────────


async def test_the_application_has_the_registrys_routes_and_no_other(spoken: Spoken) -> None:
    made = routes.make(served=list, shows_totals=True)
    found = {
        (method, route.path)
        for route in spoken.application.routes
        for method in route.methods - {"HEAD"}  # type: ignore[attr-defined]
    }
    assert found == {(route.method, f"/api/v1{route.path}") for route in made}
    assert len(found) == len(made)


async def test_each_route_asks_for_its_kind_of_key(spoken: Spoken) -> None:
    operator, inference = spoken.installation.operator_key, spoken.installation.inference_key
    for route in routes.make(served=list, shows_totals=True):
        path = route.path.replace("{key_id}", "3")
        options: dict[str, Any] = {"headers": JSON, "content": b"{}"} if route.has_body else {}
        for secret in ("nobody's", operator, inference):
            response = await spoken.call(route.method, path, secret=secret, **options)
            case = (route.method, route.path, secret[:4])
            if route.kinds is None or (secret == inference and len(route.kinds) == 2):
                assert response.status_code == 200, case
            else:
                assert response.status_code == 401, case
                assert response.json()["code"] == "AUTHENTICATION_FAILED"
        anonymous = await spoken.http.request(route.method, f"/api/v1{path}", **options)
        assert anonymous.status_code == (200 if route.kinds is None else 401), route.path


async def test_another_accounts_key_looks_like_an_unknown_one(spoken: Spoken) -> None:
    async with spoken.database.write() as tx:
        other = await accounts.create(tx, name="Other", time_zone="UTC", credit_nanos=0, actor="x")
        theirs = await keys.create(
            tx, account_id=other.row.id, user_id=None, name="x", random_bytes=Randomness()
        )
    for key_id in (str(theirs.key.id), "999", "0", "03", "x", "1"):
        answers = [
            await spoken.call("GET", f"/api_keys/{key_id}"),
            await spoken.call("GET", f"/api_keys?id={key_id}"),
            await spoken.call("DELETE", f"/api_keys?id={key_id}"),
            await spoken.call("PATCH", "/api_keys", json={"id": key_id}, headers=JSON),
        ]
        for response in answers:
            assert (response.status_code, response.json()["code"]) == (404, "NOT_FOUND")
            assert "not found" in response.json()["error"].lower()


async def test_an_inference_key_sees_its_own_use_alone(spoken: Spoken) -> None:
    made = await make(spoken)
    mine = await spoken.call("GET", "/billing/usage-analytics", secret=made["apiKey"])
    assert mine.json()["byModel"] == mine.json()["byKey"] == []
    await use(spoken.database, a_charge("req_9", 5, key_id=int(made["id"]), model="gpt-test"))
    old = await spoken.call(
        "GET", "/billing/usage-analytics", secret=spoken.installation.inference_key
    )
    assert [each["apiKeyId"] for each in old.json()["byKey"]] == ["3"]


# ── Refusals ────────────────────────────────────────────────────────────────────────────────────


INVALID_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"apiKeyType": "SUPER"}, "apiKeyType"),
    ({"description": ""}, "description"),
    ({"description": 5}, "description"),
    ({"description": "x" * 256}, "description"),
    ({"consumptionLimit": 5}, "consumptionLimit"),
    ({"consumptionLimit": {"usd": -1}}, "consumptionLimit"),
    ({"consumptionLimit": {"usd": True}}, "usd"),
    ({"consumptionLimit": {"usd": "5"}}, "usd"),
    ({"consumptionLimit": {"usd": 1e-10}}, "usd"),
    ({"consumptionLimit": {"usd": 1e12}}, "usd"),
    ({"consumptionLimit": {"eur": 5}}, "consumptionLimit.eur"),
    ({"consumptionLimit": {"diem": 0}}, "consumptionLimit"),
    ({"consumptionLimit": {"vcu": 1}}, "consumptionLimit"),
    ({"limitPeriod": "WEEK"}, "limitPeriod"),
    ({"modelPrivacy": "PRIVATE_ONLY"}, "modelPrivacy"),
    ({"expiresAt": "2020-01-01"}, "expiresAt"),
    ({"expiresAt": "tomorrow"}, "expiresAt"),
    ({"expiresAt": "2027-02-30"}, "expiresAt"),
    ({"ipAllowlist": ["198.51.100.1/24"]}, "ipAllowlist"),
    ({"ipAllowlist": ["fe80::1%eth0"]}, "ipAllowlist"),
    ({"ipAllowlist": ["everywhere"]}, "ipAllowlist"),
    ({"ipAllowlist": ["198.51.100.1"] * 101}, "ipAllowlist"),
    ({"apiKeyType": "ADMIN", "consumptionLimit": {"usd": 5}}, "consumptionLimit"),
    ({"api_key_type": "ADMIN"}, "api_key_type"),
    ({"colour": "red"}, "colour"),
]
INVALID_PARAMETERS = [
    ("/api_keys?page=0", "page"),
    ("/api_keys?limit=x", "limit"),
    ("/api_keys?colour=red", "colour"),
    ("/billing/usage-history?pageSize=1001", "pageSize"),
    ("/billing/usage-history?startTimestamp=yesterday", "startTimestamp"),
    ("/billing/usage-history?startTimestamp=2026-02-30", "startTimestamp"),
    ("/billing/usage-history?currency=EUR", "currency"),
    ("/billing/usage-history?cursor=eA", "cursor"),
    ("/billing/usage?sortOrder=up", "sortOrder"),
    ("/billing/usage?limit=501", "limit"),
    ("/billing/usage-analytics?lookback=0d", "lookback"),
    ("/billing/usage-analytics?lookback=91d", "lookback"),
    ("/billing/usage-analytics?startDate=2026-01-01", "startDate"),
    ("/billing/usage-analytics?startDate=2026-01-02&endDate=2026-01-01", "endDate"),
    ("/billing/usage-analytics?startDate=2026-1-1&endDate=2026-01-01", "startDate"),
    ("/api_keys/rate_limits/log?api_key_id=x", "api_key_id"),
    ("/models?type=colour", "type"),
]
UNREADABLE: list[tuple[bytes, dict[str, str], int, str]] = [
    (b"{", JSON, 400, "INVALID_REQUEST"),
    (b'{"id":"3","id":"4"}', JSON, 400, "INVALID_REQUEST"),
    (b"[]", JSON, 400, "INVALID_REQUEST"),
    (b"{}", {"content-type": "text/plain"}, 415, "INVALID_CONTENT_TYPE"),
    (b" " * 70_000, JSON, 413, "PAYLOAD_TOO_LARGE"),
]


async def test_a_field_that_makes_no_sense_is_named_and_nothing_is_made(spoken: Spoken) -> None:
    for fields, at_fault in INVALID_FIELDS:
        response = await spoken.call("POST", "/api_keys", json={**NEW, **fields}, headers=JSON)
        assert response.status_code == 400, response.text
        said = response.json()
        assert said["code"] == "INVALID_REQUEST"
        assert list(said["details"]) == ["_errors", at_fault], fields
    assert len((await spoken.call("GET", "/api_keys")).json()["data"]) == 2


async def test_a_parameter_that_makes_no_sense_is_named(spoken: Spoken) -> None:
    for path, at_fault in INVALID_PARAMETERS:
        response = await spoken.call("GET", path, headers=JSON)
        assert response.status_code == 400, response.text
        assert list(response.json()["details"]) == ["_errors", at_fault], path


async def test_a_body_that_cannot_be_read_is_refused_in_their_words(spoken: Spoken) -> None:
    for content, headers, status, code in UNREADABLE:
        response = await spoken.call("POST", "/api_keys", content=content, headers=headers)
        assert (response.status_code, response.json()["code"]) == (status, code)
        assert isinstance(response.json()["error"], str)


async def test_paths_and_methods_that_are_not_there(spoken: Spoken) -> None:
    missing = await spoken.call("GET", "/characters")
    assert (missing.status_code, missing.json()["code"]) == (404, "NOT_FOUND")
    wrong = await spoken.call("PUT", "/api_keys")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert wrong.headers["allow"] == "DELETE, GET, HEAD, PATCH, POST"
    assert wrong.headers["x-request-id"].startswith("req_")


async def test_an_outage_never_invites_to_write_a_second_time(spoken: Spoken) -> None:
    async def away() -> None:
        raise ConnectionRefusedError

    spoken.database.add_barrier(away)
    sent = {"id": "3", "description": "other"}
    response = await spoken.call("PATCH", "/api_keys", json=sent, headers=JSON)
    assert (response.status_code, response.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert "retry-after" not in response.headers


# ── Limits of keys ──────────────────────────────────────────────────────────────────────────────


async def test_a_limit_is_the_keys_cost_limit_in_the_window_of_its_period(spoken: Spoken) -> None:
    for period, window in (("EPOCH", "day"), ("MONTH", "month"), ("LIFETIME", "lifetime")):
        made = await make(spoken, consumptionLimit={"usd": 2.5}, limitPeriod=period)
        assert (made["consumptionLimit"]["usd"], made["limitPeriod"]) == (2.5, period)
        limits = await own_limits(spoken, made["id"])
        assert limits.pop(window) == 2_500_000_000
        assert set(limits.values()) <= {None}


async def test_a_limit_moves_with_its_period_and_is_lifted_by_null(spoken: Spoken) -> None:
    made = await make(spoken, consumptionLimit={"usd": 2})
    key_id = made["id"]
    assert made["limitPeriod"] == "EPOCH"
    moved = await change(spoken, key_id, limitPeriod="MONTH")
    assert (moved["consumptionLimits"]["usd"], moved["limitPeriod"]) == (2.0, "MONTH")
    assert await own_limits(spoken, key_id) == {"lifetime": None, "month": 2_000_000_000}
    raised = await change(spoken, key_id, consumptionLimit={"usd": 3})
    assert (raised["consumptionLimits"]["usd"], raised["limitPeriod"]) == (3.0, "MONTH")
    same = await change(spoken, key_id, consumptionLimit={}, description="renamed")
    assert (same["consumptionLimits"]["usd"], same["description"]) == (3.0, "renamed")
    lifted = await change(spoken, key_id, consumptionLimit={"usd": None})
    assert lifted["consumptionLimits"]["usd"] is None
    assert await own_limits(spoken, key_id) == {"lifetime": None}
    again = await change(spoken, key_id, consumptionLimit={"usd": 1}, limitPeriod="LIFETIME")
    assert (again["consumptionLimits"]["usd"], again["limitPeriod"]) == (1.0, "LIFETIME")


async def test_limits_that_venice_does_not_know_stay_as_they_are(spoken: Spoken) -> None:
    made = await make(spoken, consumptionLimit={"usd": 2}, limitPeriod="EPOCH")
    async with spoken.database.write() as tx:
        for window, limit in ((Window.LIFETIME, 50), (Window.WEEK, 5)):
            await allowances.set_limit(
                tx,
                account_id=ACCOUNT_ID,
                scope=Scope("key", int(made["id"])),
                resource=Resource.COST,
                window=window,
                model="",
                limit=limit,
                soft=None,
            )
    shown = await change(spoken, made["id"], consumptionLimit={"usd": 1})
    assert (shown["consumptionLimits"]["usd"], shown["limitPeriod"]) == (1.0, "EPOCH")
    assert await own_limits(spoken, made["id"]) == {
        "day": 1_000_000_000,
        "lifetime": 50,
        "week": 5,
    }


async def test_a_raised_limit_keeps_what_was_used(spoken: Spoken) -> None:
    made = await make(spoken, consumptionLimit={"usd": 2}, limitPeriod="LIFETIME")
    charge = a_charge("req_9", 700_000_000, key_id=int(made["id"]), model="gpt-test")
    await use(spoken.database, charge)
    raised = await change(spoken, made["id"], consumptionLimit={"usd": 5})
    assert raised["currentPeriodUsage"]["usd"] == "0.70"
    left = await spoken.call("GET", "/api_keys/rate_limits", secret=made["apiKey"])
    assert left.json()["data"]["balances"]["USD"] == 4.3


async def test_an_admin_key_has_no_limit_and_makes_keys_for_its_own_account(
    spoken: Spoken,
) -> None:
    admin = await make(spoken, apiKeyType="ADMIN", ipAllowlist=["192.0.2.0/24"])
    made = await spoken.call("POST", "/api_keys", secret=admin["apiKey"], json=NEW, headers=JSON)
    assert made.json()["success"] is True
    refused = await spoken.call(
        "PATCH",
        "/api_keys",
        json={"id": admin["id"], "consumptionLimit": {"usd": 5}},
        headers=JSON,
    )
    assert refused.status_code == 400
    await change(spoken, admin["id"], ipAllowlist=["198.51.100.0/24"])
    away = await spoken.call("GET", "/api_keys", secret=admin["apiKey"])
    assert (away.status_code, away.json()["code"]) == (403, "UNAUTHORIZED")
    words = "This API key is restricted to configured IP addresses"
    assert away.json()["error"].startswith(words)


async def test_keys_that_a_confined_key_makes_are_as_confined(spoken: Spoken) -> None:
    async with spoken.database.write() as tx:
        confined = await keys.create(
            tx,
            account_id=ACCOUNT_ID,
            user_id=None,
            name="for tests",
            random_bytes=os.urandom,
            kind=KeyKind.PROVISIONING,
            settings=KeySettings(environment="test", models=("sandbox/*",)),
        )
    made = await spoken.call("POST", "/api_keys", secret=confined.secret, json=NEW, headers=JSON)
    assert made.status_code == 200
    async with spoken.database.read() as tx:
        key_id = int(made.json()["data"]["id"])
        row = await keys.get(tx, account_id=ACCOUNT_ID, key_id=key_id)
    assert (row.environment, row.models) == ("test", ("sandbox/*",))


async def test_a_creation_that_is_repeated_under_its_key_is_done_once(spoken: Spoken) -> None:
    headers = {**JSON, "idempotency-key": "once"}
    first = await spoken.call("POST", "/api_keys", json=NEW, headers=headers)
    second = await spoken.call("POST", "/api_keys", json=NEW, headers=headers)
    assert first.json() == second.json()
    assert len((await spoken.call("GET", "/api_keys")).json()["data"]) == 3


# ── Usage ───────────────────────────────────────────────────────────────────────────────────────


async def test_totals_are_for_clients_that_name_no_media_type_and_no_parameter(
    spoken: Spoken,
) -> None:
    path = "/billing/usage-history"
    totals = (await spoken.call("GET", path, headers={"accept": "*/*"})).json()["data"]
    assert totals["total_usage"] == 1_520
    for query, accept in (("?pageSize=10", "*/*"), ("", "application/json")):
        listed = await spoken.call("GET", path + query, headers={"accept": accept})
        assert isinstance(listed.json()["data"], list)
    as_csv = await spoken.call("GET", path, headers={"accept": "text/csv"})
    assert as_csv.headers["content-type"] == "text/csv; charset=utf-8"
    plane = make_plane(spoken.database, why_not_ready=lambda: None, metrics=bytes)
    always = app.create(plane, served=lambda: [PRICE], shows_totals=False)
    transport = httpx2.ASGITransport(app=always)
    async with httpx2.AsyncClient(transport=transport, base_url="http://bursar.test") as http:
        bearer = {"authorization": f"Bearer {spoken.installation.provisioning_key}"}
        listed = await http.get(f"/api/v1{path}", headers={**bearer, "accept": "*/*"})
    assert isinstance(listed.json()["data"], list)


async def test_a_walk_visits_each_event_once_within_its_filters(spoken: Spoken) -> None:
    first_ms = spoken.database.clock_ms() - 1_000
    events = [
        # Several of one moment: their ids order them.
        a_charge(f"req_x{number:02d}", 1, at_ms=first_ms + number // 4, model="gpt-test")
        for number in range(23)
    ]
    await use(spoken.database, *events)
    found: list[str] = []
    query = "?pageSize=10&startTimestamp=" + format_moment(first_ms)
    while query:
        page = (await spoken.call("GET", f"/billing/usage-history{query}")).json()
        found += [entry["inferenceDetails"]["requestId"] for entry in page["data"]]
        query = f"?cursor={page['nextCursor']}" if page["nextCursor"] else ""
    assert found == [event.event_id for event in events]
    both = await spoken.call("GET", "/billing/usage-history?pageSize=10&cursor=eA")
    assert (both.status_code, list(both.json()["details"])) == (400, ["_errors", "cursor"])


async def test_every_amount_adds_up_to_what_the_wallet_lost(spoken: Spoken) -> None:
    page = await spoken.call("GET", "/billing/usage-history?pageSize=1000")
    entries = json.loads(page.text, parse_float=str)["data"]
    spent = sum(round(float(entry["amount"]) * -1e9) for entry in entries)
    balance = (await spoken.call("GET", "/billing/balance")).json()
    assert spent == round(balance["total_spent"] * 1e9) == 1_520_000_008
    report = (await spoken.call("GET", "/billing/usage-analytics")).json()
    for part in ("byModel", "byKey"):
        assert sum(round(each["totalUsd"] * 1e9) for each in report[part]) == spent
    assert sum(round(each["USD"] * 1e9) for each in report["byDate"]) == spent


async def test_a_models_name_is_no_formula_in_a_spreadsheet(spoken: Spoken) -> None:
    await use(spoken.database, a_charge("req_9", 1, model="=cmd()"))
    text = (await spoken.call("GET", "/billing/usage", headers={"accept": "text/csv"})).text
    assert ",'=cmd()," in text
