"""People of the installation, whatever accounts they belong to, for its operator.

Owns letting somebody in at all, or nowhere any more. What somebody is in an account is
`service.people.members`, where the operator acts as an owner does. Must not know passwords.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bursar.core.audit.events import OPERATOR_LOG, AuditAction
from bursar.core.errors import NotFound
from bursar.core.people import emails
from bursar.core.people.roles import Role
from bursar.service import accounts
from bursar.service.access import OperatorPrincipal, ProvisioningPrincipal
from bursar.service.audit import notes
from bursar.store.database import ReadTx, WriteTx
from bursar.store.people import members, sessions
from bursar.store.people.members import MemberRow, UserRow


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, and what they are in each of their accounts."""

    row: UserRow
    memberships: Sequence[MemberRow]

    @property
    def is_enabled(self) -> bool:
        """Whether they may sign in at all; an account may keep them out all the same."""
        return self.row.disabled_ms is None


async def list_people(
    tx: ReadTx, *, after_id: int, limit: int, email: str | None = None
) -> list[Person]:
    """Return people with ids above `after_id`, by id; only who has this address, if one is given.

    Raises Invalid (`invalid_email`).
    """
    clean = None if email is None else emails.clean_email(email)
    rows = await members.list_users(tx, after_id=after_id, limit=limit, email=clean)
    found = await members.list_all_memberships(tx, user_ids=[row.id for row in rows])
    return [Person(row, found.get(row.id, ())) for row in rows]


async def get(tx: ReadTx, *, user_id: int) -> Person:
    """Return somebody; raises NotFound."""
    row = await members.find_user(tx, user_id=user_id)
    if row is None:
        raise NotFound("not_found", "There is nothing here, or it is not yours.")
    return Person(row, await members.list_memberships(tx, user_id=user_id))


async def set_enabled(tx: WriteTx, *, user_id: int, is_enabled: bool) -> Person:
    """Let somebody in wherever they belong, or nowhere, from the next request on.

    Who is let in nowhere loses their sessions, and keys that act for them do nothing meanwhile. It
    holds for an account's last owner, too: the operator can act in their place. Raises NotFound.
    """
    await members.lock_user(tx, user_id=user_id)
    before = await get(tx, user_id=user_id)
    if before.is_enabled == is_enabled:
        return before
    await members.set_user_enabled(tx, user_id=user_id, is_enabled=is_enabled)
    if not is_enabled:
        await sessions.end(tx, user_id=user_id)
    await _note(tx, AuditAction.USER_UPDATE, user_id, {"is_enabled": not is_enabled}, is_enabled)
    return await get(tx, user_id=user_id)


async def sign_out(tx: WriteTx, *, user_id: int) -> int:
    """End every session of somebody, in every account; how many they were. Raises NotFound."""
    await get(tx, user_id=user_id)
    ended = await sessions.end(tx, user_id=user_id)
    await _note(tx, AuditAction.SESSION_END_ALL, user_id, {"sessions": ended})
    return ended


async def act_in(
    tx: ReadTx, *, operator: OperatorPrincipal, account_id: int
) -> ProvisioningPrincipal:
    """Return the operator as an owner of an account whose people are concerned; else NotFound."""
    await accounts.get(tx, account_id=account_id)
    return ProvisioningPrincipal(
        key_id=operator.key_id, account_id=account_id, user_id=None, role=Role.OWNER
    )


async def _note(
    tx: WriteTx,
    action: AuditAction,
    user_id: int,
    before: Mapping[str, int],
    is_enabled: bool | None = None,
) -> None:
    """In the operator's log, and in those of the accounts that the person belongs to."""
    after = None if is_enabled is None else {"is_enabled": is_enabled}
    target = f"user:{user_id}"
    notes.note(
        tx, account_id=OPERATOR_LOG, action=action, target=target, before=before, after=after
    )
    if await members.list_memberships(tx, user_id=user_id):
        await notes.note_of_person(
            tx, user_id=user_id, action=action, target=target, before=before, after=after
        )
