"""Keys: making, changing and deleting API keys.

Owns the rules of names, limits and lifetimes of keys. Every change is announced to the workers, who
drop what they remember of the key. Must not know how a secret is presented (that is `access`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from bursar.core import secrets, text
from bursar.core.errors import Conflict, Invalid, NotFound
from bursar.core.secrets import KeyKind
from bursar.store import changes, keys
from bursar.store.database import ReadTx, WriteTx
from bursar.store.keys import KeyRow, KeyValues, NewKeyRow
from bursar.store.limits import allowances

MAX_KEYS = 10_000
_MAX_LIFETIME_MS = 100 * 365 * 86_400_000
_SECRET_BYTES = 32


class Unchanged(Enum):
    """The value of a field that a change leaves alone, where None means something else."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made, and its secret, which nobody can ever read again."""

    key: KeyRow
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What to change of a key: None leaves a name or a state alone, and lifts a limit or an expiry.

    `credit_limit_nanos` is not below 0.
    """

    name: str | None = None
    is_enabled: bool | None = None
    credit_limit_nanos: int | Unchanged | None = UNCHANGED
    expires_ms: int | Unchanged | None = UNCHANGED


async def create(
    tx: WriteTx,
    *,
    account_id: int,
    user_id: int | None,
    name: str,
    random_bytes: Callable[[int], bytes],
    kind: KeyKind = KeyKind.INFERENCE,
    credit_limit_nanos: int | None = None,
    expires_ms: int | None = None,
    max_keys: int = MAX_KEYS,
) -> NewKey:
    """Make a key of an existing account.

    An inference key gets its credit limit (None: unlimited) in the same transaction, so that there
    is no moment without it. Raises Invalid for the name, the limit or the expiry, and Conflict
    (`too_many_keys`) beyond `max_keys`.
    """
    clean_name = text.clean_name(name)
    _check_limit(credit_limit_nanos)
    _check_expiry(expires_ms, now_ms=tx.now_ms)
    if await keys.count_keys(tx, account_id=account_id, kind=kind) >= max_keys:
        raise Conflict("too_many_keys", f"An account may have at most {max_keys} keys.")
    secret = secrets.mint(kind, random_bytes=random_bytes(_SECRET_BYTES))
    shown = secrets.display(secret)
    new = NewKeyRow(
        account_id=account_id,
        user_id=user_id,
        kind=kind,
        name=clean_name,
        secret_hash=secrets.digest(secret),
        prefix=shown.prefix,
        last6=shown.last6,
        expires_ms=expires_ms,
    )
    key_id = await keys.insert_key(tx, new=new)
    if kind is KeyKind.INFERENCE:
        # After a counter, against the order of locking: nobody else can wait for a row that is new.
        ref = allowances.credit_limit(account_id, key_id)
        await allowances.insert_allowance(tx, ref=ref, limit=credit_limit_nanos)
    # A worker may have been asked for this secret before, and remember that it is unknown.
    tx.announce(changes.KEY, account_id=account_id, subject=str(key_id))
    return NewKey(await _get(tx, account_id=account_id, key_id=key_id, kind=kind), secret)


async def list_keys(tx: ReadTx, *, account_id: int) -> list[KeyRow]:
    """Return the account's inference keys, oldest first."""
    return await keys.list_keys(tx, account_id=account_id, kind=KeyKind.INFERENCE)


async def get(tx: ReadTx, *, account_id: int, key_id: int) -> KeyRow:
    """Return one of the account's inference keys; raises NotFound."""
    return await _get(tx, account_id=account_id, key_id=key_id, kind=KeyKind.INFERENCE)


async def update(tx: WriteTx, *, account_id: int, key_id: int, change: KeyChange) -> KeyRow:
    """Change an inference key of the account and return it as it is then.

    A limit may be set below what is used: the key is then refused until it is raised. Raises
    NotFound, or Invalid for the name, the limit or the expiry.
    """
    await get(tx, account_id=account_id, key_id=key_id)
    values = _values(change, now_ms=tx.now_ms)
    limit = change.credit_limit_nanos
    if not isinstance(limit, Unchanged):
        _check_limit(limit)
        ref = allowances.credit_limit(account_id, key_id)
        await allowances.set_limit(tx, ref=ref, limit=limit)
        tx.announce(changes.ALLOWANCE, account_id=account_id, subject=ref.name)
    if values:
        await keys.update_key(tx, account_id=account_id, key_id=key_id, values=values)
        tx.announce(changes.KEY, account_id=account_id, subject=str(key_id))
    return await get(tx, account_id=account_id, key_id=key_id)


async def delete(tx: WriteTx, *, account_id: int, key_id: int) -> None:
    """Delete an inference key of the account for good; raises NotFound.

    Its row stays for reports. Workers stop admitting it within a second.
    """
    kind = KeyKind.INFERENCE
    if not await keys.delete_key(tx, account_id=account_id, key_id=key_id, kind=kind):
        raise _not_found()
    tx.announce(changes.KEY, account_id=account_id, subject=str(key_id))
    # The leases that workers hold of the key's limit are of no use to anybody now.
    ref = allowances.credit_limit(account_id, key_id)
    tx.announce(changes.ALLOWANCE, account_id=account_id, subject=ref.name)


async def _get(tx: ReadTx, *, account_id: int, key_id: int, kind: KeyKind) -> KeyRow:
    row = await keys.find_key(tx, account_id=account_id, key_id=key_id, kind=kind)
    if row is None:
        raise _not_found()
    return row


def _values(change: KeyChange, *, now_ms: int) -> KeyValues:
    values = KeyValues()
    if change.name is not None:
        values["name"] = text.clean_name(change.name)
    if change.is_enabled is not None:
        values["is_enabled"] = int(change.is_enabled)
    if not isinstance(change.expires_ms, Unchanged):
        _check_expiry(change.expires_ms, now_ms=now_ms)
        values["expires_ms"] = change.expires_ms
    return values


def _check_limit(limit_nanos: int | None) -> None:
    if limit_nanos is not None and limit_nanos < 0:
        raise Invalid("invalid_amount", "A limit must not be negative.", param="credit_limit")


def _check_expiry(expires_ms: int | None, *, now_ms: int) -> None:
    if expires_ms is not None and not now_ms < expires_ms < now_ms + _MAX_LIFETIME_MS:
        message = "An expiry must be in the future, and less than 100 years away."
        raise Invalid("invalid_expiry", message, param="expires_at")


def _not_found() -> NotFound:
    return NotFound("not_found", "There is nothing here, or it is not yours.")
