"""Whoever may read a log reads all of it and nothing else, in each format."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from tests.databases import Clock
from tests.installations import INFERENCE, OPERATOR, PROVISIONING, Api
from tests.people.house import House, code_of

PATH = "/v1/account/audit"


async def events(api: Api, query: str = "", *, caller: str = PROVISIONING) -> list[Any]:
    """The events of a page."""
    path = "/v1/operator/audit" if caller == OPERATOR else PATH
    found: list[Any] = (await api.get(f"{path}?{query}", caller=caller))["events"]
    return found


async def test_a_row_says_who_what_from_where_and_in_which_request(api: Api) -> None:
    made = await api.call("POST", "/v1/account/keys", json={"name": "a", "credit_limit": 5})
    key_id = made.json()["id"]
    changed = await api.call("PATCH", f"/v1/account/keys/{key_id}", json={"credit_limit": 2.5})
    update, create = (await events(api, "limit=2"))[:2]
    assert update["request_id"] == changed.headers["x-request-id"]
    assert (update["actor"], update["address"]) == ("key:2", "192.0.2.1")
    assert (update["action"], update["target"]) == ("key.update", f"key:{key_id}")
    assert (update["before"], update["after"]) == (
        {"credit_limit": "5.00"},
        {"credit_limit": "2.50"},
    )
    assert create["before"] is None
    assert create["after"]["name"] == "a"
    assert create["request_id"] == made.headers["x-request-id"]
    assert made.json()["key"][4:] not in str(await api.get(PATH))


async def test_what_changes_nothing_is_not_noted(api: Api) -> None:
    made = await api.post("/v1/account/keys", {"name": "a"})
    await api.call("PATCH", f"/v1/account/keys/{made['id']}", json={"name": "a"})
    refused = await api.call("PATCH", f"/v1/account/keys/{made['id']}", json={"name": ""})
    assert refused.status_code == 422
    assert (await events(api))[0]["action"] == "key.create"


async def test_a_log_is_read_page_by_page_while_it_grows(api: Api) -> None:
    for name in "abcde":
        await api.post("/v1/account/keys", {"name": name})
    first = await api.get(f"{PATH}?limit=3&action=key.create")
    await api.post("/v1/account/keys", {"name": "late"})
    second = await api.get(f"{PATH}?limit=3&action=key.create&cursor={first['next_cursor']}")
    names = [each["after"]["name"] for each in first["events"] + second["events"]]
    assert names[:6] == ["e", "d", "c", "b", "a", "First inference key"]
    whole = await api.get(PATH)
    assert whole["head"] == {
        "id": whole["events"][0]["id"],
        "hash": whole["events"][0]["hash"],
    }
    other = await api.call(
        "GET", f"/v1/operator/audit?cursor={first['next_cursor']}", caller=OPERATOR
    )
    assert code_of(other) == (422, "invalid_cursor")


async def test_filters_narrow_what_is_read(api: Api, clock: Clock) -> None:
    made = await api.post("/v1/account/keys", {"name": "a"})
    clock.advance(60_000)
    await api.post("/v1/account/projects", {"name": "p"})
    target = f"key:{made['id']}"
    assert [each["target"] for each in await events(api, f"target={target}")] == [target]
    assert {each["action"] for each in await events(api, "action=key")} == {"key.create"}
    assert [each["target"] for each in await events(api, "action=project.create")] == ["project:1"]
    assert {each["actor"] for each in await events(api, "actor=key:2")} == {"key:2"}
    late = await events(api, "from=2026-11-21T12:35:00Z")
    assert [each["action"] for each in late] == ["project.create"]
    early = await events(api, "to=2026-11-21T12:35:00Z")
    assert "project.create" not in {each["action"] for each in early}


async def test_a_filter_that_means_nothing_is_refused(api: Api) -> None:
    for query, code in {
        "action=key.explode": "invalid_value",
        "action=": "invalid_value",
        "target=key%3A1%0A": "invalid_value",
        "actor=" + "x" * 256: "invalid_value",
        "from=yesterday": "invalid_timestamp",
        "limit=0": "invalid_value",
        "cursor=x": "invalid_cursor",
        "account_id=2": "unknown_field",
    }.items():
        assert code_of(await api.call("GET", f"{PATH}?{query}")) == (422, code), query


async def test_an_export_has_every_row_of_the_page(api: Api) -> None:
    await api.post("/v1/account/keys", {"name": "=1+1"})
    wanted = (await api.get(f"{PATH}?limit=2"))["events"]
    lines = await api.call(
        "GET", f"{PATH}?limit=2", headers={"accept": "application/x-ndjson, application/json"}
    )
    assert lines.headers["content-type"] == "application/x-ndjson; charset=utf-8"
    assert [json.loads(line) for line in lines.text.splitlines()] == wanted
    table = await api.call("GET", f"{PATH}?limit=2", headers={"accept": "text/csv"})
    assert table.headers["x-next-cursor"] == lines.headers["x-next-cursor"]
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [row["hash"] for row in rows] == [each["hash"] for each in wanted]
    assert json.loads(rows[0]["after"])["name"] == "=1+1"
    plain = await api.call("GET", f"{PATH}?limit=2", headers={"accept": "text/csv;q=0"})
    assert plain.json()["events"] == wanted


async def test_every_account_has_its_own_log_and_the_operator_sees_all(api: Api) -> None:
    account_id, stranger = await api.open_account()
    await api.call("POST", f"/v1/operator/accounts/{account_id}/suspend", caller=OPERATOR)
    await api.call("POST", f"/v1/operator/accounts/{account_id}/resume", caller=OPERATOR)
    theirs = await events(api, caller=stranger)
    assert [each["action"] for each in theirs] == [
        "account.resume",
        "account.suspend",
        "key.create",
        "credit.grant",
        "account.create",
    ]
    assert {each["actor"] for each in theirs} == {"key:1"}
    assert "account.suspend" not in {each["action"] for each in await events(api)}
    assert await events(api, f"account_id={account_id}", caller=OPERATOR) == theirs
    await api.post("/v1/operator/plans", {"name": "big"}, caller=OPERATOR)
    own = await events(api, caller=OPERATOR)
    assert [each["action"] for each in own] == ["plan.create", "key.create"]
    unknown = await api.call("GET", "/v1/operator/audit?account_id=99", caller=OPERATOR)
    assert code_of(unknown) == (404, "not_found")


async def test_a_log_is_for_owners_and_admins(house: House) -> None:
    expected = {"owner": 200, "admin": 200, "member": 403, "viewer": 403}
    for role, status in expected.items():
        await house.add(f"{role}@example.test", role)
        token = await house.token(f"{role}@example.test")
        assert (await house.call("GET", PATH, token=token)).status_code == status
    secret = house.api.secret(INFERENCE)
    assert code_of(await house.call("GET", PATH, token=secret)) == (401, "wrong_key_type")
