"""The tools are set as the house rules say, and would notice what they are there to notice."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import tomllib
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.network import NetworkRefused
from tests.tidy.sources import ROOT, file_names

MOST_COMPLEX = 12
FAR_AWAY = ("192.0.2.1", 9)  # an address that is kept for documentation


def project() -> dict[str, Any]:
    """What pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


# ── Complexity ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("branches", "is_refused"), [(MOST_COMPLEX, True), (MOST_COMPLEX - 1, False)]
)
def test_a_function_with_too_many_ways_through_it_is_refused(
    branches: int, is_refused: bool
) -> None:
    code = "def f(n):\n" + "    if n:\n        n = 0\n" * branches
    run = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--stdin-filename", "src/bursar/a.py", "-"],
        input=code,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("C901" in run.stdout) == is_refused, run.stdout + run.stderr


# ── The locks ───────────────────────────────────────────────────────────────────────────────────


def locked(name: str) -> set[str]:
    """The packages that a lock holds."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return set(re.findall(r"^([a-z0-9._-]+)==", text, re.MULTILINE))


def wanted(requirements: list[str]) -> set[str]:
    """The packages that a list of requirements names."""
    return {
        re.split(r"[^\w.-]", each, maxsplit=1)[0].lower().replace("_", "-") for each in requirements
    }


def test_the_locks_hold_what_the_project_asks_for() -> None:
    config = project()
    groups = config["dependency-groups"]
    server = wanted(config["project"]["dependencies"]) | wanted(
        config["project"]["optional-dependencies"]["server"]
    )
    assert server <= locked("server"), "run make lock"
    assert server | wanted(groups["test"]) | wanted(groups["lint"]) <= locked("dev"), (
        "run make lock"
    )
    assert wanted(groups["build"]) <= locked("build"), "run make lock"
    assert wanted(groups["docs"]) <= locked("docs"), "run make lock"
    for name in ("litellm", "venice", "venice1", "cerevox"):
        assert wanted(groups[name]) <= locked(name), "run make lock"


@pytest.mark.parametrize(
    "name", ["server", "dev", "build", "docs", "litellm", "venice", "venice1", "cerevox"]
)
def test_every_locked_package_has_a_hash(name: str) -> None:
    entries = re.split(
        r"^(?=[a-z0-9])", (ROOT / "requirements" / f"{name}.txt").read_text(), flags=re.M
    )
    bare = [entry.split()[0] for entry in entries[1:] if "--hash=sha256:" not in entry]
    assert bare == []


def test_tests_run_with_the_versions_that_are_served() -> None:
    def pins(name: str) -> set[str]:
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        return set(re.findall(r"^[a-z0-9._-]+==[^ \\]+", text, re.MULTILINE))

    assert pins("server") <= pins("dev"), "run make lock"


# ── The wheel ───────────────────────────────────────────────────────────────────────────────────


def test_the_wheel_carries_every_file_of_the_package(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        check=True,
    )
    [wheel] = tmp_path.glob("bursar-*.whl")
    carried = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {name for name in file_names() if name.startswith("src/bursar/")}
    assert carried == {name.removeprefix("src/") for name in files}


# ── The tests themselves ────────────────────────────────────────────────────────────────────────


def test_a_warning_is_an_error() -> None:
    with pytest.raises(UserWarning, match="mind this"):
        warnings.warn("mind this", stacklevel=1)


def test_no_socket_leaves_this_machine() -> None:
    with socket.socket() as sock, pytest.raises(NetworkRefused):
        sock.connect(FAR_AWAY)
    with socket.socket() as sock, pytest.raises(NetworkRefused):
        sock.connect_ex(FAR_AWAY)
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(NetworkRefused):
        sock.sendto(b"x", FAR_AWAY)
    with socket.socket(socket.AF_INET6) as sock, pytest.raises(NetworkRefused):
        sock.connect(("2001:db8::1", 9))


def test_no_name_is_looked_up_anywhere_else() -> None:
    for look_up in (socket.gethostbyname, lambda name: socket.getaddrinfo(name, 80)):
        with pytest.raises(NetworkRefused):
            look_up("bursar.example")


async def test_asyncio_stays_on_this_machine_too() -> None:
    with pytest.raises(NetworkRefused):
        await asyncio.open_connection(*FAR_AWAY)


async def test_loopback_is_open() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        for host in ("127.0.0.1", "localhost"):
            reader, writer = await asyncio.open_connection(
                host, server.sockets[0].getsockname()[1], family=socket.AF_INET
            )
            assert await reader.read() == b"hello"
            writer.close()
            await writer.wait_closed()
