"""A live server for clients that run in processes of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.serving import House, serving


@dataclass(frozen=True)
class LiveServer:
    """What a client needs, and the house behind it."""

    url: str
    provisioning_key: str
    inference_key: str
    house: House


@pytest.fixture
async def live_server(database_url: str, tmp_path: Path) -> AsyncIterator[LiveServer]:
    """A served installation with 40 USD, once on each database."""
    async with serving(database_url, tmp_path, credit="40") as house:
        yield LiveServer(
            url=house.url,
            provisioning_key=house.installation.provisioning_key,
            inference_key=house.installation.inference_key,
            house=house,
        )
