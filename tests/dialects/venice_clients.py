"""Venice's own clients: which there are, and where each is installed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tests.dialects import clients
from tests.dialects.clients import Client

DRIVER = Path(__file__).parent / "venice" / "driver.py"
# Which environment each client is in: two of them are packages of one name.
SDK = "venice-sdk"
PY = ("venice-py", "venice-py-sync")
OLD = ("venice-ai", "venice-ai-async")
LOCKS = {SDK: "venice", **dict.fromkeys(PY, "venice"), **dict.fromkeys(OLD, "venice1")}


def running(cache: Path, name: str) -> AbstractContextManager[Client]:
    """Run a client until the block ends; raises EnvironmentUnavailable."""
    return clients.running(cache, driver=DRIVER, name=name, lock=LOCKS[name])
