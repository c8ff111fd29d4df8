"""Doctor: what it finds, and that it changes nothing."""

from __future__ import annotations

import os
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from bursar.worker.journal import Journal
from tests.cli.conftest import Bursar
from tests.factories import charge

DATA = Path("bursar-data")


def checks(bursar: Bursar, *options: str) -> dict[str, dict[str, Any]]:
    """The answers by name; of several with one name, the worst."""
    ranks = {"ok": 0, "warn": 1, "fail": 2}
    found = bursar("doctor", "--json", *options).json["checks"]
    return {row["name"]: row for row in sorted(found, key=lambda row: ranks[row["status"]])}


def configure(text: str) -> None:
    """Write the settings file."""
    (DATA / "bursar.toml").write_text(text)


def test_fresh_installation_is_fine(installed: dict[str, Any], bursar: Bursar) -> None:
    DATA.mkdir(mode=0o700, exist_ok=True)
    done = bursar("doctor", "--json")
    failed = {row["name"] for row in done.json["checks"] if row["status"] == "fail"}
    # The PostgreSQL of the tests is fast because its commits do not wait for the disk.
    is_fast = "BURSAR_DATABASE_URL" in os.environ
    assert failed == ({"durability"} if is_fast else set())
    assert done.code == int(is_fast)
    assert done.json["is_fine"] is not is_fast
    words = bursar("doctor").stdout
    assert "ok    database: " in words


def test_missing_installation_fails_and_nothing_is_made(bursar: Bursar) -> None:
    done = bursar("doctor", "--json")
    assert done.code == 1
    failed = {row["name"] for row in done.json["checks"] if row["status"] == "fail"}
    assert failed == {"data directory", "database"}
    assert all(row["advice"] for row in done.json["checks"] if row["status"] != "ok")
    assert list(Path().iterdir()) == []


def test_settings_that_cannot_be_read_fail(bursar: Bursar) -> None:
    bursar("init")
    configure("port = 'x'")
    found = checks(bursar)
    assert found["settings"]["status"] == "fail"
    assert "bursar.toml" in found["settings"]["message"]


def test_folder_that_others_can_read_is_a_warning(bursar: Bursar) -> None:
    bursar("init")
    DATA.chmod(0o755)
    found = checks(bursar)["data directory"]
    assert found["status"] == "warn"
    assert "chmod 700" in found["advice"]


def test_database_of_another_version_fails(bursar: Bursar) -> None:
    bursar("init")
    connection = sqlite3.connect(DATA / "bursar.db")
    connection.execute("UPDATE alembic_version SET version_num = '0000'")
    connection.commit()
    connection.close()
    assert checks(bursar)["schema"]["status"] == "fail"
    assert bursar("accounts", "list").code == 4


def test_unreachable_database_fails(bursar: Bursar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURSAR_DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:1/x")
    done = bursar("doctor")
    assert done.code == 1
    assert "fail  database" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_charges_that_were_left_behind_are_a_warning_and_stay(bursar: Bursar) -> None:
    bursar("init")
    journal = Journal(DATA / "journal", 7, born_ms=1, max_bytes=10_000_000)
    journal.append(charge(1, 5))
    journal.close(is_settled=False)
    before = sorted(path.name for path in (DATA / "journal").iterdir())
    assert checks(bursar)["journals"]["status"] == "warn"
    assert "1 charges" in checks(bursar)["journals"]["message"]
    assert sorted(path.name for path in (DATA / "journal").iterdir()) == before


def test_quarantined_charges_fail(bursar: Bursar) -> None:
    bursar("init")
    (DATA / "journal").mkdir(exist_ok=True)
    (DATA / "journal" / "00000007.quarantine").write_text("{}\n{}\n")
    found = checks(bursar)["quarantine"]
    assert found["status"] == "fail"
    assert found["message"].startswith("2 charges")


def test_upstream_without_its_key_fails(bursar: Bursar) -> None:
    bursar("init")
    configure(
        '[[upstreams]]\nname = "a"\nbase_url = "http://127.0.0.1:1"\nmodels = ["m"]\n'
        'api_key_env = "NO_SUCH_KEY"'
    )
    found = checks(bursar)
    assert found["upstream a"]["status"] == "fail"
    assert "NO_SUCH_KEY" in found["upstream a"]["message"]


def test_upstreams_are_only_connected_to_when_asked(bursar: Bursar) -> None:
    bursar("init")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        configure(
            f'[[upstreams]]\nname = "up"\nbase_url = "http://127.0.0.1:{port}"\nmodels = ["*"]\n'
            '[[upstreams]]\nname = "down"\nbase_url = "http://127.0.0.1:1"\nmodels = ["*"]'
        )
        asked = checks(bursar, "--connect")
        unasked = checks(bursar)
    assert asked["upstream up"]["status"] == "ok"
    assert asked["upstream down"]["status"] == "fail"
    assert unasked["upstream down"]["status"] == "ok"


def test_configured_model_without_a_price_is_a_warning(bursar: Bursar) -> None:
    bursar("init")
    configure(
        '[[upstreams]]\nname = "a"\nbase_url = "http://127.0.0.1:1"\n'
        'models = ["known-*", "mine", "sandbox/echo"]\nrename = { fast = "x" }'
    )
    found = checks(bursar)["prices"]
    assert found["status"] == "warn"
    assert found["message"] == "Without a price: fast, mine."


def test_misspelt_variable_is_a_warning(bursar: Bursar, monkeypatch: pytest.MonkeyPatch) -> None:
    bursar("init")
    monkeypatch.setenv("BURSAR_PROT", "9")
    found = checks(bursar)["settings"]
    assert found["status"] == "warn"
    assert "BURSAR_PROT" in found["message"]


def test_open_address_is_a_warning(bursar: Bursar, monkeypatch: pytest.MonkeyPatch) -> None:
    bursar("init")
    monkeypatch.setenv("BURSAR_HOST", "0.0.0.0")
    assert checks(bursar)["address"]["status"] == "warn"
    monkeypatch.setenv("BURSAR_BEHIND_PROXY", "true")
    assert "address" not in checks(bursar)
