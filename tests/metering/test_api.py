"""Metered events over HTTP: who may report, what becomes of each, and where it is seen."""

from __future__ import annotations

from typing import Any

import pytest

from bursar.store.database import Database
from tests.installations import INFERENCE, OPERATOR, PROVISIONING, Api
from tests.metering.meters import differences, price_all

EVENTS = "/v1/meter/events"
KEY = 3


@pytest.fixture(autouse=True)
async def prices(database: Database, api: Api) -> None:
    await price_all(database)


def event(event_id: str, **fields: object) -> dict[str, object]:
    return {"id": event_id, "product": "hippo", "quantities": {"documents": 1}, **fields}


async def report(api: Api, *events: object, caller: str = PROVISIONING) -> Any:
    return await api.post(EVENTS, {"events": list(events)}, caller=caller)


async def test_what_is_reported_is_charged_and_seen_everywhere(
    api: Api, database: Database
) -> None:
    found = await report(
        api,
        event(
            "a",
            at="2026-11-21T12:00:00Z",
            quantities={"documents": 3},
            key_id=KEY,
            labels={"team": "x"},
        ),
        event("b", product="storage", quantities={"storage_bytes": 1_000}),
    )
    assert found == {"accepted": 2, "duplicates": 0, "rejected": []}
    assert (await api.get("/v1/account/balance"))["balance"] == "99.969997"
    newest, older = (await api.get("/v1/account/usage/events"))["events"]
    assert (newest["id"], newest["key_id"], newest["cost"]) == ("b", None, "0.000003")
    assert older["quantities"] == {"documents": 3}
    assert (older["at"], older["cost"]) == ("2026-11-21T12:00:00Z", "0.03")
    assert (older["key_id"], older["product"], older["labels"]) == (KEY, "hippo", {"team": "x"})
    activity = await api.get("/v1/account/activity?fresh=true")
    assert activity["total_stats"]["total_cost"] == "0.030003"
    assert {each["model_name"]: each["total_cost"] for each in activity["top_models"]} == {
        "hippo": "0.03",
        "storage": "0.000003",
    }
    by_key = await api.get("/v1/account/usage/summary?group_by=key")
    assert [each["group"] for each in by_key["groups"]] == [KEY, None]
    statement = (await api.get("/v1/account/transactions"))["transactions"]
    assert {each["amount"] for each in statement} == {"100.00", "-0.03", "-0.000003"}
    own = await api.get("/v1/key", caller=INFERENCE)
    limits = {each["name"]: each["used"] for each in own["limits"]}
    assert limits[f"key:{KEY}/cost/lifetime"] == "0.03"
    assert await differences(database) == []


async def test_every_bad_event_is_named_with_its_place_and_a_code(api: Api) -> None:
    bad: list[tuple[object, str, str | None]] = [
        ({"id": "1"}, "missing_field", "quantities"),
        (event("2", extra=1), "unknown_field", "extra"),
        (event("3", quantities={"documents": 1.5}), "invalid_value", "quantities.documents"),
        (event("4", quantities={"documents": True}), "invalid_value", "quantities.documents"),
        (event("5", quantities={"documents": "1"}), "invalid_value", "quantities.documents"),
        (event("6", quantities={"documents": -1}), "invalid_value", "quantities"),
        (event("7", quantities={}), "invalid_value", "quantities"),
        (event("8", quantities={"pages": 1}), "model_not_priced", "quantities"),
        (event("9", product="nothing"), "model_not_priced", "product"),
        (event("10", at="yesterday"), "invalid_timestamp", "at"),
        (event("11", at="2026-01-01T00:00:00Z"), "invalid_timestamp", "at"),
        (event("12", at="2027-01-01T00:00:00Z"), "invalid_timestamp", "at"),
        (event("13", key_id=99), "not_found", "key_id"),
        (event("14", key_id=2), "not_found", "key_id"),
        (event("15", key_id=0), "invalid_value", "key_id"),
        (event("16", key_id="3"), "invalid_value", "key_id"),
        (event("17", labels={"A": "b"}), "invalid_label", "labels"),
        (event("", product="hippo"), "invalid_value", "id"),
        (event("req_18"), "invalid_value", "id"),
        (event("19", cost="0.01"), "unknown_field", "cost"),
        (event("20", account_id=2), "unknown_field", "account_id"),
        (event("21", product=None), "missing_field", "product"),
    ]
    found = await report(api, *(each for each, _, _ in bad), event("good"))
    assert (found["accepted"], found["duplicates"]) == (1, 0)
    refused = [(each["index"], each["code"], each["param"]) for each in found["rejected"]]
    assert refused == [(place, code, param) for place, (_, code, param) in enumerate(bad)]
    assert all(each["message"].endswith(".") for each in found["rejected"])
    assert (await api.get("/v1/account/balance"))["balance"] == "99.99"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"events": []},
        {"events": {}},
        {"events": ["a"]},
        {"events": [event("a")], "account_id": 1},
        {"events": [event(f"e{n}") for n in range(1_001)]},
    ],
)
async def test_a_report_that_is_no_list_of_events_is_refused_whole(
    api: Api, body: dict[str, object]
) -> None:
    response = await api.call("POST", EVENTS, json=body)
    assert response.status_code == 422, response.text
    assert (await api.get("/v1/account/balance"))["balance"] == "100.00"


async def test_a_thousand_full_events_fit_in_one_report(api: Api) -> None:
    labels = {f"label-{n}": "x" * 80 for n in range(10)}
    many = [event(f"{n:0128}", labels=labels, quantities={"documents": n}) for n in range(1_000)]
    found = await report(api, *many)
    assert found["accepted"] + len(found["rejected"]) == 1_000
    assert {each["code"] for each in found["rejected"]} == {"insufficient_quota"}
    too_long = [event(f"{n}", labels={"a": "x" * 2_200}) for n in range(1_000)]
    response = await api.call("POST", EVENTS, json={"events": too_long})
    assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("caller", [INFERENCE, OPERATOR, None])
async def test_only_who_manages_the_account_may_report(api: Api, caller: str | None) -> None:
    response = await api.call("POST", EVENTS, json={"events": [event("a")]}, caller=caller)
    assert response.status_code == 401
    assert (await api.get("/v1/account/balance"))["balance"] == "100.00"


async def test_a_report_under_an_idempotency_key_is_answered_again_and_not_carried_out(
    api: Api,
) -> None:
    body = {"events": [event("a"), event("b", quantities={"documents": 20_000})]}
    headers = {"idempotency-key": "one"}
    first = await api.call("POST", EVENTS, json=body, headers=headers)
    assert first.json()["accepted"] == 1
    await api.post("/v1/operator/accounts/1/credit", {"amount": "500.00"}, caller=OPERATOR)
    again = await api.call("POST", EVENTS, json=body, headers=headers)
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert (await api.get("/v1/account/balance"))["balance"] == "599.99"
    other = {"events": [event("c")]}
    reused = await api.call("POST", EVENTS, json=other, headers=headers)
    assert (reused.status_code, reused.json()["error"]["code"]) == (422, "idempotency_key_reused")


async def test_another_account_neither_pays_for_nor_sees_what_is_reported(api: Api) -> None:
    _, theirs = await api.open_account()
    found = await report(api, event("a", key_id=KEY), event("b", key_id=99), caller=theirs)
    mine, unknown = found["rejected"]
    assert {**mine, "index": 1} == unknown
    assert (await report(api, event("same")))["accepted"] == 1
    assert (await report(api, event("same"), caller=theirs))["accepted"] == 1
    seen = (await api.get("/v1/account/usage/events", caller=theirs))["events"]
    assert [each["id"] for each in seen] == ["same"]


async def test_a_suspended_account_reports_nothing(api: Api) -> None:
    await api.post("/v1/operator/accounts/1/suspend", None, caller=OPERATOR)
    response = await api.call("POST", EVENTS, json={"events": [event("a")]})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "account_suspended")


async def test_a_plans_defaults_bind_what_is_reported_over_http(api: Api) -> None:
    """On PostgreSQL the request sees its own account's rows alone, and the plan's none the less."""
    await api.call(
        "PUT",
        "/v1/operator/plans/1/limits",
        json={"scope": "account", "resource": "cost", "window": "day", "default_limit": "0.02"},
        caller=OPERATOR,
    )
    found = await report(api, *(event(f"e{n}", key_id=KEY) for n in range(3)))
    assert found["accepted"] == 2
    (refused,) = found["rejected"]
    assert (refused["index"], refused["code"]) == (2, "insufficient_quota")
    assert "account/cost/day" in refused["message"]


async def test_a_months_bill_is_what_left_the_wallet_for_it_by_product(api: Api) -> None:
    await api.call("PATCH", "/v1/operator/accounts/1", json={"currency": "EUR"}, caller=OPERATOR)
    await report(
        api,
        event("a", quantities={"documents": 3, "questions": 1}),
        event("b", product="storage", quantities={"storage_bytes": 7}),
        event("c", at="2026-10-31T23:59:59Z"),
    )
    bill = await api.get("/v1/account/billing")
    assert bill == {
        "starts_at": "2026-11-01T00:00:00Z",
        "ends_at": "2026-12-01T00:00:00Z",
        "first_day": "2026-11-01",
        "last_day": "2026-11-30",
        "next_invoice_on": "2026-12-01",
        "time_zone": "UTC",
        "plan_id": 1,
        "plan_name": "default",
        "currency": "USD",
        "invoice_currency": "EUR",
        "total_cost": "0.032500022",
        "products": [
            {
                "product": "hippo",
                "cost": "0.032500001",
                "events": 1,
                "quantities": {"documents": 3, "questions": 1},
            },
            {
                "product": "storage",
                "cost": "0.000000021",
                "events": 1,
                "quantities": {"storage_bytes": 7},
            },
        ],
    }
    october = await api.get("/v1/account/billing?month=2026-10")
    assert (october["total_cost"], october["last_day"]) == ("0.01", "2026-10-31")
    assert (await api.get("/v1/account/balance"))["balance"] == "99.957499978"


@pytest.mark.parametrize("month", ["2026-13", "2026-00", "2026", "26-11", "2026-11-01", "x", ""])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_is_no_month_is_refused(api: Api, month: str) -> None:
    response = await api.call("GET", f"/v1/account/billing?month={month}")
    assert (response.status_code, response.json()["error"]["param"]) == (422, "month")
