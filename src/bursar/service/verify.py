"""Verify: whether every figure that is kept is the one that its rows add up to.

Owns which windows are compared, and what a difference says. Changes nothing. The promise that it
tests: the figure that admits a request, the figure that is shown, the invoice and the sum of the
usage rows are one integer.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from bursar.core import windows
from bursar.core.windows import Window
from bursar.service.audit import proof as audit
from bursar.store.audit import rows
from bursar.store.audit.rows import Head
from bursar.store.database import ReadTx
from bursar.store.plane import proof
from bursar.store.plane.proof import Span

MOST_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure that is not what its rows say; None where a row is missing.

    Money is in nano-USD, everything else in its own unit. What has no figures, as a row of the
    audit log that does not fit, is told in `words`.
    """

    check: str
    account_id: int | None
    subject: str
    expected: int | None
    found: int | None
    words: str = ""

    def __str__(self) -> str:
        owner = "" if self.account_id is None else f"account {self.account_id}: "
        if self.words:
            return f"{owner}{self.subject} {self.words} ({self.check})"
        found = "missing" if self.found is None else str(self.found)
        expected = "nothing" if self.expected is None else str(self.expected)
        return f"{owner}{self.subject} is {found}, expected {expected} ({self.check})"


@dataclass(frozen=True, slots=True)
class Report:
    """How many rows of each kind were proved, and what differs (the first MOST_KEPT of it)."""

    checked: dict[str, int]
    differences: list[Difference]


async def verify(tx: ReadTx, *, now_ms: int) -> Report:
    """Compare everything in the snapshot of `tx`."""
    differences: list[Difference] = []
    async for difference in find_differences(tx, now_ms=now_ms):
        differences.append(difference)
        if len(differences) >= MOST_KEPT:
            break
    return Report(await count_rows(tx), differences)


async def count_rows(tx: ReadTx) -> dict[str, int]:
    """How many rows of each kind there are to prove."""
    return {**await proof.count_rows(tx), "audit": await rows.count_rows(tx)}


async def list_heads(tx: ReadTx) -> list[Head]:
    """The ends of the audit logs: kept elsewhere, they prove that nothing was cut off."""
    return await audit.list_heads(tx)


async def find_differences(
    tx: ReadTx, *, now_ms: int, noted: Sequence[Head] = ()
) -> AsyncIterator[Difference]:
    """Yield the differences as they are found; `noted` are ends of audit logs kept elsewhere.

    Allowances of windows that have ended are not compared: the next lease begins them anew.
    """
    zones = await proof.list_zones(tx)
    async for finding in proof.find_differences(tx, spans=_spans(zones, now_ms)):
        yield Difference(*finding)
    async for each in audit.find_breaks(tx, noted=noted):
        subject = f"audit row {each.id}"
        yield Difference("audit", each.account_id, subject, None, None, each.words)


def _spans(zones: list[str], now_ms: int) -> list[Span]:
    """Every window in force, with the zones that share its bounds."""
    shared: dict[tuple[str, int, int], list[str]] = {}
    for window in Window:
        if window is Window.LIFETIME:
            continue
        for zone in zones:
            found = windows.bounds(window, now_ms=now_ms, zone=zone)
            if found.end_ms is not None:
                shared.setdefault((window.value, found.start_ms, found.end_ms), []).append(zone)
    return [Span(*key, tuple(names)) for key, names in shared.items()]
