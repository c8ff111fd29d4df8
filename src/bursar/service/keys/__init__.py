"""Keys: making, changing, rotating and deleting API keys.

Owns what happens to a key. Every change is announced to the workers, who drop what they remember of
it. Must not know how a secret is presented (that is `access`); the rules of fields are `fields`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bursar.core import permissions, secrets
from bursar.core.audit.events import AuditAction
from bursar.core.errors import BursarError, Conflict, Invalid, NotFound
from bursar.core.permissions import CONFINEMENTS, Rights
from bursar.core.secrets import KeyKind
from bursar.service import grants
from bursar.service.access import Principal, rights_of
from bursar.service.audit import notes
from bursar.service.keys import fields
from bursar.service.keys.fields import UNCHANGED, KeyChange, KeySettings, Unchanged
from bursar.service.limits import allowances as limits
from bursar.store import changes, keys
from bursar.store.database import ReadTx, WriteTx
from bursar.store.keys import KeyFilter, KeyRow, KeyValues, SecretRow, decode_list
from bursar.store.limits import allowances

__all__ = [
    "DEFAULT_GRACE_S",
    "MAX_GRACE_S",
    "MAX_KEYS",
    "MOST_AT_ONCE",
    "UNCHANGED",
    "KeyChange",
    "KeySettings",
    "NewKey",
    "Wanted",
    "create",
    "create_many",
    "delete",
    "get",
    "list_all",
    "list_keys",
    "rotate",
    "update",
]

MAX_KEYS = 10_000
MOST_AT_ONCE = 100
MAX_GRACE_S = 30 * 86_400
DEFAULT_GRACE_S = 86_400
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key with a secret that was just made, which nobody can ever read again."""

    key: KeyRow
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A key to make; `user_id` is whom it acts for."""

    name: str
    user_id: int | None = None
    credit_limit_nanos: int | None = None
    expires_ms: int | None = None
    settings: KeySettings = field(default_factory=KeySettings)


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
    settings: KeySettings | None = None,
    by: Principal | None = None,
    max_keys: int = MAX_KEYS,
) -> NewKey:
    """Make a key of an existing account, for its operator or, with `by`, for who asks.

    An inference key gets its credit limit (None: unlimited) in the same transaction, so that there
    is no moment without it. Raises Invalid for the field at fault, NotFound for a user or project
    that is not the account's, Forbidden (`exceeds_own_rights`) for more than `by` has, and Conflict
    (`too_many_keys`) beyond `max_keys`.
    """
    wanted = Wanted(
        name=name,
        user_id=user_id,
        credit_limit_nanos=credit_limit_nanos,
        expires_ms=expires_ms,
        settings=settings or KeySettings(),
    )
    await _require_room(tx, account_id=account_id, kind=kind, count=1, most=max_keys)
    return await _make(
        tx, account_id=account_id, kind=kind, wanted=wanted, by=by, random_bytes=random_bytes
    )


async def create_many(
    tx: WriteTx,
    *,
    account_id: int,
    wanted: Sequence[Wanted],
    random_bytes: Callable[[int], bytes],
    by: Principal | None = None,
) -> list[NewKey]:
    """Make inference keys, 1 to 100 of them, all or none; refusals as of `create`, by number."""
    if not 1 <= len(wanted) <= MOST_AT_ONCE:
        raise Invalid("invalid_value", f"Give 1 to {MOST_AT_ONCE} keys.", param="keys")
    kind = KeyKind.INFERENCE
    await _require_room(tx, account_id=account_id, kind=kind, count=len(wanted), most=MAX_KEYS)
    made = []
    for number, each in enumerate(wanted):
        try:
            one = await _make(
                tx, account_id=account_id, kind=kind, wanted=each, by=by, random_bytes=random_bytes
            )
        except BursarError as error:
            error.param = f"keys.{number}.{error.param}"
            raise
        made.append(one)
    return made


async def list_keys(
    tx: ReadTx,
    *,
    account_id: int,
    where: KeyFilter | None = None,
    after_id: int = 0,
    limit: int | None = None,
) -> list[KeyRow]:
    """Return the account's inference keys, oldest first."""
    return await keys.list_keys(
        tx,
        account_id=account_id,
        kind=KeyKind.INFERENCE,
        where=where,
        after_id=after_id,
        limit=limit,
    )


async def list_all(tx: ReadTx, *, account_id: int) -> list[KeyRow]:
    """Return the account's keys of every kind, oldest first."""
    return await keys.list_keys(tx, account_id=account_id, kind=None)


async def get(
    tx: ReadTx, *, account_id: int, key_id: int, kind: KeyKind | None = KeyKind.INFERENCE
) -> KeyRow:
    """Return one of the account's keys, of this kind or (None) of any; raises NotFound."""
    row = await keys.find_key(tx, account_id=account_id, key_id=key_id, kind=kind)
    if row is None:
        raise _not_found()
    return row


async def update(
    tx: WriteTx,
    *,
    account_id: int,
    key_id: int,
    change: KeyChange,
    by: Principal | None = None,
    kind: KeyKind = KeyKind.INFERENCE,
) -> KeyRow:
    """Change a key of the account and return it as it is then; only inference keys have a limit.

    A limit may be set below what is used: the key is then refused until it is raised. Raises
    NotFound, Invalid for the field at fault, Forbidden (`exceeds_own_rights`), and Conflict
    (`key_leaked`) for enabling a key whose secret is known to be public.
    """
    before = await get(tx, account_id=account_id, key_id=key_id, kind=kind)
    values = fields.changed_values(change, now_ms=tx.now_ms)
    if change.is_enabled and is_leaked(before):
        message = "Its secret was reported to be public. Rotate the key, then enable it."
        raise Conflict("key_leaked", message)
    if not isinstance(change.project_id, Unchanged):
        project_id = change.project_id
        await grants.require_project(tx, account_id=account_id, by=by, project_id=project_id)
    limit = change.credit_limit_nanos
    if not isinstance(limit, Unchanged):
        fields.check_limit(limit)
        await limits.set_credit_limit(tx, account_id=account_id, key_id=key_id, limit_nanos=limit)
    if values:
        await keys.update_key(tx, account_id=account_id, key_id=key_id, values=values)
        tx.announce(changes.KEY, account_id=account_id, subject=str(key_id))
    after = await get(tx, account_id=account_id, key_id=key_id, kind=kind)
    _require_change(by, before, after, values, change)
    notes.note(
        tx,
        account_id=account_id,
        action=AuditAction.KEY_UPDATE,
        target=f"key:{key_id}",
        before=notes.of_key(before),
        after=notes.of_key(after),
    )
    return after


async def rotate(
    tx: WriteTx,
    *,
    account_id: int,
    key_id: int,
    random_bytes: Callable[[int], bytes],
    grace_s: int = DEFAULT_GRACE_S,
    kind: KeyKind = KeyKind.INFERENCE,
    by: Principal | None = None,
) -> NewKey:
    """Give a key another secret; all else stays, and the present secret works for `grace_s` more.

    A secret that was reported to be public gets no grace, and one that was in its grace already
    stops. Raises NotFound, Invalid (`invalid_value`) for the grace, and Forbidden
    (`exceeds_own_rights`) where the key may do more than `by`, (`insufficient_role`) where it is
    another's.
    """
    if not 0 <= grace_s <= MAX_GRACE_S:
        message = f"A grace period has 0 to {MAX_GRACE_S} seconds."
        raise Invalid("invalid_value", message, param="grace_s")
    before = await get(tx, account_id=account_id, key_id=key_id, kind=kind)
    await grants.require_own(tx, by=by, row=before)
    grants.require_rights(by, rights_of(before))
    secret, stored = _mint(kind, random_bytes)
    await keys.rotate_key(
        tx,
        account_id=account_id,
        key_id=key_id,
        kind=kind,
        secret=stored,
        grace_ms=0 if is_leaked(before) else grace_s * 1_000,
    )
    tx.announce(changes.KEY, account_id=account_id, subject=str(key_id))
    after = await get(tx, account_id=account_id, key_id=key_id, kind=kind)
    notes.note(
        tx,
        account_id=account_id,
        action=AuditAction.KEY_ROTATE,
        target=f"key:{key_id}",
        before={"hint": before.last6},
        after={"hint": after.last6, "previous_until": notes.moment(after.previous_until_ms)},
    )
    return NewKey(after, secret)


async def delete(
    tx: WriteTx,
    *,
    account_id: int,
    key_id: int,
    kind: KeyKind = KeyKind.INFERENCE,
    by: Principal | None = None,
) -> None:
    """Delete a key of the account for good; raises NotFound, and Forbidden (`insufficient_role`).

    Its row stays for reports. Workers stop admitting it within a second.
    """
    before = await get(tx, account_id=account_id, key_id=key_id, kind=kind)
    if by is not None:
        await grants.require_own(tx, by=by, row=before)
    if not await keys.delete_key(tx, account_id=account_id, key_id=key_id, kind=kind):
        raise _not_found()
    tx.announce(changes.KEY, account_id=account_id, subject=str(key_id))
    notes.note(
        tx,
        account_id=account_id,
        action=AuditAction.KEY_DELETE,
        target=f"key:{key_id}",
        before=notes.of_key(before),
    )
    # The leases that workers hold of the key's limits are of no use to anybody now.
    for row in await allowances.list_of_scope(tx, account_id=account_id, scope=f"key:{key_id}"):
        tx.announce(changes.ALLOWANCE, account_id=account_id, subject=row.ref.name)


def is_leaked(row: KeyRow) -> bool:
    """Whether the key's present secret was reported to be public."""
    return row.leaked_ms is not None and row.leaked_ms > (row.rotated_ms or 0)


async def _make(
    tx: WriteTx,
    *,
    account_id: int,
    kind: KeyKind,
    wanted: Wanted,
    by: Principal | None,
    random_bytes: Callable[[int], bytes],
) -> NewKey:
    settings, limit = wanted.settings, wanted.credit_limit_nanos
    values = fields.new_values(
        name=wanted.name, expires_ms=wanted.expires_ms, settings=settings, now_ms=tx.now_ms
    )
    values["user_id"] = wanted.user_id
    fields.check_limit(limit)
    await grants.require_user(tx, account_id=account_id, by=by, user_id=wanted.user_id)
    project_id = settings.project_id
    await grants.require_project(tx, account_id=account_id, by=by, project_id=project_id)
    grants.require_rights(by, _rights(values))
    secret, stored = _mint(kind, random_bytes)
    key_id = await keys.insert_key(
        tx, account_id=account_id, kind=kind, secret=stored, values=values
    )
    if kind is KeyKind.INFERENCE:
        # After a counter, against the order of locking: nobody else can wait for a row that is new.
        await limits.set_credit_limit(tx, account_id=account_id, key_id=key_id, limit_nanos=limit)
    # A worker may have been asked for this secret before, and remember that it is unknown.
    tx.announce(changes.KEY, account_id=account_id, subject=str(key_id))
    made = await get(tx, account_id=account_id, key_id=key_id, kind=kind)
    notes.note(
        tx,
        account_id=account_id,
        action=AuditAction.KEY_CREATE,
        target=f"key:{key_id}",
        after=notes.of_key(made),
    )
    return NewKey(made, secret)


def _rights(values: KeyValues) -> Rights:
    return Rights(
        environment=values["environment"],
        project_id=values["project_id"],
        models=decode_list(values["models"]),
        endpoints=decode_list(values["endpoints"]),
        networks=decode_list(values["networks"]),
        expires_ms=values["expires_ms"],
    )


def _require_change(
    by: Principal | None, before: KeyRow, after: KeyRow, values: KeyValues, change: KeyChange
) -> None:
    """Require that nothing is given by a change which the caller has not.

    A key that may do more than the caller can be named, confined and disabled by them. It is not
    let into anything, nor given anything to spend.
    """
    own, given = rights_of(before), rights_of(after)
    asked = _touched(values)
    is_wider = permissions.find_excess(own, given) is not None
    is_limited = not isinstance(change.credit_limit_nanos, Unchanged)
    if is_wider or is_limited or change.is_enabled:
        asked |= CONFINEMENTS
    grants.require_rights(by, given, only=asked)


def _mint(kind: KeyKind, random_bytes: Callable[[int], bytes]) -> tuple[str, SecretRow]:
    secret = secrets.mint(kind, random_bytes=random_bytes(_SECRET_BYTES))
    shown = secrets.display(secret)
    return secret, SecretRow(secrets.digest(secret), shown.prefix, shown.last6)


async def _require_room(
    tx: ReadTx, *, account_id: int, kind: KeyKind, count: int, most: int
) -> None:
    if await keys.count_keys(tx, account_id=account_id, kind=kind) + count > most:
        raise Conflict("too_many_keys", f"An account may have at most {most} keys.")


def _touched(values: KeyValues) -> frozenset[str]:
    """The fields, as callers name them, that these columns are."""
    return frozenset("expires_at" if name == "expires_ms" else name for name in values)


def _not_found() -> NotFound:
    return NotFound("not_found", "There is nothing here, or it is not yours.")
