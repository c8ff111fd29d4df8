"""The oracle of billing tests tells the truth: what it writes down is what it produced."""

import asyncio
import http.client
import json
from typing import Any

import pytest

from bursar.gateway.upstreams.pool import KeepAlivePool
from bursar.gateway.upstreams.port import UpstreamError
from tests.upstream_double import Behaviour, Sale, ScriptedUpstream


def ask(**fields: Any) -> bytes:
    message = {"role": "user", "content": "one two three"}
    return json.dumps({"model": "m", "messages": [message], **fields}).encode()


def a_nano_a_token(sale: Sale) -> int:
    return sale.prompt_tokens + sale.completion_tokens


async def call(up: ScriptedUpstream, secret: bytes = b"k", **fields: Any) -> bytes:
    pool = KeepAlivePool(up.base_url)
    try:
        headers = [(b"authorization", b"Bearer " + secret)]
        response = await pool.send(b"POST", b"/chat/completions", headers, ask(**fields))
        return await response.read()
    finally:
        await pool.close()


async def test_every_credential_s_purchases_are_priced_apart() -> None:
    async with ScriptedUpstream() as up:
        await call(up, b"a")
        await call(up, b"b", stream=True, max_tokens=2)
        await call(up, b"b", n=2)
    assert up.sold_nanos(a_nano_a_token, authorization="Bearer a") == 3 + 5
    assert up.sold_nanos(a_nano_a_token, authorization="Bearer b") == (3 + 2) + (3 + 10)
    assert up.sold_nanos(a_nano_a_token) == 26


@pytest.mark.parametrize(
    "lie", ["absent", "null", "negative", "string", "huge", "decreasing", "tenfold"]
)
async def test_a_lie_about_usage_does_not_change_what_was_sold(lie: str) -> None:
    async with ScriptedUpstream() as up:
        up.behave(Behaviour(usage=lie), Behaviour(usage=lie))
        whole = json.loads(await call(up))
        await call(up, stream=True, stream_options={"include_usage": True})
    assert whole.get("usage") == up.sales[0].reported
    for sale in up.sales:
        assert (sale.prompt_tokens, sale.completion_tokens) == (3, 5)
        assert sale.reported is None or sale.reported["prompt_tokens"] != 3


async def test_an_error_sells_nothing_and_a_cut_stream_only_what_went_out() -> None:
    async with ScriptedUpstream() as up:
        up.behave(Behaviour(status=500), Behaviour(cut_after=2))
        await call(up)
        with pytest.raises(UpstreamError):
            await call(up, stream=True)
    assert [a_nano_a_token(sale) for sale in up.sales] == [0, 3 + 2]
    assert [sale.is_complete for sale in up.sales] == [True, False]


@pytest.mark.parametrize("works_on", [False, True])
async def test_an_abandoned_answer_is_sold_in_full_only_if_it_is_made_in_full(
    works_on: bool,
) -> None:
    async with ScriptedUpstream() as up:
        up.behave(Behaviour(gap_s=0.02, works_on=works_on))
        task = asyncio.create_task(call(up, stream=True))
        await asyncio.sleep(0.03)
        task.cancel()
        await asyncio.wait({task})
        await asyncio.sleep(0.2)
    sale = up.sales[0]
    assert (sale.completion_tokens == 5, sale.is_complete) == (works_on, works_on)
    assert sale.is_abandoned is not works_on


async def test_behaviours_go_to_the_next_requests_then_to_models_then_to_all() -> None:
    async with ScriptedUpstream(default=Behaviour(tokens=1)) as up:
        up.models["m"] = Behaviour(tokens=2)
        up.behave(Behaviour(tokens=3))
        for model in ("m", "m", "other"):
            await call(up, model=model)
    assert [sale.completion_tokens for sale in up.sales] == [3, 2, 1]


def test_it_serves_tests_without_an_event_loop() -> None:
    with ScriptedUpstream.in_thread() as up:
        connection = http.client.HTTPConnection("127.0.0.1", up.port, timeout=5)
        connection.request("POST", "/v1/embeddings", b'{"model":"e","input":["a b","c"]}')
        answer = json.loads(connection.getresponse().read())
        connection.close()
    assert (len(answer["data"]), answer["usage"]["prompt_tokens"]) == (2, 3)
    assert up.sales[0].prompt_tokens == 3
