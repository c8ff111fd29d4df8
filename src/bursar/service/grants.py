"""Grants: what a caller may pass on.

Owns the rule that nobody gives more than they have: the rights of keys, and what somebody may do
for others. Must not know what a key's fields may be.
"""

from collections.abc import Collection
from typing import Final

from bursar.core import permissions
from bursar.core.errors import Forbidden, NotFound
from bursar.core.permissions import CONFINEMENTS, Rights
from bursar.service.access import Principal, rights_of
from bursar.store import keys
from bursar.store.database import ReadTx, WriteTx
from bursar.store.keys import KeyRow
from bursar.store.tenants import projects, users

# Who may do things for others; everybody else only for themselves.
_TRUSTED_ROLES: Final = frozenset(("owner", "admin"))


def require_rights(
    by: Principal | None, given: Rights, *, only: Collection[str] | None = None
) -> None:
    """Raise Forbidden (`exceeds_own_rights`) where a key would get more than its maker has.

    In these fields, or in any. Nobody (`by` None) is the operator, who has everything.
    """
    excess = None if by is None else permissions.find_excess(by.rights, given, only=only)
    if excess is not None:
        raise exceeds(excess)


async def require_user(
    tx: WriteTx, *, account_id: int, by: Principal | None, user_id: int | None
) -> None:
    """Require that the user is the account's, and the caller's to make a key for.

    Owners and admins make keys for any member and for nobody in particular, everybody else for
    themselves. Raises NotFound, and Forbidden (`exceeds_own_rights`).
    """
    if by is not None and user_id == by.user_id:
        return
    if user_id is not None:
        if await users.find_role(tx, account_id=account_id, user_id=user_id) is None:
            raise _unknown("user_id")
    if not await is_trusted(tx, account_id=account_id, by=by):
        raise exceeds("user_id")


async def require_project(
    tx: WriteTx, *, account_id: int, by: Principal | None, project_id: int | None
) -> None:
    """Require that the project is the account's, and the caller's to put a key into.

    Owners and admins do so with any project, everybody else with those that they belong to. Raises
    NotFound, and Forbidden (`exceeds_own_rights`).
    """
    if project_id is None:
        return
    if not await projects.lock_project(tx, account_id=account_id, project_id=project_id):
        raise _unknown("project_id")
    if await is_trusted(tx, account_id=account_id, by=by):
        return
    user_id = 0 if by is None or by.user_id is None else by.user_id
    if not await projects.is_member(
        tx, account_id=account_id, project_id=project_id, user_id=user_id
    ):
        raise exceeds("project_id")


async def require_limits_of(
    tx: ReadTx, *, account_id: int, by: Principal | None, scope: str
) -> None:
    """Require that the caller may say how much such a scope, which is there, may use.

    Whose key is confined says it only of keys that may do no more. Raises Forbidden
    (`confined_key`, `exceeds_own_rights`).
    """
    if by is None or not by.rights.is_confined:
        return
    kind, _, number = scope.partition(":")
    if kind != "key":
        raise confined()
    row = await keys.find_key(tx, account_id=account_id, key_id=int(number), kind=None)
    if row is not None:
        require_rights(by, rights_of(row), only=CONFINEMENTS)


async def require_own(tx: WriteTx, *, by: Principal | None, row: KeyRow) -> None:
    """Require that the key is the caller's, or the caller one who may do things for others.

    Raises Forbidden (`insufficient_role`).
    """
    if by is not None and by.user_id is not None and row.user_id == by.user_id:
        return
    if not await is_trusted(tx, account_id=row.account_id, by=by):
        message = "Your role in this account allows this for your own keys only."
        raise Forbidden("insufficient_role", message)


async def is_trusted(tx: WriteTx, *, account_id: int, by: Principal | None) -> bool:
    """Whether the caller may do things for others: owners, admins, and keys that act for nobody."""
    if by is None or by.user_id is None:
        return True
    role = await users.find_role(tx, account_id=account_id, user_id=by.user_id)
    return role in _TRUSTED_ROLES


def exceeds(param: str) -> Forbidden:
    """The refusal of giving a key more than its maker has."""
    message = "A key cannot be given more than the key that asks for it has."
    return Forbidden("exceeds_own_rights", message, param=param)


def confined() -> Forbidden:
    """The refusal of giving rights by a key that is confined itself."""
    message = (
        "The key that asks is confined (environment, project, models, endpoints or networks), and "
        "this would give rights that it has not."
    )
    return Forbidden("confined_key", message)


def _unknown(param: str) -> NotFound:
    return NotFound("not_found", "There is nothing here, or it is not yours.", param=param)
