"""The audit log as people read it.

Owns whose log is read. Must not know how rows are shown.
"""

from dataclasses import dataclass

from bursar.core.audit.events import OPERATOR_LOG
from bursar.core.errors import NotFound
from bursar.store.audit import rows
from bursar.store.audit.rows import AuditFilter, AuditRow, Head
from bursar.store.database import ReadTx
from bursar.store.tenants import accounts


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, newest first, and the end of the whole log (None: nothing was ever noted)."""

    rows: list[AuditRow]
    head: Head | None


async def read(
    tx: ReadTx, *, account_id: int, where: AuditFilter, before_id: int | None, limit: int
) -> Page:
    """Return rows of an account's log with ids below `before_id`."""
    found = await rows.list_rows(
        tx, account_id=account_id, where=where, before_id=before_id, limit=limit
    )
    return Page(found, await rows.find_head(tx, account_id=account_id))


async def require_log(tx: ReadTx, *, account_id: int) -> None:
    """Raise NotFound unless there is such an account, or it is the operator's own log."""
    if (
        account_id != OPERATOR_LOG
        and await accounts.find_account(tx, account_id=account_id) is None
    ):
        raise NotFound("not_found", "There is nothing here, or it is not yours.")
