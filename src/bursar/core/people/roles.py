"""Roles: what the members of an account may do in it.

Owns the one table from role to actions. Whatever a route or a use case asks for is an action, so
that a new role is one line here. Must not know people, routes or keys.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What somebody is in an account, from most to least."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


class Action(StrEnum):
    """What can be done in an account, as far as roles tell it apart."""

    READ = "read"  # look at everything of the account but secrets, which nobody can
    OWN_PROFILE = "own_profile"  # one's own name, password, second factor and sessions
    OWN_KEYS = "own_keys"  # make, rotate and delete keys of one's own
    MANAGE = "manage"  # everybody's keys and limits
    PROJECTS = "projects"  # make, change and delete projects, and say who belongs to them
    PEOPLE = "people"  # invite, change and remove people, up to one's own role
    AUDIT = "audit"  # look at who changed what, and from where
    OWNERS = "owners"  # make owners, and change or remove them


_VIEWER: Final = frozenset((Action.READ, Action.OWN_PROFILE))
_MEMBER: Final = _VIEWER | {Action.OWN_KEYS}
_ADMIN: Final = _MEMBER | {Action.MANAGE, Action.PROJECTS, Action.PEOPLE, Action.AUDIT}
_OWNER: Final = _ADMIN | {Action.OWNERS}

ACTIONS: Final[Mapping[Role, frozenset[Action]]] = {
    Role.OWNER: _OWNER,
    Role.ADMIN: _ADMIN,
    Role.MEMBER: _MEMBER,
    Role.VIEWER: _VIEWER,
}
# What a key that is confined may still do, as far as its role goes: nothing that gives somebody
# rights which the key itself has not.
CONFINED: Final = _MEMBER | {Action.MANAGE, Action.AUDIT}


def may(role: Role, action: Action) -> bool:
    """Whether somebody of this role may do this."""
    return action in ACTIONS[role]


def may_give(own: Role, given: Role) -> bool:
    """Whether somebody of this role may make another of that one, or take it from them.

    Nobody gives what they do not have.
    """
    needed = Action.OWNERS if given is Role.OWNER else Action.PEOPLE
    return may(own, needed) and ACTIONS[given] <= ACTIONS[own]
