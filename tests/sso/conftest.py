"""An installation, and a sign-in service in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import environments
from tests.copies import (  # noqa: F401 - fixtures
    copied_database_url,
    kind,
    made,
    on_postgres,
    on_sqlite,
    upstream,
)
from tests.sso.mock_provider import MockProvider, serving


@pytest.fixture(scope="session")
def provider(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MockProvider]:
    """oidc-provider-mock; skipped where it cannot be installed."""
    cache = environments.find_cache() or Path(pytestconfig.cache.mkdir("services"))
    try:
        with serving(cache, tmp_path_factory.mktemp("provider")) as running:
            yield running
    except environments.EnvironmentUnavailable as reason:
        pytest.skip(str(reason))
