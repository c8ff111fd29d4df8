"""Plans over HTTP: what accounts get that have set nothing, and the most that they may set."""

from __future__ import annotations

from typing import Any

from bursar.core.allowances import AllowanceRef
from bursar.store.database import Database
from bursar.store.limits import allowances
from bursar.store.plane import leases
from tests.databases import Clock
from tests.installations import OPERATOR, Api

LIMITS = "/v1/account/limits"
PLANS = "/v1/operator/plans"
ACCOUNT = "/v1/operator/accounts/1"
MINUTE = {"resource": "requests", "window": "minute"}
REQUESTS = "?resource=requests&window=minute"


async def put(api: Api, path: str, caller: str, **fields: Any) -> Any:
    response = await api.call("PUT", path, json=fields, caller=caller)
    assert response.status_code == 200, response.text
    return response.json()


async def give(api: Api, **fields: Any) -> Any:
    return await put(api, f"{PLANS}/1/limits", OPERATOR, **fields)


async def own(api: Api, **fields: Any) -> Any:
    return await put(api, LIMITS, "provisioning", **fields)


async def shown(api: Api, name: str) -> list[Any] | None:
    """The limit, what it warns at and whose it is, as its scope is shown; None: not at all."""
    limits = (await api.get(f"{LIMITS}?scope={name.partition('/')[0]}"))["limits"]
    found = next((limit for limit in limits if limit["name"] == name), None)
    return found and [found["limit"], found["soft_limit"], found["origin"]]


async def refused(api: Api, method: str, path: str, fields: object = None) -> tuple[int, str]:
    response = await api.call(method, path, json=fields, caller=OPERATOR)
    return response.status_code, response.json()["error"]["code"]


async def test_a_plan_is_made_changed_and_deleted(api: Api) -> None:
    assert await api.get(PLANS, caller=OPERATOR) == {
        "plans": [{"id": 1, "name": "default", "created_at": "1970-01-01T00:00:00Z", "limits": []}],
        "next_cursor": None,
    }
    made = await api.post(PLANS, {"name": "Pro"}, caller=OPERATOR)
    assert made == {
        "id": 2,
        "name": "Pro",
        "created_at": "2026-11-21T12:34:56Z",
        "limits": [],
    }
    page = await api.get(f"{PLANS}?limit=1", caller=OPERATOR)
    rest = await api.get(f"{PLANS}?limit=1&cursor={page['next_cursor']}", caller=OPERATOR)
    assert [plan["id"] for plan in (*page["plans"], *rest["plans"])] == [1, 2]
    changed = await api.call("PATCH", f"{PLANS}/2", json={"name": "Pro 27"}, caller=OPERATOR)
    assert changed.json() == {**made, "name": "Pro 27"}
    limit = {"scope": "key", "resource": "cost", "window": "day", "default_limit": "1.50"}
    changed_plan = await put(api, f"{PLANS}/2/limits", OPERATOR, **limit)
    assert changed_plan["limits"] == [
        {**limit, "unit": "usd", "model": None, "most_limit": None},
    ]
    assert await api.get(f"{PLANS}/2", caller=OPERATOR) == changed_plan
    response = await api.call("DELETE", f"{PLANS}/2", caller=OPERATOR)
    assert response.status_code == 204
    for method in ("GET", "DELETE"):
        assert await refused(api, method, f"{PLANS}/2") == (404, "not_found")
    assert await refused(api, "PATCH", f"{PLANS}/2", {"bogus": 1}) == (404, "not_found")
    assert await refused(api, "PUT", f"{PLANS}/2/limits", {"bogus": 1}) == (404, "not_found")


async def test_a_plan_that_accounts_have_cannot_be_deleted(api: Api) -> None:
    assert await refused(api, "DELETE", f"{PLANS}/1") == (409, "plan_in_use")
    await api.post(PLANS, {"name": "Pro"}, caller=OPERATOR)
    assert await refused(api, "POST", PLANS, {"name": "Pro"}) == (409, "name_taken")
    assert await refused(api, "PATCH", f"{PLANS}/1", {"name": "Pro"}) == (409, "name_taken")
    changed = await api.call("PATCH", ACCOUNT, json={"plan_id": 2}, caller=OPERATOR)
    assert changed.json()["plan_id"] == 2
    assert await refused(api, "DELETE", f"{PLANS}/2") == (409, "plan_in_use")
    opened = await api.post("/v1/operator/accounts", {"name": "New", "plan_id": 2}, caller=OPERATOR)
    assert opened["plan_id"] == 2
    for path, method in (("/v1/operator/accounts", "POST"), (ACCOUNT, "PATCH")):
        for plan_id in (9, 2**63 - 1):
            fields = {"name": "x", "plan_id": plan_id}
            assert await refused(api, method, path, fields) == (404, "not_found")
        for bad in (0, -1, 2**63, "2", True, 1.5):
            fields = {"name": "x", "plan_id": bad}
            assert await refused(api, method, path, fields) == (422, "invalid_value")


async def test_what_nobody_has_set_is_what_the_plan_gives(api: Api) -> None:
    for scope in ("account", "user", "key"):
        await give(api, scope=scope, **MINUTE, default_limit=60)
    for name in ("account", "user:1", "key:3"):
        assert await shown(api, f"{name}/requests/minute") == [60, None, "plan"]
    listed = await api.get(LIMITS)
    assert "account/requests/minute" in [limit["name"] for limit in listed["limits"]]
    await own(api, scope="key:3", **MINUTE, limit=90)
    assert await shown(api, "key:3/requests/minute") == [90, None, "own"]
    await give(api, scope="key", **MINUTE, default_limit=30)
    assert await shown(api, "key:3/requests/minute") == [90, None, "own"]
    response = await api.call("DELETE", f"{LIMITS}{REQUESTS}&scope=key:3")
    assert response.status_code == 204
    assert await shown(api, "key:3/requests/minute") == [30, None, "plan"]
    response = await api.call("DELETE", f"{LIMITS}{REQUESTS}&scope=key:3")
    assert response.status_code == 404, "what a plan gives is not one's own to lift"
    gone = f"{PLANS}/1/limits{REQUESTS}&scope=key"
    assert (await api.call("DELETE", gone, caller=OPERATOR)).status_code == 204
    assert await shown(api, "key:3/requests/minute") is None
    assert await refused(api, "DELETE", gone) == (404, "not_found")


async def test_nobody_sets_more_than_the_bound_and_no_limit_is_the_bound(api: Api) -> None:
    await own(api, scope="key:3", **MINUTE, limit=500)
    await give(api, scope="key", **MINUTE, most_limit=100)
    assert await shown(api, "key:3/requests/minute") == [100, None, "own"]
    for limit, status in ((101, 422), (100, 200), (7, 200)):
        response = await api.call("PUT", LIMITS, json={"scope": "key:3", **MINUTE, "limit": limit})
        assert response.status_code == status
        if status == 422:
            assert response.json()["error"]["code"] == "limit_above_bound"
            assert response.json()["error"]["param"] == "limit"
    await api.call("DELETE", f"{LIMITS}{REQUESTS}&scope=key:3")
    assert await shown(api, "key:3/requests/minute") == [100, None, "plan"]
    # Only a warning is no limit, and no limit is the bound.
    day = {"resource": "tokens", "window": "day"}
    await give(api, scope="key", **day, most_limit=1000)
    made = await own(api, scope="key:3", **day, soft_limit=500)
    assert (made["limit"], made["soft_limit"], made["origin"]) == (1000, 500, "own")
    # Other models, windows and scopes have bounds of their own.
    await own(api, scope="key:3", **MINUTE, model="gpt-*", limit=5000)
    await own(api, scope="account", **MINUTE, limit=5000)


async def test_a_bound_holds_for_a_keys_credit_limit(api: Api) -> None:
    lifetime = {"resource": "cost", "window": "lifetime"}
    made = await api.post("/v1/account/keys", {"name": "before"})
    await give(api, scope="key", **lifetime, default_limit="5", most_limit="20")
    keys = "/v1/account/keys"
    assert (await api.get(f"{keys}/{made['id']}"))["credit_limit"] == 5
    assert (await api.post(keys, {"name": "after"}))["credit_limit"] == 5
    assert (await api.post(keys, {"name": "more", "credit_limit": 20}))["credit_limit"] == 20
    for method, path, fields in (
        ("POST", keys, {"name": "x", "credit_limit": 20.01}),
        ("PATCH", f"{keys}/3", {"credit_limit": 21}),
    ):
        response = await api.call(method, path, json=fields)
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (422, "limit_above_bound")
        assert error["param"] == "credit_limit"
    changed = await api.call("PATCH", f"{keys}/3", json={"credit_limit": 7})
    assert changed.json()["credit_limit"] == 7
    changed = await api.call("PATCH", f"{keys}/3", json={"credit_limit": None})
    assert changed.json()["credit_limit"] == 5


async def test_an_account_has_the_limits_of_its_new_plan_at_once(
    api: Api, database: Database, clock: Clock
) -> None:
    await api.post(PLANS, {"name": "Pro"}, caller=OPERATOR)
    day = {"resource": "tokens", "window": "day"}
    await give(api, scope="key", **MINUTE, default_limit=60, most_limit=60)
    await give(api, scope="key", **day, default_limit=1000)
    pro = f"{PLANS}/2/limits"
    await put(api, pro, OPERATOR, scope="key", **MINUTE, default_limit=600, most_limit=6000)
    # Rows as their first leases make them.
    async with database.write() as tx:
        worker_id = await leases.workers.insert_worker(tx, host="test")
        for resource, window, length_ms in (
            ("requests", "minute", 60_000),
            ("tokens", "day", 86_400_000),
        ):
            ref = AllowanceRef(1, "key:3", resource, window)
            start_ms = clock.now_ms - clock.now_ms % length_ms
            want = leases.Want(ref, start_ms, 5, 5, 0, is_stored=False)
            await leases.take(tx, worker_id=worker_id, wants=[want])
    assert await shown(api, "key:3/requests/minute") == [60, None, "plan"]
    await api.call("PATCH", ACCOUNT, json={"plan_id": 2}, caller=OPERATOR)
    assert await shown(api, "key:3/requests/minute") == [600, None, "plan"]
    assert await shown(api, "key:3/tokens/day") is None
    await own(api, scope="key:3", **MINUTE, limit=5000)
    await api.call("PATCH", ACCOUNT, json={"plan_id": 1}, caller=OPERATOR)
    assert await shown(api, "key:3/requests/minute") == [60, None, "own"]
    async with database.read() as tx:
        rows = await allowances.list_of_scope(tx, account_id=1, scope="key:3")
    assert {row.leased for row in rows if row.ref.resource != "cost"} == {5}


async def test_what_no_limit_of_a_plan_can_be_is_refused(api: Api) -> None:
    base = {"scope": "key", **MINUTE, "default_limit": 60}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"scope": "key:3"}, "invalid_scope"),
        ({"scope": "wallet"}, "invalid_scope"),
        ({"scope": ""}, "invalid_scope"),
        ({"resource": "money"}, "invalid_value"),
        ({"window": "lifetime"}, "invalid_window"),
        ({"model": "gpt 4"}, "invalid_pattern"),
        ({"default_limit": "60"}, "invalid_amount"),
        ({"default_limit": -1}, "invalid_amount"),
        ({"most_limit": 59}, "limit_above_bound"),
        ({"most_limit": True}, "invalid_amount"),
        ({"default_limit": None}, "missing_field"),
        ({"limit": 5}, "unknown_field"),
    ]
    for change, code in cases:
        assert await refused(api, "PUT", f"{PLANS}/1/limits", {**base, **change}) == (422, code)
    assert (await api.get(f"{PLANS}/1", caller=OPERATOR))["limits"] == []
    for number in range(32):
        await give(api, **{**base, "model": f"m{number}"})
    assert await refused(api, "PUT", f"{PLANS}/1/limits", base) == (409, "too_many_limits")
    await give(api, **{**base, "model": "m7", "default_limit": 1})
    await give(api, **{**base, "scope": "user"})


async def test_an_account_is_renamed_and_gets_another_time_zone(api: Api) -> None:
    response = await api.call("PATCH", ACCOUNT, json={"name": " Acme "}, caller=OPERATOR)
    assert response.json()["name"] == "Acme"
    fields = {"name": None, "time_zone": "Asia/Kathmandu"}
    response = await api.call("PATCH", ACCOUNT, json=fields, caller=OPERATOR)
    seen = await api.get("/v1/account")
    assert (seen["name"], seen["time_zone"]) == ("Acme", "Asia/Kathmandu")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"name": ""}, "invalid_name"),
        ({"name": "a\u202eb"}, "invalid_characters"),
        ({"time_zone": "../../etc"}, "invalid_timezone"),
        ({"time_zone": "Mars/Base"}, "invalid_timezone"),
        ({"status": "active"}, "unknown_field"),
        ({"balance": "5"}, "unknown_field"),
        ({"id": 5}, "unknown_field"),
    ]
    for change, code in cases:
        assert await refused(api, "PATCH", ACCOUNT, change) == (422, code)
    assert await refused(api, "PATCH", "/v1/operator/accounts/9", {"x": 1}) == (404, "not_found")
