"""`bursar verify` proves the audit logs, with ends that were noted elsewhere if there are any."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Bursar

DATABASE = "bursar-data/bursar.db"


def cut_off() -> None:
    """Take the last row off the first account's log, and have its end say so."""
    connection = sqlite3.connect(DATABASE)
    connection.execute("DROP TRIGGER audit_no_delete")
    connection.execute(
        "DELETE FROM audit WHERE account_id = 1"
        " AND id = (SELECT last_id FROM audit_heads WHERE account_id = 1)"
    )
    connection.execute(
        "UPDATE audit_heads SET last_id = last_id - 1, hash ="
        " (SELECT hash FROM audit WHERE account_id = 1 ORDER BY id DESC LIMIT 1)"
        " WHERE account_id = 1"
    )
    connection.commit()
    connection.close()


# The service's tests do the same on each database; here it is the command that counts.
@pytest.mark.parametrize("installed", ["sqlite"], indirect=True)
def test_a_log_that_was_cut_off_is_found_with_the_end_that_was_noted(
    installed: dict[str, Any], bursar: Bursar, tmp_path: Path
) -> None:
    file = tmp_path / "heads.json"
    assert bursar("verify", "--note-heads", file).code == 0
    heads = json.loads(file.read_text())["heads"]
    assert {head["account_id"] for head in heads} == {0, 1}
    assert bursar("verify", "--heads", file).code == 0
    cut_off()
    assert bursar("verify").code == 0
    found = bursar("verify", "--heads", file, "--note-heads", tmp_path / "others.json")
    assert found.code == 1
    assert "was noted elsewhere, and is not there any more" in found.stdout
    assert not (tmp_path / "others.json").exists()
    done = bursar("verify", "--heads", file, "--json").json
    assert (done["is_right"], done["difference_count"]) == (False, 1)
    assert done["differences"][0]["check"] == "audit"


@pytest.mark.parametrize("installed", ["sqlite"], indirect=True)
def test_a_file_that_has_no_ends_is_refused(
    installed: dict[str, Any], bursar: Bursar, tmp_path: Path
) -> None:
    file = tmp_path / "heads.json"
    good = {"account_id": 1, "id": 1, "hash": "00" * 32}
    for text in (
        "",
        "[]",
        '{"heads": 1}',
        '{"heads": [1]}',
        json.dumps({"heads": [{**good, "hash": "00"}]}),
        json.dumps({"heads": [{**good, "id": "x"}]}),
        "[" * 100_000,
    ):
        file.write_text(text)
        done = bursar("verify", "--heads", file, "--json")
        assert done.code == 2, text[:40]
        assert json.loads(done.stderr)["error"]["code"] == "invalid_heads_file"
