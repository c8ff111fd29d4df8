"""The registry: every route of the dialect's control part, and which keys may call it.

Owns the list; the application is built from it and from nothing else. Model calls at /api/v1 are
the gateway's. Must not know what an endpoint does.
"""

from typing import Final

from bursar.dialects.application import Route
from bursar.dialects.venice import billing, history, keys, limits, models
from bursar.service.access import InferencePrincipal, ProvisioningPrincipal

PREFIX: Final = "/api/v1"
# What model endpoints have in front of our paths, and the field in which they say what is left.
MODELS_PREFIX: Final = b"/api"
BALANCE_FIELD: Final = b"x-venice-balance-usd"
_ADMIN: Final = (ProvisioningPrincipal,)
_ANY_KEY: Final = (InferencePrincipal, ProvisioningPrincipal)
_HISTORY: Final = ("currency", "startTimestamp", "endTimestamp", "pageSize", "cursor")
_USAGE: Final = ("currency", "startDate", "endDate", "limit", "page", "sortOrder")
_LOG: Final = ("api_key_id", "start_date", "end_date", "limit", "offset", "page")


def make(*, served: models.Served, shows_totals: bool) -> tuple[Route, ...]:
    """Return the routes.

    `served` says which models there are; `shows_totals` whether the usage history, asked for
    without a parameter and a media type, is one object of totals (see `history`).
    """
    show_limits = limits.shower(served)
    return (
        Route("GET", "/api_keys", _ADMIN, keys.list_keys, ("id", "page", "limit")),
        Route("POST", "/api_keys", _ADMIN, keys.create, has_body=True),
        Route("PATCH", "/api_keys", _ADMIN, keys.update, has_body=True),
        Route("DELETE", "/api_keys", _ADMIN, keys.delete, ("id",)),
        Route("GET", "/api_keys/rate_limits", _ANY_KEY, show_limits),
        Route("GET", "/api_keys/rate_limits/log", _ADMIN, limits.list_log, _LOG),
        Route("GET", "/api_keys/{key_id}", _ADMIN, keys.show),
        Route("GET", "/billing/balance", _ADMIN, billing.show_balance),
        Route("GET", "/billing/summary", _ADMIN, billing.show_summary),
        Route("GET", "/billing/usage", _ADMIN, history.list_pages, _USAGE),
        Route("GET", "/billing/usage-history", _ADMIN, history.walker(shows_totals), _HISTORY),
        Route(
            "GET",
            "/billing/usage-analytics",
            _ANY_KEY,
            billing.show_analytics,
            ("lookback", "startDate", "endDate"),
        ),
        Route("GET", "/models", None, models.lister(served), ("type",)),
    )
