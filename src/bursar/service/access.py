"""Access: who presents a secret, and what kind of caller that makes them.

Owns the step from a secret to a principal. A use case that takes a `ProvisioningPrincipal` cannot
be called with an inference key: the kinds are types. Must not know where a secret was found in a
request.
"""

from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from bursar.core import permissions, refusals, secrets
from bursar.core.permissions import Address, Rights
from bursar.core.refusals import Reason
from bursar.core.secrets import KeyKind
from bursar.store import credentials
from bursar.store.credentials import CredentialRow
from bursar.store.database import ReadTx


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


@dataclass(frozen=True, slots=True)
class InferencePrincipal(Principal):
    """May call models and look at the key itself; nothing of the account."""

    kind = KeyKind.INFERENCE


@dataclass(frozen=True, slots=True)
class ProvisioningPrincipal(Principal):
    """May manage its own account."""

    kind = KeyKind.PROVISIONING


@dataclass(frozen=True, slots=True)
class OperatorPrincipal(Principal):
    """May manage every account of the installation; has none of its own."""

    kind = KeyKind.OPERATOR


P = TypeVar("P", bound=Principal)


async def authenticate(
    tx: ReadTx, *, secret: str | bytes, wanted: type[P], now_ms: int, address: Address | None = None
) -> P:
    """Return the caller who presents this secret, as the wanted kind of principal.

    Malformed, unknown, deleted, disabled and expired secrets are refused alike (Unauthenticated
    `invalid_api_key`), a malformed one without asking the database. Then the kind is checked
    (Unauthenticated `wrong_key_type`), then the account (Forbidden `account_suspended`), then where
    the caller is (Forbidden `ip_not_allowed`; `address` None is in no network).
    """
    if secrets.parse(secret) is None:
        raise _refused(Reason.MALFORMED)
    row = await credentials.find_credential(tx, secret_hash=secrets.digest(secret))
    reason = _find_reason(row, wanted.kind, now_ms)
    if row is None or reason is not None:
        raise _refused(reason or Reason.UNKNOWN)
    if row.networks is not None:
        if not permissions.contains(permissions.parse_networks(row.networks), address):
            raise _refused(Reason.IP_NOT_ALLOWED)
    rights = Rights(
        environment=row.environment,
        project_id=row.project_id,
        models=row.models,
        endpoints=row.endpoints,
        expires_ms=row.expires_ms,
    )
    return wanted(row.key_id, row.account_id, row.user_id, rights)


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


def _refused(reason: Reason) -> Exception:
    return refusals.as_error(refusals.deny(reason))
