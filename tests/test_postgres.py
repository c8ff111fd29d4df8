"""The PostgreSQL of the tests keeps what its users rely on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import asyncpg
import pytest

from tests import postgres
from tests.postgres import PostgresServer, PostgresUnavailable


def plain(url: str) -> str:
    """The URL as the driver itself takes it."""
    return url.replace("+asyncpg", "")


def test_it_is_new_enough_for_the_product(postgres_server: PostgresServer) -> None:
    [row] = postgres_server.execute("SELECT current_setting('server_version_num')::int AS number")
    assert row["number"] >= postgres.OLDEST_VERSION * 10_000


def test_every_database_is_a_copy_of_its_template_and_of_no_other_test(
    postgres_server: PostgresServer,
) -> None:
    builds = []

    def build(url: str) -> None:
        builds.append(url)
        postgres_server.execute("CREATE TABLE kept (n int)", database=url.rpartition("/")[2])

    template = postgres_server.make_template("for_copying", build)
    assert postgres_server.make_template("for_copying", build) == template
    assert len(builds) == 1
    for _ in range(2):
        with postgres_server.database(template=template) as url:
            name = url.rpartition("/")[2]
            assert postgres_server.execute("SELECT n FROM kept", database=name) == []
            postgres_server.execute("INSERT INTO kept VALUES (1)", database=name)
    left = postgres_server.execute("SELECT datname FROM pg_database WHERE datname LIKE 'test_%'")
    assert left == []


async def test_the_url_opens_a_fresh_database(postgres_database: str) -> None:
    connection = await asyncpg.connect(plain(postgres_database))
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_stat_user_tables") == 0
    finally:
        await connection.close()


async def test_nobody_comes_in_without_the_password(postgres_database: str) -> None:
    scheme, _, place = plain(postgres_database).rpartition("@")
    user = scheme.rpartition(":")[0]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(f"{user}:wrong@{place}")


@pytest.mark.faults
def test_committed_rows_outlive_a_killed_server() -> None:
    with PostgresServer(fsync=True) as server:
        server.execute("CREATE TABLE kept (n int)")
        server.execute("INSERT INTO kept VALUES (1)")
        url = server.url()
        server.kill()
        server.start()
        assert server.url() == url
        assert len(server.execute("SELECT n FROM kept")) == 1
        folder = server.data_folder
    assert not folder.exists()


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's notice of a dead parent")
def test_a_killed_test_run_leaves_no_server_behind(tmp_path: Path) -> None:
    program = """
        import os, signal
        from tests.postgres import PostgresServer
        server = PostgresServer().__enter__()
        print(server.process.pid, server.data_folder.parent, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    root = Path(__file__).parents[1]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    pid, folder = run.stdout.split()
    deadline = time.monotonic() + 10
    while Path("/proc", pid).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path("/proc", pid).exists()
    shutil.rmtree(folder)


def test_binaries_that_do_not_exist_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BURSAR_TEST_POSTGRES", str(tmp_path))
    with pytest.raises(PostgresUnavailable, match=str(tmp_path)):
        postgres.find_binaries()


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives the server to another user")
def test_binaries_that_only_root_can_reach_are_copied(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BURSAR_TEST_POSTGRES", "wheel")
    install = postgres.find_binaries().parent
    package = install.parent
    shutil.copytree(install, tmp_path / package.name / install.name, symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), tmp_path / f"{package.name}.libs")
    tmp_path.chmod(0o700)
    monkeypatch.setenv("BURSAR_TEST_POSTGRES", str(tmp_path / package.name / install.name / "bin"))
    with PostgresServer() as server:
        assert len(server.execute("SELECT 1")) == 1
