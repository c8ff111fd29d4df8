"""venice-py 2.9.0 from the registry, sync and async, against a live server: every account call."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
from collections.abc import Callable
from typing import Any

import pytest

from tests.dialects.clients import BUILD_S, Client, Raised
from tests.dialects.conftest import LiveServer
from tests.dialects.venice_clients import PY

pytestmark = [
    # The first test of a run may have to wait for the client's installation.
    pytest.mark.timeout(BUILD_S + 60),
    # What differs between databases is tried without a client, which takes longer.
    pytest.mark.parametrize("kind", ["postgres"]),
]
HELLO = [{"role": "user", "content": "hello there"}]


@pytest.fixture(params=PY)
def client(request: pytest.FixtureRequest, venice: Callable[[str], Client]) -> Client:
    """The client, async and sync, with the ADMIN key."""
    return venice(request.param)


async def test_a_key_is_made_with_its_limits_changed_and_deleted(
    client: Client, in_process_server: LiveServer
) -> None:
    made = await client(
        "api_keys.create",
        api_key_request={
            "apiKeyType": "INFERENCE",
            "description": "Production",
            "consumptionLimit": {"usd": 12.5},
            "limitPeriod": "MONTH",
            "modelPrivacy": "ALL",
            "expiresAt": "2099-01-31",
            "ipAllowlist": ["127.0.0.1", "198.51.100.0/24"],
        },
    )
    assert made["consumptionLimit"] == {"usd": 12.5, "diem": None, "vcu": None}
    assert made["limitPeriod"] == "MONTH"
    assert made["expiresAt"] == "2099-01-31T00:00:00.000Z"
    assert made["ipAllowlist"] == ["127.0.0.1/32", "198.51.100.0/24"]
    caller = client.at(in_process_server.url, made["apiKey"])
    model = in_process_server.model
    answer = await caller("chat.completions.create", model=model, messages=HELLO)
    usage = answer["usage"]
    spent = (usage["prompt_tokens"] * 1_000 + usage["completion_tokens"] * 2_000) / 1_000_000_000

    found = await client("api_keys.retrieve", api_key_id=made["id"])
    assert (found["description"], found["last6Chars"]) == ("Production", made["apiKey"][-6:])
    assert found["consumptionLimits"]["usd"] == 12.5
    assert float(found["usage"]["trailingSevenDays"]["usd"]) == spent
    assert float(found["currentPeriodUsage"]["usd"]) == spent
    assert found["lastUsedAt"] is not None

    changed = await client(
        "api_keys.update",
        id=made["id"],
        description="Staging",
        expires_at="",
        consumption_limit={"usd": 5},
        ip_allowlist=[],
    )
    assert (changed["description"], changed["expiresAt"]) == ("Staging", None)
    assert (changed["consumptionLimits"]["usd"], changed["limitPeriod"]) == (5.0, "MONTH")
    assert changed["ipAllowlist"] == []
    assert float(changed["currentPeriodUsage"]["usd"]) == spent
    moved = await client("api_keys.update", id=made["id"], limit_period="LIFETIME")
    assert (moved["consumptionLimits"]["usd"], moved["limitPeriod"]) == (5.0, "LIFETIME")

    left = await caller("api_keys.get_rate_limits")
    assert left["data"]["balances"] == {"USD": 5.0 - spent, "DIEM": 0.0}
    assert (await client("api_keys.delete", api_key_id=made["id"]))["success"] is True
    with pytest.raises(Raised) as refused:
        await client("api_keys.retrieve", api_key_id=made["id"])
    assert (refused.value.kinds[0], refused.value.status) == ("NotFoundError", 404)


async def test_keys_are_listed_by_pages(client: Client) -> None:
    for number in range(5):
        request = {"apiKeyType": "INFERENCE", "description": f"key {number}"}
        await client("api_keys.create", api_key_request=request)
    every = [key["id"] for key in await client("api_keys.list")]
    assert len(every) == 7
    second = await client("api_keys.list", page=2, limit=3)
    assert [key["id"] for key in second] == every[3:6]
    assert [key["id"] for key in await client("api_keys.iter_all", page_size=3)] == every
    assert await client("api_keys.list", page=9, limit=3) == []


async def test_usage_is_walked_to_its_end_as_entries_and_as_csv(
    client: Client, in_process_server: LiveServer
) -> None:
    server = in_process_server
    answers = [await server.chat() for _ in range(25)]
    spent = sum(
        answer.json()["usage"]["prompt_tokens"] * 1_000
        + answer.json()["usage"]["completion_tokens"] * 2_000
        for answer in answers
    )
    page = await client("billing.get_usage_history", pageSize=10, currency="USD")
    assert (len(page["data"]), bool(page["nextCursor"])) == (10, True)
    entries = await client("billing.iter_usage_history", page_size=10)
    assert len(entries) == 25
    assert entries[:10] == page["data"]
    assert [entry["timestamp"] for entry in entries] == sorted(e["timestamp"] for e in entries)
    assert {(entry["sku"], entry["apiKeyId"]) for entry in entries} == {(server.model, "3")}
    assert round(sum(-entry["amount"] for entry in entries) * 1e9) == spent
    details = entries[0]["inferenceDetails"]
    tokens = details["promptTokens"] + details["completionTokens"]
    assert round(entries[0]["units"] * 1_000) == tokens
    price = entries[0]["pricePerUnitUsd"] * entries[0]["units"]
    assert price == pytest.approx(-entries[0]["amount"], abs=1e-9)

    pages = await client("billing.iter_usage_history_csv", page_size=10)
    assert len(pages) == 3
    assert pages[0]["filename"].startswith("billing-usage-history-")
    texts = [base64.b64decode(each["content"]["base64"]).decode() for each in map(_bytes, pages)]
    rows = [row for text in texts for row in csv.DictReader(io.StringIO(text))]
    assert [row["requestId"] for row in rows] == [
        entry["inferenceDetails"]["requestId"] for entry in entries
    ]
    assert round(sum(-float(row["amount"]) for row in rows) * 1e9) == spent
    middle = entries[7]["timestamp"]
    later = await client("billing.get_usage_history", startTimestamp=middle)
    assert later["data"][0]["timestamp"] == middle
    earlier = await client("billing.get_usage_history", endTimestamp=middle)
    assert len(earlier["data"]) + len(later["data"]) == 25
    assert (await client("billing.get_usage_history", currency="DIEM"))["data"] == []


def _bytes(page: dict[str, Any]) -> dict[str, Any]:
    """A model's bytes come as text where the client renders them itself."""
    content = page["content"]
    if isinstance(content, str):
        return {**page, "content": {"base64": base64.b64encode(content.encode()).decode()}}
    return page


async def test_balance_and_analytics(client: Client, in_process_server: LiveServer) -> None:
    await in_process_server.chat()
    balance = await client("billing.get_balance")
    assert (balance["can_consume"], balance["consumption_currency"]) == (True, "USD")
    assert 39.9 < balance["balances"]["usd"] < 40.0
    report = await client("billing.get_usage_analytics", lookback="2d")
    assert report["topModels"] == [in_process_server.model]
    assert report["byKey"][0]["apiKeyId"] == "3"
    assert report["byKey"][0]["totalUsd"] == pytest.approx(40.0 - balance["balances"]["usd"])
    days = {"startDate": report["byDate"][0]["date"], "endDate": report["byDate"][1]["date"]}
    same = await client("billing.get_usage_analytics", **days)
    assert same["lookback"] == f"{days['startDate']}:{days['endDate']}"
    assert same["byModel"] == report["byModel"]


async def test_limits_and_the_log_of_refusals(
    client: Client, in_process_server: LiveServer
) -> None:
    server = in_process_server
    body = {"scope": "key:3", "resource": "requests", "window": "hour", "limit": 1}
    assert (await server.control("PUT", "/v1/account/limits", json=body)).is_success
    caller = client.at(server.url, server.inference_key)
    limits = (await caller("api_keys.get_rate_limits"))["data"]
    assert limits["accessPermitted"] is True
    (of_model,) = [each for each in limits["rateLimits"] if each["apiModelId"] == server.model]
    amounts = {each["type"]: each["amount"] for each in of_model["rateLimits"]}
    assert (amounts["RPH"], amounts["RPM"]) == (1.0, float(2**53 - 1))
    await caller("chat.completions.create", model=server.model, messages=HELLO)
    with pytest.raises(Raised) as refused:
        await caller("chat.completions.create", model=server.model, messages=HELLO)
    assert (refused.value.kinds[0], refused.value.status) == ("RateLimitError", 429)
    assert refused.value.code == "RATE_LIMIT_EXCEEDED"
    assert 1 <= (refused.value.retry_after or 0) <= 3_600
    for _ in range(100):
        log = (await client("api_keys.get_rate_limit_logs"))["data"]
        if log:
            break
        await asyncio.sleep(0.1)
    assert (log[0]["apiKeyId"], log[0]["modelId"]) == ("3", server.model)
    assert log[0]["rateLimitType"] == "RPH"


async def test_models_have_types_and_prices(client: Client, in_process_server: LiveServer) -> None:
    listed = await client("models.list")
    assert listed["type"] == "all"
    (model,) = [each for each in listed["data"] if each["id"] == in_process_server.model]
    assert model["type"] == "text"
    assert model["model_spec"]["pricing"]["input"]["usd"] == 1.0
    assert model["model_spec"]["pricing"]["output"]["usd"] == 2.0
    assert (await client("models.list", type="image"))["data"] == []


async def test_model_calls_stream_and_their_usage_comes_last(
    client: Client, in_process_server: LiveServer
) -> None:
    server = in_process_server
    caller = client.at(server.url, server.inference_key)
    whole = await caller("chat.completions.create", model=server.model, messages=HELLO)
    chunks = await caller(
        "chat.completions.create", model=server.model, messages=HELLO, stream=True
    )
    deltas = [chunk["choices"][0]["delta"].get("content") for chunk in chunks if chunk["choices"]]
    assert "".join(each or "" for each in deltas) == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"]["total_tokens"] == whole["usage"]["total_tokens"]


async def test_refusals_are_the_clients_own_exceptions_with_their_codes(
    client: Client, in_process_server: LiveServer
) -> None:
    server = in_process_server
    ask = {"model": server.model, "messages": HELLO}

    async def refused(kind: str, status: int, code: str, name: str, **arguments: Any) -> Raised:
        with pytest.raises(Raised) as caught:
            await caller(name, **arguments)
        error = caught.value
        assert (error.kinds[0], error.status, error.code) == (kind, status, code)
        return error

    caller = client.at(server.url, "nobody's")
    unknown = ("AuthenticationError", 401, "AUTHENTICATION_FAILED")
    await refused(*unknown, "api_keys.list")
    await refused(*unknown, "chat.completions.create", **ask)
    caller = client.at(server.url, server.inference_key)
    await refused(*unknown, "api_keys.list")
    await refused(*unknown, "billing.get_balance")
    missing = {**ask, "model": "nobody-has-it"}
    await refused("NotFoundError", 404, "MODEL_NOT_FOUND", "chat.completions.create", **missing)
    caller = client
    await refused(*unknown, "chat.completions.create", **ask)
    invalid = ("InvalidRequestError", 400, "INVALID_REQUEST")
    request = {"apiKeyType": "INFERENCE", "description": "x", "consumptionLimit": {"diem": 5}}
    error = await refused(*invalid, "api_keys.create", api_key_request=request)
    assert "limit a key in usd" in error.message
    request = {"apiKeyType": "INFERENCE", "description": "x", "modelPrivacy": "PRIVATE_ONLY"}
    await refused(*invalid, "api_keys.create", api_key_request=request)
    request = {"apiKeyType": "INFERENCE", "description": "x", "expiresAt": "2020-01-01"}
    error = await refused(*invalid, "api_keys.create", api_key_request=request)
    assert "expiresAt" in error.message
    await refused("NotFoundError", 404, "NOT_FOUND", "api_keys.delete", api_key_id="999")
    await refused("NotFoundError", 404, "NOT_FOUND", "api_keys.update", id="999", description="x")

    limit = {"consumptionLimit": {"usd": 0}, "limitPeriod": "LIFETIME"}
    request = {"apiKeyType": "INFERENCE", "description": "poor", **limit}
    made = await client("api_keys.create", api_key_request=request)
    caller = client.at(server.url, made["apiKey"])
    code = "API_KEY_USD_SPEND_LIMIT_EXCEEDED"
    await refused("PaymentRequiredError", 402, code, "chat.completions.create", **ask)
    await client("api_keys.update", id=made["id"], ip_allowlist=["198.51.100.7"])
    await refused("ApiKeyIpRestrictedError", 403, "UNAUTHORIZED", "chat.completions.create", **ask)
