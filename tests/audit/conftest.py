"""The house that every test of the audit log has."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.installations import Api
from tests.people.house import House, open_house


@pytest.fixture
async def house(api: Api) -> AsyncIterator[House]:
    """An installation with people, once on SQLite and once on PostgreSQL."""
    async with open_house(api) as made:
        yield made
