"""The oracle of billing tests tells the truth: what it writes down is what it produced."""

import asyncio
import contextlib
import gzip
import http.client
import json
from typing import Any

import pytest

from bursar.gateway.upstreams.pool import KeepAlivePool
from bursar.gateway.upstreams.port import UpstreamError
from tests.serving import until
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


async def test_the_ledger_knows_each_request_of_each_key_whatever_became_of_it() -> None:
    def asked(name: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"{name} b c"}]

    async with ScriptedUpstream() as up:
        await call(up, b"a", messages=asked("one"))
        up.behave(Behaviour(cut_after=10), Behaviour(status=503), Behaviour(cut_after=2))
        for name, stream in (("cut", False), ("refused", False), ("broken", True)):
            with contextlib.suppress(UpstreamError):
                await call(up, b"a", messages=asked(name), stream=stream)
        await call(up, b"b", messages=asked("one"))
        await call(up, b"b", messages=asked("one"))
    assert up.ledger(a_nano_a_token) == {
        ("Bearer a", "one"): 3 + 5,
        # It was made; that it did not arrive whole changes nothing.
        ("Bearer a", "cut"): 3 + 5,
        ("Bearer a", "refused"): 0,
        ("Bearer a", "broken"): 3 + 2,
        ("Bearer b", "one"): 2 * (3 + 5),
    }
    assert sum(up.ledger(a_nano_a_token).values()) == up.sold_nanos(a_nano_a_token)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_has_no_end_goes_on_until_the_client_leaves_and_is_sold(stream: bool) -> None:
    async with ScriptedUpstream() as up:
        up.behave(Behaviour(without_end="events" if stream else "body"))
        pool = KeepAlivePool(up.base_url)
        response = await pool.send(b"POST", b"/chat/completions", [], ask(stream=stream))
        read = 0
        while read < 1_000_000:
            read += len(await response.next_chunk())
        response.abort()
        await pool.close()
        await until(lambda: not up.open_connections)
    # What was on its way when the client left has been produced too.
    assert (up.sales[0].completion_tokens >= read // 200) is stream
    assert (up.sales[0].prompt_tokens, up.sales[0].is_complete) == (3, False)


async def test_an_event_can_be_cut_anywhere_and_is_not_sold_before_it_is_out() -> None:
    async with ScriptedUpstream() as up:
        up.behave(Behaviour(content="漢字", cut_after=0, cut_within=40))
        pool = KeepAlivePool(up.base_url)
        response = await pool.send(b"POST", b"/chat/completions", [], ask(stream=True))
        assert len(await response.next_chunk()) == 40
        with pytest.raises(UpstreamError):
            await response.next_chunk()
        await pool.close()
    assert up.sales[0].completion_tokens == 0


async def test_a_body_drips_and_a_bomb_is_small_on_the_wire() -> None:
    async with ScriptedUpstream() as up:
        up.behave(Behaviour(is_dripping=True, gap_s=0.001), Behaviour(gzip_bytes=50_000_000))
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert len(json.loads(await call(up))["choices"]) == 1
        assert loop.time() - began > 0.1
        reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        writer.close()
    assert length < 500_000
    assert gzip.decompress(body) == bytes(50_000_000)


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
