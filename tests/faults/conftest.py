"""What every test of faults gets: an installation whose server can be killed."""

from tests.copies import (  # noqa: F401 - fixtures
    copied_database_url,
    kind,
    made,
    on_postgres,
    on_sqlite,
    upstream,
)
