"""Accounts' terms and ends, and everybody who has a user, on the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import Bursar


def test_an_account_is_opened_and_changed_with_what_is_agreed(
    installed: dict[str, Any], bursar: Bursar
) -> None:
    made = bursar(
        *("accounts", "create", "Acme", "--currency", "EUR", "--plan", 1),
        *("--feature", "max_users=5", "--feature", "beta=true", "--feature", "tier=gold=1"),
        "--json",
    ).json
    assert (made["currency"], made["plan_id"]) == ("EUR", 1)
    assert made["features"] == {"beta": True, "max_users": 5, "tier": "gold=1"}
    changed = bursar(
        *("accounts", "update", made["id"], "--currency", "CHF", "--no-feature", "tier"),
        *("--feature", "beta=false", "--json"),
    ).json
    assert changed["currency"] == "CHF"
    assert changed["features"] == {"beta": False, "max_users": 5}
    assert bursar("accounts", "show", made["id"], "--json").json == changed
    assert "max_users" in bursar("accounts", "show", made["id"]).stdout


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--feature", "no value"], 2),
        (["--feature", "a=1", "--feature", "a=2"], 2),
        (["--feature", "Not-A-Name=1"], 2),
        (["--currency", "euro"], 2),
        ([], 2),
    ],
)
def test_terms_that_make_no_sense_change_nothing(
    installed: dict[str, Any], bursar: Bursar, options: list[str], code: int
) -> None:
    before = bursar("accounts", "show", 1, "--json").json
    done = bursar("accounts", "update", 1, *options, *(["--name", "Never"] if options else []))
    assert (done.code, done.stdout) == (code, "")
    assert bursar("accounts", "show", 1, "--json").json == before


def test_cancelling_asks_first_and_is_for_good(installed: dict[str, Any], bursar: Bursar) -> None:
    refused = bursar("accounts", "cancel", 1)
    assert refused.code == 2
    assert "--yes" in refused.stderr
    assert bursar("accounts", "cancel", 1, "--yes", "--json").json["status"] == "cancelled"
    done = bursar("accounts", "resume", 1, "--json")
    assert done.code == 4
    assert json.loads(done.stderr)["error"]["code"] == "account_cancelled"
    assert bursar("verify").code == 0


def test_people_live(installed: dict[str, Any], bursar: Bursar) -> None:
    (found,) = bursar("people", "list", "--json").json["users"]
    assert (found["email"], found["is_enabled"]) == (installed["email"], True)
    assert found["memberships"] == [{"account_id": 1, "role": "owner", "is_enabled": True}]
    assert installed["email"] in bursar("people", "list").stdout
    assert bursar("people", "list", "--email", "no@example.com", "--json").json == {"users": []}
    assert bursar("people", "disable", 1).code == 2
    assert bursar("people", "disable", 1, "--yes", "--json").json["is_enabled"] is False
    assert bursar("people", "show", 1, "--json").json["memberships"][0]["is_enabled"] is False
    assert bursar("people", "enable", 1, "--json").json["is_enabled"] is True
    assert bursar("people", "sign-out", 1, "--yes", "--json").json == {"id": 1, "ended": 0}
    for command in ("show", "disable", "enable", "sign-out"):
        options = ["--yes"] if command in ("disable", "sign-out") else []
        assert bursar("people", command, 99, *options).code == 3, command


def test_help_has_examples(bursar: Bursar) -> None:
    commands = [["accounts", "cancel"]] + [
        ["people", name] for name in ("list", "show", "disable", "enable", "sign-out")
    ]
    for arguments in commands:
        done = bursar(*arguments, "--help")
        assert done.code == 0
        assert f"  bursar {' '.join(arguments)}" in done.stdout
