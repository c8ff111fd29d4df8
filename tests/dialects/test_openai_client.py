"""OpenAI's own client works against a real server, and each call costs exactly what it used.

The upstreams are the built-in sandbox and LiteLLM's proxy, which nobody here wrote. The latter is
installed from the registry; where that cannot be done its tests are skipped and say why.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from bursar.core.money import parse_usd
from tests import environments, litellm_proxy
from tests.live import Installation

# The first test of a run may have to wait for LiteLLM's installation.
pytestmark = pytest.mark.timeout(litellm_proxy.BUILD_S + litellm_proxy.START_S + 60)

HELLO = [{"role": "user", "content": "Hello there, how are you?"}]


@dataclass(frozen=True)
class Models:
    """An upstream's models, and what a token of each costs in nano-USD."""

    chat: str
    embed: str
    limited: str
    broken: str
    input_nanos: Decimal
    output_nanos: Decimal
    embed_nanos: Decimal


SANDBOX = Models(
    *("sandbox/echo", "sandbox/embed", "sandbox/fail-429", "sandbox/fail-500"),
    *map(Decimal, ("100", "400", "20")),
)
LITELLM = Models(
    *(litellm_proxy.CHAT, litellm_proxy.EMBED, litellm_proxy.LIMITED, litellm_proxy.BROKEN),
    *map(Decimal, ("150", "600", "20")),
)
LITELLM_PRICES = f"""
prices:
  - model: {LITELLM.chat}
    per_million: &chat {{input_tokens: "0.15", output_tokens: "0.60"}}
    context_window: 128000
    max_output_tokens: 16384
  - {{model: {LITELLM.limited}, per_million: *chat}}
  - {{model: {LITELLM.broken}, per_million: *chat}}
  - {{model: {LITELLM.embed}, per_million: {{input_tokens: "0.02"}}}}
"""


class Client(Protocol):
    """The client, sync or async, told apart by nothing but who waits."""

    def chat(self, **options: Any) -> tuple[Any, str]:
        """The answer, and what its header says that it cost."""

    def stream(self, **options: Any) -> list[ChatCompletionChunk]: ...

    def embed(self, **options: Any) -> Any: ...

    def models(self) -> list[str]: ...


class SyncClient:
    def __init__(self, url: str, secret: str) -> None:
        self._options: dict[str, Any] = {
            "base_url": f"{url}/v1",
            "api_key": secret,
            "max_retries": 0,
        }

    def chat(self, **options: Any) -> tuple[Any, str]:
        with self._open() as client:
            raw = client.chat.completions.with_raw_response.create(**options)
            return raw.parse(), raw.headers["x-bursar-cost"]

    def stream(self, **options: Any) -> list[ChatCompletionChunk]:
        with self._open() as client:
            return list(client.chat.completions.create(stream=True, **options))

    def embed(self, **options: Any) -> Any:
        with self._open() as client:
            return client.embeddings.create(**options)

    def models(self) -> list[str]:
        with self._open() as client:
            return [model.id for model in client.models.list()]

    def _open(self) -> openai.OpenAI:
        return openai.OpenAI(**self._options)


class AsyncClient:
    def __init__(self, url: str, secret: str) -> None:
        self._options: dict[str, Any] = {
            "base_url": f"{url}/v1",
            "api_key": secret,
            "max_retries": 0,
        }

    def chat(self, **options: Any) -> tuple[Any, str]:
        async def work(client: openai.AsyncOpenAI) -> tuple[Any, str]:
            raw = await client.chat.completions.with_raw_response.create(**options)
            return raw.parse(), raw.headers["x-bursar-cost"]

        return self._run(work)

    def stream(self, **options: Any) -> list[ChatCompletionChunk]:
        async def work(client: openai.AsyncOpenAI) -> list[ChatCompletionChunk]:
            stream = await client.chat.completions.create(stream=True, **options)
            return [chunk async for chunk in stream]

        return self._run(work)

    def embed(self, **options: Any) -> Any:
        return self._run(lambda client: client.embeddings.create(**options))

    def models(self) -> list[str]:
        async def work(client: openai.AsyncOpenAI) -> list[str]:
            return [model.id async for model in client.models.list()]

        return self._run(work)

    def _run(self, work: Callable[[openai.AsyncOpenAI], Any]) -> Any:
        async def run() -> Any:
            async with openai.AsyncOpenAI(**self._options) as client:
                return await work(client)

        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            return runner.run(run())


FACES = pytest.mark.parametrize("face", [SyncClient, AsyncClient])


@pytest.fixture(scope="session")
def litellm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[litellm_proxy.LiteLLM]:
    """LiteLLM's proxy."""
    cache = environments.find_cache() or Path(request.config.cache.mkdir("upstreams"))
    try:
        with litellm_proxy.serving(cache, tmp_path_factory.mktemp("litellm")) as running:
            yield running
    except litellm_proxy.LiteLLMUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=["sandbox", "litellm"])
def models(request: pytest.FixtureRequest, made: Installation) -> Models:
    """The models of a served installation, of each upstream in turn."""
    if request.param == "sandbox":
        made.start()
        return SANDBOX
    proxy: litellm_proxy.LiteLLM = request.getfixturevalue("litellm")
    made.configure(
        {
            "name": "litellm",
            "base_url": proxy.base_url,
            "models": ["mock-*"],
            "api_key_env": "LITELLM_API_KEY",
        }
    )
    made.environment["LITELLM_API_KEY"] = litellm_proxy.API_KEY
    made.load_prices(LITELLM_PRICES)
    made.start()
    return LITELLM


@dataclass(frozen=True)
class Figures:
    """What the account and the key have spent, wherever it is shown, in nano-USD."""

    balance: int
    wallet_used: int
    key_used: int
    key_sees: int
    activity: int
    events: int
    requests: int

    @classmethod
    def read(cls, made: Installation, key_id: int, secret: str) -> Figures:
        limits = made.control("GET", "/v1/account/limits").json()["limits"]
        used = {limit["scope"]: parse_usd(limit["used"]) for limit in limits}
        total = made.control("GET", "/v1/account/activity?days=1&fresh=true").json()["total_stats"]
        events = made.control("GET", "/v1/account/usage/events").json()["events"]
        seen = made.control("GET", "/v1/key", secret=secret).json()["limits"]
        return cls(
            balance=made.balance_nanos(),
            wallet_used=used["wallet"],
            key_used=used[f"key:{key_id}"],
            key_sees=parse_usd(seen[0]["used"]),
            activity=parse_usd(total["total_cost"]),
            events=sum(parse_usd(event["cost"]) for event in events),
            requests=total["total_requests"],
        )

    def after(self, *costs: int) -> Figures:
        """What they must be after calls that cost so much."""
        spent = sum(costs)
        return Figures(
            balance=self.balance - spent,
            wallet_used=self.wallet_used + spent,
            key_used=self.key_used + spent,
            key_sees=self.key_sees + spent,
            activity=self.activity + spent,
            events=self.events + spent,
            requests=self.requests + len(costs),
        )


def cost(models: Models, usage: Any) -> int:
    """What a reported usage costs in nano-USD, rounded half up."""
    exact = usage.prompt_tokens * models.input_nanos + usage.completion_tokens * models.output_nanos
    return int(exact.quantize(Decimal(1)))


@FACES
def test_every_figure_moves_by_exactly_what_each_call_cost(
    made: Installation, models: Models, face: Callable[[str, str], Client]
) -> None:
    key_id, secret = made.make_key(limit_usd=1)
    client = face(made.url, secret)
    figures = Figures.read(made, key_id, secret)
    assert figures.requests == 0

    answer, said = client.chat(model=models.chat, messages=HELLO)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    spent = [cost(models, answer.usage)]
    assert parse_usd(said) == spent[0] > 0
    assert Figures.read(made, key_id, secret) == figures.after(*spent)

    chunks = client.stream(
        model=models.chat, messages=HELLO, stream_options={"include_usage": True}
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == answer.choices[0].message.content
    (usage,) = (chunk.usage for chunk in chunks if chunk.usage is not None)
    spent.append(cost(models, usage))
    assert Figures.read(made, key_id, secret) == figures.after(*spent)

    chunks = client.stream(model=models.chat, messages=HELLO)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    spent.append(cost(models, usage))
    assert Figures.read(made, key_id, secret) == figures.after(*spent)

    vectors = client.embed(model=models.embed, input="Hello there")
    assert len(vectors.data[0].embedding) > 1
    spent.append(int(vectors.usage.prompt_tokens * models.embed_nanos))
    assert Figures.read(made, key_id, secret) == figures.after(*spent)

    assert {models.chat, models.embed} <= set(client.models())
    assert Figures.read(made, key_id, secret) == figures.after(*spent)
    assert [row.cost_nanos for row in made.rows()] == spent
    assert not any(row.is_estimated for row in made.rows())
    made.verify()


@FACES
def test_refusals_are_the_clients_own_exceptions_and_cost_nothing(
    made: Installation, models: Models, face: Callable[[str, str], Client]
) -> None:
    key_id, secret = made.make_key(limit_usd=1)
    _, poor = made.make_key(limit_usd=0.000000001)
    client = face(made.url, secret)
    figures = Figures.read(made, key_id, secret)
    cases: list[tuple[Client, str, type[openai.APIStatusError], int, str]] = [
        (
            face(made.url, "sk-nobody"),
            models.chat,
            openai.AuthenticationError,
            401,
            "invalid_api_key",
        ),
        (face(made.url, poor), models.chat, openai.APIStatusError, 402, "insufficient_quota"),
        (client, "nobody-has-it", openai.NotFoundError, 404, "model_not_found"),
        (client, models.limited, openai.RateLimitError, 429, "upstream_rate_limited"),
        (client, models.broken, openai.InternalServerError, 502, "upstream_error"),
    ]
    for caller, model, kind, status, code in cases:
        for ask in (caller.chat, caller.stream):
            with pytest.raises(kind) as refused:
                ask(model=model, messages=HELLO)
            assert (refused.value.status_code, refused.value.code) == (status, code)
            assert refused.value.request_id
    assert Figures.read(made, key_id, secret) == figures
    assert made.rows() == []
    made.verify()


@FACES
@pytest.mark.parametrize("kind", ["sqlite"])
def test_credit_that_another_call_holds_is_worth_a_retry_and_then_it_works(
    made: Installation, face: Callable[[str, str], Client]
) -> None:
    made.start()
    options: dict[str, Any] = {"messages": HELLO, "max_tokens": 100}
    with pytest.raises(openai.APIStatusError) as told:
        face(made.url, made.make_key(limit_usd=0.000000001)[1]).chat(
            model="sandbox/slow", **options
        )
    words = told.value.message
    bound = Decimal(words.rpartition("may cost ")[2].partition(".)")[0])
    client = face(made.url, made.make_key(limit_usd=float(bound))[1])
    first = threading.Thread(target=client.chat, kwargs={"model": "sandbox/slow", **options})
    first.start()
    time.sleep(0.4)
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat(model="sandbox/slow", **options)
    assert refused.value.code == "credit_held"
    assert int(refused.value.response.headers["retry-after"]) >= 1
    first.join()
    answer, _ = client.chat(model="sandbox/echo", messages=HELLO, max_tokens=10)
    assert answer.choices[0].message.content
    made.verify()


@FACES
@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_limit_of_the_upstream_says_when_to_come_again(
    made: Installation, face: Callable[[str, str], Client]
) -> None:
    made.start()
    client = face(made.url, made.secrets.inference_key)
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat(model=SANDBOX.limited, messages=HELLO)
    assert int(refused.value.response.headers["retry-after"]) >= 1


@FACES
@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_stream_that_breaks_off_is_an_exception_and_not_an_end(
    made: Installation, face: Callable[[str, str], Client]
) -> None:
    made.start()
    client = face(made.url, made.secrets.inference_key)
    with pytest.raises(openai.APIError, match="cannot be reached"):
        client.stream(model="sandbox/cut", messages=HELLO)
    (row,) = made.rows()
    assert (row.outcome, row.cost_nanos > 0) == ("cut", True)
    made.verify()
