"""Where a command acts: a server or the installation at hand, by one rule, with the same result."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from bursar.cli.places import choice, profiles
from bursar.cli.places.choice import Given
from tests.cli.conftest import SOURCE, Bursar
from tests.live import Installation
from tests.tidy.sources import called_name, repository

HERE = Path("data")

# Serving takes its time where other tests run.
pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize(
    ("given", "environment", "is_server"),
    [
        (Given(), {}, False),
        (Given(profile="work"), {"BURSAR_DATA_DIR": "data"}, True),
        (Given(url="http://a"), {"BURSAR_DATABASE_URL": "sqlite://"}, True),
        (Given(data_dir=HERE), {"BURSAR_API_KEY": "bpk_x"}, False),
        (Given(config=HERE), {"BURSAR_PROFILE": "work"}, False),
        (Given(), {"BURSAR_API_KEY": "bpk_x"}, True),
        (Given(), {"BURSAR_PROFILE": "work"}, True),
        (Given(), {"BURSAR_BASE_URL": "http://a"}, True),
        (Given(), {"BURSAR_DATA_DIR": "data"}, False),
        (Given(), {"BURSAR_API_KEY": "bpk_x", "BURSAR_DATA_DIR": "data"}, True),
        (Given(), {"BURSAR_API_KEY": ""}, False),
    ],
)
def test_the_command_line_decides_then_the_environment(
    given: Given, environment: dict[str, str], is_server: bool
) -> None:
    assert choice.is_server(given, environment=environment) is is_server


def test_a_sign_in_decides_where_nothing_else_does() -> None:
    profiles.save("work", {"base_url": "http://a", "api_key": "bpk_x"})
    assert not choice.is_server(Given(), environment={})
    profiles.save("default", {"base_url": "http://a", "api_key": "bpk_x"})
    assert choice.is_server(Given(), environment={})
    assert not choice.is_server(Given(), environment={"BURSAR_DATA_DIR": "data"})
    assert not choice.is_server(Given(data_dir=HERE), environment={})
    profiles.remove("default")
    assert not choice.is_server(Given(), environment={})


def test_naming_both_places_is_refused() -> None:
    with pytest.raises(typer.BadParameter):
        choice.is_server(Given(data_dir=HERE, profile="work"), environment={})


def test_an_option_counts_in_front_of_the_command_too(
    owner: Installation, bursar: Bursar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BURSAR_BASE_URL")
    assert (
        bursar("--url", owner.url, "--json", "balance").json
        == bursar("balance", "--url", owner.url, "--json").json
    )
    shown = bursar("--data-dir", owner.data_dir, "status", "--json").json
    assert (shown["place"], shown["data_dir"]) == ("installation", str(owner.data_dir))


def test_commands_of_the_host_are_for_no_server(owner: Installation, bursar: Bursar) -> None:
    for command in (["verify"], ["accounts", "list"], ["prices", "list"]):
        done = bursar("--url", owner.url, *command)
        assert (done.code, done.stdout) == (2, "")
        assert "the installation's host" in done.stderr
    for command in (
        ["balance", "--account", "1"],
        ["keys", "create", "--name", "x", "--kind", "operator"],
        ["keys", "rotate", "1", "--kind", "provisioning"],
    ):
        assert bursar(*command).code == 2
    assert bursar("chat", "hello", "--data-dir", owner.data_dir).code == 2


def test_both_places_print_the_same(owner: Installation, bursar: Bursar) -> None:
    made = bursar("projects", "create", "Search", "--label", "team=search", "--json").json
    bursar("limits", "set", "account", "cost", "month", "--limit", "500.00")
    for command in (
        ["balance"],
        ["usage", "--by", "model"],
        ["usage", "--by", "key", "--from", "2d"],
        ["activity", "--fresh"],
        ["billing"],
        ["keys", "list"],
        ["keys", "show", "3"],
        ["limits", "list"],
        ["limits", "log"],
        ["projects", "list"],
        ["projects", "show", str(made["id"])],
        ["users", "list"],
        ["users", "invitations"],
        ["explain", "3", "sandbox/echo", "--prompt-tokens", "10"],
        ["export", "-", "--format", "jsonl"],
    ):
        there = bursar(*command, "--json")
        here = bursar("--data-dir", owner.data_dir, *command, "--json")
        assert (there.code, here.code) == (0, 0), there.stderr + here.stderr
        assert _timeless(there.stdout) == _timeless(here.stdout), command


def test_both_places_do_the_same(owner: Installation, bursar: Bursar) -> None:
    shapes = []
    for place in ([], ["--data-dir", str(owner.data_dir)]):

        def run(*arguments: object, place: list[str] = place) -> Any:
            return bursar(*place, *arguments, "--json").json

        made = run("keys", "create", "--name", "ci", "--limit", "5", "--label", "a=b")
        rotated = run("keys", "rotate", made["id"], "--grace", "60")
        changed = run("keys", "update", made["id"], "--disable", "--lift", "labels")
        limit = run("limits", "set", f"key:{made['id']}", "requests", "minute", "--limit", 9)
        project = run("projects", "create", "P")
        members = run("projects", "add-member", project["id"], 1)
        gone = run("projects", "delete", project["id"], "--yes")
        deleted = run("keys", "delete", made["id"], "--yes")
        answers = (made, rotated, changed, limit, project, members, gone, deleted)
        shapes.append([_form(each) for each in answers])
        refused = bursar(*place, "keys", "show", made["id"], "--json")
        assert refused.code == 3
        assert json.loads(refused.stderr)["error"]["code"] == "not_found"
    # Whoever acts on the host is nobody of the account; a key acts for who made it.
    for each in (*shapes[0][:3], *shapes[1][:3]):
        del each["user_id"]
    assert shapes[0] == shapes[1]


def test_the_id_of_a_request_is_said_where_a_server_has_one(
    owner: Installation, bursar: Bursar
) -> None:
    there = bursar("keys", "show", 99, "--json")
    assert json.loads(there.stderr)["error"]["request_id"].startswith("req_")
    assert "(req_" in bursar("keys", "show", 99).stderr
    here = bursar("--data-dir", owner.data_dir, "keys", "show", 99, "--json")
    assert "request_id" not in json.loads(here.stderr)["error"]


def test_nothing_that_listens_is_put_together_without_proof() -> None:
    callers, users = set(), set()
    for source in repository():
        if not source.is_under("src"):
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and called_name(node) == "make_plane":
                if any(each.arg == "caller" for each in node.keywords):
                    callers.add(source.path)
        if "at_hand" in source.text and "import at_hand" in source.text:
            users.add(source.path)
    assert callers == {"src/bursar/bootstrap/at_hand.py"}
    assert users == {"src/bursar/cli/places/host.py"}


def test_any_account_of_the_host_can_be_named(installed: dict[str, Any], bursar: Bursar) -> None:
    other = bursar("accounts", "create", "Acme", "--credit", "7", "--json").json["id"]
    assert bursar("balance", "--account", other, "--json").json == {"balance": "7.00"}
    made = bursar("keys", "create", "--name", "theirs", "--account", other, "--json").json
    assert bursar("keys", "show", made["id"]).code == 3
    assert bursar("keys", "show", made["id"], "--account", other).code == 0
    assert bursar("balance", "--account", 99).code == 3
    # Whoever has the installation's files is not kept out by what keeps customers out.
    bursar("accounts", "suspend", other)
    assert bursar("keys", "list", "--account", other, "--json").json["keys"][0]["name"] == "theirs"
    assert bursar("verify").code == 0


def test_help_of_every_command_loads_nothing_heavy() -> None:
    program = """
import sys
from bursar.cli import main
from bursar.cli.application import make
app = make()
words = [[c.name] for c in app.registered_commands]
for group in app.registered_groups:
    words += [[group.name, c.name] for c in group.typer_instance.registered_commands]
for each in words:
    try: main([*each, "--help"])
    except SystemExit as ended: assert not ended.code, each
heavy = "sqlalchemy fastapi starlette httpx2 rich alembic uvicorn structlog cryptography asyncpg"
heavy += " msgspec bursar.sdk.client bursar.sdk.results bursar.config bursar.bootstrap"
found = [name for name in heavy.split() if name in sys.modules]
print(len(words), found, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    count, found = done.stderr.split(" ", 1)
    assert int(count) > 50
    assert found == "[]\n"
    # Examples stand before options, in every one.
    for text in done.stdout.split("Usage: ")[1:]:
        head = text.partition("Options:")[0]
        assert "\n  bursar " in head or "bursar " in head.partition("\n")[2], head


def _timeless(text: str) -> Any:
    """What was printed, without what is of the moment."""
    documents = (
        [json.loads(line) for line in text.splitlines()]
        if text[:2] != "{\n"
        else [json.loads(text)]
    )
    for document in documents:
        for name in ("as_of", "starts_at"):
            document.pop(name, None)
    return documents


def _form(value: Any) -> Any:
    """The names and types of a document."""
    if isinstance(value, dict):
        return {name: _form(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_form(each) for each in value]
    return type(value).__name__
