"""A POST under an Idempotency-Key is carried out once, whatever is sent again."""

from __future__ import annotations

import asyncio

import httpx2
import pytest
from sqlalchemy import select

from bursar.store import tables
from bursar.store.database import Database
from tests.databases import Clock
from tests.installations import OPERATOR, PROVISIONING, Api

KEYS = "/v1/account/keys"
CREDIT = "/v1/operator/accounts/1/credit"


async def post(
    api: Api,
    path: str,
    json: object,
    *,
    key: str = "one",
    caller: str = PROVISIONING,
) -> httpx2.Response:
    return await api.call("POST", path, json=json, caller=caller, headers={"idempotency-key": key})


async def count_keys(api: Api) -> int:
    return len((await api.get(KEYS))["keys"])


async def test_the_same_request_has_one_effect_and_the_same_answer(api: Api) -> None:
    first = await post(api, KEYS, {"name": "Key"})
    again = await post(api, KEYS, {"name": "Key"})
    assert first.status_code == again.status_code == 201
    assert again.content == first.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert await count_keys(api) == 2


async def test_credit_is_given_once(api: Api) -> None:
    for _ in range(3):
        response = await post(api, CREDIT, {"amount": "5.00"}, caller=OPERATOR)
        assert response.json()["balance"] == "105.00"
    assert await api.get("/v1/account/balance") == {"balance": "105.00"}


async def test_without_a_key_every_request_counts(api: Api) -> None:
    for _ in range(2):
        await api.post(KEYS, {"name": "Key"})
    assert await count_keys(api) == 3


async def test_another_body_is_refused(api: Api) -> None:
    await post(api, KEYS, {"name": "Key"})
    response = await post(api, KEYS, {"name": "Other"})
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "idempotency_key_reused"
    assert await count_keys(api) == 2


async def test_another_caller_or_route_is_independent(api: Api) -> None:
    account_id, stranger = await api.open_account()
    await post(api, KEYS, {"name": "Key"})
    other = await post(api, KEYS, {"name": "Key"}, caller=stranger)
    assert other.status_code == 201
    assert "idempotent-replayed" not in other.headers
    for number in (1, account_id):
        path = f"/v1/operator/accounts/{number}/credit"
        response = await post(api, path, {"amount": "1.00"}, caller=OPERATOR)
        assert "idempotent-replayed" not in response.headers


async def test_what_was_refused_may_be_sent_again(api: Api) -> None:
    assert (await post(api, KEYS, {"name": ""})).status_code == 422
    assert (await post(api, KEYS, {"name": "Key"})).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "\x7f"])
async def test_a_key_that_is_none_is_400(api: Api, key: str) -> None:
    headers = [("idempotency-key", key)]
    response = await api.client.post(
        KEYS,
        json={"name": "Key"},
        headers=[
            ("authorization", f"Bearer {api.secret(PROVISIONING)}"),
            *((name, value.encode()) for name, value in headers),  # type: ignore[list-item]
        ],
    )
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_idempotency_key"
    assert await count_keys(api) == 1


async def test_two_keys_are_400(api: Api) -> None:
    headers = [("idempotency-key", "one"), ("idempotency-key", "two")]
    response = await api.call("POST", KEYS, json={"name": "Key"}, headers=headers)
    assert response.status_code == 400


async def test_requests_at_once_have_one_effect(api: Api) -> None:
    responses = await asyncio.gather(*(post(api, KEYS, {"name": "Key"}) for _ in range(8)))
    statuses = sorted(response.status_code for response in responses)
    assert statuses[0] == 201
    assert set(statuses) <= {201, 409}
    for response in responses:
        if response.status_code == 409:
            assert response.json()["error"]["code"] == "idempotency_in_progress"
            assert response.headers["retry-after"] == "1"
    assert len({r.content for r in responses if r.status_code == 201}) == 1
    assert await count_keys(api) == 2


async def test_an_answer_is_kept_for_a_day(api: Api, clock: Clock) -> None:
    await post(api, KEYS, {"name": "Key"})
    clock.advance(86_399_999)
    assert "idempotent-replayed" in (await post(api, KEYS, {"name": "Key"})).headers
    clock.advance(1)
    assert "idempotent-replayed" not in (await post(api, KEYS, {"name": "Key"})).headers
    assert await count_keys(api) == 3


async def test_a_secret_is_not_stored_with_the_answer(api: Api, database: Database) -> None:
    secret = (await post(api, KEYS, {"name": "Key"})).json()["key"]
    async with database.read() as tx:
        row = (await tx.execute(select(tables.idempotency))).one()
    stored = b"".join(value for value in row if isinstance(value, bytes))
    for part in (secret, secret[4:20], api.secret(PROVISIONING)[:20]):
        assert part.encode() not in stored
