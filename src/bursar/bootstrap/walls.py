"""The wall between accounts, as it is found at the start: used, missed with a warning, or required.

Owns what becomes of a server whose database has no such wall. Must not know how one is built.
"""

from typing import Final

import structlog

from bursar.core.errors import Unavailable
from bursar.store.database import Database
from bursar.store.migrations import walls

_log: Final = structlog.get_logger("bursar")


async def take_up(database: Database, *, row_security: str) -> None:
    """Have the database hold what is bound to an account, where it can.

    Raises Unavailable (`row_security_missing`) where it cannot and the setting demands it.
    """
    if not database.has_wall:
        return
    gap = "the setting is off" if row_security == "off" else await walls.find_gap(database)
    if gap is None:
        return
    database.has_wall = False
    if row_security == "required":
        message = f"There is no row-level security: {gap}."
        raise Unavailable("row_security_missing", message)
    if row_security == "auto":
        _log.warning("row_security_missing", gap=gap)
