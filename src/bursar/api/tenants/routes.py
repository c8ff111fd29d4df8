"""The operator's routes about people: everybody, those of one account, and whose word counts.

Owns their list. Must not know what becomes of a call.
"""

from typing import Final

from bursar.api.people import members
from bursar.api.registry import Route, operator
from bursar.api.tenants import people, signing_keys

_PAGE: Final = ("cursor", "limit")
_PEOPLE: Final = "/v1/operator/users"
_PERSON: Final = f"{_PEOPLE}/{{user_id}}"
_ACCOUNT: Final = "/v1/operator/accounts/{account_id}"
_USERS: Final = f"{_ACCOUNT}/users"
_USER: Final = f"{_USERS}/{{user_id}}"
_INVITATIONS: Final = f"{_ACCOUNT}/invitations"

ROUTES: Final[tuple[Route, ...]] = (
    operator("GET", _PEOPLE, people.list_people, people.PersonListShape, query=("email", *_PAGE)),
    operator("GET", _PERSON, people.show_person, people.PersonShape),
    operator("PATCH", _PERSON, people.update_person, people.PersonShape, body=people.PersonFields),
    operator("POST", f"{_PERSON}/logout-all", people.sign_out, people.SignedOutShape),
    operator(
        "POST",
        "/v1/operator/signing-keys/rotate",
        signing_keys.rotate,
        signing_keys.RotationShape,
        body=signing_keys.RotationFields,
    ),
    operator("GET", _USERS, people.list_users, members.UserListShape, query=_PAGE),
    operator(
        "POST",
        _USERS,
        people.invite,
        members.InvitationShape,
        status=202,
        body=members.InvitationFields,
    ),
    operator("GET", _USER, people.show_user, members.UserShape),
    operator("PATCH", _USER, people.update_user, members.UserShape, body=members.UserFields),
    operator("DELETE", _USER, people.remove_user, None, status=204),
    operator("GET", _INVITATIONS, people.list_invitations, members.InvitationListShape),
    operator("DELETE", f"{_INVITATIONS}/{{invitation_id}}", people.withdraw, None, status=204),
)
