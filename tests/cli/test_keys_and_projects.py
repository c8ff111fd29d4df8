"""Keys and projects from the command line: every option arrives, and what is shown can be read."""

from __future__ import annotations

from typing import Any

from tests.cli.conftest import Bursar


def test_a_key_is_made_with_what_it_may_reach_and_changed(
    installed: dict[str, Any], bursar: Bursar
) -> None:
    project = bursar("projects", "create", "Search", "--label", "tier=1", "--json").json
    options = ["--project", project["id"], "--environment", "test", "--description", "For search"]
    options += ["--label", "team=search", "--allow-label", "feature", "--model", "gpt-4*"]
    options += ["--model", "sandbox/echo", "--endpoint", "chat.completions"]
    options += ["--network", "203.0.113.0/24", "--network", "2001:db8::1", "--user", "1"]
    made = bursar("keys", "create", "--name", "search", *options, "--json").json
    expected = {
        "project_id": project["id"],
        "user_id": 1,
        "environment": "test",
        "description": "For search",
        "labels": {"team": "search"},
        "label_names": ["feature"],
        "models": ["gpt-4*", "sandbox/echo"],
        "endpoints": ["chat.completions"],
        "networks": ["203.0.113.0/24", "2001:db8::1/128"],
    }
    assert {name: made[name] for name in expected} == expected
    assert made["secret"].startswith("bsk_")
    shown = bursar("keys", "show", made["id"], "--json").json
    assert {name: shown[name] for name in expected} == expected
    assert (shown["spent_7_days"], shown["last_used_at"]) == ("0.00", None)
    lift = [part for name in ("models", "label-names", "project") for part in ("--lift", name)]
    changed = bursar(
        "keys", "update", made["id"], "--network", "192.0.2.1", *lift, "--label", "a=b", "--json"
    ).json
    assert (changed["models"], changed["label_names"], changed["project_id"]) == (None, [], None)
    assert (changed["networks"], changed["labels"]) == (["192.0.2.1/32"], {"a": "b"})
    assert changed["endpoints"] == ["chat.completions"]
    assert bursar("keys", "show", made["id"]).code == 0
    for search, count in (("sear", 1), ("Sear_", 0), ("first", 1), ("e", 2)):
        assert len(bursar("keys", "list", "--search", search, "--json").json["keys"]) == count
    assert len(bursar("keys", "list", "--label", "a=b", "--json").json["keys"]) == 1
    assert len(bursar("keys", "list", "--environment", "live", "--json").json["keys"]) == 1
    assert bursar("keys", "list", "--disabled", "--json").json["keys"] == []


def test_a_rotation_prints_the_new_secret_once(installed: dict[str, Any], bursar: Bursar) -> None:
    made = bursar("keys", "create", "--name", "ci", "--json").json
    rotated = bursar("keys", "rotate", made["id"], "--grace", "60", "--json").json
    assert rotated["id"] == made["id"]
    assert rotated["secret"] != made["secret"]
    assert rotated["previous_secret_until"] > rotated["rotated_at"]
    assert rotated["secret"] not in bursar("keys", "show", made["id"]).stdout
    operator = bursar(
        "keys", "rotate", 1, "--kind", "operator", "--grace", "0", "--yes", "--json"
    ).json
    assert operator["secret"].startswith("bok_")
    assert operator["previous_secret_until"] is None


def test_a_project_has_members_and_a_life(installed: dict[str, Any], bursar: Bursar) -> None:
    made = bursar("projects", "create", "Search", "--json").json
    changed = bursar("projects", "update", made["id"], "--name", "Find", "--label", "a=b", "--json")
    assert (changed.json["name"], changed.json["labels"]) == ("Find", {"a": "b"})
    changed = bursar("projects", "update", made["id"], "--no-labels", "--json")
    assert changed.json["labels"] == {}
    members = bursar("projects", "add-member", made["id"], 1, "--json").json["members"]
    assert [each["email"] for each in members] == ["admin@localhost"]
    assert bursar("projects", "members", made["id"]).code == 0
    assert bursar("projects", "remove-member", made["id"], 1, "--yes", "--json").json == {
        "members": []
    }
    assert bursar("projects", "list").code == 0
    assert bursar("projects", "delete", made["id"], "--yes").code == 0
    assert bursar("projects", "list", "--json").json == {"projects": []}


def test_what_cannot_be_meant_ends_with_its_exit_code(
    installed: dict[str, Any], bursar: Bursar
) -> None:
    project = bursar("projects", "create", "Search", "--json").json
    bursar("keys", "create", "--name", "x", "--project", project["id"])
    for arguments, code in (
        (["keys", "create", "--name", "x", "--model", "a|b"], 2),
        (["keys", "create", "--name", "x", "--network", "203.0.113.1/24"], 2),
        (["keys", "create", "--name", "x", "--label", "team"], 2),
        (["keys", "create", "--name", "x", "--label", "a=1", "--label", "a=2"], 2),
        (["keys", "create", "--name", "x", "--environment", "prod"], 2),
        (["keys", "create", "--name", "x", "--project", "99"], 3),
        (["keys", "create", "--name", "x", "--user", "99"], 3),
        (["keys", "update", "3", "--model", "a", "--lift", "models"], 2),
        (["keys", "rotate", "3", "--grace", "-1"], 2),
        (["keys", "rotate", "99"], 3),
        (["projects", "create", " "], 2),
        (["projects", "update", str(project["id"])], 2),
        (["projects", "update", "99", "--name", "x"], 3),
        (["projects", "delete", "99", "--yes"], 3),
        (["projects", "delete", str(project["id"]), "--yes"], 4),
        (["projects", "add-member", str(project["id"]), "99"], 3),
        (["projects", "remove-member", str(project["id"]), "1", "--yes"], 3),
        (["projects", "list", "--account", "99"], 3),
    ):
        assert bursar(*arguments).code == code, arguments
