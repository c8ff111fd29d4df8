"""A key's life over HTTP: what it may reach, rotation, many at once, search, leaks."""

from __future__ import annotations

from typing import Any

from bursar.core import secrets
from bursar.core.secrets import KeyKind
from bursar.store import credentials, usage
from bursar.store.database import Database
from tests.databases import Clock
from tests.installations import NANOS, OPERATOR, Api, a_charge, use

KEYS = "/v1/account/keys"
DAY_MS = 86_400_000
SETTINGS: dict[str, Any] = {
    "environment": "test",
    "description": "For the search team",
    "labels": {"team": "search"},
    "label_names": ["feature", "run.id"],
    "models": ["gpt-4*", "sandbox/echo"],
    "endpoints": ["chat.completions"],
    "networks": ["203.0.113.7", "2001:db8::/32", "::ffff:198.51.100.0/120"],
}


async def refusal(api: Api, method: str, path: str, **arguments: Any) -> tuple[int, str, str]:
    response = await api.call(method, path, **arguments)
    assert response.status_code >= 400, response.text
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


async def works(database: Database, secret: str, clock: Clock) -> bool:
    async with database.read() as tx:
        row = await credentials.find_credential(tx, secret_hash=secrets.digest(secret))
    if row is None or row.is_deleted or not row.is_enabled:
        return False
    return row.expires_ms is None or clock.now_ms < row.expires_ms


async def test_a_key_keeps_what_it_was_made_with_and_shows_it(api: Api) -> None:
    made = await api.post(KEYS, {"name": "Search", **SETTINGS})
    expected = {
        **SETTINGS,
        "networks": ["203.0.113.7/32", "2001:db8::/32", "198.51.100.0/24"],
        "hint": f"bsk_…{made['key'][-6:]}",
        "user_id": 1,
        "project_id": None,
        "spent_7_days": "0.00",
        "last_used_at": None,
    }
    shown = await api.get(f"{KEYS}/{made['id']}")
    assert {name: shown[name] for name in expected} == expected
    change = {"models": None, "endpoints": ["embeddings"], "labels": None, "description": "x"}
    changed = (await api.call("PATCH", f"{KEYS}/{made['id']}", json=change)).json()
    assert changed == {**shown, **change, "labels": {}}
    assert (await api.get(f"{KEYS}/{made['id']}")) == changed


BAD_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"models": []}, "invalid_value", "models"),
    ({"models": ["gpt-(4|5)"]}, "invalid_pattern", "models"),
    ({"models": ["a"] * 101}, "invalid_value", "models"),
    ({"endpoints": ["chat"]}, "invalid_endpoint", "endpoints"),
    ({"networks": ["203.0.113.7/24"]}, "invalid_network", "networks"),
    ({"networks": ["localhost"]}, "invalid_network", "networks"),
    ({"labels": {"Team": "x"}}, "invalid_label", "labels"),
    ({"label_names": ["a b"]}, "invalid_label", "label_names"),
    ({"description": "x" * 1_001}, "name_too_long", "description"),
    ({"description": "a\u202eb"}, "invalid_characters", "description"),
    ({"project_id": 99}, "not_found", "project_id"),
    ({"project_id": "1"}, "invalid_value", "project_id"),
    ({"role": "admin"}, "unknown_field", "role"),
    ({"secret_hash": "x"}, "unknown_field", "secret_hash"),
]
BAD_QUERIES = [
    ("limit=0", "invalid_value"),
    ("limit=1001", "invalid_value"),
    ("cursor=abc", "invalid_cursor"),
    ("environment=prod", "invalid_value"),
    ("is_enabled=yes", "invalid_value"),
    ("label=Team", "invalid_label"),
    ("project_id=x", "invalid_value"),
    ("q=", "invalid_name"),
    ("sort=secret_hash", "unknown_field"),
    ("q=a&q=b", "duplicate_parameter"),
]


async def test_a_field_that_breaks_a_rule_is_refused_on_both_ways(api: Api) -> None:
    for fields, code, param in BAD_FIELDS:
        status = 404 if code == "not_found" else 422
        made = await refusal(api, "POST", KEYS, json={"name": "Key", **fields})
        changed = await refusal(api, "PATCH", f"{KEYS}/3", json=fields)
        assert made == changed == (status, code, param), fields
    assert len((await api.get(KEYS))["keys"]) == 1


async def test_environment_and_user_never_change(api: Api) -> None:
    for field in ("environment", "user_id", "kind"):
        found = await refusal(api, "PATCH", f"{KEYS}/3", json={field: "live"})
        assert found == (422, "unknown_field", field)
    made = await refusal(api, "POST", KEYS, json={"name": "Key", "environment": "prod"})
    assert made == (422, "invalid_value", "environment")


async def test_both_secrets_work_until_the_grace_ends(
    api: Api, database: Database, clock: Clock
) -> None:
    made = await api.post(KEYS, {"name": "Key", "credit_limit": 5, **SETTINGS})
    await use(database, a_charge("a", NANOS, key_id=made["id"]))
    rotated = await api.post(f"{KEYS}/{made['id']}/rotate", {"grace_s": 60})
    assert rotated["key"] != made["key"]
    assert secrets.parse(rotated["key"]) is KeyKind.INFERENCE
    stays = set(made) - {"key", "hint", "rotated_at", "previous_secret_until", "limits"}
    stays -= {"last_used_at", "spent_7_days"}
    assert {name: rotated[name] for name in stays} == {name: made[name] for name in stays}
    # Neither what it has used nor its window begins anew.
    assert rotated["limits"][0]["used"] == "1.00"
    assert rotated["previous_secret_until"] == "2026-11-21T12:35:56.789Z"
    for secret in (made["key"], rotated["key"]):
        assert await works(database, secret, clock)
    clock.advance(60_000)
    assert not await works(database, made["key"], clock)
    assert await works(database, rotated["key"], clock)
    assert (await api.get(f"{KEYS}/{made['id']}"))["previous_secret_until"] is None


async def test_never_more_than_two_secrets_work(api: Api, database: Database, clock: Clock) -> None:
    first = await api.post(KEYS, {"name": "Key"})
    path = f"{KEYS}/{first['id']}/rotate"
    second, third = await api.post(path, {}), await api.post(path, {})
    assert not await works(database, first["key"], clock)
    assert await works(database, second["key"], clock)
    fourth = await api.post(path, {"grace_s": 0})
    assert fourth["previous_secret_until"] is None
    assert not await works(database, third["key"], clock)
    assert await works(database, fourth["key"], clock)
    for grace_s in (-1, 30 * 86_400 + 1):
        assert await refusal(api, "POST", path, json={"grace_s": grace_s}) == (
            422,
            "invalid_value",
            "grace_s",
        )
    assert (await refusal(api, "POST", path, json={"grace_s": "60"}))[1] == "invalid_value"


async def test_the_secret_before_a_rotation_ends_with_the_key(
    api: Api, database: Database, clock: Clock
) -> None:
    made = await api.post(KEYS, {"name": "Key", "expires_at": "2026-11-21T12:35:00Z"})
    await api.post(f"{KEYS}/{made['id']}/rotate", {})
    clock.advance(4_000)
    assert not await works(database, made["key"], clock)


async def test_a_rotation_whose_answer_was_lost_gives_the_same_secret_again(api: Api) -> None:
    path = f"{KEYS}/3/rotate"
    headers = {"idempotency-key": "rotate-1"}
    first, again = [
        await api.call("POST", path, json={"grace_s": 5}, headers=headers) for _ in range(2)
    ]
    assert first.content == again.content
    assert again.headers["idempotent-replayed"] == "true"
    assert (await api.call("POST", path, json={}, headers=headers)).status_code == 422


async def test_many_keys_are_made_all_or_none(api: Api) -> None:
    wanted = [{"name": f"Key {number}", "credit_limit": number} for number in range(1, 101)]
    made = (await api.post(f"{KEYS}/bulk", {"keys": wanted}))["keys"]
    assert [key["name"] for key in made] == [key["name"] for key in wanted]
    assert len({key["key"] for key in made}) == 100
    bad = [*wanted[:2], {"name": "Key", "models": ["("]}]
    found = await refusal(api, "POST", f"{KEYS}/bulk", json={"keys": bad})
    assert found == (422, "invalid_pattern", "keys.2.models")
    _, stranger = await api.open_account()
    foreign = await api.post("/v1/account/projects", {"name": "Theirs"}, caller=stranger)
    mixed = [{"name": "Mine"}, {"name": "Key", "project_id": foreign["id"]}]
    found = await refusal(api, "POST", f"{KEYS}/bulk", json={"keys": mixed})
    assert found == (404, "not_found", "keys.1.project_id")
    for keys in ([], [{"name": "Key"}] * 101):
        found = await refusal(api, "POST", f"{KEYS}/bulk", json={"keys": keys})
        assert found == (422, "invalid_value", "keys")
    found = await refusal(api, "POST", f"{KEYS}/bulk", json={"keys": [{"name": "Key", "nam": "x"}]})
    assert found == (422, "unknown_field", "keys.0.nam")
    assert len((await api.get(KEYS))["keys"]) == 101


async def names(api: Api, query: str) -> list[str]:
    return [key["name"] for key in (await api.get(f"{KEYS}?{query}"))["keys"]]


async def test_keys_are_searched_literally_and_in_pages(api: Api) -> None:
    project = await api.post("/v1/account/projects", {"name": "Search"})
    for name, fields in {
        "50% off": {"labels": {"team": "a"}},
        "50x off": {"environment": "test", "labels": {"team": "A"}},
        "under_score": {"project_id": project["id"], "labels": {"other": '"team":"a"'}},
        "underxscore": {"description": "Summer SALE"},
    }.items():
        made = await api.post(KEYS, {"name": name, **fields})
    assert await names(api, "q=50%25") == ["50% off"]
    assert await names(api, "q=r_s") == ["under_score"]
    assert await names(api, "q=%27;%20DROP%20TABLE%20keys--") == []
    assert await names(api, "q=summer%20sale") == ["underxscore"]
    assert await names(api, f"q={made['key'][-6:]}") == ["underxscore"]
    assert await names(api, "environment=test") == ["50x off"]
    assert await names(api, f"project_id={project['id']}") == ["under_score"]
    assert await names(api, "label=team%3Da") == ["50% off"]
    assert await names(api, "label=team") == ["50% off", "50x off"]
    assert await names(api, "user_id=1&is_enabled=true&q=off") == ["50% off", "50x off"]
    assert await names(api, "is_enabled=false") == []
    pages, cursor = [], ""
    while True:
        page = await api.get(f"{KEYS}?limit=2{cursor}")
        pages.append([key["name"] for key in page["keys"]])
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [*pages[0], *pages[1], *pages[2]] == await names(api, "limit=100")
    assert "next_cursor" not in await api.get(KEYS)


async def test_a_search_that_cannot_be_meant_is_refused(api: Api) -> None:
    for query, code in BAD_QUERIES:
        assert (await refusal(api, "GET", f"{KEYS}?{query}"))[:2] == (422, code), query


async def test_another_accounts_cursor_is_none(api: Api) -> None:
    _, stranger = await api.open_account()
    await api.post(KEYS, {"name": "Second"})
    page = await api.get(f"{KEYS}?limit=1")
    found = await refusal(api, "GET", f"{KEYS}?cursor={page['next_cursor']}", caller=stranger)
    assert found[1] == "invalid_cursor"


async def test_a_key_shows_its_last_use_its_week_and_its_window(
    api: Api, database: Database, clock: Clock
) -> None:
    made = await api.post(KEYS, {"name": "Key"})
    limit = {"scope": f"key:{made['id']}", "resource": "cost", "window": "month", "limit": "9.00"}
    assert (await api.call("PUT", "/v1/account/limits", json=limit)).status_code == 200
    now_ms = clock.now_ms
    for event_id, at_ms, usd in (
        ("old", now_ms - 7 * DAY_MS, 4),
        ("week", now_ms - 6 * DAY_MS, 2),
        ("new", now_ms - 3_000, 1),
    ):
        await use(database, a_charge(event_id, usd * NANOS, key_id=made["id"], at_ms=at_ms))
    for key in (await api.get(f"{KEYS}/{made['id']}"), (await api.get(KEYS))["keys"][1]):
        assert key["spent_7_days"] == "3.00"
        assert key["last_used_at"] == "2026-11-21T12:34:53.789Z"
        assert [limit["window"] for limit in key["limits"]] == ["lifetime", "month"]
        assert key["limits"][0]["used"] == "7.00"
    other = (await api.get(KEYS))["keys"][0]
    assert (other["spent_7_days"], other["last_used_at"]) == ("0.00", None)


async def test_a_report_of_a_leak_stops_the_key_and_tells_its_account(
    api: Api, database: Database, clock: Clock
) -> None:
    made = await api.post(KEYS, {"name": "Key"})
    found = {"secret": made["key"], "source": "https://example.com/commit/1"}
    unknown = secrets.mint(KeyKind.INFERENCE, random_bytes=bytes(32))
    answers = set()
    for body in (found, found, {"secret": unknown}, {"secret": "password"}, {"secret": ""}):
        response = await api.call("POST", "/v1/leaks", caller=None, json=body)
        answers.add((response.status_code, response.content))
    assert len(answers) == 1
    assert next(iter(answers))[0] == 202
    assert not await works(database, made["key"], clock)
    seen = await api.get(f"{KEYS}/{made['id']}")
    assert (seen["is_enabled"], seen["leaked_at"]) == (False, "2026-11-21T12:34:56.789Z")
    alerts = (await api.get("/v1/account/alerts"))["alerts"]
    assert [alert["kind"] for alert in alerts] == ["leaked_key"]
    assert "is public. The key is disabled" in alerts[0]["message"]
    assert made["key"] not in str(alerts)
    enabling = {"json": {"is_enabled": True}}
    assert (await refusal(api, "PATCH", f"{KEYS}/{made['id']}", **enabling))[:2] == (
        409,
        "key_leaked",
    )
    clock.advance(1_000)
    rotated = await api.post(f"{KEYS}/{made['id']}/rotate", {"grace_s": 600})
    assert rotated["previous_secret_until"] is None
    assert (await api.call("PATCH", f"{KEYS}/{made['id']}", **enabling)).status_code == 200
    assert not await works(database, made["key"], clock)
    assert await works(database, rotated["key"], clock)


async def test_a_leak_of_the_former_secret_ends_its_grace_alone(
    api: Api, database: Database, clock: Clock
) -> None:
    made = await api.post(KEYS, {"name": "Key"})
    rotated = await api.post(f"{KEYS}/{made['id']}/rotate", {})
    body = {"secret": made["key"]}
    assert (await api.call("POST", "/v1/leaks", caller=None, json=body)).status_code == 202
    assert not await works(database, made["key"], clock)
    assert await works(database, rotated["key"], clock)


async def test_nobody_reports_leaks_without_end(api: Api, clock: Clock) -> None:
    async def report(address: str = "") -> int:
        headers = {"x-forwarded-for": address} if address else {}
        body = {"secret": "x"}
        response = await api.call("POST", "/v1/leaks", caller=None, json=body, headers=headers)
        return response.status_code

    assert {await report() for _ in range(60)} == {202}
    assert await report() == 429
    # An address that anybody could have made up is not looked at.
    assert await report("203.0.113.9") == 429
    clock.advance(60_000)
    assert await report() == 202


async def test_a_provisioning_key_works_only_from_its_networks(api: Api) -> None:
    path = "/v1/operator/accounts/1/keys"
    for networks, status in ((["198.51.100.0/24"], 403), (["192.0.2.0/24"], 200)):
        fields = {"name": "CI", "kind": "provisioning", "networks": networks}
        made = await api.post(path, fields, caller=OPERATOR)
        headers = {"x-forwarded-for": "198.51.100.7"}
        answer = await api.call("GET", KEYS, caller=made["key"], headers=headers)
        assert answer.status_code == status
    own = {"name": "Key", "networks": ["192.0.2.1"]}
    key = await api.post(KEYS, own)
    assert (await api.call("GET", "/v1/key", caller=key["key"])).status_code == 200
    await api.call("PATCH", f"{KEYS}/{key['id']}", json={"networks": ["192.0.2.2"]})
    assert await refusal(api, "GET", "/v1/key", caller=key["key"]) == (
        403,
        "ip_not_allowed",
        None,
    )


async def test_nobody_passes_on_more_than_they_have(api: Api) -> None:
    confined = {
        "environment": "test",
        "models": ["gpt-4*"],
        "endpoints": ["chat.completions"],
        "expires_at": "2027-01-01T00:00:00Z",
    }
    fields = {"name": "CI", "kind": "provisioning", **confined}
    made = await api.post("/v1/operator/accounts/1/keys", fields, caller=OPERATOR)
    caller = made["key"]
    own = {"name": "Key", **confined, "models": ["gpt-4o", "gpt-4-*"]}
    key = await api.post(KEYS, own, caller=caller)
    for wider in (
        {"environment": "live"},
        {"models": None},
        {"models": ["*"]},
        {"models": ["gpt-4o", "gpt-5"]},
        {"endpoints": None},
        {"endpoints": ["chat.completions", "embeddings"]},
        {"expires_at": None},
        {"expires_at": "2027-01-01T00:00:01Z"},
    ):
        found = await refusal(api, "POST", KEYS, json={**own, **wider}, caller=caller)
        assert found == (403, "exceeds_own_rights", next(iter(wider)))
        if "environment" not in wider:
            path = f"{KEYS}/{key['id']}"
            found = await refusal(api, "PATCH", path, json=wider, caller=caller)
            assert found == (403, "exceeds_own_rights", next(iter(wider)))
    assert (await api.get(f"{KEYS}/{key['id']}"))["models"] == own["models"]
    renamed = await api.call("PATCH", f"{KEYS}/3", json={"name": "Renamed"}, caller=caller)
    assert renamed.status_code == 200
    # The secret of a key that may do more is more than the caller has.
    assert (await refusal(api, "POST", f"{KEYS}/3/rotate", json={}, caller=caller))[0] == 403


async def test_usage_stays_with_a_rotated_key(api: Api, database: Database) -> None:
    await use(database, a_charge("a", NANOS))
    await api.post(f"{KEYS}/3/rotate", {})
    await use(database, a_charge("b", NANOS))
    async with database.read() as tx:
        sums = await usage.sum_by_key(tx, account_id=1, from_ms=0)
    assert {key_id: each.cost_nanos for key_id, each in sums.items()} == {3: 2 * NANOS}
