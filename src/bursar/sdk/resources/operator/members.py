"""The users of any account, and invitations into it."""

from typing import Final

from bursar.sdk import results, values
from bursar.sdk.calls import Call, Page, nothing
from bursar.sdk.faces import AsyncResource, Resource, awaited, awaited_pages, sync, sync_pages
from bursar.sdk.resources.people.users import Invitation, Role, User
from bursar.sdk.results import Listing
from bursar.sdk.values import UNSET, Unset

_ACCOUNTS = "/v1/operator/accounts"


def _list(account_id: int, *, page_size: int | None = None) -> Call[Page[User]]:
    """The users of an account, oldest first."""
    return Call("GET", _users(account_id), results.read_page(User, "users"), {"limit": page_size})


def _get(account_id: int, user_id: int) -> Call[User]:
    """One user of an account; raises NotFound."""
    return Call("GET", values.path(_users(account_id), user_id), results.read(User))


def _invite(
    account_id: int,
    email: str,
    *,
    role: Role | None = None,
    name: str | None = None,
    idempotency_key: str | None = None,
) -> Call[Invitation]:
    """Invite somebody into an account by mail, as a member if no other role is said.

    `name` is what a new person is called if they do not say otherwise.
    """
    return Call(
        "POST",
        _users(account_id),
        results.read(Invitation),
        body=values.some(email=email, role=role, name=name),
        is_kept=True,
        idempotency_key=idempotency_key,
    )


def _update(
    account_id: int,
    user_id: int,
    *,
    role: Role | Unset = UNSET,
    is_enabled: bool | Unset = UNSET,
    name: str | Unset = UNSET,
) -> Call[User]:
    """Change a user's role in an account, let them in there or not, or what it calls them.

    What is not given stays. Raises Conflict for the last owner.
    """
    body = values.given(role=role, is_enabled=is_enabled, name=name)
    path = values.path(_users(account_id), user_id)
    return Call("PATCH", path, results.read(User), body=body)


def _remove(account_id: int, user_id: int) -> Call[None]:
    """Take a user out of an account: their sessions and provisioning keys there end at once."""
    return Call("DELETE", values.path(_users(account_id), user_id), nothing)


def _list_invitations(account_id: int) -> Call[Listing[Invitation]]:
    """The invitations into an account that nobody has accepted yet, oldest first."""
    return Call("GET", _invitations(account_id), results.read_list(Invitation, "invitations"))


def _withdraw_invitation(account_id: int, invitation_id: int) -> Call[None]:
    """Take an invitation back; raises NotFound."""
    return Call("DELETE", values.path(_invitations(account_id), invitation_id), nothing)


def _users(account_id: int) -> str:
    return f"{values.path(_ACCOUNTS, account_id)}/users"


def _invitations(account_id: int) -> str:
    return f"{values.path(_ACCOUNTS, account_id)}/invitations"


class Members(Resource):
    """The users of any account, and invitations into it."""

    list: Final = sync_pages(_list)
    get: Final = sync(_get)
    invite: Final = sync(_invite)
    update: Final = sync(_update)
    remove: Final = sync(_remove)
    list_invitations: Final = sync(_list_invitations)
    withdraw_invitation: Final = sync(_withdraw_invitation)


class AsyncMembers(AsyncResource):
    """The users of any account, and invitations into it."""

    list: Final = awaited_pages(_list)
    get: Final = awaited(_get)
    invite: Final = awaited(_invite)
    update: Final = awaited(_update)
    remove: Final = awaited(_remove)
    list_invitations: Final = awaited(_list_invitations)
    withdraw_invitation: Final = awaited(_withdraw_invitation)
