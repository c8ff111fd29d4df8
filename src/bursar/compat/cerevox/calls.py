"""Every call of the account API, described once; both faces carry these out.

Owns where the dialect is, and what becomes of tokens. Must not know the network.
"""

from dataclasses import replace
from datetime import date
from typing import Final, TypeVar

from bursar.compat.cerevox.models import (
    AccountInfo,
    AccountPlan,
    BillingInfo,
    CreatedUser,
    DeletedResponse,
    MessageResponse,
    TokenResponse,
    UpdatedUser,
    UsageStats,
    User,
)
from bursar.sdk import flow, results, values
from bursar.sdk.calls import Answer, Call
from bursar.sdk.configuration import Options
from bursar.sdk.flow import Steps
from bursar.sdk.results import Listing
from bursar.sdk.sessions import renewal
from bursar.sdk.sessions.renewal import Session
from bursar.sdk.values import Secret

T = TypeVar("T")

OWN: Final = "my"
_LOGIN: Final = "/v1/token/login"
_REVOKE: Final = "/v1/token/revoke"
_ACCOUNTS: Final = "/v1/accounts"
_USERS: Final = "/v1/users"
_ME: Final = "/v1/users/me"


class Tokens:
    """Who has signed in with a client, if anybody: their calls are theirs instead of the key's.

    Their tokens are renewed as those of the SDK's own clients are.
    """

    def __init__(self) -> None:
        self._session: Session | None = None

    def carry_out(self, call: Call[T], options: Options) -> Steps[tuple[T, Answer]]:
        """Carry out a call: its value, and the answer that it was read from."""
        if self._session is not None:
            options = replace(options, api_key=None, session=self._session)
        answer = yield from flow.exchange(call, options)
        value = call.read(answer)
        if isinstance(value, TokenResponse):
            self._session = renewal.go_on(
                Secret(value.access_token),
                Secret(value.refresh_token),
                expires_in_s=value.expires_in,
                base_url=options.base_url,
            )
        elif call.path == _REVOKE:
            self._session = None
        return value, answer


# ── Tokens ──────────────────────────────────────────────────────────────────────────────────────


def login(email: str, password: str, code: str | None = None) -> Call[TokenResponse]:
    """Sign in: later calls are the person's. `code` is one of their second factor."""
    body: dict[str, object] = {"email": email, "password": password}
    if code is not None:
        body["code"] = code
    return Call(
        "POST", _LOGIN, results.read(TokenResponse), body=body, is_public=True, is_anonymous=True
    )


def refresh_token(refresh_token: str) -> Call[TokenResponse]:
    """Get the tokens after these; a refresh token is good for once."""
    return Call(
        "POST",
        "/v1/token/refresh",
        results.read(TokenResponse),
        body={"refresh_token": refresh_token},
        is_public=True,
        is_anonymous=True,
        is_answered_again=True,
    )


def revoke_token() -> Call[MessageResponse]:
    """Sign out: end the session of who has signed in with this client."""
    return Call("POST", _REVOKE, results.read(MessageResponse))


# ── The account ─────────────────────────────────────────────────────────────────────────────────


def get_account_info() -> Call[AccountInfo]:
    """The account, and who asks."""
    return Call("GET", f"{_ACCOUNTS}/{OWN}", results.read(AccountInfo))


def get_account_plan(account_id: str = OWN) -> Call[AccountPlan]:
    """The account's plan, and what it allows."""
    return Call("GET", values.path(_ACCOUNTS, account_id, "plan"), _read_plan)


def get_account_usage(account_id: str = OWN) -> Call[UsageStats]:
    """What was used in the present month."""
    return Call("GET", values.path(_ACCOUNTS, account_id, "usage"), results.read(UsageStats))


def get_usage(
    start_date: str | date | None = None, end_date: str | date | None = None
) -> Call[UsageStats]:
    """What was used from one day to another, both included, or in the present month."""
    days = {"start_date": _day(start_date), "end_date": _day(end_date)}
    return Call("GET", f"{_ACCOUNTS}/{OWN}/usage", results.read(UsageStats), days)


def get_billing_info() -> Call[BillingInfo]:
    """What the present calendar month has come to, by product."""
    return Call("GET", f"{_ACCOUNTS}/{OWN}/billing", results.read(BillingInfo))


# ── Users ───────────────────────────────────────────────────────────────────────────────────────


def list_users() -> Call[Listing[User]]:
    """Everybody in the account, and everybody who is invited."""
    return Call("GET", _USERS, results.read_list(User, "users"))


def create_user(email: str, name: str | None = None, role: str = "member") -> Call[CreatedUser]:
    """Invite somebody by mail as owner, admin, member or viewer; it takes an admin."""
    body: dict[str, object] = {"email": email, "role": role}
    if name is not None:
        body["name"] = name
    return Call("POST", _USERS, results.read(CreatedUser), body=body, is_kept=True)


def get_user_me() -> Call[User]:
    """Whom the key or the token acts for."""
    return Call("GET", _ME, results.read(User))


def update_user_me(name: str) -> Call[UpdatedUser]:
    """Change your own name."""
    return Call("PUT", _ME, results.read(UpdatedUser), body={"name": name})


def get_user(user_id: str) -> Call[User]:
    """One user."""
    return Call("GET", values.path(_USERS, user_id), results.read(User))


def update_user(
    user_id: str, name: str | None = None, role: str | None = None
) -> Call[UpdatedUser]:
    """Change what the account calls somebody, or their role; it takes an admin."""
    given = {"name": name, "role": role}
    body = {field: value for field, value in given.items() if value is not None}
    return Call("PUT", values.path(_USERS, user_id), results.read(UpdatedUser), body=body)


def delete_user(user_id: str, email: str) -> Call[DeletedResponse]:
    """Take somebody out of the account; the address must be theirs. It takes an admin."""
    path = values.path(_USERS, user_id)
    return Call("DELETE", path, _read_deletion, body={"email": email})


def _read_plan(answer: Answer) -> AccountPlan:
    return results.parse(AccountPlan, answer.document("plan")["plan"], answer)


def _read_deletion(answer: Answer) -> DeletedResponse:
    """Of a deletion that was sent again there may be nothing to read: it was done before."""
    said = {} if answer.status == 204 else answer.document("deleted")
    return results.parse(DeletedResponse, said, answer)


def _day(day: str | date | None) -> str | None:
    return day.isoformat() if isinstance(day, date) else day
