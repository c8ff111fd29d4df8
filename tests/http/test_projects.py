"""Projects over HTTP: what they are, who belongs to them, and what reports say of them."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from bursar.core import secrets
from bursar.store import changes, credentials
from bursar.store.database import Database
from bursar.store.tenants import users
from tests.databases import Clock
from tests.installations import NANOS, Api, a_charge, use

PROJECTS = "/v1/account/projects"
KEYS = "/v1/account/keys"
SUMMARY = "/v1/account/usage/summary"
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


async def refusal(api: Api, method: str, path: str, **arguments: Any) -> tuple[int, str, str]:
    response = await api.call(method, path, **arguments)
    assert response.status_code >= 400, response.text
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


async def labels_of(database: Database, secret: str) -> dict[str, str]:
    async with database.read() as tx:
        row = await credentials.find_credential(tx, secret_hash=secrets.digest(secret))
    assert row is not None
    return dict(row.labels)


async def test_a_project_is_made_shown_changed_and_deleted(api: Api) -> None:
    made = await api.post(PROJECTS, {"name": "Search", "labels": {"team": "a"}})
    expected = {
        "id": made["id"],
        "name": "Search",
        "description": "",
        "labels": {"team": "a"},
        "created_at": "2026-11-21T12:34:56Z",
    }
    assert made == expected
    path = f"{PROJECTS}/{made['id']}"
    assert await api.get(PROJECTS) == {"projects": [expected], "next_cursor": None}
    limit = {"scope": f"project:{made['id']}", "resource": "cost", "window": "month"}
    await api.call("PUT", "/v1/account/limits", json={**limit, "limit": "5.00"})
    assert [each["limit"] for each in (await api.get(path))["limits"]] == ["5.00"]
    changed = (await api.call("PATCH", path, json={"name": "Find", "labels": None})).json()
    assert changed == {**expected, "name": "Find", "labels": {}}
    assert (await api.call("PATCH", path, json={"name": None})).json() == changed
    assert (await api.call("DELETE", path)).status_code == 204
    assert await refusal(api, "GET", path) == (404, "not_found", None)
    assert (await api.get(PROJECTS))["projects"] == []


async def test_a_project_with_keys_stays(api: Api) -> None:
    made = await api.post(PROJECTS, {"name": "Search"})
    path = f"{PROJECTS}/{made['id']}"
    key = await api.post(KEYS, {"name": "Key", "project_id": made["id"]})
    assert await refusal(api, "DELETE", path) == (409, "project_has_keys", None)
    assert (await api.get(path))["name"] == "Search"
    await api.call("PATCH", f"{KEYS}/{key['id']}", json={"project_id": None})
    assert (await api.call("DELETE", path)).status_code == 204
    moved = {"project_id": made["id"]}
    found = await refusal(api, "PATCH", f"{KEYS}/{key['id']}", json=moved)
    assert found == (404, "not_found", "project_id")


async def test_a_projects_labels_go_with_its_keys_calls(api: Api, database: Database) -> None:
    made = await api.post(PROJECTS, {"name": "Search", "labels": {"team": "a", "tier": "1"}})
    fields = {"name": "Key", "project_id": made["id"], "labels": {"tier": "2"}}
    key = await api.post(KEYS, fields)
    assert await labels_of(database, key["key"]) == {"team": "a", "tier": "2"}
    async with database.read() as tx:
        seen = await changes.get_last(tx)
    await api.call("PATCH", f"{PROJECTS}/{made['id']}", json={"labels": {"team": "b"}})
    async with database.read() as tx:
        news = await changes.list_after(tx, cursor=seen)
    assert [(change.topic, change.account_id) for change in news] == [("account", 1)]
    assert await labels_of(database, key["key"]) == {"team": "b", "tier": "2"}
    assert (await api.get(f"{KEYS}/{key['id']}"))["labels"] == {"tier": "2"}


async def test_members_come_and_go(api: Api, database: Database) -> None:
    async with database.write() as tx:
        stranger = await users.insert_user(
            tx, email="eve@example.com", name="Eve", password_hash=""
        )
    made = await api.post(PROJECTS, {"name": "Search"})
    members = f"{PROJECTS}/{made['id']}/members"
    for _ in range(2):
        added = await api.post(members, {"user_id": 1})
        assert [each["email"] for each in added["members"]] == ["admin@localhost"]
    assert await api.get(members) == added
    for user_id in (stranger, 999):
        found = await refusal(api, "POST", members, json={"user_id": user_id})
        assert found == (404, "not_found", "user_id")
    assert (await api.call("DELETE", f"{members}/1")).status_code == 204
    assert await refusal(api, "DELETE", f"{members}/1") == (404, "not_found", None)
    assert (await api.get(members))["members"] == []


async def test_another_accounts_project_answers_as_an_unknown_one(api: Api) -> None:
    _, stranger = await api.open_account()
    made = await api.post(PROJECTS, {"name": "Mine"})
    asked = [
        ("GET", "", None),
        ("PATCH", "", {"bogus": 1}),
        ("PATCH", "", {"name": "Stolen"}),
        ("DELETE", "", None),
        ("GET", "/members", None),
        ("POST", "/members", {"user_id": 1}),
        ("POST", "/members", {"bogus": 1}),
        ("DELETE", "/members/1", None),
    ]
    for method, end, body in asked:
        answers = set()
        for project_id in (made["id"], 999):
            path = f"{PROJECTS}/{project_id}{end}"
            answers.add(await refusal(api, method, path, json=body, caller=stranger))
        assert answers == {(404, "not_found", None)}, (method, end)
    limit = {"scope": f"project:{made['id']}", "resource": "cost", "window": "day", "limit": "1"}
    found = await refusal(api, "PUT", "/v1/account/limits", json=limit, caller=stranger)
    assert found == (404, "not_found", "scope")
    assert (await api.get(PROJECTS, caller=stranger))["projects"] == []


async def test_a_project_that_breaks_a_rule_is_refused(api: Api) -> None:
    made = await api.post(PROJECTS, {"name": "Search"})
    for fields, code in (
        ({"name": " "}, "invalid_name"),
        ({"name": "x" * 256}, "name_too_long"),
        ({"name": "a\u202eb"}, "invalid_characters"),
        ({"labels": {"A": "x"}}, "invalid_label"),
        ({"labels": {"a": 1}}, "invalid_value"),
        ({"budget": "5.00"}, "unknown_field"),
        ({"account_id": 2}, "unknown_field"),
    ):
        path = f"{PROJECTS}/{made['id']}"
        assert (await refusal(api, "POST", PROJECTS, json={"name": "x", **fields}))[1] == code
        assert (await refusal(api, "PATCH", path, json=fields))[1] == code


@pytest.fixture
async def used(api: Api, database: Database, clock: Clock) -> dict[str, int]:
    """Usage of two projects and two keys on two days, with labels; the ids."""
    one, two = [(await api.post(PROJECTS, {"name": name}))["id"] for name in ("One", "Two")]
    key = (await api.post(KEYS, {"name": "Second"}))["id"]
    now_ms = clock.now_ms
    for event_id, usd, fields in (
        ("a", 1, {"project_id": one, "labels": '{"team":"a"}', "user_id": 1}),
        ("b", 2, {"project_id": two, "labels": '{"run":"=1+1","team":"b"}', "model": "m2"}),
        ("c", 4, {"project_id": two, "key_id": key, "at_ms": now_ms - DAY_MS}),
        ("d", 8, {"labels": '{"team":"a"}', "at_ms": now_ms - 2 * HOUR_MS}),
    ):
        await use(database, a_charge(event_id, usd * NANOS, **{"at_ms": now_ms, **fields}))
    return {"one": one, "two": two, "key": key}


async def test_the_activity_report_names_projects(api: Api, used: dict[str, int]) -> None:
    report = await api.get("/v1/account/activity?days=7")
    seen = [(each["project_name"], each["total_cost"]) for each in report["project_usage"]]
    assert seen == [("Two", "6.00"), ("One", "1.00")]
    await api.call("DELETE", f"{PROJECTS}/{used['two']}")
    report = await api.get("/v1/account/activity?days=7&fresh=true")
    assert report["project_usage"][0]["project_name"] == "Two"


async def test_events_are_told_apart_by_project_and_label(api: Api, used: dict[str, int]) -> None:
    async def ids(query: str) -> list[str]:
        found = await api.get(f"/v1/account/usage/events?{query}")
        return [event["id"] for event in found["events"]]

    assert await ids(f"project_id={used['two']}") == ["b", "c"]
    assert await ids("label=team") == ["b", "a", "d"]
    assert await ids("label=team%3Da") == ["a", "d"]
    assert await ids("label=team%3DA") == []
    path = "/v1/account/usage/events?label=run"
    response = await api.call("GET", path, headers={"accept": "text/csv"})
    [row] = csv.DictReader(io.StringIO(response.text))
    assert row["labels"] == '{"run":"=1+1","team":"b"}'
    assert row["project_id"] == str(used["two"])


async def test_usage_is_summed_by_whatever_it_is_grouped_by(api: Api, used: dict[str, int]) -> None:
    async def groups(query: str) -> list[tuple[Any, ...]]:
        found = await api.get(f"{SUMMARY}?{query}")
        assert sum(float(each["total_cost"]) for each in found["groups"]) == float(
            found["total"]["total_cost"]
        )
        return [(each["group"], each["name"], each["total_cost"]) for each in found["groups"]]

    one, two, key = used["one"], used["two"], used["key"]
    by_key = [(3, "First inference key", "11.00"), (key, "Second", "4.00")]
    assert await groups("group_by=key") == by_key
    by_project = [(None, None, "8.00"), (two, "Two", "6.00"), (one, "One", "1.00")]
    assert await groups("group_by=project") == by_project
    by_user = [(None, None, "14.00"), (1, "Administrator", "1.00")]
    assert await groups("group_by=user") == by_user
    assert [row[2] for row in await groups("group_by=model")] == ["13.00", "2.00"]
    assert [row[2] for row in await groups("group_by=endpoint")] == ["15.00"]
    by_team = [("a", None, "9.00"), (None, None, "4.00"), ("b", None, "2.00")]
    assert await groups("group_by=label:team") == by_team
    today = "group_by=key&from=2026-11-21T00:00:00Z"
    assert await groups(today) == [(3, "First inference key", "11.00")]
    hours = "&from=2026-11-21T10:00:00Z&to=2026-11-21T12:00:00Z"
    assert await groups(f"group_by=key{hours}") == [(3, "First inference key", "8.00")]
    assert [row[2] for row in await groups(f"group_by=key&project_id={two}")] == ["4.00", "2.00"]
    assert [row[2] for row in await groups("group_by=model&label=team%3Da")] == ["9.00"]
    exact = "&from=2026-11-21T12:34:56.789Z&to=2026-11-21T12:34:56.790Z"
    assert await groups(f"group_by=label:team{exact}") == [
        ("b", None, "2.00"),
        ("a", None, "1.00"),
    ]


async def test_further_groups_are_summed_together(api: Api, used: dict[str, int]) -> None:
    found = await api.get(f"{SUMMARY}?group_by=project&limit=1")
    assert [each["total_cost"] for each in found["groups"]] == ["8.00"]
    assert (found["other"]["total_cost"], found["other"]["request_count"]) == ("7.00", 3)
    assert found["total"]["total_cost"] == "15.00"
    assert (found["starts_at"], found["ends_at"]) == ("2026-10-23T00:00:00Z", None)


async def test_a_summary_that_cannot_be_made_is_refused(api: Api) -> None:
    for query, code in (
        ("", "missing_field"),
        ("group_by=account", "invalid_value"),
        ("group_by=label:", "invalid_label"),
        ("group_by=label:a%22b", "invalid_label"),
        ("group_by=key&from=2026-11-21T10:00:01Z", "invalid_range"),
        ("group_by=key&from=2026-11-21T10:00:00Z&to=2026-11-21T09:00:00Z", "invalid_range"),
        ("group_by=label:a&from=2026-01-01T00:00:00Z", "invalid_range"),
        ("group_by=key&from=yesterday", "invalid_timestamp"),
        ("group_by=key&limit=1001", "invalid_value"),
    ):
        assert (await refusal(api, "GET", f"{SUMMARY}?{query}"))[:2] == (422, code), query
