"""Invitations: how people come into an account.

Owns who may be invited as what, and what whoever has the letter must prove. The letter proves the
address; somebody who is known here already proves the password, too, so that a letter that went
astray opens nobody's account. Must not know how a letter travels.
"""

from dataclasses import dataclass, field
from typing import Final

from bursar.adapters.mail import Letter
from bursar.core import refusals, text
from bursar.core.audit.events import AuditAction, Values
from bursar.core.errors import Conflict, Gone, NotFound
from bursar.core.people import emails, passwords, roles
from bursar.core.people import tokens as forms
from bursar.core.people.roles import Role
from bursar.core.permissions import Address
from bursar.core.refusals import Reason
from bursar.service import access
from bursar.service.access import ProvisioningPrincipal
from bursar.service.audit import notes
from bursar.service.people import members as people_of
from bursar.service.people import sign_in, throttles
from bursar.service.people.ports import People
from bursar.service.people.sign_in import Attempt, Gate
from bursar.store.database import Database, ReadTx, WriteTx
from bursar.store.people import letters, members
from bursar.store.people.letters import InvitationRow
from bursar.store.people.members import MemberRow
from bursar.store.tenants import accounts, users

LIFETIME_MS: Final = 7 * 86_400_000
_MOST: Final = 1_000
_USER: Final = "user:"
_KEY: Final = "key:"


@dataclass(frozen=True, slots=True)
class Invited:
    """An invitation and the letter with its token, which is stored nowhere else."""

    row: InvitationRow
    letter: Letter = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What somebody sends who has a letter; `email`, if given, must be the one it was sent to."""

    token: str = field(repr=False)
    password: str = field(repr=False)
    name: str | None = None
    email: str | None = None
    address: Address | None = None


async def invite(
    tx: WriteTx,
    *,
    people: People,
    by: ProvisioningPrincipal,
    email: str,
    role: str,
    name: str | None = None,
) -> Invited:
    """Invite somebody; an earlier letter to the same address does not count any more.

    `name` is what they are called if they do not say otherwise, and if nobody knows them yet.
    Raises Invalid for address, name or role, Forbidden (`exceeds_own_role`), Conflict
    (`already_member`, `too_many_users`), RateRefused (`too_many_attempts`) for too many letters,
    and Unavailable (`mail_overloaded`).
    """
    people.require_room()
    clean, given = emails.clean_email(email), people_of.read_role(role)
    people_of.require_may_give(by.role, given)
    called = "" if name is None else text.clean_name(name)
    account_id = by.account_id
    if await members.find_by_email(tx, account_id=account_id, email=clean) is not None:
        raise Conflict("already_member", "Somebody with this address is a member already.")
    count = await members.count_members(tx, account_id=account_id)
    if count + await letters.count_invitations(tx, account_id=account_id) >= _MOST:
        raise Conflict("too_many_users", f"An account may have at most {_MOST} users.")
    await throttles.take(tx, throttles.of_invitations(people.vault, clean, account_id))
    token = forms.make_link(people.random_bytes(forms.LINK_BYTES))
    row = await letters.replace_invitation(
        tx,
        account_id=account_id,
        email=clean,
        role=given,
        token_hash=forms.link_digest(token) or b"",
        invited_by=by.actor,
        expires_ms=tx.now_ms + LIFETIME_MS,
        name=called,
    )
    _note(tx, AuditAction.INVITATION_CREATE, row, after=_values(row))
    return Invited(row, _letter(people.url, clean, token))


async def list_open(tx: ReadTx, *, account_id: int, now_ms: int) -> list[InvitationRow]:
    """Return the account's open invitations, oldest first."""
    return await letters.list_invitations(tx, account_id=account_id, now_ms=now_ms)


async def get_open(
    tx: ReadTx, *, account_id: int, invitation_id: int, now_ms: int
) -> InvitationRow:
    """Return an open invitation of the account; raises NotFound."""
    row = await letters.find_open_invitation(
        tx, account_id=account_id, invitation_id=invitation_id, now_ms=now_ms
    )
    if row is None:
        raise NotFound("not_found", "There is nothing here, or it is not yours.")
    return row


async def rename(
    tx: WriteTx, *, by: ProvisioningPrincipal, invitation_id: int, name: str
) -> InvitationRow:
    """Change what somebody who is invited is called, and return the invitation.

    Raises NotFound, Forbidden (`exceeds_own_role`), and Invalid as `clean_name` does.
    """
    own = {"account_id": by.account_id, "invitation_id": invitation_id}
    row = await get_open(tx, **own, now_ms=tx.now_ms)
    people_of.require_may_give(by.role, Role(row.role))
    await letters.rename_invitation(tx, **own, name=text.clean_name(name))
    after = await get_open(tx, **own, now_ms=tx.now_ms)
    _note(tx, AuditAction.INVITATION_UPDATE, row, before=_values(row), after=_values(after))
    return after


async def withdraw(tx: WriteTx, *, by: ProvisioningPrincipal, invitation_id: int) -> None:
    """Take an invitation back; raises NotFound and Forbidden (`exceeds_own_role`)."""
    row = await letters.delete_invitation(tx, account_id=by.account_id, invitation_id=invitation_id)
    if row is None:
        raise NotFound("not_found", "There is nothing here, or it is not yours.")
    people_of.require_may_give(by.role, Role(row.role))
    _note(tx, AuditAction.INVITATION_WITHDRAW, row, before=_values(row))


async def accept(
    database: Database, acceptance: Acceptance, *, people: People, gate: Gate
) -> MemberRow:
    """Make whoever has the letter a member, and return them.

    Raises Gone (`invitation_gone`) for a letter that was used, has expired, was taken back, was
    sent to another address, or came from somebody, or with a key, that may not invite any more;
    Forbidden (`account_suspended`); Invalid (`weak_password`) for a new person's password,
    Unauthenticated (`invalid_credentials`) and RateRefused for a known person's; Conflict
    (`no_password`) for a known person who has none, and (`person_exists`) for one who was new a
    moment ago.
    """
    token_hash = forms.link_digest(acceptance.token)
    if token_hash is None:
        raise _gone()
    async with gate.enter(), database.read() as tx:
        row = await _find(tx, token_hash, acceptance.email, now_ms=database.clock_ms())
        user = await members.find_user(tx, email=row.email)
    if user is not None and not user.password_hash:
        message = "You have no password to prove who you are. Choose one by a reset, then accept."
        raise Conflict("no_password", message)
    fresh = ""
    user_id = None
    name = text.clean_name(acceptance.name or row.name or row.email)
    if user is None:
        chosen = passwords.check_new(
            acceptance.password, email=row.email, name=name, common=people.common
        )
        fresh = await people.passwords.hash(chosen)
    else:
        attempt = Attempt(email=row.email, password=acceptance.password, address=acceptance.address)
        proven = await sign_in.prove_password(database, attempt, people=people, gate=gate)
        user_id = proven.user.id

    async def finish(tx: WriteTx) -> MemberRow:
        now = await _find(tx, token_hash, acceptance.email, now_ms=tx.now_ms)
        taken = await letters.delete_invitation(tx, account_id=now.account_id, invitation_id=now.id)
        if taken is None:
            raise _gone()
        member_id = user_id or await users.insert_user(
            tx, email=now.email, name=name, password_hash=fresh
        )
        if await members.find_member(tx, account_id=now.account_id, user_id=member_id) is None:
            await users.insert_member(
                tx, account_id=now.account_id, user_id=member_id, role=now.role
            )
        member = await people_of.get(tx, account_id=now.account_id, user_id=member_id)
        notes.note(
            tx,
            account_id=now.account_id,
            action=AuditAction.USER_JOIN,
            target=f"user:{member_id}",
            after=notes.of_member(member),
            actor=f"user:{member_id}",
        )
        return member

    async with gate.enter():
        return await database.transact(finish)


def _note(
    tx: WriteTx,
    action: AuditAction,
    row: InvitationRow,
    *,
    before: Values | None = None,
    after: Values | None = None,
) -> None:
    account_id, target = row.account_id, f"invitation:{row.id}"
    notes.note(tx, account_id=account_id, action=action, target=target, before=before, after=after)


def _values(row: InvitationRow) -> Values:
    return {"email": row.email, "name": row.name, "role": row.role}


async def _find(tx: ReadTx, token_hash: bytes, email: str | None, *, now_ms: int) -> InvitationRow:
    row = await letters.find_invitation(tx, token_hash=token_hash)
    if row is None or row.expires_ms <= now_ms:
        raise _gone()
    if email is not None and emails.find_email(email) != row.email:
        raise _gone()
    account = await accounts.find_account(tx, account_id=row.account_id)
    if account is None or account.status != "active":
        raise refusals.as_error(refusals.deny(Reason.ACCOUNT_SUSPENDED))
    role = await _find_inviters_role(tx, row, now_ms=now_ms)
    if role is None or not roles.may_give(role, Role(row.role)):
        raise _gone()
    return row


async def _find_inviters_role(tx: ReadTx, row: InvitationRow, *, now_ms: int) -> Role | None:
    """What whoever has sent an invitation is in its account by now; None for nothing."""
    account_id, by = row.account_id, row.invited_by
    if by.startswith(_KEY):
        key_id, since_ms = int(by.removeprefix(_KEY)), row.created_ms
        return await access.find_role_of_key(
            tx, account_id=account_id, key_id=key_id, since_ms=since_ms, now_ms=now_ms
        )
    if by.startswith(_USER):
        user_id = int(by.removeprefix(_USER))
        inviter = await members.find_member(tx, account_id=account_id, user_id=user_id)
        return Role(inviter.role) if inviter is not None and inviter.is_enabled else None
    # Somebody on the installation's own host, who can do whatever an owner can.
    return Role.OWNER


def _letter(url: str, email: str, token: str) -> Letter:
    text_ = (
        "You are invited to an account at Bursar.\n\n"
        f"Accept within seven days: {url}/accept-invitation#{token}\n\n"
        "If you do not know what this is about, do nothing.\n"
    )
    return Letter(email, "You are invited", text_)


def _gone() -> Gone:
    message = "The invitation was used, taken back or has expired. Ask for another one."
    return Gone("invitation_gone", message)
