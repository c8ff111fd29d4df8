"""Roles by groups: what a sign-in service makes of somebody in the accounts that trust it.

Owns how a membership that a service gives comes, changes and ends, at each sign-in. An owner whom
the service has not made stays one, and the last owner of an account stays, whatever a service says.
A membership that somebody has disabled stays disabled. Must not know how people prove who they are.
"""

from collections.abc import Sequence
from dataclasses import replace

import structlog

from bursar.core.audit.events import AuditAction
from bursar.core.people.roles import Role
from bursar.service.audit import notes
from bursar.service.people import members as people_of
from bursar.service.sso.ports import Provider
from bursar.store.database import WriteTx
from bursar.store.people import identities, members
from bursar.store.people.members import MemberRow
from bursar.store.tenants import accounts, users

_log = structlog.get_logger("bursar.sso")


async def apply(tx: WriteTx, *, provider: Provider, user_id: int, groups: Sequence[str]) -> None:
    """Have somebody's memberships be what their groups at the service say, in its accounts."""
    given = provider.find_roles(groups)
    # In order: of two sign-ins at once, neither waits for the other's second account.
    for account_id in provider.account_ids:
        if await accounts.find_account(tx, account_id=account_id) is None:
            _log.warning("sso_account_unknown", provider=provider.name, account=account_id)
            continue
        await _apply(tx, provider, account_id, user_id, given.get(account_id))


async def _apply(
    tx: WriteTx, provider: Provider, account_id: int, user_id: int, given: Role | None
) -> None:
    enabled = await members.lock_members(tx, account_id=account_id)
    member = await members.find_member(tx, account_id=account_id, user_id=user_id)
    if member is None:
        if given is not None:
            await _join(tx, provider, account_id, user_id, given)
        return
    giver = await identities.find_giver(tx, account_id=account_id, user_id=user_id)
    is_own = giver == provider.name
    if member.role == Role.OWNER and given is not Role.OWNER:
        owners = {each for each, role in enabled.items() if role == Role.OWNER}
        if not is_own or owners == {user_id}:
            return
    if given is None:
        if is_own:
            await people_of.end(tx, account_id=account_id, user_id=user_id)
            _note(tx, provider, AuditAction.USER_REMOVE, member, None)
        return
    if member.role != given:
        await members.update_member(tx, account_id=account_id, user_id=user_id, role=given)
    if not is_own:
        await identities.set_giver(
            tx, account_id=account_id, user_id=user_id, provider=provider.name
        )
    _note(tx, provider, AuditAction.USER_UPDATE, member, replace(member, role=given))


async def _join(
    tx: WriteTx, provider: Provider, account_id: int, user_id: int, given: Role
) -> None:
    if await members.count_members(tx, account_id=account_id) >= people_of.MOST:
        _log.warning("sso_account_full", provider=provider.name, account=account_id)
        return
    await users.insert_member(tx, account_id=account_id, user_id=user_id, role=given)
    await identities.set_giver(tx, account_id=account_id, user_id=user_id, provider=provider.name)
    member = await people_of.get(tx, account_id=account_id, user_id=user_id)
    _note(tx, provider, AuditAction.USER_JOIN, None, member)


def _note(
    tx: WriteTx,
    provider: Provider,
    action: AuditAction,
    before: MemberRow | None,
    after: MemberRow | None,
) -> None:
    """Note what the service's word has made of a membership."""
    row = after or before
    if row is not None:
        notes.note(
            tx,
            account_id=row.account_id,
            action=action,
            target=f"user:{row.user_id}",
            before=None if before is None else notes.of_member(before),
            after=None if after is None else notes.of_member(after),
            actor=f"provider:{provider.name}",
        )
