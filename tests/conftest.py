"""What every test gets: no network but loopback, and a PostgreSQL for those that ask.

Owns only fixtures that more than one folder uses; the order and its seed are pytest-randomly's.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from tests import canaries, logs
from tests.databases import (  # noqa: F401 - fixtures
    clock,
    database,
    database_url,
    migrated_postgres,
    migrated_sqlite,
    postgres_database_url,
    sqlite_database_url,
)
from tests.installations import api, installation  # noqa: F401 - fixtures
from tests.network import stay_on_this_machine
from tests.postgres import PostgresServer

stay_on_this_machine()
canaries.watch_answers()
logs.set_up()

# Whoever runs the tests may have an installation of their own to point to: the tests have not.
for _name in [name for name in os.environ if name.startswith("BURSAR_")]:
    if not _name.startswith("BURSAR_TEST_"):
        del os.environ[_name]

# A busy machine is not a failing test; pytest's own time-out stops what never ends.
settings.register_profile("bursar", deadline=None, print_blob=True)
settings.load_profile("bursar")


_SERVER = pytest.StashKey[PostgresServer]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """No test leaves a secret in what it writes; one that fails shows what PostgreSQL says."""
    report = yield
    if report.when == "call":
        canaries.check_report(report)
    server = item.config.stash.get(_SERVER, None)
    if report.failed and server is not None and "postgres" in item.nodeid:
        report.sections.append(("PostgreSQL", server.end_of_log()))
    return report


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """No test leaves variables to the next one, which would go to its server with its key."""
    before = dict(os.environ)
    yield
    after = dict(os.environ)
    names = {name for name, _ in before.items() ^ after.items()} - {"PYTEST_CURRENT_TEST"}
    for name in names:
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]
    assert not names, f"left to the next test: {', '.join(sorted(names))}"


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """One PostgreSQL for this test process, gone with it, and with no secret left in it."""
    with PostgresServer() as server:
        pytestconfig.stash[_SERVER] = server
        yield server
        server.stop()
        canaries.search(canaries.postgres_files(server.data_folder))


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """The database that `postgres_database` copies: empty, unless a folder's conftest says else.

    To start from a migrated schema, override it there:
    `return postgres_server.make_template("migrated", migrate)`.
    """
    return postgres_server.EMPTY


@pytest.fixture
def postgres_database(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """The URL of a fresh database, copied from the template and dropped afterwards."""
    with postgres_server.database(template=postgres_template) as url:
        yield url
