"""Persons: who somebody is here whom a sign-in service knows.

Owns that rule. Whom the service has named before is the same person, whatever their address is now.
Otherwise a service speaks only for the addresses that it has verified, of the domains that the
operator trusts it with: their person is linked, or made where the operator wants that. Must not
know how the service was asked.
"""

from dataclasses import dataclass

from bursar.adapters.oidc import Identity
from bursar.core import text
from bursar.core.audit.events import AuditAction
from bursar.core.errors import Conflict, Forbidden, Invalid, NotFound
from bursar.core.people import emails
from bursar.service.audit import notes
from bursar.service.sso.ports import Provider
from bursar.store.database import ReadTx, WriteTx
from bursar.store.people import identities, members, passkeys
from bursar.store.people.identities import IdentityRow
from bursar.store.people.members import UserRow
from bursar.store.tenants import users


@dataclass(frozen=True, slots=True)
class Found:
    """Who somebody is: a person, by a link that is there (`row`), or by their address."""

    user: UserRow | None
    row: IdentityRow | None
    email: str

    @property
    def known_email(self) -> str:
        """The address by which they are known here, if they are."""
        return self.email if self.user is None else self.user.email


async def find(tx: ReadTx, *, provider: Provider, identity: Identity) -> Found:
    """Return who somebody is; nobody where the service may not speak for their address."""
    row = await identities.find_identity(tx, issuer=provider.issuer, subject=identity.subject)
    if row is not None:
        user = await members.find_user(tx, user_id=row.user_id)
        return Found(user, row, emails.find_email(identity.email) or row.email)
    email = trusted_email(provider, identity)
    return Found(await members.find_user(tx, email=email) if email else None, None, email)


def trusted_email(provider: Provider, identity: Identity) -> str:
    """Return the address that the service may speak for, in its one spelling, or an empty text."""
    email = emails.find_email(identity.email) if identity.is_email_verified else None
    if email is None or email.rpartition("@")[2] not in provider.domains:
        return ""
    return email


async def settle(
    tx: WriteTx, *, provider: Provider, identity: Identity, found: Found
) -> int | None:
    """Return the id of the person, linked or made if need be; None for nobody."""
    if found.row is not None:
        await identities.touch_identity(tx, identity_id=found.row.id, email=found.email)
        return found.row.user_id
    user_id = None if found.user is None else found.user.id
    if user_id is None:
        is_wanted = provider.creates_people and provider.find_roles(identity.groups)
        if not found.email or not is_wanted:
            return None
        user_id = await users.insert_user(
            tx, email=found.email, name=_name(identity, found.email), password_hash=""
        )
    await link(tx, provider=provider, identity=identity, user_id=user_id)
    return user_id


async def link(tx: WriteTx, *, provider: Provider, identity: Identity, user_id: int) -> IdentityRow:
    """Note who a person is at the service; raises Conflict (`identity_taken`)."""
    row = await identities.insert_identity(
        tx,
        issuer=provider.issuer,
        subject=identity.subject,
        user_id=user_id,
        provider=provider.name,
        email=emails.find_email(identity.email) or "",
    )
    await notes.note_of_person(
        tx,
        user_id=user_id,
        action=AuditAction.IDENTITY_LINK,
        target=f"user:{user_id}",
        after={"provider": provider.name, "email": row.email},
        actor=f"provider:{provider.name}",
    )
    return row


async def list_own(tx: ReadTx, *, user_id: int) -> list[IdentityRow]:
    """Return who a person is at services, oldest first."""
    return await identities.list_identities(tx, user_id=user_id)


async def get_own(tx: ReadTx, *, user_id: int, identity_id: int) -> IdentityRow:
    """Return one of a person's identities; raises NotFound."""
    for row in await identities.list_identities(tx, user_id=user_id):
        if row.id == identity_id:
            return row
    raise NotFound("not_found", "There is nothing here, or it is not yours.")


async def unlink(tx: WriteTx, *, user_id: int, identity_id: int) -> None:
    """Forget who a person is at a service.

    Raises NotFound, and Conflict (`last_way_in`) where it is the only way in that they have.
    """
    await members.lock_user(tx, user_id=user_id)
    row = await get_own(tx, user_id=user_id, identity_id=identity_id)
    user = await members.find_user(tx, user_id=user_id)
    is_last = len(await identities.list_identities(tx, user_id=user_id)) == 1
    if is_last and user is not None and not user.password_hash:
        if not await passkeys.has_any(tx, user_id=user_id):
            message = "You could not sign in any more. Choose a password first, by a reset."
            raise Conflict("last_way_in", message)
    await identities.delete_identity(tx, user_id=user_id, identity_id=identity_id)
    gone = {"provider": row.provider, "email": row.email}
    action, target = AuditAction.IDENTITY_UNLINK, f"user:{user_id}"
    await notes.note_of_person(tx, user_id=user_id, action=action, target=target, before=gone)


def no_access() -> Forbidden:
    """Return the one refusal of somebody whom the service knows and we do not let in."""
    message = "The sign-in service knows you, and nobody here lets you in by it."
    return Forbidden("sso_no_access", message)


def _name(identity: Identity, email: str) -> str:
    try:
        return text.clean_name(identity.name)
    except Invalid:
        return email.partition("@")[0]
