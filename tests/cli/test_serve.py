"""Serving from the command line: a real process, its first start, its second, its end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx2

from tests.live import SOURCE, run, served


def call(url: str, key: str) -> httpx2.Response:
    """One call of the sandbox."""
    body = {"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hi"}]}
    headers = {"authorization": f"Bearer {key}"}
    return httpx2.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=10)


def test_secrets_of_a_first_start_are_json_when_asked_for() -> None:
    with served("--json") as server:
        assert httpx2.get(f"{server.url}/healthz").status_code == 200
        assert server.end() == 0
        assert set(json.loads("".join(server.stdout))) >= {"operator_key", "inference_key", "url"}


def test_commands_work_beside_a_server_and_reach_it() -> None:
    with served() as server:
        done = run("keys", "create", "--name", "beside", "--json")
        made = json.loads(done.stdout)
        assert call(server.url, made["secret"]).status_code == 200
        run("keys", "update", str(made["id"]), "--disable")
        deadline = time.monotonic() + 5
        while call(server.url, made["secret"]).status_code != 401:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert run("verify").returncode == 0


def test_second_server_on_one_file_ends_with_a_sentence() -> None:
    with served():
        done = run("serve", "--port", "0")
        assert done.returncode == 4
        assert "Another bursar serve owns this SQLite file" in done.stderr


def test_taken_port_ends_with_a_sentence() -> None:
    with served() as server:
        port = server.url.rpartition(":")[2]
        done = run("serve", "--port", port, "--data-dir", "other")
        assert done.returncode == 5
        assert "Cannot listen on" in done.stderr
        assert "choose another" in done.stderr
        # Nothing was set up, so that the next start shows the secrets.
        assert done.stdout == ""
        assert not Path("other").exists()


def test_open_address_is_warned_of() -> None:
    with served("--host", "0.0.0.0") as server:
        assert any("--behind-proxy" in line for line in server.stderr)
    with served("--host", "0.0.0.0", "--behind-proxy") as server:
        assert not any("--behind-proxy" in line for line in server.stderr)


def test_servers_that_start_at_once_on_postgresql_all_serve(postgres_database: str) -> None:
    environment = {"BURSAR_DATABASE_URL": postgres_database}
    with (
        served("--data-dir", "one", **environment) as one,
        served("--data-dir", "two", **environment) as two,
    ):
        printed = "".join(one.stdout + two.stdout)
        keys = set(re.findall(r"bsk_[0-9A-Za-z]+", printed))
        assert len(keys) == 1
        for server in (one, two):
            assert call(server.url, *keys).status_code == 200


def test_log_is_json_on_a_pipe_and_holds_no_secret() -> None:
    with served() as server:
        assert httpx2.get(f"{server.url}/healthz").status_code == 200
        assert server.end() == 0
    lines = [line for line in server.stderr if line.startswith("{")]
    assert {"worker_registered", "serving", "stopping"} <= {
        json.loads(line)["event"] for line in lines
    }
    assert not re.search(r"b[spo]k_[0-9A-Za-z]{8}", "".join(server.stderr))


def test_output_into_a_closed_pipe_is_no_failure() -> None:
    run("init")
    program = f"{sys.executable} -c 'from bursar.cli import main; main()' prices list"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {program} | head -c 1"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr == ""


def test_files_of_a_server_are_its_owners_alone() -> None:
    with served():
        for path in Path("bursar-data").rglob("*"):
            assert not path.stat().st_mode & 0o077, path


def test_a_module_that_fails_because_it_is_told_to_stop_while_it_loads_is_no_failure() -> None:
    told = """
import os, signal, time
from bursar.cli import server
with server._stopped_in_order():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)
    except KeyboardInterrupt:
        raise ValueError("what a library makes of it") from None
print("in order")
"""
    done = subprocess.run(
        [sys.executable, "-c", told],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "in order\n"), done.stderr
