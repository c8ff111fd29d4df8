"""The proof of the audit logs: that no row was changed, removed, added or put elsewhere.

Owns what counts as a break, and how one is told. A chain proves all but its own end: whoever can
write into the database can cut rows off and move the end back. That is found only with an end that
was noted elsewhere before (`Head`). Must not know where those are kept.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from bursar.core.audit import chains
from bursar.store.audit import rows
from bursar.store.audit.rows import AuditRow, Head
from bursar.store.database import ReadTx


@dataclass(frozen=True, slots=True)
class Break:
    """A place in an account's log that is not as it was written; `words` say what is wrong."""

    account_id: int
    id: int
    words: str


async def find_breaks(tx: ReadTx, *, noted: Sequence[Head] = ()) -> AsyncIterator[Break]:
    """Yield the breaks of all logs as they are found, in their order.

    `noted` are ends that were kept elsewhere: those rows must be there as they were then.
    """
    ends = {head.account_id: head for head in await rows.list_heads(tx)}
    kept = {(head.account_id, head.id): head.hash for head in noted}
    last: AuditRow | None = None
    async for row in rows.read(tx):
        link = row.link
        if last is None or last.link.account_id != link.account_id:
            for one in _end(last, ends):
                yield one
            last = None
        for words in _faults(row, last, kept):
            yield Break(link.account_id, link.id, words)
        last = row
    for one in _end(last, ends):
        yield one
    for head in ends.values():
        if head.id:
            yield Break(head.account_id, head.id, "the log should end here, and is empty")
    for account_id, number in kept:
        if number:
            yield Break(account_id, number, "was noted elsewhere, and is not there any more")


async def list_heads(tx: ReadTx) -> list[Head]:
    """Return the ends of all logs, to be kept where nobody changes them."""
    return [head for head in await rows.list_heads(tx) if head.id]


def _faults(row: AuditRow, last: AuditRow | None, kept: dict[tuple[int, int], bytes]) -> list[str]:
    found = []
    link = row.link
    expected = 1 if last is None else last.link.id + 1
    if link.id != expected:
        found.append(f"rows before it are missing, from {expected} on")
    previous = chains.START if last is None else last.hash
    if chains.digest(link, previous=previous) != row.hash:
        found.append("does not fit its hash and the row before it")
    noted = kept.pop((link.account_id, link.id), row.hash)
    if noted != row.hash:
        found.append("is not the row that was noted elsewhere")
    return found


def _end(last: AuditRow | None, ends: dict[int, Head]) -> list[Break]:
    """What is wrong at the end of a chain, whose last row this is."""
    if last is None:
        return []
    link = last.link
    head = ends.pop(link.account_id, None)
    if head is None:
        return [Break(link.account_id, link.id, "nothing says where the log ends")]
    if head.id > link.id:
        return [Break(link.account_id, head.id, f"rows are missing after {link.id}")]
    if (head.id, head.hash) != (link.id, last.hash):
        return [Break(link.account_id, link.id, f"the log should end at {head.id}, as noted there")]
    return []
