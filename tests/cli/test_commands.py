"""What the commands print, change and refuse."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bursar.core import secrets
from bursar.core.secrets import KeyKind
from tests.cli.conftest import SOURCE, Bursar

PRICES = """
prices:
  - model: gpt-4o-mini
    per_million: { input_tokens: "0.15", output_tokens: "0.60" }
"""


def test_init_prints_every_secret_once_as_one_json_document(
    installed: dict[str, Any], bursar: Bursar
) -> None:
    assert list(installed) == [
        "operator_key",
        "provisioning_key",
        "inference_key",
        "email",
        "password",
        "account_id",
        "url",
    ]
    assert secrets.parse(installed["operator_key"]) is KeyKind.OPERATOR
    assert secrets.parse(installed["provisioning_key"]) is KeyKind.PROVISIONING
    assert secrets.parse(installed["inference_key"]) is KeyKind.INFERENCE
    assert installed["account_id"] == 1
    assert installed["url"] == "http://127.0.0.1:8080"
    assert bursar("accounts", "show", 1, "--json").json["balance"] == "100.00"
    again = bursar("init", "--json")
    assert again.code == 4
    assert again.stdout == ""
    assert json.loads(again.stderr)["error"]["code"] == "already_initialised"


def test_init_takes_address_credit_and_folder(bursar: Bursar, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "inside"
    made = bursar(
        *("init", "--json", "--data-dir", folder, "--credit", "2.50"),
        *("--host", "::1", "--port", 9000, "--email", "me@example.com"),
    ).json
    assert made["url"] == "http://[::1]:9000"
    assert made["email"] == "me@example.com"
    shown = bursar("--data-dir", folder, "accounts", "show", 1, "--json").json
    assert shown["balance"] == "2.50"


def test_files_are_their_owners_alone(bursar: Bursar) -> None:
    bursar("init")
    for path in (Path("bursar-data"), *Path("bursar-data").iterdir()):
        assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), path


def test_sandbox_models_have_prices_from_the_beginning(
    installed: dict[str, Any], bursar: Bursar
) -> None:
    found = bursar("prices", "explain", "sandbox/echo", "--json").json
    assert found["current"]["source"] == "sandbox"
    assert found["cost_of_1000_input_and_1000_output_tokens"] == "0.0005"


def test_account_lives(installed: dict[str, Any], bursar: Bursar) -> None:
    made = bursar("accounts", "create", "Café", "--credit", "5", "--json").json
    assert made["id"] == 2
    assert made["balance"] == "5.00"
    assert bursar("accounts", "suspend", 2, "--json").json["status"] == "suspended"
    assert bursar("accounts", "resume", 2, "--json").json["status"] == "active"
    listed = bursar("accounts", "list", "--json").json["accounts"]
    assert [row["name"] for row in listed] == ["Default", "Café"]
    assert re.search(r"Café +active +5\.00", bursar("accounts", "list").stdout)


def test_credit_is_granted_and_corrected(installed: dict[str, Any], bursar: Bursar) -> None:
    granted = bursar("credit", "grant", 1, "50.00", "--note", "Invoice 7", "--json").json
    assert granted["balance"] == "150.00"
    corrected = bursar("credit", "correct", 1, "-20", "--reason", "typo", "--json").json
    assert corrected["amount"] == "-20.00"
    assert corrected["balance"] == "130.00"
    refused = bursar("credit", "correct", 1, "-130.000000001", "--reason", "x")
    assert refused.code == 4
    assert "does not have that much" in refused.stderr


def test_key_lives(installed: dict[str, Any], bursar: Bursar) -> None:
    made = bursar("keys", "create", "--name", "ci", "--limit", "5", "--json").json
    secret = made["secret"]
    assert secrets.parse(secret) is KeyKind.INFERENCE
    assert made["credit_limit"] == "5.00"
    key_id = made["id"]
    for command in (["keys", "list"], ["keys", "show", str(key_id)]):
        assert secret not in bursar(*command).stdout
        assert secret not in bursar(*command, "--json").stdout
    changed = bursar("keys", "update", key_id, "--disable", "--no-limit", "--json").json
    assert changed["is_enabled"] is False
    assert changed["credit_limit"] is None
    moment = "2030-01-31T12:00:00Z"
    changed = bursar("keys", "update", key_id, "--enable", "--expires", moment, "--json").json
    assert changed["is_enabled"] is True
    assert changed["expires_at"] == moment
    shown = bursar("keys", "show", key_id, "--json").json
    assert shown["used"] == "0.00"
    assert bursar("keys", "delete", key_id, "--yes", "--json").json["is_deleted"] is True
    assert bursar("keys", "show", key_id).code == 3


@pytest.mark.parametrize("kind", ["provisioning", "operator"])
def test_lost_key_of_any_kind_can_be_replaced(
    installed: dict[str, Any], bursar: Bursar, kind: str
) -> None:
    made = bursar("keys", "create", "--name", "rescue", "--kind", kind, "--json").json
    assert secrets.parse(made["secret"]) == KeyKind(kind)
    refused = bursar("keys", "create", "--name", "x", "--kind", kind, "--limit", "5")
    assert refused.code == 2


def test_prices_are_loaded_listed_and_explained(
    installed: dict[str, Any], bursar: Bursar, tmp_path: Path
) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(PRICES)
    assert len(bursar("prices", "load", file, "--json").json["added"]) == 1
    assert bursar("prices", "load", file, "--json").json["unchanged"] == ["gpt-4o-mini"]
    file.write_text(PRICES.replace("0.60", "0.70"))
    bursar("prices", "load", file)
    found = bursar("prices", "explain", "gpt-4o-mini", "--json").json
    assert found["current"]["per_million"]["output_tokens"] == "0.70"
    assert [row["per_million"]["output_tokens"] for row in found["history"]] == ["0.70", "0.60"]
    assert "gpt-4o-mini" in bursar("prices", "list").stdout
    file.write_text(PRICES.replace('"0.60"', "0.60"))
    refused = bursar("prices", "load", file)
    assert refused.code == 2
    assert "line 4, gpt-4o-mini: write the price in quotes" in refused.stderr
    assert bursar("prices", "explain", "gpt-9").code == 3


def test_provider_is_imported(installed: dict[str, Any], bursar: Bursar) -> None:
    assert {"name": "openai"} in bursar("prices", "import", "--list", "--json").json["providers"]
    done = bursar("prices", "import", "openai", "--model", "gpt-4o-mini", "--json").json
    assert [row["name"] for row in done["added"]] == ["gpt-4o-mini"]
    words = bursar("prices", "import", "openrouter", "--model", "*:free")
    assert "zero" in words.stderr
    assert bursar("prices", "import", "nobody").code == 3
    assert bursar("prices", "import").code == 2


def test_verify_prints_each_difference_and_fails(bursar: Bursar) -> None:
    bursar("init")
    connection = sqlite3.connect("bursar-data/bursar.db")
    connection.execute("UPDATE allowances SET used = 7 WHERE scope = 'wallet'")
    connection.commit()
    connection.close()
    words = bursar("verify")
    assert words.code == 1
    assert words.stdout == "account 1: wallet/cost/lifetime used is 7, expected 0 (used)\n"
    done = bursar("verify", "--json")
    assert done.code == 1
    assert done.json["is_right"] is False
    assert done.json["difference_count"] == 1
    assert done.json["differences"] == [
        {
            "check": "used",
            "account_id": 1,
            "subject": "wallet/cost/lifetime used",
            "expected": 0,
            "found": 7,
            "words": "",
        }
    ]


def test_verify_proves_right_books(installed: dict[str, Any], bursar: Bursar) -> None:
    done = bursar("verify", "--json")
    assert done.code == 0
    assert done.json["is_right"] is True
    assert done.json["checked"]["accounts"] == 1
    words = bursar("verify")
    assert words.stdout == ""
    assert "The books are right." in words.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["accounts", "show", "99"], 3),
        (["accounts", "show", "x"], 2),
        (["accounts", "show", "0"], 2),
        (["accounts", "show", str(2**80)], 2),
        (["accounts", "suspend", "99"], 3),
        (["accounts", "create", ""], 2),
        (["accounts", "create", "a\x1b[31m"], 2),
        (["accounts", "create", "a", "--credit", "1e3"], 2),
        (["accounts", "create", "a", "--credit", "nan"], 2),
        (["accounts", "create", "a", "--time-zone", "../etc/passwd"], 2),
        (["credit", "grant", "1", "-5"], 2),
        (["credit", "grant", "1", "0"], 2),
        (["credit", "grant", "1", "0.0000000001"], 2),
        (["credit", "grant", "1", "99999999999"], 2),
        (["credit", "grant", "99", "5"], 3),
        (["credit", "correct", "1", "5"], 2),
        (["keys", "create", "--name", "x", "--account", "99"], 3),
        (["keys", "create", "--name", "x", "--limit", "-1"], 2),
        (["keys", "create", "--name", "x", "--expires", "tomorrow"], 2),
        (["keys", "create", "--name", "x", "--expires", "2020-01-01T00:00:00Z"], 2),
        (["keys", "create", "--name", "x", "--expires", "2030-01-01"], 2),
        (["keys", "create", "--name", "x", "--kind", "root"], 2),
        (["keys", "list", "--account", "99"], 3),
        (["keys", "show", "99"], 3),
        (["keys", "update", "3"], 2),
        (["keys", "update", "3", "--limit", "5", "--no-limit"], 2),
        (["keys", "update", "99", "--disable"], 3),
        (["keys", "delete", "3"], 2),
        (["keys", "delete", "99", "--yes"], 3),
        (["prices", "load", "missing.yaml"], 2),
        (["prices", "load", "."], 2),
        (["nonsense"], 2),
        (["keys", "nonsense"], 2),
        (["--nonsense"], 2),
        (["keys"], 2),
        (["verify", "now"], 2),
    ],
)
def test_mistake_has_its_exit_code_and_one_sentence(
    bursar: Bursar,
    lasting_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
) -> None:
    monkeypatch.setenv("BURSAR_DATA_DIR", str(lasting_folder))
    done = bursar(*arguments)
    assert done.code == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.strip()
    in_json = bursar(*arguments, "--json")
    if arguments != ["keys"]:
        assert in_json.code == code
        assert set(json.loads(in_json.stderr)["error"]) == {"code", "message", "advice"}


def test_nothing_is_made_by_commands_that_only_look(bursar: Bursar) -> None:
    done = bursar("accounts", "list")
    assert done.code == 3
    assert "Make one with: bursar init" in done.stderr
    assert list(Path().iterdir()) == []


def test_settings_mistake_is_named(bursar: Bursar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURSAR_PORT", "many")
    done = bursar("init")
    assert done.code == 2
    assert "BURSAR_PORT" in done.stderr


def test_unreachable_database_is_a_sentence(
    bursar: Bursar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BURSAR_DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:1/x")
    done = bursar("accounts", "list")
    assert done.code == 5
    assert "hunter2" not in done.stderr
    assert "bursar doctor" in done.stderr


def test_file_that_is_no_database_is_a_sentence(bursar: Bursar) -> None:
    Path("bursar-data").mkdir()
    Path("bursar-data/bursar.db").write_bytes(os.urandom(10_000))
    done = bursar("accounts", "list")
    assert done.code == 5
    assert "not a database" in done.stderr


def test_bug_is_a_sentence_without_traceback(
    bursar: Bursar, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bursar.cli import session

    def fail() -> None:
        raise ZeroDivisionError(f"with {secrets.mint(KeyKind.OPERATOR, random_bytes=bytes(32))}")

    monkeypatch.setattr(session, "quiet_logs", fail)
    done = bursar("accounts", "list")
    assert done.code == 6
    assert "ZeroDivisionError" in done.stderr
    assert "bok_[hidden]" in done.stderr


def test_names_are_text_and_never_markup(installed: dict[str, Any], bursar: Bursar) -> None:
    bursar("accounts", "create", "[bold]x[/bold] :smile:")
    assert "[bold]x[/bold] :smile:" in bursar("accounts", "list").stdout


def test_help_has_examples_and_needs_no_server(bursar: Bursar) -> None:
    for arguments in (
        ["init"],
        ["serve"],
        ["verify"],
        ["doctor"],
        *(["accounts", name] for name in ("create", "list", "show", "suspend", "resume")),
        *(["credit", name] for name in ("grant", "correct")),
        *(["keys", name] for name in ("create", "list", "show", "update", "delete")),
        *(["prices", name] for name in ("load", "import", "list", "explain")),
    ):
        done = bursar(*arguments, "--help")
        assert done.code == 0
        assert f"  bursar {' '.join(arguments)}" in done.stdout
        assert "--json" in done.stdout
    whole = bursar("--help").stdout
    assert "Exit codes:" in whole
    assert bursar("--version").stdout == "0.1.0\n"


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom bursar.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('sqlalchemy', 'fastapi', 'pydantic_settings', 'alembic',"
        " 'uvicorn', 'structlog') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stderr == "[]\n"
