"""Alerts: what somebody should look at."""

from typing import Any, Final

from bursar.sdk import results
from bursar.sdk.calls import Call, Page
from bursar.sdk.faces import AsyncResource, Resource, awaited_pages, sync_pages
from bursar.sdk.results import Moment, Result


class Alert(Result):
    """What somebody should look at: `kind` for programs, `message` for people."""

    id: int
    at: Moment
    kind: str
    message: str
    details: dict[str, Any]


def _list(*, page_size: int | None = None) -> Call[Page[Alert]]:
    """Your account's alerts, newest first."""
    query = {"limit": page_size}
    return Call("GET", "/v1/account/alerts", results.read_page(Alert, "alerts"), query)


class Alerts(Resource):
    """Alerts."""

    list: Final = sync_pages(_list)


class AsyncAlerts(AsyncResource):
    """Alerts."""

    list: Final = awaited_pages(_list)
