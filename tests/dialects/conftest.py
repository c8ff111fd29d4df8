"""A live server for clients that run in processes of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.copies import (  # noqa: F401 - fixtures
    copied_database_url,
    kind,
    made,
    on_postgres,
    on_sqlite,
    upstream,
)
from tests.dialects import cerevox_clients, clients, venice_clients
from tests.dialects.clients import Client
from tests.live import Installation
from tests.loads import WHOLE
from tests.serving import MODEL, serving


@dataclass(frozen=True)
class LiveServer:
    """What a client needs to know."""

    url: str
    provisioning_key: str
    inference_key: str
    model: str

    async def chat(self, secret: str | None = None) -> httpx2.Response:
        """One call of a model."""
        body = {"model": self.model, "messages": [{"role": "user", "content": "hello there"}]}
        return await self._send(
            "POST", "/v1/chat/completions", secret or self.inference_key, json=body
        )

    async def control(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """One call of the control API with the provisioning key."""
        return await self._send(method, path, self.provisioning_key, **options)

    async def _send(self, method: str, path: str, secret: str, **options: Any) -> httpx2.Response:
        async with httpx2.AsyncClient(base_url=self.url, timeout=30) as http:
            headers = {"authorization": f"Bearer {secret}"}
            return await http.request(method, path, headers=headers, **options)


@pytest.fixture(params=["in_process", "installed"])
def live_server(request: pytest.FixtureRequest, kind: str) -> LiveServer:  # noqa: F811
    """A server with 40 USD, on each database, in this process and in one of its own."""
    found: LiveServer = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture
def database_url(request: pytest.FixtureRequest, kind: str) -> str:  # noqa: F811
    """The URL of a migrated database of this kind."""
    url: str = request.getfixturevalue(f"{kind}_database_url")
    return url


@pytest.fixture
async def in_process_server(database_url: str, tmp_path: Path) -> AsyncIterator[LiveServer]:
    """The quick one."""
    async with serving(database_url, tmp_path, credit="40") as house:
        keys = house.installation
        yield LiveServer(house.url, keys.provisioning_key, keys.inference_key, MODEL)


@pytest.fixture
def installed_server(made: Installation) -> LiveServer:  # noqa: F811
    """The one that people run."""
    made.start()
    correction = {"amount": "-60", "reason": "40 are enough"}
    path = "/v1/operator/accounts/1/corrections"
    made.control("POST", path, secret=made.secrets.operator_key, json=correction)
    return LiveServer(made.url, made.secrets.provisioning_key, made.secrets.inference_key, WHOLE)


@pytest.fixture(scope="session")
def venice_processes(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Client]]:
    """Venice's own clients."""
    with clients.starting(request, venice_clients.running) as start:
        yield start


@pytest.fixture(scope="session")
def cerevox_processes(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Client]]:
    """Cerevox's own clients."""
    with clients.starting(request, cerevox_clients.running) as start:
        yield start


@pytest.fixture
def venice(
    in_process_server: LiveServer, venice_processes: Callable[[str], Client]
) -> Callable[[str], Client]:
    """A client of Venice's by its name, with the ADMIN key of a server in this process."""
    server = in_process_server
    return lambda name: venice_processes(name).at(server.url, server.provisioning_key)
