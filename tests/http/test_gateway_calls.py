"""A call through the gateway is admitted, answered and charged, on both databases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from bursar.core.money import parse_usd
from bursar.store.tables import allowances, keys, leases, usage_events
from tests.serving import MODEL, House, serving
from tests.upstream_double import Behaviour


@pytest.fixture
async def house(database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    async with serving(database_url, tmp_path) as served:
        yield served


async def balance(house: House) -> int:
    return parse_usd((await house.control("GET", "/v1/account/balance")).json()["balance"])


async def rows(house: House) -> list[Any]:
    await house.server.database.catch_up()
    async with house.server.database.read() as tx:
        return list(await tx.execute(select(usage_events).order_by(usage_events.c.seq)))


async def billed(house: House) -> int:
    return sum(row.cost_nanos + row.overrun_nanos for row in await rows(house))


def events(text: str) -> list[Any]:
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def test_a_call_costs_exactly_what_the_upstream_sold(house: House) -> None:
    answer = await house.chat(max_tokens=50)
    assert answer.status_code == 200, answer.text
    cost = parse_usd(answer.headers["x-bursar-cost"])
    assert cost == house.sold_nanos() > 0
    assert await balance(house) == parse_usd("10") - cost
    activity = (await house.control("GET", "/v1/account/activity?days=1")).json()
    assert parse_usd(activity["total_stats"]["total_cost"]) == cost
    assert activity["top_models"][0]["model_name"] == MODEL


async def test_a_stream_passes_unchanged_and_is_charged(house: House) -> None:
    answer = await house.chat(stream=True, stream_options={"include_usage": True})
    seen = events(answer.text)
    assert seen[-1] == "[DONE]"
    assert seen[-2]["usage"]["completion_tokens"] == 5
    assert await billed(house) == house.sold_nanos() > 0


async def test_a_caller_that_did_not_ask_for_usage_gets_no_extra_event(house: House) -> None:
    seen = events((await house.chat(stream=True)).text)
    assert seen[-1] == "[DONE]"
    assert all(event["choices"] for event in seen[:-1])
    assert await billed(house) == house.sold_nanos() > 0


async def test_the_upstream_is_always_asked_for_usage_and_always_given_a_limit(
    house: House,
) -> None:
    await house.chat(stream=True, stream_options={"include_usage": False})
    sent = house.upstream.sales[0].body
    assert sent["stream_options"] == {"include_usage": True}
    assert sent["max_tokens"] == 1_000


async def test_no_field_or_header_chooses_destination_or_credentials(house: House) -> None:
    await house.chat(
        api_base="http://evil", base_url="http://evil", api_key="x", extra_headers={"a": "b"}
    )
    sale = house.upstream.sales[0]
    assert not {"api_base", "base_url", "api_key", "extra_headers"} & set(sale.body)
    assert "authorization" not in {name.lower() for name in sale.headers}


async def test_a_secret_never_reaches_the_upstream(house: House) -> None:
    await house.chat()
    sale = house.upstream.sales[0]
    assert house.installation.inference_key not in json.dumps([sale.body, dict(sale.headers)])


async def test_fields_that_decide_nothing_pass_through(house: House) -> None:
    await house.chat(temperature=0.25, seed=7, tools=[{"type": "function", "x": [1, 2]}])
    sent = house.upstream.sales[0].body
    assert (sent["temperature"], sent["seed"], sent["tools"][0]["x"]) == (0.25, 7, [1, 2])


async def test_embeddings_are_priced_by_their_input(house: House) -> None:
    headers = {"authorization": f"Bearer {house.installation.inference_key}"}
    answer = await house.http.post(
        "/v1/embeddings", json={"model": MODEL, "input": "one two three"}, headers=headers
    )
    assert answer.status_code == 200, answer.text
    assert await billed(house) == house.sold_nanos() > 0


async def test_labels_of_a_call_are_in_its_row(house: House) -> None:
    key_id, secret = await house.make_key()
    async with house.server.database.write() as tx:
        await tx.execute(update(keys).where(keys.c.id == key_id).values(label_names='["team"]'))
    answer = await house.http.post(
        "/v1/chat/completions",
        json={"model": MODEL, "messages": [{"role": "user", "content": "hi"}]},
        headers={"authorization": f"Bearer {secret}", "x-bursar-labels": "team=s%C3%BCd"},
    )
    assert answer.status_code == 200, answer.text
    (row,) = await rows(house)
    assert json.loads(row.labels) == {"team": "süd"}


@pytest.mark.parametrize("usage", ["absent", "null", "negative", "string", "huge"])
@pytest.mark.parametrize("stream", [False, True])
async def test_usage_that_makes_no_sense_is_estimated_never_more_than_was_held(
    house: House, usage: str, *, stream: bool
) -> None:
    house.upstream.behave(Behaviour(tokens=20, usage=usage))
    answer = await house.chat(stream=stream, max_tokens=30)
    assert answer.status_code == 200
    (row,) = await rows(house)
    assert row.is_estimated == 1
    assert 0 < row.output_tokens <= 30
    assert row.overrun_nanos == 0


@pytest.mark.parametrize(
    ("status", "answered", "code"),
    [
        (400, 400, "upstream_rejected"),
        (401, 502, "upstream_auth"),
        (403, 502, "upstream_auth"),
        (404, 404, "upstream_rejected"),
        (429, 429, "upstream_rate_limited"),
        (500, 502, "upstream_error"),
        (503, 503, "upstream_unavailable"),
    ],
)
async def test_an_upstreams_refusal_is_translated_and_never_billed(
    house: House, status: int, answered: int, code: str
) -> None:
    house.upstream.behave(Behaviour(status=status, retry_after=7))
    answer = await house.chat()
    assert (answer.status_code, answer.json()["error"]["code"]) == (answered, code)
    assert await rows(house) == []
    assert await balance(house) == parse_usd("10")


@pytest.mark.parametrize("stream", [False, True])
async def test_garbage_is_a_bad_gateway_and_costs_nothing(house: House, *, stream: bool) -> None:
    house.upstream.behave(Behaviour(garbage=True))
    answer = await house.chat(stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_invalid")
    assert await rows(house) == []


async def test_a_stream_that_breaks_off_ends_with_an_error_and_bills_what_came(
    house: House,
) -> None:
    house.upstream.behave(Behaviour(tokens=20, cut_after=8))
    seen = events((await house.chat(stream=True, max_tokens=50)).text)
    assert seen[-1]["error"]["code"] == "upstream_unreachable"
    (row,) = await rows(house)
    assert (row.outcome, row.is_estimated) == ("cut", 1)
    assert row.output_tokens >= 7


async def test_a_caller_that_hangs_up_is_charged_for_all_that_was_sold(house: House) -> None:
    house.upstream.behave(Behaviour(tokens=40, gap_s=0.01))
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    headers = {"authorization": f"Bearer {house.installation.inference_key}"}
    async with house.http.stream(
        "POST", "/v1/chat/completions", json=body, headers=headers
    ) as answer:
        async for _ in answer.aiter_bytes():
            break
    for _ in range(200):
        if await rows(house):
            break
        await asyncio.sleep(0.02)
    (row,) = await rows(house)
    assert (row.outcome, row.output_tokens) == ("disconnected", 40)
    assert await billed(house) == house.sold_nanos()
    assert house.server.metrics.holds_open == 0


async def test_an_upstream_that_sells_more_than_was_held_cannot_take_the_wallet_below_zero(
    database_url: str, tmp_path: Path
) -> None:
    async with serving(database_url, tmp_path, credit="0.0003") as house:
        house.upstream.behave(Behaviour(prompt_tokens=1_000))
        await house.chat(max_tokens=5)
        (row,) = await rows(house)
        assert row.cost_nanos == parse_usd("0.0003")
        assert row.overrun_nanos > 0
        assert await balance(house) == 0
        assert await billed(house) == house.sold_nanos()
        assert house.server.metrics.overrun_nanos == row.overrun_nanos


async def test_exactly_as_many_calls_succeed_as_the_limit_pays_for(house: House) -> None:
    body = {"max_tokens": 5, "words": "hello there"}
    bound = await bound_of(house, **body)
    key_id, secret = await house.make_key(limit_usd=str(Decimal(bound * 10) / 10**9))
    house.upstream.default = Behaviour(tokens=5, delay_s=0.05)
    answers = await asyncio.gather(*(house.chat(secret, **body) for _ in range(200)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {200, 402, 429}
    assert 10 <= statuses.count(200) <= bound * 10 // 12_000
    for refused in (a for a in answers if a.status_code != 200):
        error = refused.json()["error"]
        assert error["allowance"] == f"key:{key_id}/cost/lifetime"
        assert parse_usd(error["left"]) >= 0
        assert "resets_at" in error
        if refused.status_code == 429:
            assert error["code"] == "credit_held"
            assert int(refused.headers["retry-after"]) >= 1
        else:
            assert error["code"] == "insufficient_quota"
    house.upstream.default = Behaviour(tokens=5)
    while (last := await house.chat(secret, **body)).status_code == 200:
        pass
    assert last.status_code == 402
    left = parse_usd(last.json()["error"]["left"])
    assert 0 <= left < bound
    assert await billed(house) == house.sold_nanos()
    assert await used_of(house, key_id) + left == bound * 10


async def bound_of(house: House, **body: Any) -> int:
    """What such a call is held for: a key with less credit is told."""
    _, secret = await house.make_key(limit_usd="0.000000001")
    error = (await house.chat(secret, **body)).json()["error"]
    assert error["code"] == "insufficient_quota"
    words: str = error["message"]
    return parse_usd(words.rsplit("cost ", 1)[1].rstrip(".)"))


async def used_of(house: House, key_id: int) -> int:
    await house.server.database.catch_up()
    async with house.server.database.read() as tx:
        query = select(allowances.c.used).where(allowances.c.scope == f"key:{key_id}")
        return int((await tx.execute(query)).scalar_one())


async def test_a_disabled_and_a_deleted_key_are_refused_at_once(house: House) -> None:
    for method, body in (("PATCH", {"is_enabled": False}), ("DELETE", None)):
        key_id, secret = await house.make_key()
        assert (await house.chat(secret)).status_code == 200
        changed = await house.control(method, f"/v1/account/keys/{key_id}", json=body)
        assert changed.status_code in (200, 204), changed.text
        refused = await house.chat(secret)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_a_lowered_limit_counts_at_once_and_a_raised_one_too(house: House) -> None:
    key_id, secret = await house.make_key(limit_usd="1")
    assert (await house.chat(secret)).status_code == 200
    await house.control("PATCH", f"/v1/account/keys/{key_id}", json={"credit_limit": 0.000001})
    assert (await house.chat(secret)).status_code == 402
    await house.control("PATCH", f"/v1/account/keys/{key_id}", json={"credit_limit": 5})
    assert (await house.chat(secret)).status_code == 200
    await house.control("PATCH", f"/v1/account/keys/{key_id}", json={"credit_limit": None})
    assert (await house.chat(secret)).status_code == 200
    assert await used_of(house, key_id) == await billed(house)


async def test_idle_leases_go_back_and_stopping_leaves_none(
    database_url: str, tmp_path: Path
) -> None:
    async with serving(database_url, tmp_path, settings={"lease_idle_s": 0.2}) as house:
        await house.chat()
        for _ in range(100):
            async with house.server.database.read() as tx:
                total = await tx.execute(select(func.sum(leases.c.amount)))
                held = int(total.scalar() or 0)
            if held == 0:
                break
            await asyncio.sleep(0.05)
        assert held == 0
        assert (await house.chat()).status_code == 200
