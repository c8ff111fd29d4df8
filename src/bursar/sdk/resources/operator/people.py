"""Everybody who has a user."""

from typing import Final

from bursar.sdk import results, values
from bursar.sdk.calls import Call, Page
from bursar.sdk.faces import AsyncResource, Resource, awaited, awaited_pages, sync, sync_pages
from bursar.sdk.resources.people.auth import Introspection
from bursar.sdk.results import Moment, Result

_PEOPLE = "/v1/operator/users"


class Membership(Result):
    """What somebody is in an account: owner, admin, member or viewer.

    One who is not enabled can do nothing there.
    """

    account_id: int
    role: str
    is_enabled: bool


class Person(Result):
    """Somebody, and what they are in each of their accounts.

    One who is not enabled can sign in nowhere.
    """

    id: int
    email: str
    name: str
    is_enabled: bool
    created_at: Moment
    memberships: tuple[Membership, ...]


class SigningKey(Result):
    """The key that signs access tokens from now on, and how many others were retired."""

    id: str
    created_at: Moment
    retired: int


class Ended(Result):
    """How many sessions have ended."""

    ended: int


def _list(*, email: str | None = None, page_size: int | None = None) -> Call[Page[Person]]:
    """Everybody, oldest first; with `email`, only who has this address."""
    query: dict[str, str | int | None] = {"email": email, "limit": page_size}
    return Call("GET", _PEOPLE, results.read_page(Person, "users"), query)


def _get(user_id: int) -> Call[Person]:
    """Somebody; raises NotFound."""
    return Call("GET", values.path(_PEOPLE, user_id), results.read(Person))


def _update(user_id: int, *, is_enabled: bool) -> Call[Person]:
    """Let somebody in wherever they belong, or nowhere; their sessions end then."""
    path = values.path(_PEOPLE, user_id)
    return Call("PATCH", path, results.read(Person), body={"is_enabled": is_enabled})


def _sign_out(user_id: int, *, idempotency_key: str | None = None) -> Call[Ended]:
    """End every session of somebody, in every account."""
    path = f"{values.path(_PEOPLE, user_id)}/logout-all"
    read = results.read(Ended)
    return Call("POST", path, read, is_kept=True, idempotency_key=idempotency_key)


def _rotate_signing_key(
    *, retire: bool = False, idempotency_key: str | None = None
) -> Call[SigningKey]:
    """Sign access tokens with another key; with `retire`, those signed before end at once.

    Sessions go on: whoever has a refresh token gets the next access token with it.
    """
    return Call(
        "POST",
        "/v1/operator/signing-keys/rotate",
        results.read(SigningKey),
        body={"retire": retire},
        is_kept=True,
        idempotency_key=idempotency_key,
    )


def _introspect(token: str) -> Call[Introspection]:
    """Whether a key or token of any account works, and whom it acts for."""
    path, body = "/v1/operator/introspect", {"token": token}
    return Call("POST", path, results.read(Introspection), body=body, is_answered_again=True)


class People(Resource):
    """Everybody who has a user."""

    list: Final = sync_pages(_list)
    get: Final = sync(_get)
    update: Final = sync(_update)
    sign_out: Final = sync(_sign_out)
    introspect: Final = sync(_introspect)
    rotate_signing_key: Final = sync(_rotate_signing_key)


class AsyncPeople(AsyncResource):
    """Everybody who has a user."""

    list: Final = awaited_pages(_list)
    get: Final = awaited(_get)
    update: Final = awaited(_update)
    sign_out: Final = awaited(_sign_out)
    introspect: Final = awaited(_introspect)
    rotate_signing_key: Final = awaited(_rotate_signing_key)
