"""Model calls at /api/v1: the same gateway, in Venice's words; nothing changes at /v1."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.dialects.conftest import LiveServer
from tests.serving import MODEL, serving
from tests.upstream_double import Behaviour

PATH = "/api/v1/chat/completions"


@pytest.fixture
def kind() -> str:
    """The gateway is one and the same before both databases."""
    return "postgres"


async def ask(
    server: LiveServer, *, path: str = PATH, secret: str | None = None, **fields: Any
) -> httpx2.Response:
    body = {"model": server.model, "messages": [{"role": "user", "content": "hi"}], **fields}
    async with httpx2.AsyncClient(base_url=server.url, timeout=30) as http:
        bearer = {"authorization": f"Bearer {secret or server.inference_key}"}
        return await http.post(path, json=body, headers=bearer)


async def limit(server: LiveServer, **fields: Any) -> None:
    body = {"scope": "key:3", "resource": "requests", "window": "hour", **fields}
    assert (await server.control("PUT", "/v1/account/limits", json=body)).is_success


async def test_an_answer_says_what_is_left_and_when_it_resets(
    in_process_server: LiveServer,
) -> None:
    server = in_process_server
    await limit(server, limit=5)
    theirs, ours = await ask(server), await ask(server, path="/v1/chat/completions")
    assert theirs.json()["choices"] == ours.json()["choices"]
    assert theirs.headers["x-ratelimit-limit-requests"] == "5"
    assert theirs.headers["x-ratelimit-remaining-requests"] == "4"
    at_s, in_s = (int(answer.headers["x-ratelimit-reset-requests"]) for answer in (theirs, ours))
    assert 0 <= at_s - time.time() <= 3_601
    assert 0 < in_s <= 3_600
    assert 39 < float(theirs.headers["x-venice-balance-usd"]) < 40
    assert "x-venice-balance-usd" not in ours.headers


async def test_refusals_are_texts_with_codes_and_cost_nothing(
    in_process_server: LiveServer,
) -> None:
    server = in_process_server
    admin = server.provisioning_key
    cases: list[tuple[httpx2.Response, int, str]] = [
        (await ask(server, secret="nobody's"), 401, "AUTHENTICATION_FAILED"),
        (await ask(server, secret=admin), 401, "AUTHENTICATION_FAILED"),
        (await ask(server, model="nobody-has-it"), 404, "MODEL_NOT_FOUND"),
        (await ask(server, temperature="hot"), 400, "INVALID_REQUEST"),
    ]
    for response, status, code in cases:
        assert (response.status_code, response.json()["code"]) == (status, code)
        assert isinstance(response.json()["error"], str)
        assert response.headers["x-request-id"]
    ours = await ask(server, path="/v1/chat/completions", model="nobody-has-it")
    assert ours.json()["error"]["code"] == "model_not_found"
    async with httpx2.AsyncClient(base_url=server.url) as http:
        wrong = await http.get(PATH)
    assert (wrong.status_code, wrong.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert wrong.headers["allow"] == "POST"
    balance = await server.control("GET", "/v1/account/balance")
    assert balance.json()["balance"] == "40.00"


async def test_a_limit_that_is_reached_is_named_with_its_reset(
    in_process_server: LiveServer,
) -> None:
    server = in_process_server
    await limit(server, limit=1)
    assert (await ask(server)).status_code == 200
    refused = await ask(server)
    assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMIT_EXCEEDED")
    assert "key:3/requests/hour" in refused.json()["error"]
    assert 1 <= int(refused.headers["retry-after"]) <= 3_600
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert int(refused.headers["x-ratelimit-reset-requests"]) > time.time() - 1


@pytest.mark.parametrize(
    ("scope", "code"),
    [("key:3", "API_KEY_USD_SPEND_LIMIT_EXCEEDED"), ("account", "INSUFFICIENT_BALANCE")],
)
async def test_money_that_is_gone_says_whose(
    in_process_server: LiveServer, scope: str, code: str
) -> None:
    await limit(in_process_server, scope=scope, resource="cost", window="day", limit="0.000000001")
    refused = await ask(in_process_server)
    assert (refused.status_code, refused.json()["code"]) == (402, code)


async def test_embeddings_are_there_too_and_a_query_takes_the_long_way(
    in_process_server: LiveServer,
) -> None:
    server = in_process_server
    async with httpx2.AsyncClient(base_url=server.url) as http:
        bearer = {"authorization": f"Bearer {server.inference_key}"}
        missing = await http.post(
            "/api/v1/embeddings", json={"model": "none", "input": "x"}, headers=bearer
        )
        body = {"model": server.model, "messages": [{"role": "user", "content": "hi"}]}
        asked = await http.post(f"{PATH}?x=1", json=body, headers=bearer)
    assert (missing.status_code, missing.json()["code"]) == (404, "MODEL_NOT_FOUND")
    assert asked.status_code == 200


async def test_a_stream_that_breaks_off_ends_in_their_words(
    sqlite_database_url: str, tmp_path: Path
) -> None:
    async with serving(sqlite_database_url, tmp_path) as house:
        server = LiveServer(house.url, "", house.installation.inference_key, MODEL)
        whole = await ask(server, stream=True)
        assert whole.text.rstrip().endswith("data: [DONE]")
        house.upstream.behave(Behaviour(tokens=20, cut_after=8))
        broken = await ask(server, stream=True)
        house.upstream.behave(Behaviour(tokens=20, cut_after=0))
        before = await ask(server)
    last = json.loads(broken.text.rstrip().rpartition("data: ")[2])
    assert broken.status_code == 200
    assert (set(last), last["code"]) == ({"error", "code"}, "MODEL_OFFLINE")
    assert (before.status_code, before.json()["code"]) == (502, "MODEL_OFFLINE")
