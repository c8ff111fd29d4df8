"""Both faces of the SDK against a served installation, each in turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bursar import AsyncBursar, Bursar
from tests.copies import (  # noqa: F401 - fixtures
    copied_database_url,
    kind,
    made,
    on_postgres,
    on_sqlite,
    upstream,
)
from tests.sdk.faces import FACES, Face
from tests.serving import House, serving


@pytest.fixture(autouse=True)
def _no_profiles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs the tests may have profiles: the tests have not."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
async def house(sqlite_database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A served installation with 10 USD."""
    async with serving(sqlite_database_url, tmp_path) as served:
        yield served


@pytest.fixture(params=FACES)
async def face(request: pytest.FixtureRequest) -> AsyncIterator[Face]:
    """One face of the SDK, each in turn."""
    found = Face(request.param)
    yield found
    for client in found.clients:
        if isinstance(client, AsyncBursar):
            await client.close()
        else:
            await asyncio.to_thread(client.close)


@pytest.fixture
def client(face: Face, house: House) -> Bursar:
    """A client with the provisioning key."""
    return face.client(house.installation.provisioning_key, base_url=house.url)


@pytest.fixture
def operator(face: Face, house: House) -> Bursar:
    """A client with the operator key."""
    return face.client(house.installation.operator_key, base_url=house.url)


@pytest.fixture
def caller(face: Face, house: House) -> Bursar:
    """A client with an inference key."""
    return face.client(house.installation.inference_key, base_url=house.url)
