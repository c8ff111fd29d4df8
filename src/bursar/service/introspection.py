"""Introspection: whether a secret works at this moment, and whom it is of.

Owns what is told of one, and to whom: of those of another account as little as of no secret at all.
Asking is no use of it. Must not know how it is asked.
"""

from dataclasses import dataclass
from typing import Final

from bursar.adapters import tokens as forms
from bursar.core import secrets
from bursar.core.errors import Forbidden, Unauthenticated
from bursar.core.people import tokens as letters
from bursar.core.people.roles import Role
from bursar.core.people.tokens import RefreshToken
from bursar.core.secrets import KeyKind
from bursar.service.access import (
    ANYWHERE,
    InferencePrincipal,
    OperatorPrincipal,
    Principal,
    ProvisioningPrincipal,
    UserPrincipal,
    authenticate,
    find_holder,
)
from bursar.service.people import sessions as turns
from bursar.service.people import tokens
from bursar.service.people.tokens import Bearer
from bursar.store.database import ReadTx
from bursar.store.people import sessions

ACCESS: Final = "access_token"
REFRESH: Final = "refresh_token"
_KINDS: Final[dict[KeyKind, type[Principal]]] = {
    KeyKind.INFERENCE: InferencePrincipal,
    KeyKind.PROVISIONING: ProvisioningPrincipal,
    KeyKind.OPERATOR: OperatorPrincipal,
}


@dataclass(frozen=True, slots=True)
class Known:
    """A secret that works. `kind` is what it is: a key of some kind, or a token.

    A key has an id and a session too, where it was traded for one; a person has no key. None is for
    what it has not: an end, somebody for whom it acts, a role.
    """

    kind: str
    account_id: int
    user_id: int | None
    role: Role | None
    key_id: int | None
    session_id: int | None
    expires_ms: int | None


async def find(tx: ReadTx, *, token: str, account_id: int | None, now_ms: int) -> Known | None:
    """Return what a secret is good for; None where nothing, or in another account than this one.

    With `account_id` None it may be of any account, or the operator's. From where a secret may be
    used is not asked.
    """
    try:
        found = await _find(tx, token, now_ms)
    except (Forbidden, Unauthenticated):
        return None
    return found if found is not None and account_id in {None, found.account_id} else None


async def _find(tx: ReadTx, token: str, now_ms: int) -> Known | None:
    kind = secrets.parse(token)
    if kind is not None:
        wanted = _KINDS[kind]
        key = await authenticate(tx, secret=token, wanted=wanted, now_ms=now_ms, address=ANYWHERE)
        return _known(f"{kind}_key", key, expires_ms=key.rights.expires_ms)
    given = letters.parse_refresh(token)
    if given is not None:
        return await _find_session(tx, given, now_ms)
    raw = token.encode("latin-1", "replace")
    bearer = await tokens.find_bearer(tx, token=raw, now_ms=now_ms)
    if bearer is None or not forms.looks_like_one(raw):
        return None
    session = await sessions.find_session(tx, session_id=bearer.session_id)
    holder = await find_holder(
        tx,
        bearer=bearer,
        session=session,
        wanted=ProvisioningPrincipal,
        now_ms=now_ms,
        address=ANYWHERE,
    )
    return _known(ACCESS, holder, session_id=bearer.session_id, expires_ms=bearer.expires_ms)


async def _find_session(tx: ReadTx, given: RefreshToken, now_ms: int) -> Known | None:
    """A refresh token: only the last of its family is good for anything."""
    row = await sessions.find_family(tx, family_hash=given.family_hash)
    if row is None or not turns.is_open(row, now_ms) or row.token_hash != given.turn_hash:
        return None
    bearer = Bearer(row.user_id, row.account_id, row.id, given.seal)
    holder = await find_holder(
        tx,
        bearer=bearer,
        session=row,
        wanted=ProvisioningPrincipal,
        now_ms=now_ms,
        address=ANYWHERE,
    )
    return _known(REFRESH, holder, session_id=row.id, expires_ms=row.expires_ms)


def _known(
    kind: str, holder: Principal, *, expires_ms: int | None, session_id: int | None = None
) -> Known:
    return Known(
        kind=kind,
        account_id=holder.account_id,
        user_id=holder.user_id,
        role=holder.role if isinstance(holder, ProvisioningPrincipal) else None,
        key_id=None if isinstance(holder, UserPrincipal) else holder.key_id,
        session_id=session_id,
        expires_ms=expires_ms,
    )
