"""What SQLite has committed is on the disk: a commit waits for it, and the count of waits is seen.

Killing a process cannot show this, because what was written belongs to the kernel by then. So the
system calls of commits are counted, for the product's connection and for one that makes the usual
mistake.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMMITS = 30
STRACE = shutil.which("strace")
PROGRAM = r"""
import asyncio, os, sys
from bursar.store import counters
from bursar.store.database import Database

async def main(url, mistake):
    database = Database(url, clock_ms=lambda: 1_795_264_496_789)
    if mistake:
        from sqlalchemy import event
        event.listen(
            database.engine.sync_engine, "connect",
            lambda connection, _: connection.cursor().execute(f"PRAGMA synchronous = {mistake}"),
        )
    async with database.read() as tx:
        found = (await tx.driver("PRAGMA synchronous")).scalar_one()
    os.write(1, b"synchronous %d\n" % found)
    for _ in range(30):
        async with database.write() as tx:
            await counters.advance(tx, name="users")
    os.write(1, b"committed\n")
    await database.close()

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def _commit(url: str, log: Path, *, mistake: str = "") -> tuple[int, int]:
    """Commit some transactions: the level of `PRAGMA synchronous`, and how often a disk was asked.

    Counted before the connection is closed, which waits for the disk in any case.
    """
    assert STRACE is not None
    traced = [STRACE, "-f", "-qq", "-e", "trace=fdatasync,fsync,write", "-o", str(log)]
    done = subprocess.run(
        [*traced, sys.executable, "-c", PROGRAM, url, mistake],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    if "ptrace" in done.stderr:
        pytest.skip(f"strace may not trace here: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    lines = log.read_text().splitlines()
    begin = next(n for n, line in enumerate(lines) if '"synchronous ' in line)
    end = next(n for n, line in enumerate(lines) if '"committed' in line)
    waits = sum("fdatasync(" in line or "fsync(" in line for line in lines[begin:end])
    return int(done.stdout.split()[1]), waits


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where system calls are written down."""
    if STRACE is None:
        pytest.skip("strace is not installed: how often a commit waits for the disk is not counted")
    return tmp_path / "calls"


@pytest.mark.faults
def test_each_commit_waits_for_the_disk(sqlite_database_url: str, log: Path) -> None:
    level, waits = _commit(sqlite_database_url, log)
    assert level == 2
    assert waits >= COMMITS


@pytest.mark.faults
def test_a_commit_that_waits_for_no_disk_would_be_noticed(
    sqlite_database_url: str, log: Path
) -> None:
    level, waits = _commit(sqlite_database_url, log, mistake="NORMAL")
    assert level == 1
    assert waits < COMMITS
