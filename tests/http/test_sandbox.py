"""The sandbox answers like a provider, predictably, and fails on request."""

import base64
import json
import struct
from typing import Any

import pytest

from bursar.core import prices
from bursar.gateway.meter.sse import StreamMeter
from bursar.gateway.meter.usage import Usage, usage_of_body
from bursar.gateway.upstreams import sandbox
from bursar.gateway.upstreams.port import UpstreamError
from bursar.gateway.upstreams.sandbox import SANDBOX_PRICES, Sandbox, SandboxResponse


async def ask(model: str, text: Any = "one two three", **fields: Any) -> SandboxResponse:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
    return await Sandbox().send(b"POST", b"/chat/completions", [], json.dumps(body).encode())


async def embed(given: Any, model: str = "sandbox/embed", **fields: Any) -> SandboxResponse:
    body = {"model": model, "input": given, **fields}
    return await Sandbox().send(b"POST", b"/embeddings", [], json.dumps(body).encode())


async def answer_of(response: SandboxResponse) -> Any:
    return json.loads(await response.read())


async def stream_of(response: SandboxResponse) -> tuple[StreamMeter, list[dict[str, Any]]]:
    meter = StreamMeter()
    text = meter.feed(await response.read()) + meter.finish()
    lines = [line[6:] for line in text.splitlines() if line.startswith(b"data: {")]
    return meter, [json.loads(line) for line in lines]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the sandbox would have slept."""
    slept: list[float] = []

    async def note(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(sandbox.asyncio, "sleep", note)
    return slept


async def test_echo_repeats_the_last_user_message_and_counts_words() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": [{"type": "text", "text": "one  two\nthree"}]},
    ]
    response = await ask("sandbox/echo", messages=messages)
    body = await response.read()
    answer = json.loads(body)
    assert answer["choices"][0]["message"]["content"] == "one  two\nthree"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert usage_of_body(body) == Usage(7, 0, 3, 0, 0, 0)
    assert dict(response.headers)[b"content-length"] == str(len(body)).encode()


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_the_output_limit_holds_for_each_choice(field: str) -> None:
    answer = await answer_of(await ask("sandbox/echo", n=3, **{field: 2}))
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["one two"] * 3
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    assert answer["usage"]["completion_tokens"] == 6


async def test_a_stream_says_the_same_as_the_whole_answer() -> None:
    options = {"include_usage": True}
    meter, events = await stream_of(
        await ask("sandbox/echo", stream=True, n=2, stream_options=options)
    )
    texts = ["", ""]
    for event in events:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == ["one two three"] * 2
    assert meter.usage == Usage(3, 0, 6, 0, 0, 0)
    assert meter.is_done


async def test_a_stream_reports_usage_only_if_asked() -> None:
    meter, events = await stream_of(await ask("sandbox/echo", stream=True))
    assert meter.usage is None
    assert all("usage" not in event for event in events)


async def test_the_same_request_gets_the_same_bytes() -> None:
    for fields in ({}, {"stream": True}):
        bodies = {await (await ask("sandbox/echo", **fields)).read() for _ in range(2)}
        assert len(bodies) == 1


@pytest.mark.parametrize(("limit", "count", "finish"), [(700, 700, "length"), (None, 512, "stop")])
async def test_lorem_goes_on_to_the_limit(limit: int | None, count: int, finish: str) -> None:
    answer = await answer_of(await ask("sandbox/lorem", max_tokens=limit))
    assert answer["usage"]["completion_tokens"] == count
    assert answer["choices"][0]["finish_reason"] == finish
    assert len(answer["choices"][0]["message"]["content"].split()) == count


async def test_no_answer_exceeds_the_model_s_own_limit() -> None:
    for model in ("sandbox/lorem", "sandbox/echo"):
        answer = await answer_of(await ask(model, "a " * 9000, max_tokens=10**6))
        assert answer["usage"]["completion_tokens"] == SANDBOX_PRICES[model].max_output_tokens


@pytest.mark.parametrize(
    ("model", "first_s", "gap_s"),
    [("slow", 1.0, 0.1), ("slow-100ms", 0.1, 0.01), ("slow-30s", 30.0, 3.0), ("echo", 0, 0)],
)
async def test_slow_models_wait_before_the_first_byte_and_between_chunks(
    model: str, first_s: float, gap_s: float, waits: list[float]
) -> None:
    response = await ask(f"sandbox/{model}", stream=True)
    assert waits == [first_s]
    await response.next_chunk()
    assert waits == [first_s]
    await response.next_chunk()
    assert waits == [first_s, pytest.approx(gap_s)]


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503, 529])
async def test_failing_models_fail_as_named(status: int) -> None:
    for response in (
        await ask(f"sandbox/fail-{status}"),
        await ask(f"sandbox/fail-{status}", stream=True),
    ):
        assert response.status == status
        assert (await answer_of(response))["error"]["code"] == "sandbox_failure"
        assert ((b"retry-after", b"1") in response.headers) is (status == 429)


async def test_cut_breaks_off_within_the_body() -> None:
    with pytest.raises(UpstreamError) as caught:
        await (await ask("sandbox/cut")).read()
    assert (caught.value.kind, caught.value.request_sent) == ("closed", True)
    response = await ask("sandbox/cut", stream=True)
    assert b"one" in await response.next_chunk()
    assert b"two" in await response.next_chunk()
    with pytest.raises(UpstreamError):
        await response.next_chunk()


async def test_no_usage_and_garbage_are_what_they_say() -> None:
    assert "usage" not in await answer_of(await ask("sandbox/no-usage"))
    options = {"include_usage": True}
    meter, _ = await stream_of(await ask("sandbox/no-usage", stream=True, stream_options=options))
    assert (meter.usage, meter.usage_faults, meter.is_done) == (None, 0, True)
    page = await ask("sandbox/garbage")
    assert (page.status, page.headers) == (200, [(b"content-type", b"text/html")])
    assert (await page.read()).startswith(b"<!doctype html>")


async def test_an_aborted_answer_says_no_more() -> None:
    response = await ask("sandbox/echo", stream=True)
    await response.next_chunk()
    response.abort()
    response.abort()
    with pytest.raises(UpstreamError):
        await response.next_chunk()


async def test_a_closed_sandbox_refuses() -> None:
    box = Sandbox()
    await box.close()
    with pytest.raises(UpstreamError) as caught:
        await box.send(b"POST", b"/chat/completions", [], b"{}")
    assert caught.value.request_sent is False


async def test_embeddings_are_the_same_for_the_same_text_and_as_long_as_asked() -> None:
    answer = await answer_of(await embed(["one two", "one two", "three"], dimensions=8))
    first, second, third = (row["embedding"] for row in answer["data"])
    assert (first == second, first == third, len(first)) == (True, False, 8)
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5}


async def test_embeddings_come_in_base64_for_the_clients_that_ask_so() -> None:
    plain = await answer_of(await embed("one", dimensions=4))
    packed = await answer_of(await embed("one", dimensions=4, encoding_format="base64"))
    numbers = struct.unpack("<4f", base64.b64decode(packed["data"][0]["embedding"]))
    assert list(numbers) == plain["data"][0]["embedding"]


async def test_embeddings_take_tokens_too() -> None:
    assert len((await answer_of(await embed([1, 2, 3])))["data"]) == 1
    assert len((await answer_of(await embed([[1, 2], [3]])))["data"]) == 2
    assert (await answer_of(await embed([[1, 2], [3]])))["usage"]["prompt_tokens"] == 3


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        (b"POST", b"/chat/completions", b"not json", 400),
        (b"POST", b"/chat/completions", b"[" * 100_000, 400),
        (b"POST", b"/chat/completions", b'{"model":"sandbox/echo","messages":7}', 400),
        (b"POST", b"/chat/completions", b'{"model":"sandbox/echo","n":0}', 400),
        (b"POST", b"/chat/completions", b'{"model":"sandbox/echo","n":9}', 400),
        (b"POST", b"/chat/completions", b'{"model":"sandbox/lorem","max_tokens":-1}', 400),
        (b"POST", b"/chat/completions", b'{"model":"sandbox/embed"}', 400),
        (b"POST", b"/embeddings", b'{"model":"sandbox/echo","input":"a"}', 400),
        (b"POST", b"/embeddings", b'{"model":"sandbox/embed","dimensions":0}', 400),
        (b"POST", b"/chat/completions", b'{"model":"sandbox/slow-999s"}', 404),
        (b"POST", b"/chat/completions", b'{"model":"sandbox/unknown"}', 404),
        (b"POST", b"/audio/speech", b"{}", 404),
        (b"GET", b"/chat/completions", b"", 404),
    ],
)
async def test_what_it_cannot_serve_is_an_error_object(
    method: bytes, path: bytes, body: bytes, status: int
) -> None:
    response = await Sandbox().send(method, path, [], body)
    assert response.status == status
    assert (await answer_of(response))["error"]["message"]


async def test_every_priced_model_answers_and_every_price_is_exact(waits: list[float]) -> None:
    listed = await answer_of(await Sandbox().send(b"GET", b"/models", [], b""))
    assert [row["id"] for row in listed["data"]] == list(SANDBOX_PRICES)
    for model, price in SANDBOX_PRICES.items():
        assert all(prices.rate_per_million(text) > 0 for text in price.per_million.values())
        response = await (embed("a") if model == "sandbox/embed" else ask(model))
        assert response.status != 404
