"""venice-sdk 0.3.3 from the registry against a live server: every account call that it has.

Its seed says more than it can do (`seeds/venice-sdk-account-api.md`): where the client throws away
what the server sends, as a new key's secret, the tests read it with the client's own HTTP methods.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.dialects.clients import BUILD_S, Client, Raised
from tests.dialects.conftest import LiveServer
from tests.dialects.venice_clients import SDK

pytestmark = [
    # The first test of a run may have to wait for the client's installation.
    pytest.mark.timeout(BUILD_S + 60),
    # What differs between databases is tried without a client, which takes longer.
    pytest.mark.parametrize("kind", ["sqlite"]),
]
Venice = Callable[[str], Client]
HELLO = [{"role": "user", "content": "hello there"}]


async def test_keys_are_listed_made_found_and_deleted(venice: Venice) -> None:
    sdk = venice(SDK)
    before = await sdk("api_keys.list")
    assert [(key["id"], key["permissions"]) for key in before] == [
        ("2", {"type": "ADMIN"}),
        ("3", {"type": "INFERENCE"}),
    ]

    made = await sdk("api_keys.create", name="My New Key", permissions=["read", "write"])
    assert (made["name"], made["permissions"]) == ("My New Key", {"type": "INFERENCE"})
    assert made["rate_limits"] == {"usd": None, "diem": None, "vcu": None}
    admin = await sdk("api_keys.create", name="Admin Key", permissions=["Admin"])
    assert admin["permissions"] == {"type": "ADMIN"}

    found = await sdk("api_keys.get", key_id=made["id"])
    assert (found["id"], found["name"], found["is_active"]) == (made["id"], "My New Key", True)
    assert found["created_at"] == made["created_at"]
    assert [key["id"] for key in await sdk("api_keys.list")] == ["2", "3", made["id"], admin["id"]]

    assert await sdk("api_keys.delete", key_id=made["id"]) is True
    assert await sdk("api_keys.delete", key_id=admin["id"]) is True
    assert await sdk("api_keys.get", key_id=made["id"]) is None
    assert await sdk("api_keys.list") == before


async def test_the_secret_that_the_client_drops_is_in_the_answer_and_works(
    venice: Venice, in_process_server: LiveServer
) -> None:
    sdk = venice(SDK)
    sent = {"apiKeyType": "INFERENCE", "description": "raw"}
    made = (await sdk("http.post", endpoint="/api_keys", data=sent))["data"]
    assert made["apiKey"].endswith(made["last6Chars"])
    caller = sdk.at(in_process_server.url, made["apiKey"])
    answer = await caller("chat.complete", messages=HELLO, model=in_process_server.model)
    assert answer["choices"][0]["message"]["content"]
    limits = await caller("api_keys.get_rate_limits")
    assert limits["requests_per_minute"] > 0


async def test_usage_and_credits_are_whole_thousandths_of_a_usd(
    venice: Venice, in_process_server: LiveServer
) -> None:
    sdk, server = venice(SDK), in_process_server
    spent = 0
    for _ in range(3):
        answer = await server.chat()
        usage = answer.json()["usage"]
        spent += usage["prompt_tokens"] * 1_000 + usage["completion_tokens"] * 2_000
    usage = await sdk("billing.get_usage")
    assert usage["total_usage"] == spent // 1_000_000
    assert usage["credits_remaining"] == (40_000_000_000 - spent) // 1_000_000
    assert usage["usage_by_model"][server.model]["requests"] == 3
    assert usage["billing_period_start"].endswith("-01T00:00:00+00:00")
    assert usage["current_period"] == usage["billing_period_start"][:7]
    assert await sdk("billing.get_credits_remaining") == usage["credits_remaining"]
    assert await sdk("billing.get_total_usage") == usage["total_usage"]
    by_model = await sdk("billing.get_usage_by_model")
    assert by_model[server.model]["requests"] == 3
    assert by_model[server.model]["tokens"] == usage["usage_by_model"][server.model]["tokens"]
    assert (await sdk("billing.get_pagination_info"))["total"] == 3


async def test_usage_that_is_filtered_is_a_list_of_entries(
    venice: Venice, in_process_server: LiveServer
) -> None:
    sdk, server = venice(SDK), in_process_server
    for _ in range(12):
        assert (await server.chat()).status_code == 200
    page = await sdk("billing.get_usage_history", page_size=10)
    assert len(page["data"]) == 10
    assert page["nextCursor"]
    rest = await sdk("billing.get_usage_history", cursor=page["nextCursor"])
    assert len(rest["data"]) == 2
    assert rest["nextCursor"] is None
    times = [entry["timestamp"] for entry in page["data"] + rest["data"]]
    assert times == sorted(times)
    usage = await sdk(
        "billing.get_usage",
        start_date={"at": "2020-01-01T00:00:00"},
        end_date={"at": "2099-01-01T00:00:00"},
        currency="USD",
    )
    assert usage["usage_by_model"][server.model]["requests"] == 12
    assert usage["current_period"] == "current"
    paged = await sdk("billing.get_usage", limit=10)
    assert paged["pagination"] == {"nextCursor": page["nextCursor"]}


async def test_balance_and_summary_have_the_fields_of_both_versions(venice: Venice) -> None:
    sdk = venice(SDK)
    balance = await sdk("billing.get_balance")
    assert balance["canConsume"] is True
    assert balance["balances"] == {"usd": 40.0, "diem": None}
    assert (balance["current_balance"], balance["total_spent"]) == (40.0, 0.0)
    assert balance["subscription_status"] == "active"
    assert await sdk("billing.get_billing_summary") == balance
    assert (await sdk("http.get", endpoint="/billing/summary"))["data"] == balance


async def test_analytics_are_by_day_model_and_key(
    venice: Venice, in_process_server: LiveServer
) -> None:
    sdk, server = venice(SDK), in_process_server
    await server.chat()
    report = await sdk("billing.get_usage_analytics", lookback="3d")
    assert (report["lookback"], len(report["byDate"])) == ("3d", 3)
    assert report["topModels"] == [server.model]
    assert report["topKeyNames"] == ["First inference key"]
    cost = report["byModel"][0]["totalUsd"]
    assert cost == report["byDate"][-1]["USD"] == report["byKey"][0]["totalUsd"] > 0
    assert report["byModelDailyUsd"][-1][server.model] == cost
    day = report["byDate"][-1]["date"]
    same = await sdk("billing.get_usage_analytics", start_date=day, end_date=day)
    assert same["byModel"] == report["byModel"]


async def test_limits_that_are_set_are_shown_and_their_refusals_logged(
    venice: Venice, in_process_server: LiveServer
) -> None:
    sdk, server = venice(SDK), in_process_server
    for resource, window, limit in (
        ("requests", "minute", 60),
        ("requests", "day", 2),
        ("tokens", "minute", 100_000),
    ):
        body = {"scope": "key:3", "resource": resource, "window": window, "limit": limit}
        assert (await server.control("PUT", "/v1/account/limits", json=body)).is_success
    caller = sdk.at(server.url, server.inference_key)
    limits = await caller("api_keys.get_rate_limits")
    assert limits["requests_per_minute"] == 60
    assert (limits["requests_per_day"], limits["requests_per_hour"]) == (2, 0)
    assert limits["tokens_per_minute"] == 100_000
    assert limits["reset_time"].endswith("+00:00")
    status = await caller("get_rate_limit_status")
    assert status["status"] == "ok"

    for _ in range(2):
        await caller("chat.complete", messages=HELLO, model=server.model)
    with pytest.raises(Raised) as refused:
        await caller("chat.complete", messages=HELLO, model=server.model, retries=0)
    assert refused.value.kinds[0] == "RateLimitError"
    assert refused.value.retry_after is not None

    for _ in range(100):
        log = await sdk("api_keys.get_rate_limits_log", limit=10)
        if log:
            break
        await asyncio.sleep(0.1)
    assert log[0]["endpoint"] == f"model:{server.model}"
    assert (log[0]["error_type"], log[0]["status_code"]) == ("RPD", 429)
    assert await sdk("api_keys.get_rate_limits_log", offset=1) == []
    since = {"at": "2099-01-01T00:00:00"}
    assert await sdk("api_keys.get_rate_limits_log", start_date=since) == []
    assert await sdk("account.get_rate_limit_logs", limit=10) == log


async def test_the_account_summary_is_made_of_all_three_calls(venice: Venice) -> None:
    summary = await venice(SDK)("get_account_summary")
    assert summary["api_keys"] == {"total_keys": 2, "active_keys": 2}
    assert summary["usage"]["credits_remaining"] == 40_000
    assert set(summary["rate_limits"]) == {
        *("requests_per_minute", "requests_per_day", "tokens_per_minute", "tokens_per_day")
    }


async def test_models_are_listed_found_and_checked(
    venice: Venice, in_process_server: LiveServer
) -> None:
    sdk, model = venice(SDK), in_process_server.model
    assert model in [each["id"] for each in await sdk("models.list")]
    assert await sdk("models.list", type="image") == []
    assert (await sdk("models.get", model_id=model))["type"] == "text"
    assert await sdk("models.validate", model_id=model) is True
    assert await sdk("models.validate", model_id="nobody-has-it") is False
    assert model in [each["id"] for each in await sdk("get_models")]


async def test_model_calls_stream(venice: Venice, in_process_server: LiveServer) -> None:
    server = in_process_server
    caller = venice(SDK).at(server.url, server.inference_key)
    whole = await caller("chat.complete", messages=HELLO, model=server.model)
    pieces = await caller("chat.complete", messages=HELLO, model=server.model, stream=True)
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]


async def test_an_inference_key_manages_nothing(
    venice: Venice, in_process_server: LiveServer
) -> None:
    server = in_process_server
    caller = venice(SDK).at(server.url, server.inference_key)
    for name in ("api_keys.list", "billing.get_balance", "billing.get_usage"):
        with pytest.raises(Raised) as refused:
            await caller(name)
        assert refused.value.kinds[0] == "UnauthorizedError"
        assert "ADMIN" in refused.value.message
    with pytest.raises(Raised) as refused:
        await caller("api_keys.create", name="more")
    assert (refused.value.kinds[0], refused.value.cause) == ("APIKeyError", "UnauthorizedError")
    with pytest.raises(Raised) as refused:
        await caller("api_keys.delete", key_id="3")
    assert refused.value.cause == "UnauthorizedError"
    assert (await caller("billing.get_usage_analytics"))["lookback"] == "7d"
    summary = await caller("get_account_summary")
    assert set(summary) == {"rate_limits"}


@pytest.mark.parametrize(
    ("name", "arguments", "error", "words"),
    [
        ("api_keys.create", {"name": " "}, "APIKeyError", "Failed to create API key"),
        ("api_keys.delete", {"key_id": "999"}, "APIKeyError", "Failed to delete API key"),
        ("billing.get_usage_analytics", {"lookback": "91d"}, "VeniceAPIError", "1d to 90d"),
        ("billing.get_usage_history", {"cursor": "made-up"}, "VeniceAPIError", "cursor"),
        ("billing.get_usage_history", {"page_size": 9}, "VeniceAPIError", "10 to 1000"),
        ("billing.get_usage", {"currency": "EUR"}, "VeniceAPIError", "currencies"),
        ("api_keys.get_rate_limits_log", {"limit": 1001}, "VeniceAPIError", "1 to 1000"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_words_that_the_client_shows(
    venice: Venice, name: str, arguments: dict[str, object], error: str, words: str
) -> None:
    with pytest.raises(Raised) as refused:
        await venice(SDK)(name, **arguments)
    assert refused.value.kinds[0] == error
    assert words in refused.value.message


async def test_secrets_and_models_that_nobody_has_and_money_that_is_gone(
    venice: Venice, in_process_server: LiveServer
) -> None:
    sdk, server = venice(SDK), in_process_server
    ask = {"messages": HELLO, "model": server.model, "retries": 0}
    with pytest.raises(Raised) as refused:
        await sdk.at(server.url, "nobody's")("chat.complete", **ask)
    assert (refused.value.kinds[0], refused.value.status) == ("UnauthorizedError", 401)
    caller = sdk.at(server.url, server.inference_key)
    with pytest.raises(Raised) as refused:
        await caller("chat.complete", **{**ask, "model": "nobody-has-it"})
    assert (refused.value.kinds[0], refused.value.status) == ("InvalidRequestError", 404)
    limit = {"description": "poor", "apiKeyType": "INFERENCE", "consumptionLimit": {"usd": 0}}
    poor = (await sdk("http.post", endpoint="/api_keys", data=limit))["data"]["apiKey"]
    with pytest.raises(Raised) as refused:
        await sdk.at(server.url, poor)("chat.complete", **ask)
    assert (refused.value.kinds[0], refused.value.status) == ("InsufficientBalanceError", 402)
    with pytest.raises(Raised) as refused:
        await sdk("api_keys.update", key_id="3", name="other")
    assert refused.value.kinds[0] == "APIKeyError"


async def test_the_seeds_workflow_runs_against_the_server_that_people_run(
    installed_server: LiveServer, venice_processes: Callable[[str], Client]
) -> None:
    server = installed_server
    sdk = venice_processes(SDK).at(server.url, server.provisioning_key)
    before = await sdk("api_keys.list")
    made = await sdk("api_keys.create", name="My New Key", permissions=["read", "write"])
    assert (await server.chat()).status_code == 200
    usage = await sdk("billing.get_usage")
    assert usage["credits_remaining"] < 40_000
    assert usage["usage_by_model"][server.model]["requests"] == 1
    assert (await sdk("api_keys.get_rate_limits"))["requests_per_minute"] > 0
    summary = await sdk("get_account_summary")
    assert summary["api_keys"]["total_keys"] == len(before) + 1
    assert await sdk("api_keys.delete", key_id=made["id"]) is True
    caller = sdk.at(server.url, server.inference_key)
    with pytest.raises(Raised) as refused:
        await caller("api_keys.list")
    assert refused.value.kinds[0] == "UnauthorizedError"
    answer = await caller("chat.complete", messages=HELLO, model=server.model)
    assert answer["choices"][0]["message"]["content"]
