"""An account's own limits over HTTP: setting, seeing and lifting them, and what none can be."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import insert, select

from bursar.core.allowances import AllowanceRef
from bursar.store.database import Database
from bursar.store.limits import allowances as rows
from bursar.store.plane import leases
from bursar.store.tables import allowances, changes, projects
from tests.databases import Clock
from tests.installations import INFERENCE, JSON, NANOS, OPERATOR, Api, a_charge, lease, use

LIMITS = "/v1/account/limits"
MONTHLY = {"scope": "account", "resource": "cost", "window": "month"}


async def put(api: Api, **fields: Any) -> Any:
    response = await api.call("PUT", LIMITS, json=fields)
    assert response.status_code == 200, response.text
    return response.json()


async def names(api: Api, query: str = "") -> list[str]:
    return [limit["name"] for limit in (await api.get(f"{LIMITS}{query}"))["limits"]]


async def make_project(database: Database, project_id: int, *, account_id: int = 1) -> None:
    async with database.write() as tx:
        values = {"account_id": account_id, "id": project_id, "name": "Shop", "created_ms": 1}
        await tx.execute(insert(projects).values(**values))


async def test_a_limit_that_was_set_is_shown_with_its_next_three_resets(api: Api) -> None:
    made = await put(api, **MONTHLY, limit="500.00", soft_limit="400")
    assert made == {
        "name": "account/cost/month",
        "scope": "account",
        "resource": "cost",
        "unit": "usd",
        "window": "month",
        "model": None,
        "limit": "500.00",
        "soft_limit": "400.00",
        "used": "0.00",
        "leased": "0.00",
        "left": "500.00",
        "origin": "own",
        "resets_at": "2026-12-01T00:00:00Z",
        "next_resets": ["2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"],
    }
    assert (await api.get(f"{LIMITS}?scope=account"))["limits"] == [made]


async def test_windows_are_those_of_the_accounts_time_zone(api: Api, clock: Clock) -> None:
    await api.call(
        "PATCH", "/v1/operator/accounts/1", json={"time_zone": "Europe/Rome"}, caller=OPERATOR
    )
    # The 26th of March 2027 at noon; in the night of the 28th clocks go forward.
    clock.now_ms = 1_806_062_400_000
    daily = await put(api, scope="account", resource="requests", window="day", limit=9)
    assert daily["next_resets"] == [
        "2027-03-26T23:00:00Z",
        "2027-03-27T23:00:00Z",
        "2027-03-28T22:00:00Z",
    ]
    hourly = await put(api, scope="account", resource="requests", window="hour", limit=9)
    assert hourly["resets_at"] == "2027-03-26T13:00:00Z"


async def test_several_limits_of_one_scope_stand_side_by_side(api: Api, database: Database) -> None:
    await make_project(database, 4)
    for scope, resource, window, model, limit in (
        ("key:3", "cost", "day", None, "1.50"),
        ("key:3", "requests", "minute", None, 60),
        ("key:3", "requests", "minute", "gpt-4o*", 20),
        ("key:3", "tokens", "hour", "gpt-4o*", 100_000),
        ("user:1", "concurrency", "lifetime", None, 8),
        ("project:4", "cost", "week", None, "20"),
        ("account", "tokens", "day", None, 0),
    ):
        await put(api, scope=scope, resource=resource, window=window, model=model, limit=limit)
    assert await names(api) == [
        "account/tokens/day",
        "key:3/cost/day",
        "key:3/cost/lifetime",
        "key:3/requests/minute",
        "key:3/requests/minute/gpt-4o*",
        "key:3/tokens/hour/gpt-4o*",
        "project:4/cost/week",
        "user:1/concurrency/lifetime",
        "wallet/cost/lifetime",
    ]
    assert await names(api, "?scope=user:1") == ["user:1/concurrency/lifetime"]
    assert await names(api, "?scope=wallet") == ["wallet/cost/lifetime"]
    assert await names(api, "?resource=tokens") == [
        "account/tokens/day",
        "key:3/tokens/hour/gpt-4o*",
    ]
    assert await names(api, "?scope=key:3&resource=requests&model=o1") == ["key:3/requests/minute"]
    assert len(await names(api, "?scope=key:3&model=gpt-4o-mini")) == 5
    seen = await api.get("/v1/key", caller=INFERENCE)
    assert len(seen["limits"]) == 5
    paged, cursor = [], ""
    while cursor is not None:
        page = await api.get(f"{LIMITS}?limit=2{cursor and '&cursor=' + cursor}")
        paged += [limit["name"] for limit in page["limits"]]
        cursor = page["next_cursor"]
    assert paged == await names(api)


async def test_setting_a_limit_again_never_resets_what_is_used(
    api: Api, database: Database
) -> None:
    await put(api, scope="key:3", resource="cost", window="lifetime", limit="5.00")
    await use(database, a_charge("a", NANOS))
    await lease(database, rows.credit_limit(1, 3), 2 * NANOS)
    for limit, left in (("9", "8.00"), ("0.50", "0.00"), ("1.000000001", "0.000000001")):
        changed = await put(api, scope="key:3", resource="cost", window="lifetime", limit=limit)
        assert (changed["used"], changed["leased"], changed["left"]) == ("1.00", "2.00", left)
    shown = await api.get("/v1/account/keys/3")
    assert shown["credit_limit"] == 1.000000001


async def test_a_limit_counts_from_when_it_was_set_and_workers_are_told_of_it(
    api: Api, database: Database, clock: Clock
) -> None:
    await use(database, a_charge("a", NANOS))
    made = await put(api, **MONTHLY, limit="5.00")
    assert made["used"] == "0.00"
    async with database.read() as tx:
        told = await tx.execute(select(changes.c.topic, changes.c.account_id, changes.c.subject))
        assert ("allowance", 1, "account/cost/month") in [tuple(row) for row in told]
        c = allowances.c
        row = (await tx.execute(select(allowances).where(c.window_name == "month"))).one()
    assert row.created_ms == clock.now_ms
    assert row.window_start_ms == 1_793_491_200_000  # the 1st of November


async def test_a_limit_set_when_its_window_has_ended_begins_with_nothing_used(
    api: Api, database: Database, clock: Clock
) -> None:
    ref = AllowanceRef(1, "key:3", "requests", "minute")
    await put(api, scope="key:3", resource="requests", window="minute", limit=60)
    start_ms = clock.now_ms - clock.now_ms % 60_000
    async with database.write() as tx:
        worker_id = await leases.workers.insert_worker(tx, host="test")
        await leases.take(tx, worker_id=worker_id, wants=[leases.Want(ref, start_ms, 7, 7, 0)])
    changed = await put(api, scope="key:3", resource="requests", window="minute", limit=50)
    assert changed["leased"] == 7
    clock.advance(60_000)
    changed = await put(api, scope="key:3", resource="requests", window="minute", limit=40)
    assert changed["leased"] == 0


async def test_a_limit_that_is_lifted_is_gone_and_what_is_in_flight_stays_counted(
    api: Api, database: Database
) -> None:
    await put(api, scope="key:3", resource="tokens", window="day", model="gpt-*", limit=5)
    query = "?scope=key:3&resource=tokens&window=day&model=gpt-*"
    for status in (204, 404):
        assert (await api.call("DELETE", f"{LIMITS}{query}")).status_code == status
    assert await names(api, "?scope=key:3") == ["key:3/cost/lifetime"]
    async with database.read() as tx:
        ref = AllowanceRef(1, "key:3", "tokens", "day", "gpt-*")
        row = await rows.find_limit(tx, ref=ref)
    assert row is not None
    assert (row.limit, row.soft) == (None, None)
    await put(api, scope="key:3", resource="cost", window="lifetime", limit="5")
    query = "?scope=key:3&resource=cost&window=lifetime"
    assert (await api.call("DELETE", f"{LIMITS}{query}")).status_code == 204
    assert (await api.get("/v1/account/keys/3"))["credit_limit"] is None


COST = {"scope": '"key:3"', "resource": '"cost"', "window": '"day"', "limit": '"1"'}
RATE = {"scope": '"key:3"', "resource": '"requests"', "window": '"day"', "limit": "1"}
NINES = "9" * 400
# What stands in a field, as JSON and apart by spaces, and the code of the answer.
NO_LIMITS: list[tuple[dict[str, str], str, str, str]] = [
    (COST, "limit", f"-1 1 1.5 true [] {{}} 1e400 {NINES}", "invalid_amount"),
    (COST, "limit", r'"-1" "-0.000001" "1_000" "\uff11\uff12" "\u002012\n" "+1"', "invalid_amount"),
    (COST, "limit", '"" "1e3" "0x1" "NaN" "Infinity" "1,5"', "invalid_amount"),
    (COST, "limit", f'"9223372037" "99999999999999999999" "{NINES}"', "invalid_amount"),
    (COST, "limit", '"0.0000000001" "1.0000000000000000001"', "too_precise"),
    (COST, "limit", "NaN Infinity -Infinity", "invalid_json"),
    (COST, "limit", "null", "missing_field"),
    (COST, "soft_limit", '"0" "-0" "2" 5 true', "invalid_amount"),
    (RATE, "limit", '"60" -1 1.0 1.5 1e2 true 1000000000000001', "invalid_amount"),
    (RATE, "limit", f"9223372036854775808 1e19 {NINES}", "invalid_amount"),
    (RATE, "soft_limit", '0 -1 2 "1"', "invalid_amount"),
    (RATE, "scope", '"" "wallet" "key" "key:" "key:0" "key:03" "key:-3"', "invalid_scope"),
    (RATE, "scope", r'"key:\u00203" "Key:3" "key:3/cost" "key:\uff13"', "invalid_scope"),
    (RATE, "scope", '"key:9223372036854775808" "*" "key:*" "account:1"', "invalid_scope"),
    (RATE, "scope", '"key:2" "key:1" "key:999" "project:1" "user:2"', "not_found"),
    (RATE, "scope", '3 null ["key:3"]', "invalid_value"),
    (RATE, "resource", '"credit" "Requests" "" "costs"', "invalid_value"),
    (RATE, "window", '"second" "Day" "" "lifetime" "year"', "invalid_window"),
    (COST, "window", '"second" "decade"', "invalid_window"),
    (RATE, "model", r'"" "gpt\u00204" "^gpt" "gpt[0-9]" "(a+)+" "a\u0000"', "invalid_pattern"),
    (RATE, "model", rf'"*********" "gpt-\uff14" "{"a" * 256}" "a|b" "\\d"', "invalid_pattern"),
    (RATE, "used", "0", "unknown_field"),
    (RATE, "origin", '"plan"', "unknown_field"),
    (RATE, "account_id", "2", "unknown_field"),
]
STATUSES = {"not_found": 404, "invalid_json": 400}


async def test_what_is_no_limit_is_refused_and_changes_nothing(api: Api) -> None:
    before = await api.get(LIMITS)
    for base, name, values, code in NO_LIMITS:
        for value in values.split(" "):
            fields = {**base, name: value}
            body = ",".join(f"{json.dumps(key)}:{text}" for key, text in fields.items())
            content = f"{{{body}}}".encode()
            response = await api.call("PUT", LIMITS, content=content, headers=JSON)
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (STATUSES.get(code, 422), code), value
            assert error["param"] in {name, None if code == "invalid_json" else name}
    assert await api.get(LIMITS) == before


async def test_calls_at_once_have_no_window_and_no_warning(api: Api) -> None:
    fields = {"scope": "account", "resource": "concurrency", "limit": 8}
    for window in ("minute", "day", "month"):
        response = await api.call("PUT", LIMITS, json={**fields, "window": window})
        assert response.json()["error"]["code"] == "invalid_window"
    response = await api.call("PUT", LIMITS, json={**fields, "window": "lifetime", "soft_limit": 5})
    assert response.json()["error"]["code"] == "invalid_window"
    minute = {"scope": "account", "resource": "requests", "window": "minute", "soft_limit": 5}
    response = await api.call("PUT", LIMITS, json=minute)
    assert response.json()["error"]["code"] == "invalid_window"


async def test_another_accounts_scopes_answer_as_unknown_ones(api: Api, database: Database) -> None:
    account_id, stranger = await api.open_account()
    await make_project(database, 7)
    await put(api, scope="key:3", resource="requests", window="day", limit=5)
    for own, unknown in (("key:3", "key:999"), ("project:7", "project:9"), ("user:1", "user:9")):
        answers = []
        for scope in (own, unknown):
            query = f"?scope={scope}&resource=requests&window=day"
            fields = {"scope": scope, "resource": "requests", "window": "day", "limit": 1}
            for response in (
                await api.call("PUT", LIMITS, json=fields, caller=stranger),
                await api.call("DELETE", f"{LIMITS}{query}", caller=stranger),
                await api.call("GET", f"{LIMITS}?scope={scope}", caller=stranger),
            ):
                error = response.json()["error"]
                error.pop("request_id")
                answers.append((response.status_code, error))
        assert answers[:3] == answers[3:]
        assert {status for status, _ in answers} == {404}
    seen = await api.get(f"{LIMITS}?scope=account", caller=stranger)
    assert seen == {"limits": [], "next_cursor": None}
    assert account_id == 2


async def test_a_scope_has_only_so_many_limits(api: Api) -> None:
    for number in range(32):
        await put(
            api, scope="key:3", resource="requests", window="day", model=f"m{number}", limit=1
        )
    fields = {"scope": "key:3", "resource": "requests", "window": "day", "limit": 1}
    response = await api.call("PUT", LIMITS, json=fields)
    assert (response.status_code, response.json()["error"]["code"]) == (409, "too_many_limits")
    # Changing one that is there, and those of another scope, are no more limits of this one.
    await put(api, scope="key:3", resource="requests", window="day", model="m5", limit=2)
    await put(api, scope="account", resource="requests", window="day", limit=2)


NO_QUERIES = (
    ("GET", "?scope=wallet:1", "invalid_scope"),
    ("GET", "?resource=money", "invalid_value"),
    ("GET", "?model=", "invalid_name"),
    ("GET", "?scope=key:3&scope=key:3", "duplicate_parameter"),
    ("GET", "?window=day", "unknown_field"),
    ("GET", "?limit=1001", "invalid_value"),
    ("GET", "?cursor=bGltaXRz", "invalid_cursor"),
    ("DELETE", "", "missing_field"),
    ("DELETE", "?scope=key:3&resource=cost", "missing_field"),
    ("DELETE", "?scope=key:3&resource=requests&window=lifetime", "invalid_window"),
    ("DELETE", "?scope=key:3&resource=requests&window=day&model=a%20b", "invalid_pattern"),
    ("DELETE", "?scope=wallet&resource=cost&window=lifetime", "invalid_scope"),
)


async def test_a_query_that_means_nothing_is_refused(api: Api) -> None:
    for method, query, code in NO_QUERIES:
        response = await api.call(method, f"{LIMITS}{query}")
        assert (response.status_code, response.json()["error"]["code"]) == (422, code), query
