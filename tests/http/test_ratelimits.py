"""Answers say what the limits of requests and tokens have left; refusals name the limit."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import select, update

from bursar.core.allowances import Allowance, AllowanceRef
from bursar.core.windows import Window, bounds
from bursar.gateway.wire import ratelimits
from bursar.service import keys
from bursar.store import changes, prices
from bursar.store.database import sqlite_url
from bursar.store.limits.allowances import insert_allowance
from bursar.store.prices import NewPrice
from bursar.store.tables import keys as key_rows
from bursar.store.tables import limit_log
from bursar.worker.purse import Slot
from tests import books
from tests.serving import House, serving, until
from tests.upstream_double import Behaviour

pytestmark = pytest.mark.asyncio(loop_scope="module")

# A Saturday, 09:00:30 UTC.
NOW_MS = 1_795_251_630_000
SANDBOX = "sandbox/echo"
_STRING = re.compile(r'"((?:[^"\\]|\\["\\])*)"')


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    directory = tmp_path_factory.mktemp("ratelimits")
    path = directory / "bursar.db"
    shutil.copyfile(migrated_sqlite, path)
    async with serving(sqlite_url(path), directory, settings={"trusted_proxies": ["::1"]}) as made:
        async with made.server.database.write() as tx:
            price = NewPrice(
                model=SANDBOX,
                product="",
                per_million={"input_tokens": Decimal(1), "output_tokens": Decimal(1)},
                per_unit={},
                tiers=(),
                is_free=False,
                context_window=None,
                max_output_tokens=100,
                effective_ms=0,
                source="test",
            )
            await prices.insert_price(tx, price=price)
            tx.announce(changes.PRICES, account_id=0)
        worker = made.server.worker
        await until(lambda: worker.pricebook.find(SANDBOX, at_ms=NOW_MS) is not None)
        yield made


async def make_key(house: House, limits: dict[str, int], **columns: Any) -> tuple[int, str]:
    """A fresh key with limits by "resource/window[/model]", and these columns of its row."""
    async with house.server.database.write() as tx:
        made = await keys.create(
            tx, account_id=house.account_id, user_id=None, name="limited", random_bytes=os.urandom
        )
        for name, limit in limits.items():
            resource, window, model = [*name.split("/", 2), ""][:3]
            scope = f"key:{made.key.id}"
            ref = AllowanceRef(house.account_id, scope, resource, window, model)
            await insert_allowance(tx, ref=ref, limit=limit)
        if columns:
            await tx.execute(update(key_rows).where(key_rows.c.id == made.key.id).values(**columns))
    return made.key.id, made.secret


def parsed(value: str) -> dict[str, dict[str, int | str]]:
    """A list of strings with parameters, as RFC 9651 has it, read strictly."""
    found: dict[str, dict[str, int | str]] = {}
    for item in value.split(", "):
        match = _STRING.match(item)
        assert match is not None, value
        parameters: dict[str, int | str] = {}
        for parameter in item[match.end() :].split(";")[1:]:
            name, _, bare = parameter.partition("=")
            text = _STRING.fullmatch(bare)
            parameters[name] = int(bare) if text is None else text[1]
        found[re.sub(r"\\(.)", r"\1", match[1])] = parameters
    return found


def shown(answer: httpx2.Response) -> dict[str, int]:
    """The `x-ratelimit-*` fields of an answer."""
    prefix = "x-ratelimit-"
    return {
        name.removeprefix(prefix): int(value)
        for name, value in answer.headers.items()
        if name.startswith(prefix)
    }


def slot(name: str, limit: int | None, used: int = 0, *, zone: str = "UTC") -> Slot:
    """A limit as a worker sees it."""
    scope, resource, window, model = [*name.split("/", 3), ""][:4]
    ref = AllowanceRef(7, scope, resource, window, model)
    start_ms = bounds(Window(window), now_ms=NOW_MS, zone=zone).start_ms
    return Slot(Allowance(ref, limit, used, 0, start_ms), zone=zone, now_ms=NOW_MS)


def fields(*slots: Slot, now_ms: int = NOW_MS) -> dict[str, str]:
    """The header fields for these limits."""
    found = ratelimits.fields(slots, now_ms)
    assert len(dict(found)) == len(found)
    assert all(name == name.lower() for name, _ in found)
    return {name.decode("ascii"): value.decode("ascii") for name, value in found}


# ── What is said ─────────────────────────────────────────────────────────────────────────────────


async def test_where_only_cost_is_limited_nothing_is_said() -> None:
    assert fields(slot("wallet/cost/lifetime", 5), slot("key:3/cost/day", 5, 1)) == {}
    assert fields() == {}


async def test_the_tightest_limit_of_each_kind_is_shown_and_all_of_them_are_listed() -> None:
    found = fields(
        slot("wallet/cost/lifetime", 5),
        slot("account/requests/day", 1_000, 100),
        slot("key:3/requests/minute", 60, 18),
        slot("key:3/tokens/hour/gpt-4o*", 100_000, 250),
        slot("user:5/concurrency/lifetime", 8),
    )
    assert found == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "42",
        "x-ratelimit-reset-requests": "30",
        "x-ratelimit-limit-tokens": "100000",
        "x-ratelimit-remaining-tokens": "99750",
        "x-ratelimit-reset-tokens": "3570",
        "ratelimit-policy": '"account/requests/day";q=1000;w=86400, '
        '"key:3/requests/minute";q=60;w=60, '
        '"key:3/tokens/hour/gpt-4o*";q=100000;qu="tokens";w=3600, '
        '"user:5/concurrency/lifetime";q=8;qu="concurrent-requests"',
        "ratelimit": '"account/requests/day";r=900;t=53970, '
        '"key:3/requests/minute";r=42;t=30, '
        '"key:3/tokens/hour/gpt-4o*";r=99750;t=3570',
    }


async def test_of_many_limits_those_are_listed_of_which_the_least_is_left() -> None:
    many = [slot(f"key:3/requests/day/m{number}", 100, number) for number in range(40)]
    found = fields(*many[::2], *many[1::2])
    tightest = {f"key:3/requests/day/m{number}" for number in range(24, 40)}
    assert parsed(found["ratelimit"]).keys() == parsed(found["ratelimit-policy"]).keys() == tightest
    assert found["x-ratelimit-remaining-requests"] == "61"


async def test_of_two_that_are_as_tight_the_one_that_resets_later_is_shown() -> None:
    found = fields(slot("key:3/requests/minute", 5), slot("account/requests/hour", 9, 4))
    assert found["x-ratelimit-reset-requests"] == "3570"


async def test_what_is_unlimited_or_only_watched_is_not_shown() -> None:
    found = fields(slot("key:3/requests/minute", None), slot("key:3/tokens/minute", 9))
    assert sorted(found) == [
        "ratelimit",
        "ratelimit-policy",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
    ]
    assert fields(slot("key:3/requests/minute", None)) == {}


async def test_what_is_held_counts_as_gone_and_a_new_window_begins_full() -> None:
    limit = slot("key:3/tokens/minute", 100, 10)
    limit.lease.held = 25
    assert fields(limit)["x-ratelimit-remaining-tokens"] == "65"
    limit.known_left = -5
    assert fields(limit)["x-ratelimit-remaining-tokens"] == "0"
    later = fields(limit, now_ms=NOW_MS + 30_000)
    assert (later["x-ratelimit-remaining-tokens"], later["x-ratelimit-reset-tokens"]) == (
        "100",
        "60",
    )


async def test_the_last_instant_of_a_window_is_still_a_second_away() -> None:
    limit = slot("key:3/requests/minute", 60)
    assert fields(limit, now_ms=NOW_MS + 29_999)["x-ratelimit-reset-requests"] == "1"
    assert fields(limit, now_ms=NOW_MS + 30_000)["x-ratelimit-reset-requests"] == "60"


async def test_a_window_is_as_long_as_its_calendar_makes_it() -> None:
    march_ms = 1_774_749_600_000  # 2026-03-29T02:00Z
    ref = AllowanceRef(7, "account", "requests", "day")
    day = Slot(Allowance(ref, 9, 0, 0, 0), zone="Europe/Berlin", now_ms=march_ms)
    policy = dict(ratelimits.fields([day], march_ms))[b"ratelimit-policy"]
    assert policy == b'"account/requests/day";q=9;w=82800'


async def test_names_and_numbers_are_those_of_structured_fields() -> None:
    found = fields(slot('key:3/tokens/day/a"b', 2**63 - 1))
    assert parsed(found["ratelimit-policy"]) == {
        'key:3/tokens/day/a"b': {"q": 10**15 - 1, "qu": "tokens", "w": 86_400}
    }
    assert found["x-ratelimit-limit-tokens"] == str(2**63 - 1)


# ── Through the gateway ──────────────────────────────────────────────────────────────────────────


async def test_a_key_without_rate_limits_gets_the_same_headers_as_ever(house: House) -> None:
    for stream in (False, True):
        answer = await house.chat(stream=stream)
        assert not [name for name in answer.headers if "ratelimit" in name]


@pytest.mark.parametrize("stream", [False, True])
async def test_good_answers_count_down_whole_and_streamed(house: House, *, stream: bool) -> None:
    key_id, secret = await make_key(house, {"requests/month": 5})
    left = []
    for _ in range(3):
        answer = await house.chat(secret, stream=stream)
        assert answer.status_code == 200, answer.text
        left.append(shown(answer)["remaining-requests"])
        name = f"key:{key_id}/requests/month"
        (state,) = parsed(answer.headers["ratelimit"]).items()
        assert state == (name, {"r": left[-1], "t": shown(answer)["reset-requests"]})
        policy = parsed(answer.headers["ratelimit-policy"])
        assert (policy[name]["q"], shown(answer)["limit-requests"]) == (5, 5)
    assert left == [4, 3, 2]


async def test_a_streams_head_holds_an_estimate_of_tokens_and_the_next_answer_the_truth(
    house: House,
) -> None:
    _, secret = await make_key(house, {"tokens/month": 100_000})
    streamed = await house.chat(secret, stream=True, max_tokens=900)
    held = 100_000 - shown(streamed)["remaining-tokens"]
    assert 900 < held < 1_000
    house.upstream.behave(Behaviour(tokens=7, prompt_tokens=3))
    answer = await house.chat(secret)
    assert answer.status_code == 200, answer.text
    # The stream's five words for two of prompt, and this call's.
    assert 100_000 - shown(answer)["remaining-tokens"] == 5 + 2 + 10


async def test_the_refusal_names_the_limit_and_says_when_to_come_back(house: House) -> None:
    key_id, secret = await make_key(house, {"requests/month": 2, "requests/day": 100})
    for _ in range(2):
        assert (await house.chat(secret)).status_code == 200
    before = await books.read(house)
    answer = await house.chat(secret)
    assert answer.status_code == 429
    error = answer.json()["error"]
    name = f"key:{key_id}/requests/month"
    assert (error["code"], error["allowance"], error["resource"]) == (
        "rate_limit_exceeded",
        name,
        "requests",
    )
    assert (error["limit"], error["left"]) == (2, 0)
    assert name in error["message"]
    assert error["resets_at"].endswith("-01T00:00:00.000Z")
    wait_s = int(answer.headers["retry-after"])
    found = shown(answer)
    assert (found["limit-requests"], found["remaining-requests"]) == (2, 0)
    assert wait_s - 1 <= found["reset-requests"] <= wait_s
    states = parsed(answer.headers["ratelimit"])
    # What refused has nothing left, and nothing of the other limit is gone.
    assert (states[name]["r"], states[f"key:{key_id}/requests/day"]["r"]) == (0, 98)
    assert await books.read(house) == before


async def test_refusals_by_limits_are_noted_with_key_model_and_endpoint(house: House) -> None:
    key_id, secret = await make_key(house, {"requests/month": 1, "cost/month": 2**62})
    assert (await house.chat(secret)).status_code == 200
    for _ in range(3):
        assert (await house.chat(secret)).status_code == 429
    await house.server.worker.refusals.flush()
    async with house.server.database.read() as tx:
        query = select(limit_log).where(limit_log.c.key_id == key_id)
        rows = list(await tx.execute(query))
    assert sum(row._mapping["count"] for row in rows) == 3
    assert {(row.allowance, row.model, row.endpoint, row.status) for row in rows} == {
        (f"key:{key_id}/requests/month", "gpt-test", "chat.completions", 429)
    }


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(status=400), Behaviour(status=500), Behaviour(status=429), Behaviour(garbage=True)],
)
async def test_a_call_that_sold_nothing_counts_for_no_limit(
    house: House, behaviour: Behaviour
) -> None:
    _, secret = await make_key(house, {"requests/month": 1, "tokens/month": 2_000})
    house.upstream.behave(behaviour)
    assert (await house.chat(secret, max_tokens=900)).status_code >= 400
    answer = await house.chat(secret, max_tokens=900)
    assert answer.status_code == 200, answer.text
    assert shown(answer)["remaining-requests"] == 0


async def test_a_limit_for_some_models_is_shown_to_calls_of_those_alone(house: House) -> None:
    _, secret = await make_key(house, {"requests/month/gpt-t*": 3, "requests/month/other": 1})
    assert shown(await house.chat(secret))["limit-requests"] == 3
    sandbox = await house.chat(secret, model=SANDBOX)
    assert "x-ratelimit-limit-requests" not in sandbox.headers


# ── What a key may reach, through the gateway ────────────────────────────────────────────────────


async def called(house: House, secret: str, *, path: str = "", **headers: str) -> httpx2.Response:
    """A call with more headers, to the endpoint of chat or another."""
    return await house.http.post(
        path or "/v1/chat/completions",
        json={"model": "gpt-test", "messages": [{"role": "user", "content": "hi"}], "input": "hi"},
        headers={"authorization": f"Bearer {secret}", **headers},
    )


@pytest.mark.parametrize(
    ("columns", "headers", "code"),
    [
        ({"networks": '["203.0.113.0/24"]'}, {}, "ip_not_allowed"),
        ({"networks": '["203.0.113.0/24"]'}, {"x-forwarded-for": "203.0.113.5"}, "ip_not_allowed"),
        ({"endpoints": '["embeddings"]'}, {}, "endpoint_not_allowed"),
        ({"models": '["gpt-4*"]'}, {}, "model_not_allowed"),
        ({"environment": "test"}, {}, "model_not_allowed"),
        ({"labels": '{"team":"a"}'}, {"x-bursar-labels": "team=b"}, "label_not_allowed"),
        ({}, {"x-bursar-labels": "team=b"}, "label_not_allowed"),
    ],
)
async def test_what_a_key_may_not_reach_is_403_and_costs_nothing(
    house: House, columns: dict[str, Any], headers: dict[str, str], code: str
) -> None:
    _, secret = await make_key(house, {"requests/month": 5}, **columns)
    before = await books.read(house)
    answer = await called(house, secret, **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, code)
    assert answer.json()["error"]["type"] == "permission_error"
    assert await books.read(house) == before


async def test_what_a_key_may_reach_is_served(house: House) -> None:
    columns = {"networks": '["127.0.0.0/8"]', "models": '["gpt-*"]', "endpoints": '["embeddings"]'}
    _, secret = await make_key(house, {}, **columns)
    answer = await called(house, secret, path="/v1/embeddings")
    assert answer.status_code == 200, answer.text


async def test_a_change_of_what_a_key_may_reach_counts_from_then_on(house: House) -> None:
    key_id, secret = await make_key(house, {})
    assert (await house.chat(secret)).status_code == 200

    async def confine(models: str | None) -> None:
        async with house.server.database.write() as tx:
            which = update(key_rows).where(key_rows.c.id == key_id)
            await tx.execute(which.values(models=models))
            tx.announce(changes.KEY, account_id=house.account_id, subject=str(key_id))

    for models, status in (('["gpt-4*"]', 403), ('["gpt-t*"]', 200), (None, 200)):
        await confine(models)
        deadline_s = time.monotonic() + 1
        while (found := (await house.chat(secret)).status_code) != status:
            assert time.monotonic() < deadline_s, found


async def test_a_test_key_calls_the_sandbox(house: House) -> None:
    _, secret = await make_key(house, {}, environment="test")
    answer = await house.chat(secret, model=SANDBOX)
    assert answer.status_code == 200, answer.text


async def test_labels_of_key_and_call_stand_in_the_usage_row(house: House) -> None:
    columns = {"labels": '{"team":"search"}', "label_names": '["feature"]'}
    _, secret = await make_key(house, {}, **columns)
    first = await called(house, secret, **{"x-bursar-labels": "feature=a%2Cb"})
    assert first.status_code == 200, first.text
    assert (await house.chat(secret, stream=True)).status_code == 200
    assert (await house.chat()).status_code == 200
    rows = await books.usage_rows(house)
    assert [row.labels for row in rows[-3:]] == [
        '{"feature":"a,b","team":"search"}',
        '{"team":"search"}',
        None,
    ]
    sent = house.upstream.sales[-3].headers
    assert "x-bursar-labels" not in {name.lower() for name in sent}


async def test_a_malformed_label_goes_before_the_key(house: House) -> None:
    answer = await called(house, "bsk_nobody", **{"x-bursar-labels": "Team"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_label")
    assert error["param"] == "x-bursar-labels"


async def test_a_model_that_a_key_may_not_call_goes_before_what_is_wrong_with_the_call(
    house: House,
) -> None:
    _, secret = await make_key(house, {}, models='["gpt-4*"]')
    assert (await house.chat(secret, max_tokens=0)).status_code == 403
    assert (await house.chat(secret, model="nowhere")).status_code == 404


async def test_where_a_caller_is_counts_before_their_long_body_is_read(house: House) -> None:
    _, secret = await make_key(house, {}, networks='["203.0.113.0/24"]')

    answer = await house.http.post(
        "/v1/chat/completions",
        content=b'{"model":"gpt-test","input":"' + b"x" * 1_500_000,
        headers={"authorization": f"Bearer {secret}", "content-type": "application/json"},
    )
    assert answer.json()["error"]["code"] == "ip_not_allowed"
