"""Activity and events over HTTP."""

from __future__ import annotations

import csv
import io
import json

from bursar.core.money import format_usd
from bursar.store.database import Database
from tests.databases import Clock
from tests.installations import NANOS, Api, a_charge, use

EVENTS = "/v1/account/usage/events"
ACTIVITY = "/v1/account/activity"


async def test_activity_has_nagaais_shape(api: Api, database: Database, clock: Clock) -> None:
    await use(
        database,
        a_charge("a", 1, at_ms=clock.now_ms, model="gpt-4o-mini"),
        a_charge("b", 2 * NANOS, at_ms=clock.now_ms, model="gpt-4o-mini"),
        a_charge("c", NANOS, at_ms=clock.now_ms - 86_400_000, model="gpt-4o"),
    )
    assert await api.get(f"{ACTIVITY}?days=7") == {
        "period_days": 7,
        "total_stats": {
            "total_requests": 3,
            "total_cost": "3.000000001",
            "total_input_tokens": 30,
            "total_output_tokens": 15,
        },
        "daily_stats": [
            {
                "date": "2026-11-21",
                "total_requests": 2,
                "total_cost": "2.000000001",
                "total_input_tokens": 20,
                "total_output_tokens": 10,
            },
            {
                "date": "2026-11-20",
                "total_requests": 1,
                "total_cost": "1.00",
                "total_input_tokens": 10,
                "total_output_tokens": 5,
            },
        ],
        "top_models": [
            {
                "model_name": "gpt-4o-mini",
                "request_count": 2,
                "total_cost": "2.000000001",
                "total_input_tokens": 20,
                "total_output_tokens": 10,
            },
            {
                "model_name": "gpt-4o",
                "request_count": 1,
                "total_cost": "1.00",
                "total_input_tokens": 10,
                "total_output_tokens": 5,
            },
        ],
        "api_key_usage": [
            {
                "api_key_id": 3,
                "api_key_name": "First inference key",
                "request_count": 3,
                "total_cost": "3.000000001",
                "total_input_tokens": 30,
                "total_output_tokens": 15,
            }
        ],
        "project_usage": [],
        "as_of": "2026-11-21T12:34:56.789Z",
    }
    assert (await api.get(ACTIVITY))["period_days"] == 30
    assert (await api.get(f"{ACTIVITY}?days=1"))["total_stats"]["total_requests"] == 2


async def test_activity_is_kept_for_five_minutes_and_says_how_old_it_is(
    api: Api, database: Database, clock: Clock
) -> None:
    first = await api.call("GET", ACTIVITY)
    assert first.headers["age"] == "0"
    await use(database, a_charge("a", NANOS, at_ms=clock.now_ms))
    clock.advance(299_999)
    kept = await api.call("GET", ACTIVITY)
    assert kept.content == first.content
    assert kept.headers["age"] == "299"
    assert (await api.get(f"{ACTIVITY}?days=29"))["total_stats"]["total_cost"] == "1.00"
    clock.advance(1)
    renewed = await api.call("GET", ACTIVITY)
    assert renewed.headers["age"] == "0"
    assert renewed.json()["total_stats"]["total_cost"] == "1.00"
    assert renewed.json()["as_of"] == "2026-11-21T12:39:56.789Z"


async def test_activity_is_made_anew_when_that_is_asked_for(
    api: Api, database: Database, clock: Clock
) -> None:
    async def cost(query: str = "", headers: dict[str, str] | None = None) -> str:
        response = await api.call("GET", f"{ACTIVITY}{query}", headers=headers)
        return str(response.json()["total_stats"]["total_cost"])

    assert await cost() == "0.00"
    await use(database, a_charge("a", NANOS, at_ms=clock.now_ms))
    assert await cost() == "0.00"
    assert await cost("?fresh=false") == "0.00"
    assert await cost("?fresh=true") == "1.00"
    assert await cost() == "1.00"
    await use(database, a_charge("b", NANOS, at_ms=clock.now_ms))
    assert await cost() == "1.00"
    assert await cost(headers={"cache-control": "no-cache"}) == "2.00"


async def test_what_is_kept_is_kept_for_one_account(api: Api, database: Database) -> None:
    _, stranger = await api.open_account()
    await use(database, a_charge("a", NANOS))
    assert (await api.get(ACTIVITY))["total_stats"]["total_cost"] == "1.00"
    assert (await api.get(ACTIVITY, caller=stranger))["total_stats"]["total_cost"] == "0.00"
    assert (await api.get(EVENTS, caller=stranger)) == {"events": [], "next_cursor": None}


async def test_events_are_paged_filtered_and_complete(
    api: Api, database: Database, clock: Clock
) -> None:
    await use(
        database,
        *(
            a_charge(
                f"e{n}",
                n,
                at_ms=clock.now_ms + n,
                model="large" if n % 2 else "small",
                quantities='{"images":2}' if n == 4 else None,
                labels='{"team":"red"}' if n == 4 else None,
            )
            for n in range(5)
        ),
    )
    page = await api.get(f"{EVENTS}?limit=2")
    assert page["events"][0] == {
        "id": "e4",
        "at": "2026-11-21T12:34:56.793Z",
        "key_id": 3,
        "model": "small",
        "product": "gateway",
        "endpoint": "chat.completions",
        "outcome": "ok",
        "is_stream": False,
        "is_estimated": False,
        "input_tokens": 10,
        "cached_input_tokens": 2,
        "output_tokens": 5,
        "reasoning_tokens": 1,
        "quantities": {"images": 2},
        "cost": "0.000000004",
        "duration_ms": 12,
        "first_byte_ms": 8,
        "labels": {"team": "red"},
        "project_id": None,
        "user_id": None,
    }
    ids = [event["id"] for event in page["events"]]
    while page["next_cursor"]:
        page = await api.get(f"{EVENTS}?limit=2&cursor={page['next_cursor']}")
        ids += [event["id"] for event in page["events"]]
    assert ids == ["e4", "e3", "e2", "e1", "e0"]
    query = "model=large&key_id=3&from=2026-11-21T12:34:56.790Z&to=2026-11-21T12:34:56.792Z"
    assert [event["id"] for event in (await api.get(f"{EVENTS}?{query}"))["events"]] == ["e1"]
    assert (await api.get(f"{EVENTS}?key_id=4"))["events"] == []


async def test_events_come_as_csv_that_no_spreadsheet_computes(
    api: Api, database: Database, clock: Clock
) -> None:
    models = ["=cmd()", "+1", "-1", "@x", 'say "hi", you', "plain"]
    await use(
        database,
        *(
            a_charge(f"e{n}", 1, at_ms=clock.now_ms - n, model=model)
            for n, model in enumerate(models)
        ),
    )
    response = await api.call("GET", EVENTS, headers={"accept": "text/csv"})
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert "x-next-cursor" not in response.headers
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["model"] for row in rows] == ["'=cmd()", "'+1", "'-1", "'@x", *models[4:]]
    event = (await api.get(EVENTS))["events"][-1]
    assert list(rows[-1]) == list(event)
    assert rows[-1]["cost"] == event["cost"]
    assert rows[-1]["is_stream"] == "false"

    first = await api.call("GET", f"{EVENTS}?limit=4", headers={"accept": "text/csv"})
    cursor = first.headers["x-next-cursor"]
    rest = await api.call("GET", f"{EVENTS}?cursor={cursor}", headers={"accept": "text/csv"})
    both = [*csv.DictReader(io.StringIO(first.text)), *csv.DictReader(io.StringIO(rest.text))]
    assert both == rows


ACCEPTED: list[tuple[str, str]] = [
    ("text/csv", "text/csv"),
    ("Text/CSV; q=0.9, application/json; q=0.1", "text/csv"),
    ("text/csv;q=0", "application/json"),
    ("*/*", "application/json"),
    ("text/*", "application/json"),
    ("application/xml", "application/json"),
    ("", "application/json"),
    ("text/csvx,;;,q=", "application/json"),
]


async def test_csv_is_for_those_who_name_it(api: Api) -> None:
    for accept, kind in ACCEPTED:
        response = await api.call("GET", EVENTS, headers={"accept": accept})
        assert response.headers["content-type"].split(";")[0] == kind


async def test_all_reports_add_up_to_what_left_the_balance(
    api: Api, database: Database, clock: Clock
) -> None:
    await use(database, *(a_charge(f"e{n}", 7**n, at_ms=clock.now_ms - n) for n in range(12)))
    spent = sum(7**n for n in range(12))
    written = json.dumps(await api.get(f"{ACTIVITY}?days=1"))
    assert written.count(f'"{format_usd(spent)}"') == 4
    balance = (await api.get("/v1/account/balance"))["balance"]
    assert balance == format_usd(100 * NANOS - spent)
