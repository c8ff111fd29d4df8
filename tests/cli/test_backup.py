"""`bursar backup` and `bursar restore`, as people and their jobs run them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bursar.store.database import sqlite_url
from tests import live
from tests.cli.conftest import Bursar

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "back-up-and-restore.md"


def test_a_backup_prints_what_it_is_and_restores_to_the_same_rows(
    installed: dict[str, Any], bursar: Bursar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bursar("backup", tmp_path, "--json").json
    file = Path(made["file"])
    assert file.parent == tmp_path
    assert file.name == f"bursar-{made['taken_at'].replace(':', '-')}.bursar"
    assert made["bytes"] == file.stat().st_size
    sums = subprocess.run(["sha256sum", file], capture_output=True, check=True, text=True)
    assert sums.stdout.split()[0] == made["sha256"]
    monkeypatch.setenv("BURSAR_DATABASE_URL", sqlite_url(tmp_path / "copy.db"))
    restored = bursar("restore", file, "--json").json
    assert restored["rows"] == made["rows"]
    assert restored["rows"]["accounts"] == 1
    assert (restored["is_right"], restored["difference_count"]) == (True, 0)
    assert bursar("verify").code == 0
    assert bursar("accounts", "show", installed["account_id"], "--json").json["balance"] == "100.00"


def test_each_mistake_has_its_code_and_its_exit_code(
    installed: dict[str, Any], bursar: Bursar, tmp_path: Path
) -> None:
    assert installed["account_id"]
    file = tmp_path / "backup"
    assert bursar("backup", file).code == 0

    def refused(*arguments: object) -> tuple[int, str]:
        done = bursar(*arguments, "--json")
        return done.code, json.loads(done.stderr)["error"]["code"]

    assert refused("backup", file) == (4, "backup_exists")
    assert refused("restore", tmp_path / "nothing") == (3, "backup_missing")
    assert refused("restore", file) == (4, "not_empty")
    assert refused("backup", tmp_path / "no" / "folder") == (5, "system_failed")
    file.write_bytes(b"something else")
    assert refused("restore", file, "--replace") == (2, "backup_damaged")
    assert bursar("verify").code == 0


def test_a_server_on_the_file_stands_in_the_way_of_a_restore_and_not_of_a_backup(
    tmp_path: Path, bursar: Bursar
) -> None:
    folder = tmp_path / "data"
    with live.served("--data-dir", str(folder)):
        assert bursar("--data-dir", folder, "backup", tmp_path / "backup").code == 0
        done = bursar("--data-dir", folder, "restore", tmp_path / "backup", "--replace", "--json")
        assert (done.code, json.loads(done.stderr)["error"]["code"]) == (4, "already_served")
    assert bursar("--data-dir", folder, "restore", tmp_path / "backup", "--replace").code == 0


def test_every_command_of_the_page_does_what_the_page_says(bursar: Bursar) -> None:
    assert bursar("init").code == 0
    scripts = re.findall(r"^ *```sh\n(.*?)^ *```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    commands = [shlex.split(line) for script in scripts for line in script.strip().splitlines()]
    assert len(commands) >= 7
    for program, *arguments in commands:
        if program == "bursar":
            done = bursar(*arguments)
            assert done.code == 0, (arguments, done.stderr)
        else:
            subprocess.run([program, *arguments], check=True)


def test_progress_is_said_on_standard_error_alone(bursar: Bursar, tmp_path: Path) -> None:
    code = "from bursar.cli import backup; backup._SAY_EVERY_S = 0; "
    code += "from bursar.service import backup; backup._EVERY = 1; "
    code += "from bursar.cli import main; main()"
    folder = tmp_path / "data"
    assert bursar("--data-dir", folder, "init").code == 0
    arguments = ("backup", str(tmp_path / "backup"), "--json", "--data-dir", str(folder))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={"PYTHONPATH": str(live.SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["rows"]["keys"] == 3
    assert "keys: 3 rows\n" in done.stderr
