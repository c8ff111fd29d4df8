"""Sessions that a provisioning key is traded for, by clients that want tokens for their key.

Owns that such a session is the key's alone: it may do what the key may, from where the key may and
as long as that secret of the key works, and nothing that only people may. It goes on with the key
and a refresh token, never with one of them. Must not know how either is sent.
"""

from dataclasses import dataclass, field
from typing import Final

from bursar.core.audit.events import AuditAction
from bursar.core.errors import BursarError
from bursar.core.people import tokens as forms
from bursar.core.people.tokens import HALF_BYTES, RefreshToken
from bursar.service.access import ProvisioningPrincipal
from bursar.service.audit import notes
from bursar.service.people import sessions as turns
from bursar.service.people import tokens
from bursar.service.people.ports import People
from bursar.service.people.sessions import LIFETIME_MS
from bursar.service.people.tokens import AccessToken, Bearer
from bursar.store.database import WriteTx
from bursar.store.people import sessions

# Each process that uses such a client has its own; the one that was not used for longest ends.
MOST_OPEN: Final = 1_000
_NOBODY: Final = 0


@dataclass(frozen=True, slots=True)
class Traded:
    """Two tokens that were just made for a key."""

    session_id: int
    account_id: int
    access: AccessToken
    refresh_token: str = field(repr=False)
    refresh_expires_ms: int


async def trade(
    tx: WriteTx, *, people: People, key: ProvisioningPrincipal, device: str, address: str
) -> Traded:
    """Begin a session of a key that was presented itself."""
    token = RefreshToken(people.random_bytes(HALF_BYTES), people.random_bytes(HALF_BYTES))
    for each in await sessions.list_beyond(
        tx,
        account_id=key.account_id,
        key_id=key.key_id,
        now_ms=tx.now_ms,
        most=MOST_OPEN - 1,
    ):
        await sessions.end(tx, session_id=each)
    session_id = await sessions.insert_session(
        tx,
        user_id=_NOBODY,
        account_id=key.account_id,
        family_hash=token.family_hash,
        token_hash=token.turn_hash,
        device=turns.clean_device(device),
        address=address,
        expires_ms=tx.now_ms + LIFETIME_MS,
        key_id=key.key_id,
    )
    notes.note(
        tx,
        account_id=key.account_id,
        action=AuditAction.SESSION_SIGN_IN,
        target=f"session:{session_id}",
        after={"key": f"key:{key.key_id}"},
        actor=key.actor,
    )
    return await _hand_out(tx, people, key, session_id, token)


async def refresh(
    tx: WriteTx, *, people: People, key: ProvisioningPrincipal, token: str
) -> Traded | BursarError:
    """Return the tokens after this one, for the key that the session is of.

    A refusal is returned, not raised, because it may have ended the session: Unauthenticated
    `invalid_refresh_token` (unknown, ended, expired, or not this key's) and `refresh_reused`.
    """
    given = forms.parse_refresh(token)
    row = None
    if given is not None:
        row = await sessions.lock_family(tx, family_hash=given.family_hash)
    if given is None or row is None or not turns.is_open(row, tx.now_ms):
        return turns.invalid()
    if (row.account_id, row.key_id) != (key.account_id, key.key_id):
        return turns.invalid()
    following = await turns.take_turn(tx, people=people, row=row, given=given)
    if isinstance(following, BursarError):
        return following
    return await _hand_out(tx, people, key, row.id, following)


async def _hand_out(
    tx: WriteTx,
    people: People,
    key: ProvisioningPrincipal,
    session_id: int,
    token: RefreshToken,
) -> Traded:
    bearer = Bearer(_NOBODY, key.account_id, session_id, token.seal)
    access = await tokens.issue(
        tx, bearer=bearer, vault=people.vault, random_bytes=people.random_bytes
    )
    return Traded(session_id, key.account_id, access, token.text, tx.now_ms + LIFETIME_MS)
