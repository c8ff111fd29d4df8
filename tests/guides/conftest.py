"""What the guides are tried on: an installation that nobody has used, served."""

from tests.cli.conftest import bursar, process  # noqa: F401 - fixtures
from tests.copies import (  # noqa: F401 - fixtures
    copied_database_url,
    kind,
    made,
    on_postgres,
    on_sqlite,
    upstream,
)
