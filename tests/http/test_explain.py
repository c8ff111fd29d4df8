"""What explain says of a request is what the gateway then does with it; asking costs nothing."""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from bursar.core.money import parse_usd
from bursar.service import keys
from bursar.service.keys.fields import KeySettings
from tests import soak
from tests.serving import MODEL, House, serving
from tests.upstream_double import Behaviour

EXPLAIN = "/v1/account/explain"
ROUNDS = soak.times(40, soaked=2_000)


@pytest.fixture
async def house(database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    async with serving(database_url, tmp_path) as served:
        yield served


def request_of(size: int, **fields: Any) -> dict[str, Any]:
    """A chat request of which the body has exactly so many bytes."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": ""}], **fields}
    missing = size - len(json.dumps(body, separators=(",", ":")))
    assert missing >= 0
    body["messages"] = [{"role": "user", "content": "x" * missing}]
    return body


async def explain(house: House, key_id: int, **fields: Any) -> dict[str, Any]:
    asked = {"key_id": key_id, "model": MODEL, **fields}
    response = await house.control("POST", EXPLAIN, json=asked)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def make_key(house: House, **settings: Any) -> tuple[int, str]:
    async with house.server.database.write() as tx:
        made = await keys.create(
            tx,
            account_id=house.account_id,
            user_id=None,
            name="test",
            random_bytes=os.urandom,
            settings=KeySettings(**settings),
        )
    return made.key.id, made.secret


def moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


async def send(house: House, secret: str, body: dict[str, Any]) -> Any:
    return await house.http.post(
        "/v1/chat/completions",
        content=json.dumps(body, separators=(",", ":")),
        headers={"authorization": f"Bearer {secret}", "content-type": "application/json"},
    )


async def test_the_gateway_does_what_explain_has_said(house: House) -> None:
    """Random limits, sizes and orders: status, code and the limit named are the same."""
    dice = random.Random(4)
    house.upstream.models[MODEL] = Behaviour(prompt_tokens=30, tokens=5)
    seen: set[tuple[int, str | None]] = set()
    key_id, secret = await house.make_key(limit_usd="0.05")
    for number in range(ROUNDS):
        if number % 10 == 0:
            key_id, secret = await house.make_key(
                limit_usd=dice.choice(("0.0005", "0.003", "0.05"))
            )
            for resource, limit in (("requests", 4), ("tokens", 900)):
                if dice.random() < 0.5:
                    await set_limit(house, f"key:{key_id}", resource, "day", limit)
        size = dice.choice((120, 400, 2_000))
        wanted = dice.choice((None, 10, 300))
        options = {"n": dice.choice((1, 1, 3))} | ({"max_tokens": wanted} if wanted else {})
        said = await explain(
            house, key_id, prompt_bytes=size, max_tokens=wanted, choices=options["n"]
        )
        answer = await send(house, secret, request_of(size, **options))
        verdict = said["verdict"]
        seen.add((verdict["status"], verdict["code"]))
        got = answer.json().get("error", {})
        assert verdict["status"] == answer.status_code, (said, got)
        assert verdict["is_allowed"] is (answer.status_code == 200)
        if not verdict["is_allowed"]:
            assert verdict["code"] == got["code"]
            assert verdict["limit"] == got["allowance"]
            assert verdict["message"] == got["message"]
            assert moment(verdict["resets_at"]) == moment(got.get("resets_at"))
            assert said["affordable_requests"] == 0
        else:
            sent = house.upstream.sales[-1].body
            assert sent["max_tokens"] == said["needs"]["max_tokens"]
    assert {(200, None), (402, "insufficient_quota"), (429, "rate_limit_exceeded")} <= seen


async def set_limit(
    house: House, scope: str, resource: str, window: str, limit: Any, **more: Any
) -> None:
    asked = {"scope": scope, "resource": resource, "window": window, "limit": limit, **more}
    response = await house.control("PUT", "/v1/account/limits", json=asked)
    assert response.status_code == 200, response.text


async def test_asking_holds_nothing_charges_nothing_and_makes_no_row(house: House) -> None:
    key_id, _ = await house.make_key(limit_usd="1")
    before = (await house.control("GET", "/v1/account/limits")).json()
    for _ in range(5):
        said = await explain(house, key_id, prompt_tokens=100, max_tokens=50)
        assert said["verdict"]["is_allowed"] is True
    assert (await house.control("GET", "/v1/account/limits")).json() == before
    assert house.upstream.sales == []


async def test_each_limit_that_counts_the_request_is_shown_from_the_widest_to_the_narrowest(
    house: House,
) -> None:
    key_id, _ = await house.make_key(limit_usd="1")
    for scope, resource, window, limit, model in (
        (f"key:{key_id}", "requests", "minute", 60, None),
        (f"key:{key_id}", "requests", "hour", 600, "gpt-*"),
        (f"key:{key_id}", "requests", "day", 5, "other-*"),
        ("account", "cost", "month", "5.00", None),
        ("account", "concurrency", "lifetime", 8, None),
        (f"key:{key_id}", "tokens", "day", 100, None),
    ):
        await set_limit(house, scope, resource, window, limit, model=model)
    said = await explain(house, key_id, prompt_tokens=100, max_tokens=50)
    assert [limit["name"] for limit in said["limits"]] == [
        "wallet/cost/lifetime",
        "account/cost/month",
        "account/concurrency/lifetime",
        f"key:{key_id}/cost/lifetime",
        f"key:{key_id}/requests/hour/gpt-*",
        f"key:{key_id}/requests/minute",
        f"key:{key_id}/tokens/day",
    ]
    # 400 bytes at 1 USD a million, 50 tokens at 2: the gateway holds for bytes, which it can trust.
    assert said["needs"] == {
        "cost": "0.0005",
        "tokens": 150,
        "prompt_tokens": 400,
        "max_tokens": 50,
    }
    by_name = {limit["name"]: limit for limit in said["limits"]}
    tokens = by_name[f"key:{key_id}/tokens/day"]
    assert (tokens["resets_at"], len(tokens["next_resets"])) == (tokens["next_resets"][0], 3)
    assert (tokens["needs"], tokens["would_refuse"], tokens["is_held"]) == (150, True, False)
    assert by_name["wallet/cost/lifetime"]["needs"] == "0.0005"
    assert [each["would_refuse"] for each in said["limits"]].count(True) == 1
    verdict = said["verdict"]
    assert (verdict["status"], verdict["code"]) == (429, "rate_limit_exceeded")
    assert verdict["limit"] == tokens["name"]
    assert verdict["resets_at"] == tokens["resets_at"]
    assert verdict["retry_after_s"] > 0


async def test_it_says_how_long_an_answer_and_how_many_requests_are_affordable(
    house: House,
) -> None:
    key_id, secret = await house.make_key(limit_usd="0.001")
    said = await explain(house, key_id, prompt_bytes=200, max_tokens=100)
    # 0.001 USD less 200 tokens at 1 USD a million leave 400 at 2; each request needs 0.0004.
    assert (said["affordable_max_tokens"], said["affordable_requests"]) == (400, 2)
    longest = await explain(house, key_id, prompt_bytes=200, max_tokens=400)
    assert longest["verdict"]["is_allowed"] is True
    too_long = await explain(house, key_id, prompt_bytes=200, max_tokens=401)
    assert (too_long["verdict"]["status"], too_long["affordable_requests"]) == (402, 0)
    house.upstream.models[MODEL] = Behaviour(prompt_tokens=200, tokens=400)
    assert (await send(house, secret, request_of(200, max_tokens=401))).status_code == 402
    assert (await send(house, secret, request_of(200, max_tokens=400))).status_code == 200


async def test_what_a_key_may_not_reach_is_refused_as_the_gateway_refuses_it(
    house: House,
) -> None:
    rights: list[dict[str, Any]] = [{}, {"models": ["gpt-*"]}, {"endpoints": ["embeddings"]}]
    models = (MODEL, "gpt-unpriced", "unknown-model", "sandbox/echo")
    for environment, more, model in itertools.product(("live", "test"), rights, models):
        key_id, secret = await make_key(house, environment=environment, **more)
        said = await explain(house, key_id, model=model, prompt_bytes=300, max_tokens=5)
        answer = await send(house, secret, request_of(300, max_tokens=5) | {"model": model})
        case = (environment, model, more)
        assert said["verdict"]["status"] == answer.status_code, case
        assert said["verdict"]["code"] == answer.json().get("error", {}).get("code"), case


async def test_a_key_that_does_not_work_is_said_not_to(house: House) -> None:
    key_id, secret = await house.make_key()
    await house.control("PATCH", f"/v1/account/keys/{key_id}", json={"is_enabled": False})
    said = await explain(house, key_id, prompt_tokens=1)
    assert (said["verdict"]["status"], said["verdict"]["code"]) == (401, "invalid_api_key")
    assert (await send(house, secret, request_of(300))).status_code == 401
    await house.control("DELETE", f"/v1/account/keys/{key_id}")
    asked = {"key_id": key_id, "model": MODEL, "prompt_tokens": 1}
    assert (await house.control("POST", EXPLAIN, json=asked)).status_code == 404


async def test_where_a_key_may_be_used_from_is_not_asked_and_leaves_it_uncertain(
    house: House,
) -> None:
    key_id, _ = await make_key(house, networks=["192.0.2.0/24"])
    said = await explain(house, key_id, prompt_tokens=1)
    assert said["verdict"]["is_allowed"] is True
    assert said["verdict"]["is_certain"] is False


async def test_what_requests_in_flight_hold_makes_it_uncertain_and_not_refused(
    house: House,
) -> None:
    key_id, secret = await house.make_key()
    await set_limit(house, f"key:{key_id}", "concurrency", "lifetime", 1)
    house.upstream.models[MODEL] = Behaviour(prompt_tokens=30, tokens=5)
    assert (await send(house, secret, request_of(300, max_tokens=5))).status_code == 200
    said = await explain(house, key_id, prompt_bytes=300, max_tokens=5)
    [calls] = [limit for limit in said["limits"] if limit["resource"] == "concurrency"]
    assert said["verdict"]["is_allowed"] is True
    assert calls["is_held"] is (not said["verdict"]["is_certain"])
    assert calls["is_held"] is (calls["leased"] == 1)


BAD: list[tuple[dict[str, Any], int, str, str]] = [
    ({}, 422, "missing_field", "prompt_tokens"),
    ({"prompt_tokens": 1, "prompt_bytes": 1}, 422, "invalid_value", "prompt_tokens"),
    *(
        ({name: value}, 422, "invalid_value", name)
        for name, value in itertools.product(
            ("prompt_tokens", "prompt_bytes"), (-1, 10**9 + 1, 10**18, True, "5", 1.5, [], {})
        )
    ),
    *(
        ({"prompt_tokens": 1, name: value}, 422, "invalid_value", name)
        for name, value in itertools.product(
            ("max_tokens", "choices"), (0, -1, 10**9 + 1, 10**18, True, "5", 1.5, [])
        )
    ),
    ({"prompt_tokens": 1, "endpoint": "files"}, 422, "invalid_endpoint", "endpoint"),
    ({"prompt_tokens": 1, "endpoint": 5}, 422, "invalid_value", "endpoint"),
    (
        {"prompt_tokens": 1, "endpoint": "embeddings", "max_tokens": 5},
        422,
        "invalid_value",
        "max_tokens",
    ),
    ({"prompt_tokens": 1, "account_id": 2}, 422, "unknown_field", "account_id"),
    ({"prompt_tokens": 1, "model": 5}, 422, "invalid_value", "model"),
    ({"prompt_tokens": 1, "key_id": "3"}, 422, "invalid_value", "key_id"),
    ({"prompt_tokens": 1, "key_id": 2}, 404, "not_found", ""),
    ({"prompt_tokens": 1, "key_id": 0}, 404, "not_found", ""),
    ({"prompt_tokens": 1, "key_id": -3}, 404, "not_found", ""),
    ({"prompt_tokens": 1, "key_id": 10**30}, 404, "not_found", ""),
]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_no_request_can_ask_for_is_refused_by_its_field(house: House) -> None:
    key_id, _ = await house.make_key()
    for fields, status, code, param in BAD:
        asked = {"key_id": key_id, "model": MODEL, **fields}
        response = await house.control("POST", EXPLAIN, json=asked)
        error = response.json()["error"]
        found = (response.status_code, error["code"], error["param"] or "")
        assert found == (status, code, param), fields
    for name in ("", "x" * 201, "a b", "gpt-4\n", "../x"):
        said = await explain(house, key_id, model=name, prompt_tokens=1)
        assert said["verdict"]["code"] == "model_not_found", name
        assert said["needs"] is None


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_more_than_any_amount_of_money_is_said_to_be_that(house: House) -> None:
    key_id, _ = await house.make_key()
    asked = {"key_id": key_id, "model": MODEL, "prompt_tokens": 1}
    asked |= {"max_tokens": 10**9, "choices": 128}
    said = (await house.control("POST", EXPLAIN, json=asked)).json()
    # An answer of the model's maximum is the most that is held for.
    assert said["needs"]["max_tokens"] == 1_000
    assert parse_usd(said["needs"]["cost"]) == 4_000 + 128 * 1_000 * 2_000
