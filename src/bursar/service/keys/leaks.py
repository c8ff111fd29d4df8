"""Leaks: a secret that somebody has found where it should not be.

Owns what follows from a report. Whoever reports gets no answer that tells a secret that works from
one that does not. Must not know who reports.
"""

from bursar.core import secrets
from bursar.core.audit.events import AuditAction
from bursar.service.audit import notes
from bursar.store import changes, keys
from bursar.store.database import WriteTx
from bursar.store.keys import LeakedRow
from bursar.store.limits import alerts

LEAKED_KEY = "leaked_key"


async def report(tx: WriteTx, *, secret: str, source: str) -> LeakedRow | None:
    """Stop a secret that is public and tell its account; None where it opens nothing anyway.

    Its key is disabled, unless the secret is the one before a rotation: then only that ends. A text
    that is no secret by its checksum is not looked up.
    """
    if secrets.parse(secret) is None:
        return None
    leaked = await keys.find_leaked(tx, secret_hash=secrets.digest(secret))
    if leaked is None:
        return None
    await keys.stop_leaked(tx, leaked=leaked)
    tx.announce(changes.KEY, account_id=leaked.account_id, subject=str(leaked.key_id))
    notes.note(
        tx,
        account_id=leaked.account_id,
        action=AuditAction.KEY_LEAK,
        target=f"key:{leaked.key_id}",
        after={"hint": secret[-6:], "is_disabled": leaked.is_present, "source": source},
    )
    await alerts.insert_alert(
        tx,
        account_id=leaked.account_id,
        kind=LEAKED_KEY,
        subject=f"key:{leaked.key_id}",
        occurrence_ms=tx.now_ms,
        body={
            "message": _words(leaked),
            "key_id": leaked.key_id,
            "key_name": leaked.name,
            "hint": secret[-6:],
            "is_disabled": leaked.is_present,
            "source": source,
        },
    )
    return leaked


def _words(leaked: LeakedRow) -> str:
    found = f"A secret of key {leaked.key_id} is public."
    if leaked.is_present:
        return f"{found} The key is disabled: rotate it, then enable it."
    return f"{found} It is the one before a rotation, and has ended; the key works on."
