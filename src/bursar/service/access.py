"""Access: who presents a secret, and what kind of caller that makes them.

Owns the step from a secret to a principal. A use case that takes a `ProvisioningPrincipal` cannot
be called with an inference key: the kinds are types. Whoever acts for a person may do what that
person's role allows at this moment. Must not know where a secret was found in a request.
"""

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import ClassVar, Final, TypeVar, cast

from bursar.adapters import tokens as forms
from bursar.core import permissions, refusals, secrets
from bursar.core.errors import Unauthenticated
from bursar.core.people import roles
from bursar.core.people.roles import Action, Role
from bursar.core.permissions import Address, Rights
from bursar.core.refusals import Reason
from bursar.core.secrets import KeyKind
from bursar.service.people import tokens
from bursar.service.people.tokens import Bearer
from bursar.store import credentials, keys
from bursar.store.credentials import CredentialRow
from bursar.store.database import ReadTx
from bursar.store.keys import OPERATOR_ACCOUNT_ID, KeyRow
from bursar.store.people import members, sessions
from bursar.store.people.sessions import SessionRow
from bursar.store.tenants import accounts


@dataclass(frozen=True, slots=True)
class Principal:
    """A proven caller: the key that was presented, its account, and the user whom it acts for.

    `rights` bound what the keys that it makes may do.
    """

    kind: ClassVar[KeyKind]

    key_id: int
    account_id: int
    user_id: int | None
    rights: Rights = field(default_factory=Rights)

    @property
    def actor(self) -> str:
        """How the ledger names who did something."""
        return f"key:{self.key_id}"

    @property
    def seal(self) -> bytes | None:
        """What answers to the caller are kept under; None: the secret that was presented."""
        return None

    def may(self, action: Action) -> bool:
        """Whether the caller may do this in an account; by default nothing."""
        return False


@dataclass(frozen=True, slots=True)
class InferencePrincipal(Principal):
    """May call models and look at the key itself; nothing of the account."""

    kind = KeyKind.INFERENCE


@dataclass(frozen=True, slots=True)
class ProvisioningPrincipal(Principal):
    """May do in its own account what its role allows; a key that acts for nobody is an owner's.

    With an access token that a key was traded for, `session_seal` is the session's.
    """

    kind = KeyKind.PROVISIONING

    role: Role = Role.OWNER
    session_seal: bytes = field(default=b"", repr=False)

    @property
    def seal(self) -> bytes | None:
        """The same for all access tokens of a session: an answer outlives the token."""
        return self.session_seal or None

    def may(self, action: Action) -> bool:
        """Whether the caller's role allows this, and what confines their key, if anything does."""
        if self.rights.is_confined and action not in roles.CONFINED:
            return False
        return roles.may(self.role, action)


@dataclass(frozen=True, slots=True)
class UserPrincipal(ProvisioningPrincipal):
    """A person who has signed in; instead of a key's id it has its session's, below zero."""

    email: str = ""

    @property
    def session_id(self) -> int:
        """The session that the access token belongs to."""
        return -self.key_id

    @property
    def actor(self) -> str:
        """How the ledger names who did something."""
        return f"user:{self.user_id}"


@dataclass(frozen=True, slots=True)
class HostPrincipal(ProvisioningPrincipal):
    """Whoever works on the installation's own host: an owner of the account that they name.

    No secret makes anybody this; the files of the installation do, for a command that opens them.
    """

    command_seal: bytes = field(default=b"", repr=False)

    @property
    def actor(self) -> str:
        """How the ledger names who did something."""
        return "command line"

    @property
    def seal(self) -> bytes | None:
        """What the command has made for itself: nothing is asked by two of them."""
        return self.command_seal


@dataclass(frozen=True, slots=True)
class OperatorPrincipal(Principal):
    """May manage every account of the installation; has none of its own."""

    kind = KeyKind.OPERATOR


class Anywhere(Enum):
    """In place of an address where none counts."""

    ANYWHERE = "anywhere"


ANYWHERE: Final = Anywhere.ANYWHERE
P = TypeVar("P", bound=Principal)


async def authenticate(
    tx: ReadTx,
    *,
    secret: str | bytes,
    wanted: type[P],
    now_ms: int,
    address: Address | Anywhere | None = None,
) -> P:
    """Return the caller who presents this key or access token, as the wanted kind of principal.

    Malformed, unknown, deleted, disabled and expired secrets are refused alike (Unauthenticated
    `invalid_api_key`), a malformed one without asking the database. Then the kind is checked
    (Unauthenticated `wrong_key_type`), then the account (Forbidden `account_suspended`), then where
    the caller is (Forbidden `ip_not_allowed`; `address` None is in no network, and `ANYWHERE` in
    every one: for who looks at a secret and does not act with it). An access token that is not good
    in every way is Unauthenticated `invalid_token`.
    """
    raw = secret.encode("latin-1", "replace") if isinstance(secret, str) else secret
    if forms.looks_like_one(raw):
        if not issubclass(wanted, ProvisioningPrincipal):
            raise _refused(Reason.WRONG_KEY_TYPE)
        return await _find_bearer(tx, token=raw, wanted=wanted, now_ms=now_ms, address=address)
    if secrets.parse(secret) is None:
        raise _refused(Reason.MALFORMED)
    row = await credentials.find_credential(tx, secret_hash=secrets.digest(secret))
    return await _admit(tx, row, wanted=wanted, now_ms=now_ms, address=address)


async def _admit(
    tx: ReadTx,
    row: CredentialRow | None,
    *,
    wanted: type[P],
    now_ms: int,
    address: Address | Anywhere | None,
) -> P:
    """Who has a key, if it opens what is wanted at this moment and from this address."""
    reason = _find_reason(row, wanted.kind, now_ms)
    if row is None or reason is not None:
        raise _refused(reason or Reason.UNKNOWN)
    if issubclass(wanted, UserPrincipal):
        raise _refused(Reason.WRONG_KEY_TYPE)
    if row.networks is not None and not isinstance(address, Anywhere):
        if not permissions.contains(permissions.parse_networks(row.networks), address):
            raise _refused(Reason.IP_NOT_ALLOWED)
    found = wanted(row.key_id, row.account_id, row.user_id, rights_of(row))
    if isinstance(found, ProvisioningPrincipal) and row.user_id is not None:
        role = await _find_role(tx, account_id=row.account_id, user_id=row.user_id)
        if role is None:
            raise _refused(Reason.DELETED)
        return cast("P", replace(found, role=role))
    return found


async def _find_bearer(
    tx: ReadTx, *, token: bytes, wanted: type[P], now_ms: int, address: Address | Anywhere | None
) -> P:
    """Whom an access token is about, as the database has them now, whatever was true once."""
    bearer = await tokens.find_bearer(tx, token=token, now_ms=now_ms)
    if bearer is None:
        raise _invalid_token()
    session = await sessions.find_session(tx, session_id=bearer.session_id)
    return await find_holder(
        tx, bearer=bearer, session=session, wanted=wanted, now_ms=now_ms, address=address
    )


async def find_holder(
    tx: ReadTx,
    *,
    bearer: Bearer,
    session: SessionRow | None,
    wanted: type[P],
    now_ms: int,
    address: Address | Anywhere | None,
) -> P:
    """Return whose session this is, if it opens the account; raises as of `authenticate`."""
    if session is None or session.ended_ms is not None or session.expires_ms <= now_ms:
        raise _invalid_token()
    if session.key_id is not None:
        if issubclass(wanted, UserPrincipal):
            raise _refused(Reason.WRONG_KEY_TYPE)
        return cast("P", await _find_key(tx, bearer, session, now_ms=now_ms, address=address))
    return cast("P", await _find_user(tx, bearer, session))


async def _find_key(
    tx: ReadTx,
    bearer: Bearer,
    session: SessionRow,
    *,
    now_ms: int,
    address: Address | Anywhere | None,
) -> ProvisioningPrincipal:
    """The key that was traded for a token: it must open the account itself, and with that secret.

    A secret that is rotated away takes what it was traded for with it.
    """
    account_id, key_id = session.account_id, session.key_id or 0
    row = await credentials.find_of_key(tx, account_id=account_id, key_id=key_id)
    key = await keys.find_key(tx, account_id=account_id, key_id=key_id, kind=None)
    if key is None or bearer.account_id != account_id:
        raise _invalid_token()
    if session.created_ms <= (key.rotated_ms or 0) and now_ms >= (key.previous_until_ms or 0):
        raise _invalid_token()
    try:
        found = await _admit(tx, row, wanted=ProvisioningPrincipal, now_ms=now_ms, address=address)
    except Unauthenticated:
        raise _invalid_token() from None
    return replace(found, session_seal=bearer.seal)


async def _find_user(tx: ReadTx, bearer: Bearer, session: SessionRow) -> UserPrincipal:
    member = await members.find_member(tx, account_id=bearer.account_id, user_id=bearer.user_id)
    if session.user_id != bearer.user_id or member is None or not member.is_enabled:
        raise _invalid_token()
    account = await accounts.find_account(tx, account_id=bearer.account_id)
    if account is None or account.status != "active":
        raise _refused(Reason.ACCOUNT_SUSPENDED)
    return UserPrincipal(
        key_id=-session.id,
        account_id=bearer.account_id,
        user_id=bearer.user_id,
        role=Role(member.role),
        email=member.email,
        session_seal=bearer.seal,
    )


def rights_of(row: CredentialRow | KeyRow) -> Rights:
    """What a key may do."""
    return Rights(
        environment=row.environment,
        project_id=row.project_id,
        models=row.models,
        endpoints=row.endpoints,
        networks=row.networks,
        expires_ms=row.expires_ms,
    )


async def find_role_of_key(
    tx: ReadTx, *, account_id: int, key_id: int, since_ms: int, now_ms: int
) -> Role | None:
    """Return what a key may be at this moment in an account where it was used at `since_ms`.

    None for one that opens nothing there any more or is confined by now, and where its secret of
    then is known to have leaked, or was replaced since without a grace. An operator's key is an
    owner everywhere.
    """
    for home in (account_id, OPERATOR_ACCOUNT_ID):
        row = await credentials.find_of_key(tx, account_id=home, key_id=key_id)
        key = await keys.find_key(tx, account_id=home, key_id=key_id, kind=None)
        if row is None or key is None:
            continue
        kind = KeyKind.OPERATOR if home == OPERATOR_ACCOUNT_ID else KeyKind.PROVISIONING
        was_stopped = key.previous_until_ms is None and (key.rotated_ms or -1) >= since_ms
        if was_stopped or (key.leaked_ms or -1) >= since_ms:
            return None
        if _find_reason(row, kind, now_ms) is not None or rights_of(row).is_confined:
            return None
        if row.user_id is None:
            return Role.OWNER
        return await _find_role(tx, account_id=home, user_id=row.user_id)
    return None


async def _find_role(tx: ReadTx, *, account_id: int, user_id: int) -> Role | None:
    member = await members.find_member(tx, account_id=account_id, user_id=user_id)
    return Role(member.role) if member is not None and member.is_enabled else None


def _find_reason(row: CredentialRow | None, kind: KeyKind, now_ms: int) -> Reason | None:
    if row is None:
        return Reason.UNKNOWN
    if row.is_deleted:
        return Reason.DELETED
    if not row.is_enabled:
        return Reason.DISABLED
    if row.expires_ms is not None and row.expires_ms <= now_ms:
        return Reason.EXPIRED
    if row.kind != kind:
        return Reason.WRONG_KEY_TYPE
    if row.account_status != "active":
        return Reason.ACCOUNT_SUSPENDED
    return None


def _invalid_token() -> Unauthenticated:
    message = "The access token is not valid, or not any more."
    return Unauthenticated("invalid_token", message)


def _refused(reason: Reason) -> Exception:
    return refusals.as_error(refusals.deny(reason))
