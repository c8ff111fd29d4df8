"""The registry: every route of the dialect, and who may call it.

Owns the list; the application is built from it and from nothing else. Must not know what an
endpoint does.
"""

from typing import Final

from bursar.core.people.roles import Action
from bursar.dialects.application import Route
from bursar.dialects.cerevox import accounts, tokens, users
from bursar.service.access import ProvisioningPrincipal

PREFIX: Final = "/v1"
# What stands behind the prefix: beside it are our own paths, `/v1/account` among them.
BRANCHES: Final = (b"/v1/token", b"/v1/accounts", b"/v1/users")
_OWNER: Final = (ProvisioningPrincipal,)
_ACCOUNT: Final = "/accounts/{account_id}"
_DAYS: Final = ("start_date", "end_date")
_USER: Final = "/users/{user_id}"

ROUTES: Final[tuple[Route, ...]] = (
    Route("POST", "/token/login", None, tokens.start, has_body=True),
    Route("POST", "/token/refresh", None, tokens.refresh, has_body=True),
    Route("POST", "/token/revoke", _OWNER, tokens.revoke, action=Action.OWN_PROFILE),
    Route("GET", _ACCOUNT, _OWNER, accounts.show),
    Route("GET", f"{_ACCOUNT}/plan", _OWNER, accounts.show_plan),
    Route("GET", f"{_ACCOUNT}/usage", _OWNER, accounts.show_usage, _DAYS),
    Route("GET", f"{_ACCOUNT}/billing", _OWNER, accounts.show_billing),
    Route("GET", "/users", _OWNER, users.list_users),
    Route("POST", "/users", _OWNER, users.create, has_body=True, action=Action.PEOPLE),
    # In front of those with an id: paths match in this order.
    Route("GET", "/users/me", _OWNER, users.show_self),
    Route("PUT", "/users/me", _OWNER, users.update_self, has_body=True, action=Action.OWN_PROFILE),
    Route("GET", _USER, _OWNER, users.show),
    Route("PUT", _USER, _OWNER, users.update, has_body=True, action=Action.PEOPLE),
    Route("DELETE", _USER, _OWNER, users.delete, has_body=True, action=Action.PEOPLE),
)
