"""Clients that call all the time, and remember what each call came to.

Owns the callers' side of the oracle: which calls had their last byte. What was sold is the
upstream's ledger, what was charged the usage rows; `require_charged_once` compares the three.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from bursar.core.money import format_usd
from tests.upstream_double import Behaviour, Sale, ScriptedUpstream

WHOLE, STREAMED, EXACT = "gpt-whole", "gpt-streamed", "gpt-exact"
MODELS = (WHOLE, STREAMED, EXACT)
INPUT_NANOS, OUTPUT_NANOS = 1_000, 2_000
# A call of this model may cost exactly what it does cost, where the upstream plays along.
EXACT_INPUT, EXACT_OUTPUT = 10, 5
EXACT_NANOS = EXACT_INPUT * INPUT_NANOS + EXACT_OUTPUT * OUTPUT_NANOS
PRICES = f"""
prices:
  - model: {WHOLE}
    per_million: &rates {{input_tokens: "1", output_tokens: "2"}}
    max_output_tokens: 1000
  - model: {STREAMED}
    per_million: *rates
    max_output_tokens: 1000
  - model: {EXACT}
    per_million: *rates
    max_output_tokens: {EXACT_OUTPUT}
    context_window: {EXACT_INPUT}
"""

# Each call is known by its first word, upstream too.
_markers = itertools.count(1)


@dataclass
class Call:
    """One call as its caller saw it; status 0: no answer came."""

    marker: str
    model: str
    status: int = 0
    request_id: str = ""
    cost: str = ""
    retry_after: str = ""
    error: dict[str, Any] = field(default_factory=dict)
    is_complete: bool = False

    @property
    def code(self) -> str:
        """The refusal's code; empty where none was said."""
        return str(self.error.get("code", ""))


@dataclass
class Load:
    """What the callers have seen so far; `url` and `secret` may change under way."""

    url: str
    secret: str
    calls: list[Call] = field(default_factory=list)
    words: int = 3
    max_tokens: int | None = None
    is_over: bool = False

    @property
    def complete(self) -> list[Call]:
        """The calls whose callers had the last byte."""
        return [call for call in self.calls if call.is_complete]

    def count(self, status: int) -> int:
        """How many calls were answered so."""
        return sum(call.status == status for call in self.calls)


def cost(sale: Sale) -> int:
    """The price of one sale in nano-USD."""
    return sale.prompt_tokens * INPUT_NANOS + sale.completion_tokens * OUTPUT_NANOS


def slow_streams(upstream: ScriptedUpstream, *, tokens: int = 20, gap_s: float = 0.01) -> None:
    """Let streams take their time, so that some are always in flight."""
    upstream.models[STREAMED] = Behaviour(tokens=tokens, gap_s=gap_s)
    upstream.models[WHOLE] = Behaviour(tokens=5, delay_s=gap_s)


@contextmanager
def calling(url: str, secret: str, *, clients: int = 20, **options: Any) -> Iterator[Load]:
    """Callers in a thread of their own until the block ends; half of them stream."""
    load = Load(url, secret, **options)

    async def work() -> None:
        limits = httpx2.Limits(max_connections=clients)
        async with httpx2.AsyncClient(timeout=30, limits=limits) as http:
            await asyncio.gather(*(_client(load, http) for _ in range(clients)))

    def thread() -> None:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(work())

    running = threading.Thread(target=thread)
    running.start()
    try:
        yield load
    finally:
        load.is_over = True
        running.join(40)
        assert not running.is_alive(), "a call never ended"


def call_at_once(url: str, secret: str, count: int, *, model: str, **options: Any) -> list[Call]:
    """So many calls at the same time, to their ends."""
    load = Load(url, secret, **options)

    async def work() -> None:
        limits = httpx2.Limits(max_connections=count)
        async with httpx2.AsyncClient(timeout=30, limits=limits) as http:
            await asyncio.gather(*(_make_call(load, http, call) for call in load.calls))

    load.calls = [Call(f"call-{next(_markers)}", model) for _ in range(count)]
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(work())
    return load.calls


async def _make_call(load: Load, http: httpx2.AsyncClient, call: Call) -> None:
    """Make one call and note how it ended; a broken connection is an outcome like others."""
    body: dict[str, Any] = {
        "model": call.model,
        "messages": [{"role": "user", "content": " ".join([call.marker] * load.words)}],
        "stream": call.model == STREAMED,
    }
    if load.max_tokens is not None:
        body["max_tokens"] = load.max_tokens
    headers = {"authorization": f"Bearer {load.secret}"}
    path = f"{load.url}/v1/chat/completions"
    try:
        async with http.stream("POST", path, json=body, headers=headers) as answer:
            call.status = answer.status_code
            call.request_id = answer.headers["x-request-id"]
            call.cost = answer.headers.get("x-bursar-cost", "")
            call.retry_after = answer.headers.get("retry-after", "")
            _note_end(call, await answer.aread())
    except httpx2.TransportError:
        return


async def _client(load: Load, http: httpx2.AsyncClient) -> None:
    while not load.is_over:
        number = next(_markers)
        call = Call(f"call-{number}", STREAMED if number % 2 else WHOLE)
        load.calls.append(call)
        await _make_call(load, http, call)
        if not call.is_complete:
            await asyncio.sleep(0.02)


def _note_end(call: Call, text: bytes) -> None:
    if call.status != 200:
        call.error = json.loads(text)["error"]
    elif call.model == STREAMED:
        call.is_complete = text.endswith(b"data: [DONE]\n\n")
    else:
        call.is_complete = json.loads(text)["object"] == "chat.completion"


def require_charged_once(
    calls: Sequence[Call], sales: Sequence[Sale], rows: Sequence[Any], *, of: Callable[[Sale], int]
) -> None:
    """Fail unless every finished call was charged once, for what was sold, and nothing else was.

    A call that broke may have been charged: its answer was complete here and not yet there.
    """
    by_id = {row.event_id: row for row in rows}
    assert len(by_id) == len(rows), "a call was charged twice"
    sold = {sale.body["messages"][0]["content"].split()[0]: sale for sale in sales}
    assert len(sold) == len(sales), "a call was sold twice"
    for call in calls:
        if call.is_complete:
            row = by_id.pop(call.request_id, None)
            assert row is not None, f"{call} had its last byte and was not charged"
            assert row.cost_nanos + row.overrun_nanos == of(sold[call.marker])
            assert call.cost in ("", format_usd(row.cost_nanos))
    broken = [call for call in calls if not call.is_complete and call.status in (0, 200)]
    assert len(by_id) <= len(broken), "something was charged that nobody called for"
    reported = [row for row in by_id.values() if not row.is_estimated]
    assert sum(row.cost_nanos for row in reported) <= sum(
        of(sold[call.marker]) for call in broken if call.marker in sold
    )
