"""The list of models: what can be called, at which price, for anybody who asks."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from bursar.store import changes, prices
from bursar.store.database import sqlite_url
from bursar.store.prices import NewPrice
from tests import books, wire
from tests.serving import MODEL, House, serving, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLASHED, EMBEDDER = "sandbox/echo", "gpt-embedder"
NOT_ROUTED, LATER = "mistral-large", "gpt-next-year"
OFFERS: dict[str, dict[str, str]] = {
    SLASHED: {"input_tokens": "0.15", "cached_input_tokens": "0.075", "output_tokens": "0.6"},
    EMBEDDER: {"input_tokens": "0.000000002"},
    NOT_ROUTED: {"input_tokens": "1", "output_tokens": "1"},
    LATER: {"input_tokens": "1", "output_tokens": "1"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    directory = tmp_path_factory.mktemp("models")
    path = directory / "bursar.db"
    shutil.copyfile(migrated_sqlite, path)
    async with serving(sqlite_url(path), directory) as served:
        async with served.server.database.write() as tx:
            for model, per_million in OFFERS.items():
                await prices.insert_price(tx, price=offer(model, per_million, tx.now_ms))
            tx.announce(changes.PRICES, account_id=0)
        worker = served.server.worker
        await until(lambda: worker.pricebook.find(SLASHED, at_ms=worker.clock_ms()) is not None)
        yield served


def offer(model: str, per_million: dict[str, str], now_ms: int) -> NewPrice:
    return NewPrice(
        model=model,
        product="",
        per_million={name: Decimal(price) for name, price in per_million.items()},
        per_unit={},
        tiers=(),
        is_free=False,
        context_window=128_000,
        max_output_tokens=None,
        effective_ms=now_ms + (365 * 86_400_000 if model == LATER else -1_000),
        source="acme",
    )


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def nothing_moves(house: House) -> AsyncIterator[None]:
    before = await books.read(house)
    yield
    assert await books.read(house) == before


async def listed(house: House) -> dict[str, dict[str, Any]]:
    answer = await house.http.get("/v1/models")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    document = json.loads(answer.text, parse_float=Decimal)
    assert set(document) == {"object", "data"}
    assert document["object"] == "list"
    return {model["id"]: model for model in document["data"]}


async def test_the_list_has_what_is_priced_served_and_in_force(house: House) -> None:
    assert set(await listed(house)) == {MODEL, SLASHED, EMBEDDER}


async def test_a_model_has_the_documented_shape(house: House) -> None:
    model = (await listed(house))[SLASHED]
    assert set(model) == {
        "id",
        "object",
        "created",
        "owned_by",
        "display_name",
        "description",
        "context_window",
        "max_output_tokens",
        "supported_endpoints",
        "pricing",
        "architecture",
    }
    assert (model["object"], model["owned_by"], model["context_window"]) == (
        "model",
        "acme",
        128_000,
    )
    assert type(model["created"]) is int
    assert model["supported_endpoints"] == ["chat.completions"]


async def test_prices_are_exact_numbers_for_one_token(house: House) -> None:
    models = await listed(house)
    assert models[SLASHED]["pricing"] == {
        "per_input_token": Decimal("0.00000015"),
        "per_cached_input_token": Decimal("0.000000075"),
        "per_output_token": Decimal("0.0000006"),
    }
    assert models[EMBEDDER]["pricing"] == {"per_input_token": Decimal("0.000000000000002")}
    assert models[EMBEDDER]["supported_endpoints"] == ["embeddings"]


async def test_a_price_is_a_plain_decimal_without_an_exponent(house: House) -> None:
    text = (await house.http.get("/v1/models")).text
    assert '"per_input_token":0.000000000000002' in text
    assert "e-" not in text.lower()


@pytest.mark.parametrize("spelt", [MODEL, SLASHED, "sandbox%2Fecho", "sandbox%2fecho"])
async def test_one_model_is_the_lists_own_entry(house: House, spelt: str) -> None:
    answer = await house.http.get(f"/v1/models/{spelt}")
    assert answer.status_code == 200, answer.text
    found = json.loads(answer.text, parse_float=Decimal)
    assert found == (await listed(house))[found["id"]]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gpt-4",
        NOT_ROUTED,
        LATER,
        MODEL.upper(),
        f"{MODEL}/",
        f"{MODEL}%00",
        f"{MODEL}%20",
        "%2e%2e%2fadmin",
        "%ff%fe",
        "%",
        "a" * 5_000,
        "*",
    ],
)
async def test_any_other_name_is_404(house: House, name: str) -> None:
    talk = await wire.talk(
        house.url, f"GET /v1/models/{name} HTTP/1.1\r\nhost: x\r\n\r\n".encode("latin-1")
    )
    (answer,) = talk.answers
    assert (answer.status, answer.code) == (404, "model_not_found")
    assert answer.json()["error"]["param"] == "model"


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer nonsense"}, {"x-api-key": "x"}, {"accept": "application/xml"}],
)
@pytest.mark.parametrize("query", ["", "?limit=-1&after=x", "?api_key=x", "?%00"])
async def test_anybody_may_read_prices_whatever_else_they_send(
    house: House, headers: dict[str, str], query: str
) -> None:
    answer = await house.http.get(f"/v1/models{query}", headers=headers)
    assert answer.status_code == 200
    assert MODEL in answer.text


async def test_a_range_is_ignored(house: House) -> None:
    ranges = ",".join(f"{n}-{n}" for n in range(5_000))
    whole = await house.http.get("/v1/models")
    answer = await house.http.get("/v1/models", headers={"range": f"bytes={ranges}"})
    assert (answer.status_code, answer.content) == (200, whole.content)


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{MODEL}"])
async def test_head_is_get_without_its_body(house: House, path: str) -> None:
    whole = await house.http.get(path)
    head = f"HEAD {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
    talk = await wire.talk(house.url, head + head, expect=2, head_only=True)
    assert talk.statuses == [200, 200]
    assert not talk.is_closed
    for answer in talk.answers:
        assert answer.headers["content-length"] == str(len(whole.content))
        assert answer.body == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_models_can_only_be_read(house: House, method: str) -> None:
    answer = await house.http.request(method, "/v1/models")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert answer.json()["error"]["code"] == "method_not_allowed"


async def test_openais_own_client_reads_it(house: House) -> None:
    client = openai.AsyncOpenAI(
        base_url=f"{house.url}/v1", api_key=house.installation.inference_key
    )
    async with client:
        ids = {model.id async for model in client.models.list()}
        assert ids == {MODEL, SLASHED, EMBEDDER}
        assert (await client.models.retrieve(SLASHED)).id == SLASHED
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("gpt-4")
