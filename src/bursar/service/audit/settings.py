"""Settings in the audit log: with which ones a server has started, where they are others than last.

Owns the comparison with what was noted before. Must not know what a setting means, and never gets
one that is secret.
"""

import json
from collections.abc import Mapping
from typing import Final

from bursar.core.audit.events import OPERATOR_LOG, AuditAction
from bursar.service.audit import notes
from bursar.store import audit
from bursar.store.audit import rows
from bursar.store.audit.rows import AuditFilter
from bursar.store.database import WriteTx

TARGET: Final = "settings"
_MOST: Final = 10_000


async def note_start(tx: WriteTx, *, values: Mapping[str, object]) -> None:
    """Note the settings that are others than at the last start, of any server on this database.

    `values` is as JSON has it, with nothing secret in it. Of several servers that start at once one
    notes the change.
    """
    await audit.hold(tx, account_id=OPERATOR_LOG)
    before = await _read_last(tx)
    gone = {name: None for name in before if name not in values and before[name] is not None}
    notes.note(
        tx,
        account_id=OPERATOR_LOG,
        action=AuditAction.SETTINGS_START,
        target=TARGET,
        before=before,
        after={**values, **gone},
    )


async def _read_last(tx: WriteTx) -> dict[str, object]:
    """The settings of the last start: what changed with each one, on top of each other."""
    where = AuditFilter(target=TARGET)
    found = await rows.list_rows(
        tx, account_id=OPERATOR_LOG, where=where, before_id=None, limit=_MOST
    )
    last: dict[str, object] = {}
    for row in reversed(found):
        last.update(json.loads(row.link.after or "{}"))
    return last
