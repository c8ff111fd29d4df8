"""A key's view of its limits: all that apply to its calls, whoever set them, and what it can spend.

Owns which limits meet in one key: those of its account, project, user and itself, and the wallet.
Must not know a request (that is `explain`).
"""

from dataclasses import dataclass

from bursar.core import allowances as steps
from bursar.core import windows
from bursar.core.allowances import Allowance, Resource
from bursar.core.errors import NotFound
from bursar.core.windows import Window
from bursar.store import credentials
from bursar.store.database import ReadTx


@dataclass(frozen=True, slots=True)
class KeyView:
    """What applies to a key at a moment, each allowance in its present window.

    `spendable_nanos` is what the tightest limit of cost and the wallet leave; `day_ends_ms` is when
    limits by day begin anew.
    """

    allowances: tuple[Allowance, ...]
    spendable_nanos: int
    expires_ms: int | None
    day_ends_ms: int


async def view_key(tx: ReadTx, *, account_id: int, key_id: int, now_ms: int) -> KeyView:
    """Return what applies to the account's key, of whichever kind; raises NotFound."""
    row = await credentials.find_of_key(tx, account_id=account_id, key_id=key_id)
    if row is None or row.is_deleted:
        raise NotFound("not_found", "There is nothing here, or it is not yours.")
    zone = row.time_zone
    present = []
    for allowance in row.allowances:
        bounds = windows.bounds(Window(allowance.ref.window), now_ms=now_ms, zone=zone)
        present.append(steps.roll(allowance, bounds.start_ms))
    left = [each.left for each in present if each.ref.resource == Resource.COST]
    return KeyView(
        allowances=tuple(present),
        spendable_nanos=min((nanos for nanos in left if nanos is not None), default=0),
        expires_ms=row.expires_ms,
        day_ends_ms=windows.preview(Window.DAY, now_ms=now_ms, zone=zone, count=1)[0],
    )
