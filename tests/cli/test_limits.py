"""Limits, plans and changes of accounts on the command line."""

from __future__ import annotations

from typing import Any

from tests.cli.conftest import Bursar


def test_limits_live(installed: dict[str, Any], bursar: Bursar) -> None:
    made = bursar(
        *("limits", "set", "account", "cost", "month"),
        *("--limit", "500.00", "--soft", "400", "--json"),
    ).json
    assert (made["limit"], made["soft_limit"], made["origin"]) == ("500.00", "400.00", "own")
    assert len(made["next_resets"]) == 3
    key = ("limits", "set", "key:3", "requests", "minute")
    assert bursar(*key, "--limit", 60, "--model", "gpt-*", "--json").json["limit"] == 60
    found = bursar("limits", "list", "--json").json["limits"]
    assert [limit["name"] for limit in found] == [
        "account/cost/month",
        "key:3/cost/lifetime",
        "key:3/requests/minute/gpt-*",
        "wallet/cost/lifetime",
    ]
    narrow = ("--scope", "key:3", "--resource", "requests", "--model", "gpt-x")
    assert len(bursar("limits", "list", *narrow, "--json").json["limits"]) == 1
    assert "gpt-*" in bursar("limits", "list").stdout
    gone = ("limits", "remove", "key:3", "requests", "minute", "--model", "gpt-*", "--yes")
    assert bursar(*gone, "--json").json["is_removed"] is True
    assert bursar(*gone).code == 3
    assert bursar("limits", "log", "--json").json == {"refusals": []}
    assert "Nothing was refused" in bursar("limits", "log", "--key", 3).stderr


def test_plans_live(installed: dict[str, Any], bursar: Bursar) -> None:
    assert bursar("plans", "create", "Pro", "--json").json["id"] == 2
    limit = ("plans", "set", 2, "key", "requests", "minute")
    made = bursar(*limit, "--default", 60, "--most", 600, "--json").json
    assert made["limits"] == [
        {
            "scope": "key",
            "resource": "requests",
            "window": "minute",
            "model": None,
            "default_limit": 60,
            "most_limit": 600,
        }
    ]
    changed = bursar("accounts", "update", 1, "--plan", 2, "--name", "Acme", "--json").json
    assert (changed["plan_id"], changed["name"]) == (2, "Acme")
    assert bursar("plans", "delete", 2, "--yes").code == 4
    shown = bursar("limits", "list", "--scope", "key:3", "--json").json["limits"]
    assert [(row["limit"], row["origin"]) for row in shown] == [(None, "own"), (60, "plan")]
    refused = bursar("limits", "set", "key:3", "requests", "minute", "--limit", 601)
    assert refused.code == 2
    assert "does not allow that much" in refused.stderr
    assert bursar("plans", "rename", 2, "Pro 27", "--json").json["name"] == "Pro 27"
    assert "Pro 27" in bursar("plans", "list").stdout
    assert "600" in bursar("plans", "show", 2).stdout
    removed = bursar("plans", "remove", 2, "key", "requests", "minute", "--yes", "--json").json
    assert removed["limits"] == []
    bursar("accounts", "update", 1, "--plan", 1)
    assert bursar("plans", "delete", 2, "--yes", "--json").json["is_deleted"] is True
    assert [plan["id"] for plan in bursar("plans", "list", "--json").json["plans"]] == [1]


def test_mistakes_are_refused_with_their_exit_code(
    installed: dict[str, Any], bursar: Bursar
) -> None:
    for code, *arguments in (
        (2, "limits", "set", "account", "cost", "month"),
        (2, "limits", "set", "account", "cost", "month", "--limit", "1_000"),
        (2, "limits", "set", "account", "cost", "year", "--limit", "1"),
        (2, "limits", "set", "key:3", "requests", "day", "--limit", "-5"),
        (2, "limits", "set", "key:3", "requests", "day", "--limit", "1.5"),
        (2, "limits", "set", "wallet", "cost", "lifetime", "--limit", "1"),
        (2, "limits", "set", "key:3", "requests", "day", "--limit", "1", "--model", "[a]"),
        (3, "limits", "set", "key:99", "requests", "day", "--limit", "1"),
        (3, "limits", "list", "--account", "9"),
        (3, "limits", "log", "--account", "9"),
        (3, "accounts", "update", "1", "--plan", "9"),
        (2, "accounts", "update", "1"),
        (2, "accounts", "update", "1", "--time-zone", "Mars"),
        (3, "plans", "show", "9"),
        (2, "plans", "set", "1", "key:3", "requests", "day", "--default", "1"),
        (4, "plans", "delete", "1", "--yes"),
        (4, "plans", "create", "default"),
    ):
        done = bursar(*arguments)
        assert done.code == code, (arguments, done.stderr)
