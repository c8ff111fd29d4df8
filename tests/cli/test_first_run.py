"""The first start in an empty directory: what is printed works as it stands, with no provider."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from bursar.core.money import parse_usd
from tests.live import Process, run, served

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")


def printed(server: Process) -> str:
    return "".join(server.stdout)


def secret(server: Process, prefix: str) -> str:
    first = find(server, rf"({prefix}_[0-9A-Za-z]+)")
    assert set(re.findall(rf"{prefix}_[0-9A-Za-z]+", printed(server))) == {first}
    return first


def paste(text: str) -> subprocess.CompletedProcess[str]:
    """What a shell makes of it, in a terminal where this Python is the one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", text],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
    )


def find(server: Process, pattern: str) -> str:
    """What the server has printed, or is about to: its two outputs arrive as they like."""
    deadline = time.monotonic() + 5
    while (found := re.search(pattern, printed(server), re.DOTALL)) is None:
        assert time.monotonic() < deadline, printed(server)
        time.sleep(0.01)
    return found[1]


def curl_call(server: Process) -> str:
    return find(server, r"with curl:\n\n(curl .*?)\n\n")


def python_call(server: Process) -> str:
    return find(server, r"OpenAI's client .*?:\n\n(python3 .*?\nEOF\n)")


def spent_nanos(server: Process) -> int:
    headers = {"authorization": f"Bearer {secret(server, 'bpk')}"}
    answer = httpx2.get(f"{server.url}/v1/account/balance", headers=headers, timeout=10)
    return parse_usd("100") - parse_usd(answer.json()["balance"])


@needs_curl
def test_the_printed_curl_call_works_and_costs_what_its_answer_says() -> None:
    with served() as server:
        answer = json.loads(paste(curl_call(server)).stdout)
        assert answer["choices"][0]["message"]["content"] == "Hello"
        usage = answer["usage"]
        cost = usage["prompt_tokens"] * 100 + usage["completion_tokens"] * 400
        assert spent_nanos(server) == cost > 0
        assert run("verify").returncode == 0


def test_the_printed_call_with_openais_client_works() -> None:
    with served() as server:
        done = paste(python_call(server))
        assert (done.stdout, done.stderr) == ("Hello\n", "")
        assert spent_nanos(server) > 0
        assert run("verify").returncode == 0


def test_secrets_are_shown_once_and_are_neither_on_the_disk_nor_in_the_log() -> None:
    with served() as server:
        password = find(server, r"password +(\S+)")
        hidden = [*(secret(server, prefix) for prefix in ("bok", "bpk", "bsk")), password]
        assert find(server, r"url +(\S+)") == server.url
        assert server.end() == 0
    assert not [text for text in hidden if text in "".join(server.stderr)]
    with served() as again:
        assert again.end() == 0
    assert not re.search(r"b[osp]k_", printed(again) + "".join(again.stderr))
    files = [path for path in Path("bursar-data").rglob("*") if path.is_file()]
    assert files
    for path in files:
        kept = path.read_bytes()
        assert not [text for text in hidden if text.encode() in kept], path
