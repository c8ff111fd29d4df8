"""What commands are started with: any encoding, and streams that are closed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import SOURCE, Bursar
from tests.live import run

ENCODINGS = ["ascii", "latin-1", "utf-16"]
NAME = "Ünï — 名前 🙂"


@pytest.fixture
def folder(bursar: Bursar) -> Path:
    """The data directory of an installation with a key and a change that are hard to spell."""
    assert bursar("init").code == 0
    assert bursar("keys", "create", "--name", NAME).code == 0
    assert bursar("keys", "update", 4, "--disable").code == 0
    return Path("bursar-data").resolve()


def encoded(encoding: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose output has this encoding."""
    return subprocess.run(
        [sys.executable, "-c", "from bursar.cli import main; main()", *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_secret_is_printed_whatever_the_encoding(folder: Path, encoding: str) -> None:
    for arguments in (("keys", "create", "--name", NAME), ("keys", "rotate", "4")):
        done = encoded(encoding, *arguments)
        assert done.returncode == 0, done.stderr
        assert re.search(r"bsk_[0-9A-Za-z]{20}", done.stdout.decode(encoding))
        made: dict[str, Any] = json.loads(
            encoded(encoding, *arguments, "--json").stdout.decode(encoding)
        )
        assert made["secret"].startswith("bsk_")
        assert made["name"] == NAME


@pytest.mark.parametrize("encoding", ENCODINGS[:2])
def test_no_character_is_a_failure_whatever_the_encoding(folder: Path, encoding: str) -> None:
    for arguments in (
        ("keys", "list"),
        ("audit",),
        ("top", "--once"),
        ("accounts", "create", NAME),
    ):
        done = encoded(encoding, *arguments)
        assert done.returncode == 0, (arguments, done.stderr)
        assert done.stdout.decode(encoding)
        whole = encoded(encoding, *arguments, "--json")
        assert whole.returncode == 0, (arguments, whole.stderr)
        assert json.loads(whole.stdout.decode(encoding))
    for arguments, code in ((("keys", "create", "--help"), 0), (("keys", "show", NAME), 2)):
        assert encoded(encoding, *arguments).returncode == code
    listed = json.loads(encoded(encoding, "keys", "list", "--json").stdout.decode(encoding))
    assert listed["keys"][1]["name"] == NAME


def test_a_table_is_laid_out_for_what_stands_in_it(folder: Path) -> None:
    for encoding in ("ascii", "latin-1"):
        rows = encoded(encoding, "keys", "list").stdout.decode(encoding).splitlines()
        assert len({len(row) for row in rows}) == 1, rows


def closed(redirection: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell does that has closed some of its streams."""
    return subprocess.run(
        [
            *("sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-X", "dev"),
            *("-c", "from bursar.cli import main; main()", *arguments),
        ],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_closed_stdin_has_no_lines_and_is_no_terminal(folder: Path) -> None:
    for arguments, said in (
        (("keys", "delete", "4"), "say --yes"),
        (("login", "http://127.0.0.1:1"), "no terminal to ask"),
        (("login", "http://127.0.0.1:1", "--with-key"), "no terminal to ask"),
        (("chat", "--url", "http://127.0.0.1:1"), "Say something"),
    ):
        done = closed("<&-", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert said in done.stderr
    assert closed("<&-", "keys", "show", "4").returncode == 0


def test_a_closed_stdout_is_said_before_a_secret_is_lost(folder: Path) -> None:
    before = run("keys", "list", "--json").stdout
    for redirection in (">&-", "<&- >&-"):
        for arguments in (("keys", "create", "--name", "x"), ("keys", "rotate", "4", "--json")):
            done = closed(redirection, *arguments)
            assert done.returncode == 5
            assert "Standard output is closed; nothing was done." in done.stderr
            assert "Warning" not in done.stderr
    assert closed("<&- >&- 2>&-", "keys", "create", "--name", "x").returncode == 5
    assert run("keys", "list", "--json").stdout == before
    assert run("verify").returncode == 0


def test_words_for_people_stay_out_of_the_data_when_stderr_is_closed(folder: Path) -> None:
    for redirection in ("2>&-", "<&- 2>&-"):
        done = closed(redirection, "keys", "create", "--name", "x", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["name"] == "x"
    assert closed("2>&-", "keys", "show", "99").stdout == ""
