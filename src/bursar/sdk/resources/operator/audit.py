"""The audit log of any account, and of what belongs to none."""

from datetime import datetime
from typing import Final

from bursar.sdk import results
from bursar.sdk.calls import Call, Page
from bursar.sdk.faces import AsyncResource, Resource, awaited, awaited_pages, sync, sync_pages
from bursar.sdk.resources.audit import AuditEvent, AuditHead, query_of, read_head

_AUDIT = "/v1/operator/audit"


def _list(
    *,
    account_id: int | None = None,
    action: str | None = None,
    actor: str | None = None,
    target: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    page_size: int | None = None,
) -> Call[Page[AuditEvent]]:
    """What was changed in an account, newest first; without `account_id`, in what belongs to none.

    The latter are prices, plans, operator keys, settings and sign-ins of nobody. The rest of the
    arguments are those of `audit.list`.
    """
    query = query_of(
        action=action, actor=actor, target=target, start=start, end=end, page_size=page_size
    )
    read = results.read_page(AuditEvent, "events")
    return Call("GET", _AUDIT, read, {"account_id": account_id, **query})


def _head(*, account_id: int | None = None) -> Call[AuditHead | None]:
    """The end of an account's log, or of the operator's; None if it has nothing yet."""
    return Call("GET", _AUDIT, read_head, {"account_id": account_id, "limit": 1})


class Audit(Resource):
    """The audit log of any account, and of what belongs to none."""

    list: Final = sync_pages(_list)
    head: Final = sync(_head)


class AsyncAudit(AsyncResource):
    """The audit log of any account, and of what belongs to none."""

    list: Final = awaited_pages(_list)
    head: Final = awaited(_head)
