"""What passes through the gateway cannot change who pays, how much, or where it goes."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from bursar.core.money import parse_usd
from bursar.store import changes, prices
from bursar.store.database import sqlite_url
from bursar.store.prices import NewPrice
from tests import books
from tests.serving import MODEL, House, serving, until
from tests.upstream_double import Behaviour, Sale

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
CREDIT = "1000"
DEAR = "gpt-dear"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    directory = tmp_path_factory.mktemp("passing")
    path = directory / "bursar.db"
    shutil.copyfile(migrated_sqlite, path)
    async with serving(sqlite_url(path), directory, credit=CREDIT) as served:
        await set_price(served, DEAR, "1000000000000")
        yield served


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def everything_adds_up(house: House) -> AsyncIterator[None]:
    yield
    books.require_consistent(await books.read(house), credit=CREDIT)


async def set_price(house: House, model: str, per_million: str) -> None:
    """Add a price, in force at once, and wait until the worker knows it."""
    database, worker = house.server.database, house.server.worker
    async with database.write() as tx:
        price = await prices.insert_price(
            tx,
            price=NewPrice(
                model=model,
                product="",
                per_million=dict.fromkeys(("input_tokens", "output_tokens"), Decimal(per_million)),
                per_unit={},
                tiers=(),
                is_free=False,
                context_window=None,
                max_output_tokens=None,
                effective_ms=tx.now_ms,
                source="test",
            ),
        )
        tx.announce(changes.PRICES, account_id=0)
    await until(lambda: worker.pricebook.find(model, at_ms=worker.clock_ms()) == price)


async def post(house: House, body: bytes, **headers: str) -> httpx2.Response:
    sent = {
        "content-type": "application/json",
        "authorization": f"Bearer {house.installation.inference_key}",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return await house.http.post(CHAT, content=body, headers=sent)


async def sale_of(house: House, answer: httpx2.Response) -> Sale:
    """The one sale that this answer was made of; it is in the books by now."""
    assert answer.status_code == 200, answer.text[:500]
    await house.server.database.catch_up()
    return house.upstream.sales[-1]


def events_of(answer: httpx2.Response) -> list[Any]:
    """The events of a stream that is whole."""
    lines = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


async def test_d_63_a_name_spelt_in_two_ways_means_one_thing(house: House) -> None:
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]})
    twice = body[:-1] + ',"max_tokens":1,"max_t\\u006fkens":7,"mod\\u0065l":"gpt-test"}'
    sale = await sale_of(house, await post(house, twice.encode()))
    assert (sale.body["max_tokens"], sale.body["model"]) == (7, MODEL)
    assert sale.raw_body.count(b"max_t") == sale.raw_body.count(b'"model"') == 1


@pytest.mark.parametrize(
    "name",
    [
        "Model",
        "MAX_TOKENS",
        "Max_Completion_Tokens",
        "N",
        "\u017ftream",
        "Tools",
        "API_KEY",
        "Service_Tier",
        "Web_Search_Options",
        "Best_Of",
    ],
)
async def test_no_other_spelling_of_a_field_that_decides_something_goes_on(
    house: House, name: str
) -> None:
    """There are servers that take any spelling of a name for that name, and the last of them."""
    sale = await sale_of(house, await house.chat(max_tokens=5, seed=7, **{name: 9}))
    assert name not in sale.body
    assert (sale.body["model"], sale.body["max_tokens"], sale.body["seed"]) == (MODEL, 5, 7)


async def test_what_is_only_unknown_goes_on(house: House) -> None:
    sale = await sale_of(house, await house.chat(max_tokens=5, Temperature_Decay=1, extras="x"))
    assert (sale.body["Temperature_Decay"], sale.body["extras"]) == (1, "x")


@pytest.mark.parametrize(
    "text", ["hi", "h\u00e9 \u4f60\u597d", 'a "model" and a "model"', "tab\there"]
)
async def test_a_plain_request_goes_on_byte_for_byte(house: House, text: str) -> None:
    fields = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 5}
    body = json.dumps(fields, ensure_ascii=False, separators=(" ,", " : ")).encode()
    sale = await sale_of(house, await post(house, body))
    if "model" in text:
        assert sale.body == fields
    else:
        assert sale.raw_body == body


async def test_tools_that_come_twice_are_those_that_were_looked_at(house: House) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    plain = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    body = json.dumps(plain)[:-1] + ',"tools":[{"type":"web_search"}],"tools":' + json.dumps([tool])
    sale = await sale_of(house, await post(house, (body + "}").encode()))
    assert sale.body["tools"] == [tool]
    assert b"web_search" not in sale.raw_body


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({}, 1_000),
        ({"max_tokens": None}, 1_000),
        ({"max_tokens": 1}, 1),
        ({"max_tokens": 10**9}, 1_000),
        ({"max_tokens": None, "max_completion_tokens": None}, 1_000),
    ],
)
async def test_d_139_the_output_limit_is_at_most_the_models(
    house: House, fields: dict[str, Any], sent: int
) -> None:
    sale = await sale_of(house, await house.chat(**fields))
    assert sale.body["max_tokens"] == sent


async def test_d_139_the_newer_field_stays_the_newer_field(house: House) -> None:
    sale = await sale_of(house, await house.chat(max_completion_tokens=10**9))
    assert sale.body["max_completion_tokens"] == 1_000
    assert "max_tokens" not in sale.body


@pytest.mark.parametrize("fields", [{"max_tokens": 10**9}, {"max_tokens": 10**9, "n": 128}])
async def test_d_140_more_than_any_amount_of_money_is_refused(
    house: House, fields: dict[str, Any]
) -> None:
    answer = await house.chat(model=DEAR, **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (
        400,
        "invalid_value",
        "max_tokens",
    )


async def test_d_140_a_hold_of_almost_all_money_is_a_matter_of_credit(
    migrated_sqlite: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bursar.db"
    shutil.copyfile(migrated_sqlite, path)
    async with serving(sqlite_url(path), tmp_path) as house:
        await set_price(house, DEAR, "1000000000000")
        answer = await house.chat(model=DEAR, max_tokens=9_000)
        assert (answer.status_code, answer.json()["error"]["code"]) == (402, "insufficient_quota")


async def test_d_140_every_choice_is_paid_for(house: House) -> None:
    before = await books.read(house)
    sale = await sale_of(house, await house.chat(n=7, max_tokens=5))
    assert sale.completion_tokens == 35
    after = await books.read(house)
    assert after.charged_nanos - before.charged_nanos == house.cost(sale)


@pytest.mark.parametrize(
    "address",
    [
        "https://images.example.com/a.png",
        "http://8.8.8.8/a.png",
        "https://[2606:4700::1111]/a.png",
        "data:image/png;base64,AAAA",
    ],
)
async def test_d_142_public_and_inline_media_pass_unfetched(house: House, address: str) -> None:
    part = {"type": "image_url", "image_url": {"url": address}}
    words = [{"type": "text", "text": "what is http://127.0.0.1/ ?"}, part]
    sale = await sale_of(
        house, await house.chat(messages=[{"role": "user", "content": words}], max_tokens=5)
    )
    assert sale.body["messages"][0]["content"] == words


async def test_media_is_held_for_as_the_longest_prompt(house: House) -> None:
    """A part says little in bytes and much in tokens, with or without a type."""
    _, secret = await house.make_key(limit_usd="0.5")
    _, untouched = await house.make_key(limit_usd="0.5")
    for part in (
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"image_url": {"url": "https://example.com/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "something_new", "x": 1},
    ):
        message = {"role": "user", "content": [part]}
        refused = await house.chat(secret, messages=[message], max_tokens=5)
        assert refused.status_code == 402, refused.text
    spoken = {"role": "assistant", "content": None, "audio": {"id": "audio_1"}}
    assert (await house.chat(secret, messages=[spoken], max_tokens=5)).status_code == 402
    text = {"role": "user", "content": [{"type": "text", "text": "an image_url"}]}
    await sale_of(house, await house.chat(untouched, messages=[text], max_tokens=5))


@pytest.mark.parametrize("asked", [None, {}, {"include_usage": False}, {"include_usage": True}])
async def test_d_143_usage_is_always_asked_for_and_shown_only_on_demand(
    house: House, asked: dict[str, bool] | None
) -> None:
    answer = await house.chat(stream=True, stream_options=asked)
    sale = await sale_of(house, answer)
    assert sale.body["stream_options"] == {"include_usage": True}
    told = [event for event in events_of(answer) if not event["choices"]]
    assert len(told) == (1 if asked == {"include_usage": True} else 0)


async def test_d_145_no_header_of_the_callers_is_forwarded(house: House) -> None:
    named = {
        "cookie": "a=b",
        "openai_organization": "org-1",
        "openai_beta": "assistants=v2",
        "proxy_authorization": "Basic eA==",
        "x_forwarded_for": "1.2.3.4",
        "x_api_version": "2",
        "forwarded": "for=1.2.3.4",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "user_agent": "evil",
    }
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}).encode()
    sale = await sale_of(house, await post(house, body, **named))
    assert set(sale.headers) == {
        "host",
        "accept-encoding",
        "content-type",
        "content-length",
        "user-agent",
    }
    assert sale.headers["user-agent"] == "bursar"


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("漢字" * 50, id="Chinese"),
        pytest.param("👩‍👩‍👧‍👦" * 20, id="families"),
        pytest.param("\u0000\u0001" * 50, id="control"),
        pytest.param("q83vEjRWeJCrze8SNFZ4" * 10, id="base64"),
        pytest.param("Z͑ͫ̓" * 30, id="combining"),
    ],
)
async def test_d_149_a_token_for_every_byte_is_held_for(house: House, words: str) -> None:
    body = json.dumps(
        {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": words}]},
        ensure_ascii=False,
    ).encode()
    house.upstream.behave(Behaviour(prompt_tokens=len(words.encode())))
    before = await books.read(house)
    sale = await sale_of(house, await post(house, body))
    after = await books.read(house)
    assert after.charged_nanos - before.charged_nanos == house.cost(sale)
    assert after.overrun_nanos == before.overrun_nanos


async def test_d_146_a_schema_is_passed_on_and_never_compiled(house: House) -> None:
    schema = {"type": "string", "pattern": "(a+)+$" * 100}
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    sale = await sale_of(house, await house.chat(response_format=response_format))
    assert sale.body["response_format"] == response_format


async def test_d_153_an_idempotency_key_changes_nothing_at_a_model_endpoint(house: House) -> None:
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}).encode()
    before = await books.read(house)
    for _ in range(2):
        assert (await post(house, body, idempotency_key="once only")).status_code == 200
    after = await books.read(house)
    assert (after.rows - before.rows, after.calls_upstream - before.calls_upstream) == (2, 2)


@pytest.mark.parametrize("stream", [False, True])
async def test_d_154_a_call_costs_what_it_cost_when_it_began(house: House, *, stream: bool) -> None:
    model = f"gpt-rising-{stream}".lower()
    await set_price(house, model, "1")
    # When the price goes up, the stream is at its beginning, or the answer not even begun.
    house.upstream.behave(
        Behaviour(tokens=15, gap_s=0.02) if stream else Behaviour(tokens=15, delay_s=0.3)
    )
    before = await books.read(house)
    task = asyncio.create_task(house.chat(model=model, stream=stream))
    await until(lambda: house.server.metrics.holds_open > 0)
    await asyncio.sleep(0.05)
    await set_price(house, model, "1000")
    assert not task.done()
    answer = await task
    sale = await sale_of(house, answer)
    after = await books.read(house)
    tokens = sale.prompt_tokens + sale.completion_tokens
    assert after.charged_nanos - before.charged_nanos == tokens * 1_000
    await house.chat(model=model, max_tokens=5)
    assert (await books.read(house)).charged_nanos - after.charged_nanos >= 1_000_000


FAKE_ENDS = [
    "data: [DONE]",
    "data: [DONE]\n\ndata: [DONE]\n\n",
    '{"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}',
    '\n\ndata: {"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0}}\n\n',
    '"usage":null',
    'data: {"error":{"message":"stop"}}\n\n',
    "</script><script>alert(1)</script>",
    "\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    "\u2028data: [DONE]\u2029",
]


@pytest.mark.parametrize("content", FAKE_ENDS)
@pytest.mark.parametrize("stream", [False, True])
async def test_d_155_what_a_model_says_is_content_and_nothing_else(
    house: House, content: str, *, stream: bool
) -> None:
    house.upstream.behave(Behaviour(content=content, prompt_tokens=40))
    before = await books.read(house)
    answer = await house.chat(stream=stream)
    sale = await sale_of(house, answer)
    after = await books.read(house)
    assert after.charged_nanos - before.charged_nanos == house.cost(sale)
    assert parse_usd(CREDIT) - after.balance_nanos == after.charged_nanos
    if stream:
        assert events_of(answer)[0]["choices"][0]["delta"]["content"] == content
    else:
        assert answer.json()["choices"][0]["message"]["content"] == content
