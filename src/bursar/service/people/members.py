"""Members: the people of an account, their roles, and how they leave.

Owns who may change whom. Nobody gives or takes a role that is more than their own, and an account
always has an owner who can sign in. Must not know how people prove who they are.
"""

from bursar.core import text
from bursar.core.audit.events import AuditAction
from bursar.core.errors import Conflict, Forbidden, Invalid, NotFound
from bursar.core.people import roles
from bursar.core.people.roles import Role
from bursar.core.secrets import KeyKind
from bursar.service.access import ProvisioningPrincipal
from bursar.service.audit import notes
from bursar.store import changes, keys
from bursar.store.database import ReadTx, WriteTx
from bursar.store.people import letters, members, sessions
from bursar.store.people.members import MemberRow

MOST: int = 1_000


async def get(tx: ReadTx, *, account_id: int, user_id: int) -> MemberRow:
    """Return a member of the account; raises NotFound."""
    row = await members.find_member(tx, account_id=account_id, user_id=user_id)
    if row is None:
        raise _not_found()
    return row


async def get_self(tx: ReadTx, *, by: ProvisioningPrincipal) -> MemberRow:
    """Return whom the caller acts for; raises NotFound for a key that acts for nobody."""
    return await get(tx, account_id=by.account_id, user_id=by.user_id or 0)


async def list_members(
    tx: ReadTx, *, account_id: int, after_id: int, limit: int
) -> list[MemberRow]:
    """Return the account's members with ids above `after_id`, by id."""
    return await members.list_members(tx, account_id=account_id, after_id=after_id, limit=limit)


async def list_last_used(tx: ReadTx, *, account_id: int) -> dict[int, int]:
    """Return when people were last here, in ms by user id, as far as it is remembered."""
    return await sessions.list_last_used(tx, account_id=account_id)


async def update(
    tx: WriteTx,
    *,
    by: ProvisioningPrincipal,
    user_id: int,
    role: str | None = None,
    is_enabled: bool | None = None,
    name: str | None = None,
) -> MemberRow:
    """Change a member's role, whether the account lets them in, or what it calls them.

    All of it holds from the next request on. What other accounts call them, and what they call
    themselves, stays. Returns them. Raises NotFound, Invalid (`invalid_value`) for the role and as
    `clean_name` does, Forbidden (`exceeds_own_role`) and Conflict (`last_owner`).
    """
    account_id = by.account_id
    owners = await _lock(tx, account_id=account_id)
    before = await get(tx, account_id=account_id, user_id=user_id)
    given = Role(before.role) if role is None else read_role(role)
    _check_may(by, Role(before.role), given)
    if given is not Role.OWNER or is_enabled is False:
        _check_not_last(owners, user_id)
    await members.update_member(
        tx,
        account_id=account_id,
        user_id=user_id,
        role=given,
        is_enabled=is_enabled,
        name=None if name is None else text.clean_name(name),
    )
    if is_enabled is False:
        await sessions.end(tx, user_id=user_id, account_id=account_id)
    after = await get(tx, account_id=account_id, user_id=user_id)
    notes.note(
        tx,
        account_id=account_id,
        action=AuditAction.USER_UPDATE,
        target=f"user:{user_id}",
        before=notes.of_member(before),
        after=notes.of_member(after),
    )
    return after


async def rename(tx: WriteTx, *, by: ProvisioningPrincipal, name: str) -> MemberRow:
    """Change the caller's own name, whatever accounts called them; raises NotFound and Invalid.

    It holds in all their accounts: `tx` must not be bound to one.
    """
    row = await get_self(tx, by=by)
    await members.update_user(tx, user_id=row.user_id, name=text.clean_name(name))
    after = await get_self(tx, by=by)
    notes.note(
        tx,
        account_id=by.account_id,
        action=AuditAction.USER_RENAME,
        target=f"user:{row.user_id}",
        before={"name": row.name},
        after={"name": after.name},
    )
    return after


async def remove(tx: WriteTx, *, by: ProvisioningPrincipal, user_id: int) -> None:
    """End a membership; their sessions in the account and their provisioning keys end with it.

    Their inference keys are the account's and go on. Raises NotFound, Forbidden
    (`exceeds_own_role`) and Conflict (`last_owner`).
    """
    owners = await _lock(tx, account_id=by.account_id)
    before = await get(tx, account_id=by.account_id, user_id=user_id)
    if user_id != by.user_id:
        _check_may(by, Role(before.role), Role(before.role))
    _check_not_last(owners, user_id)
    await end(tx, account_id=by.account_id, user_id=user_id)
    notes.note(
        tx,
        account_id=by.account_id,
        action=AuditAction.USER_REMOVE,
        target=f"user:{user_id}",
        before=notes.of_member(before),
    )


async def leave(tx: WriteTx, *, by: ProvisioningPrincipal) -> None:
    """End the caller's own membership; raises NotFound and Conflict (`last_owner`)."""
    row = await get_self(tx, by=by)
    await remove(tx, by=by, user_id=row.user_id)


def read_role(role: str) -> Role:
    """Return a role by its name; raises Invalid (`invalid_value`)."""
    if role not in set(Role):
        raise Invalid("invalid_value", f"A role is one of: {', '.join(Role)}.", param="role")
    return Role(role)


def require_may_give(own: Role, given: Role) -> None:
    """Raise Forbidden (`exceeds_own_role`) unless somebody of this role may give that one."""
    if not roles.may_give(own, given):
        message = "Nobody gives or takes a role that is more than their own."
        raise Forbidden("exceeds_own_role", message, param="role")


def _check_may(by: ProvisioningPrincipal, before: Role, given: Role) -> None:
    require_may_give(by.role, before)
    require_may_give(by.role, given)


async def _lock(tx: WriteTx, *, account_id: int) -> set[int]:
    enabled = await members.lock_members(tx, account_id=account_id)
    return {user_id for user_id, role in enabled.items() if role == Role.OWNER}


def _check_not_last(owners: set[int], user_id: int) -> None:
    if owners == {user_id}:
        message = "An account needs an owner. Make somebody else one first."
        raise Conflict("last_owner", message)


async def end(tx: WriteTx, *, account_id: int, user_id: int) -> None:
    """End a membership, whatever the rules say; sessions and provisioning keys end with it."""
    await members.delete_member(tx, account_id=account_id, user_id=user_id)
    await members.leave_projects(tx, account_id=account_id, user_id=user_id)
    await letters.delete_invitations_of(tx, account_id=account_id, invited_by=f"user:{user_id}")
    await sessions.end(tx, user_id=user_id, account_id=account_id)
    kind = KeyKind.PROVISIONING
    for key_id in await members.list_key_ids(tx, account_id=account_id, user_id=user_id, kind=kind):
        await keys.delete_key(tx, account_id=account_id, key_id=key_id, kind=kind)
        await letters.delete_invitations_of(tx, account_id=account_id, invited_by=f"key:{key_id}")
        tx.announce(changes.KEY, account_id=account_id, subject=str(key_id))
        notes.note(
            tx,
            account_id=account_id,
            action=AuditAction.KEY_DELETE,
            target=f"key:{key_id}",
            before={"kind": kind, "user_id": user_id},
        )


def _not_found() -> NotFound:
    return NotFound("not_found", "There is nothing here, or it is not yours.")
