"""What the guides are tried on: an installation that nobody has used, served."""

import os
from collections.abc import Iterator
from unittest import mock

import pytest

from tests.cli.conftest import bursar, process  # noqa: F401 - fixtures
from tests.copies import (  # noqa: F401 - fixtures
    copied_database_url,
    kind,
    made,
    on_postgres,
    on_sqlite,
    upstream,
)


@pytest.fixture
def _own_variables() -> Iterator[None]:
    """A guide may set variables as a person's session does: they end with it."""
    with mock.patch.dict(os.environ):
        yield
