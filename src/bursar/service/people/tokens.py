"""Access tokens: what they say, how long they hold, and with which key they are signed.

Owns their claims. A token says who somebody is, in which account and since which sign-in; what they
may do there is asked of the database at each use, so that no token is older than a role. Must not
know signatures (that is `adapters.tokens`), nor sessions' rules.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bursar.adapters import tokens
from bursar.adapters.tokens import KeyPair
from bursar.adapters.vault import Vault
from bursar.core.audit.events import OPERATOR_LOG, AuditAction
from bursar.service.audit import notes
from bursar.store.database import ReadTx, WriteTx
from bursar.store.people import signing_keys
from bursar.store.people.signing_keys import SigningKeyRow

LIFETIME_MS: Final = 15 * 60_000
# A key signs for a month; what it signed last has ended before it is forgotten.
SIGNING_MS: Final = 30 * 86_400_000
FORGOTTEN_MS: Final = SIGNING_MS + 86_400_000
_ISSUER: Final = "bursar"
_AUDIENCE: Final = "bursar-api"
_SKEW_MS: Final = 60_000
_ID_BYTES: Final = 16
_PURPOSE: Final = "signing key"
_NAMES: Final = {"iss", "aud", "sub", "acc", "sid", "seal", "iat", "exp", "jti"}


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whom an access token is about; `seal` is the same in all tokens of a session.

    `expires_ms` is when the token that was read ends; of one to be made it is not asked for.
    """

    user_id: int
    account_id: int
    session_id: int
    seal: bytes = field(repr=False)
    expires_ms: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token that was just made, and when it ends."""

    text: str = field(repr=False)
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Rotated:
    """The key that signs from now on, and how many others do not count any more."""

    key_id: str
    created_ms: int
    retired: int


async def issue(
    tx: WriteTx, *, bearer: Bearer, vault: Vault, random_bytes: Callable[[int], bytes]
) -> AccessToken:
    """Make an access token; where no key may sign any more, a new one is made first.

    Whoever checks a token looks its key up, so a new key is known to every worker as soon as its
    first token is.
    """
    key_id, pair = await _own_key(tx, vault=vault, random_bytes=random_bytes)
    expires_s = -(-(tx.now_ms + LIFETIME_MS) // 1_000)
    claims: dict[str, object] = {
        "iss": _ISSUER,
        "aud": _AUDIENCE,
        "sub": str(bearer.user_id),
        "acc": bearer.account_id,
        "sid": bearer.session_id,
        "seal": bearer.seal.hex(),
        "iat": tx.now_ms // 1_000,
        "exp": expires_s,
        "jti": random_bytes(_ID_BYTES).hex(),
    }
    return AccessToken(tokens.sign(claims, key_id=key_id, pair=pair), expires_s * 1_000)


async def rotate(
    tx: WriteTx, *, vault: Vault, random_bytes: Callable[[int], bytes], retire: bool
) -> Rotated:
    """Make a key that signs from now on; `retire` ends at once what all others have signed.

    Sessions go on: whoever has a refresh token gets the next access token with it.
    """
    own = await signing_keys.list_since(tx, since_ms=0)
    # Above all others, also where the clock was set back: the youngest signs.
    created_ms = max([tx.now_ms, *(row.created_ms + 1 for row in own)])
    key_id, _ = await _make_key(tx, created_ms, vault=vault, random_bytes=random_bytes)
    retired = await signing_keys.delete_others(tx, key_id=key_id) if retire else 0
    notes.note(
        tx,
        account_id=OPERATOR_LOG,
        action=AuditAction.SIGNING_KEY_ROTATE,
        target=f"signing_key:{key_id}",
        after={"retired": retired},
    )
    return Rotated(key_id, created_ms, retired)


async def find_bearer(tx: ReadTx, *, token: bytes, now_ms: int) -> Bearer | None:
    """Return whom a token is about; None unless it is ours, for us, and of this moment."""
    key_id = tokens.find_key_id(token)
    row = None if key_id is None else await signing_keys.find_signing_key(tx, key_id=key_id)
    if row is None or row.algorithm != tokens.ALGORITHM:
        return None
    claims = tokens.verify(token, public_key=row.public_key)
    if claims is None or claims.keys() != _NAMES:
        return None
    return _read(claims) if _is_of_now(claims, now_ms) else None


def _is_of_now(claims: dict[str, object], now_ms: int) -> bool:
    issued, expires = claims["iat"], claims["exp"]
    if type(issued) is not int or type(expires) is not int:
        return False
    return (
        claims["iss"] == _ISSUER
        and claims["aud"] == _AUDIENCE
        and issued * 1_000 <= now_ms + _SKEW_MS
        and now_ms < expires * 1_000 <= issued * 1_000 + LIFETIME_MS + _SKEW_MS
    )


def _read(claims: dict[str, object]) -> Bearer | None:
    subject, account_id, session_id = claims["sub"], claims["acc"], claims["sid"]
    seal, token_id, expires = claims["seal"], claims["jti"], claims["exp"]
    if type(account_id) is not int or type(session_id) is not int or type(expires) is not int:
        return None
    if not (isinstance(subject, str) and isinstance(seal, str) and isinstance(token_id, str)):
        return None
    return Bearer(int(subject), account_id, session_id, bytes.fromhex(seal), expires * 1_000)


async def _own_key(
    tx: WriteTx, *, vault: Vault, random_bytes: Callable[[int], bytes]
) -> tuple[str, KeyPair]:
    """The youngest key that this installation's secret opens; made where there is none."""
    for row in await signing_keys.list_since(tx, since_ms=tx.now_ms - SIGNING_MS):
        private = vault.open(row.sealed_private_key, purpose=_PURPOSE, about=row.id)
        if private is not None:
            return row.id, KeyPair(row.public_key, private)
    return await _make_key(tx, tx.now_ms, vault=vault, random_bytes=random_bytes)


async def _make_key(
    tx: WriteTx, created_ms: int, *, vault: Vault, random_bytes: Callable[[int], bytes]
) -> tuple[str, KeyPair]:
    pair = tokens.make_pair()
    key_id = random_bytes(_ID_BYTES).hex()
    await signing_keys.insert_signing_key(
        tx,
        row=SigningKeyRow(
            id=key_id,
            algorithm=tokens.ALGORITHM,
            public_key=pair.public,
            sealed_private_key=vault.seal(pair.private, purpose=_PURPOSE, about=key_id),
            created_ms=created_ms,
        ),
    )
    return key_id, pair
