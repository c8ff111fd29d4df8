"""What the clients are tried on: a server in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bursar.compat.venice_sdk import VeniceClient
from tests.copies import (  # noqa: F401 - fixtures
    copied_database_url,
    made,
    on_postgres,
    on_sqlite,
    upstream,
)
from tests.live import Installation
from tests.upstream_double import ScriptedUpstream

MODEL = "llama-3.3-70b"
PRICES = f"""
prices:
  - model: {MODEL}
    per_million: {{input_tokens: "1000", output_tokens: "2000"}}
    max_output_tokens: 1000
"""


@pytest.fixture
def kind() -> str:
    """The database: one of them, since a client does not see which it is."""
    return "sqlite"


@pytest.fixture
def served(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """The installation, serving the documentation's model; the environment has its admin key."""
    found: Installation = request.getfixturevalue("made")
    behind: ScriptedUpstream = request.getfixturevalue("upstream")
    found.load_prices(PRICES)
    found.configure({"name": "local", "base_url": behind.base_url, "models": [MODEL]})
    found.start()
    monkeypatch.setenv("BURSAR_BASE_URL", f"{found.url}/api/v1")
    monkeypatch.setenv("BURSAR_API_KEY", found.secrets.provisioning_key)
    return found


@pytest.fixture
def client(served: Installation) -> Iterator[VeniceClient]:
    """A client with the admin key."""
    with VeniceClient() as found:
        yield found


@pytest.fixture
def caller(served: Installation) -> Iterator[VeniceClient]:
    """A client with an inference key, told by arguments where to go."""
    with VeniceClient(served.secrets.inference_key, f"{served.url}/api/v1/") as found:
        yield found
