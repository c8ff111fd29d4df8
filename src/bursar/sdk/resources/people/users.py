"""The users of your account: who they are, what they may do, and whom to invite."""

from typing import Final, Literal, TypeAlias

from bursar.sdk import results, values
from bursar.sdk.calls import Call, Page, nothing
from bursar.sdk.faces import AsyncResource, Resource, awaited, awaited_pages, sync, sync_pages
from bursar.sdk.results import Listing, Moment, Result
from bursar.sdk.values import UNSET, Unset

Role: TypeAlias = Literal["owner", "admin", "member", "viewer"]
_USERS = "/v1/account/users"
_ME = f"{_USERS}/me"
_INVITATIONS = "/v1/account/invitations"


class User(Result):
    """A person in your account; `role` is owner, admin, member or viewer.

    One who is not enabled can do nothing in the account.
    """

    id: int
    email: str
    name: str
    role: str
    is_enabled: bool
    created_at: Moment


class Invitation(Result):
    """Somebody who may join your account, as what; the letter to `email` has what they need."""

    id: int
    email: str
    role: str
    created_at: Moment
    expires_at: Moment
    name: str = ""


def _list(*, page_size: int | None = None) -> Call[Page[User]]:
    """Your account's users, oldest first."""
    return Call("GET", _USERS, results.read_page(User, "users"), {"limit": page_size})


def _get(user_id: int) -> Call[User]:
    """One user; raises NotFound."""
    return Call("GET", values.path(_USERS, user_id), results.read(User))


def _me() -> Call[User]:
    """You, in this account; raises NotFound for a key that acts for nobody."""
    return Call("GET", _ME, results.read(User))


def _rename_me(name: str) -> Call[User]:
    """Change your name, in every account that you are in."""
    return Call("PATCH", _ME, results.read(User), body={"name": name})


def _leave() -> Call[None]:
    """Leave the account; raises Conflict for its last owner."""
    return Call("DELETE", _ME, nothing)


def _invite(
    email: str,
    *,
    role: Role | None = None,
    name: str | None = None,
    idempotency_key: str | None = None,
) -> Call[Invitation]:
    """Invite somebody by mail, as a member if no other role is said; at most as what you are.

    `name` is what a new person is called if they do not say otherwise.
    """
    return Call(
        "POST",
        _USERS,
        results.read(Invitation),
        body=values.some(email=email, role=role, name=name),
        is_kept=True,
        idempotency_key=idempotency_key,
    )


def _update(
    user_id: int,
    *,
    role: Role | Unset = UNSET,
    is_enabled: bool | Unset = UNSET,
    name: str | Unset = UNSET,
) -> Call[User]:
    """Change a user's role, or whether they may do anything here; what is not given stays.

    `name` is what this account calls them, until they give themselves another. Raises Forbidden
    above your own role, and Conflict for the last owner.
    """
    body = values.given(role=role, is_enabled=is_enabled, name=name)
    return Call("PATCH", values.path(_USERS, user_id), results.read(User), body=body)


def _remove(user_id: int) -> Call[None]:
    """Take a user out of the account: their sessions and provisioning keys end at once."""
    return Call("DELETE", values.path(_USERS, user_id), nothing)


def _list_invitations() -> Call[Listing[Invitation]]:
    """The invitations that nobody has accepted yet, oldest first."""
    return Call("GET", _INVITATIONS, results.read_list(Invitation, "invitations"))


def _withdraw_invitation(invitation_id: int) -> Call[None]:
    """Take an invitation back; raises NotFound."""
    return Call("DELETE", values.path(_INVITATIONS, invitation_id), nothing)


class Users(Resource):
    """Users of your account."""

    list: Final = sync_pages(_list)
    get: Final = sync(_get)
    me: Final = sync(_me)
    rename_me: Final = sync(_rename_me)
    leave: Final = sync(_leave)
    invite: Final = sync(_invite)
    update: Final = sync(_update)
    remove: Final = sync(_remove)
    list_invitations: Final = sync(_list_invitations)
    withdraw_invitation: Final = sync(_withdraw_invitation)


class AsyncUsers(AsyncResource):
    """Users of your account."""

    list: Final = awaited_pages(_list)
    get: Final = awaited(_get)
    me: Final = awaited(_me)
    rename_me: Final = awaited(_rename_me)
    leave: Final = awaited(_leave)
    invite: Final = awaited(_invite)
    update: Final = awaited(_update)
    remove: Final = awaited(_remove)
    list_invitations: Final = awaited(_list_invitations)
    withdraw_invitation: Final = awaited(_withdraw_invitation)
