"""The fixture `made`: an installation before a scripted upstream, to be served by real processes.

On each database it is set up once, with the product's own commands; each test gets a copy.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live import Installation, Secrets
from tests.loads import MODELS, PRICES
from tests.postgres import PostgresServer
from tests.upstream_double import ScriptedUpstream


@dataclass(frozen=True)
class Template:
    """An installation to copy: its folder, its database on PostgreSQL, its secrets."""

    folder: Path
    database: str
    secrets: Secrets


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """Sells and keeps its own ledger; runs in a thread beside the test."""
    with ScriptedUpstream.in_thread() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    """The database, each in turn; a test that wants one of them parametrises this."""
    return str(request.param)


@pytest.fixture(scope="session")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """The installation on SQLite to copy."""
    made = Installation(tmp_path_factory.mktemp("sqlite") / "data")
    made.load_prices(PRICES)
    return Template(made.data_dir, "", made.secrets)


@pytest.fixture(scope="session")
def on_postgres(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer
) -> Template:
    """The installation on PostgreSQL to copy."""
    folder = tmp_path_factory.mktemp("postgres") / "data"
    found: list[Secrets] = []

    def set_up(url: str) -> None:
        made = Installation(folder, database_url=url)
        made.load_prices(PRICES)
        found.append(made.secrets)

    # Two folders of tests have this fixture, each for itself.
    name = f"installed_{folder.parent.name}"
    return Template(folder, postgres_server.make_template(name, set_up), found[0])


@pytest.fixture
def copied_database_url(request: pytest.FixtureRequest, kind: str) -> Iterator[str | None]:
    """The URL of this test's copy; None for the file in the data directory."""
    if kind == "sqlite":
        yield None
        return
    template: Template = request.getfixturevalue("on_postgres")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with server.database(template=template.database) as url:
        yield url


@pytest.fixture
def made(
    request: pytest.FixtureRequest,
    kind: str,
    copied_database_url: str | None,
    tmp_path: Path,
    upstream: ScriptedUpstream,
) -> Iterator[Installation]:
    """The installation with 100 USD, set up and not yet served."""
    template: Template = request.getfixturevalue(f"on_{kind}")
    shutil.copytree(template.folder, tmp_path / "data")
    installation = Installation(
        tmp_path / "data", template.secrets, database_url=copied_database_url
    )
    installation.configure({"name": "local", "base_url": upstream.base_url, "models": MODELS})
    try:
        yield installation
    finally:
        installation.close()
