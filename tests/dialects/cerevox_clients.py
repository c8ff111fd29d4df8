"""Cerevox's own client, blocking and awaited."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tests.dialects import clients
from tests.dialects.clients import Client

DRIVER = Path(__file__).parent / "cerevox" / "driver.py"
SYNC = "cerevox"
ASYNC = "cerevox-async"


def running(cache: Path, name: str) -> AbstractContextManager[Client]:
    """Run a client until the block ends; raises EnvironmentUnavailable."""
    return clients.running(cache, driver=DRIVER, name=name, lock="cerevox")
