"""The audit log: who changed what, from where, and what it was before."""

from datetime import datetime
from typing import Any, Final

from bursar.sdk import results, values
from bursar.sdk.calls import Answer, Call, Page
from bursar.sdk.faces import AsyncResource, Resource, awaited, awaited_pages, sync, sync_pages
from bursar.sdk.results import Moment, Result

_AUDIT = "/v1/account/audit"


class AuditEvent(Result):
    """One change: `actor` did `action` (`key.create`) to `target` (`key:12`).

    `before` and `after` have what has changed, amounts in USD as text; None is for what was not
    there, or is not there any more. `hash` vouches for this event and all before it.
    """

    id: int
    at: Moment
    action: str
    target: str
    actor: str
    address: str
    request_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    hash: str


class AuditHead(Result):
    """The end of a log: keep it elsewhere, to notice if rows are ever cut off."""

    id: int
    hash: str


def query_of(
    *,
    action: str | None,
    actor: str | None,
    target: str | None,
    start: datetime | None,
    end: datetime | None,
    page_size: int | None,
) -> dict[str, object]:
    """Return the parameters of a look into a log."""
    return {
        "action": action,
        "actor": actor,
        "target": target,
        "from": values.moment(start),
        "to": values.moment(end),
        "limit": page_size,
    }


def read_head(answer: Answer) -> AuditHead | None:
    """Return the head of the log in an answer, None of a log that has nothing yet."""
    head = answer.document("head")["head"]
    return None if head is None else results.parse(AuditHead, head, answer)


def _list(
    *,
    action: str | None = None,
    actor: str | None = None,
    target: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    page_size: int | None = None,
) -> Call[Page[AuditEvent]]:
    """What was changed in your account, newest first: from `start` and before `end`.

    An `action` is as `key.create`, or a noun as `key` for all that is done with keys; `actor` and
    `target` are a kind and an id, as `user:5`. Raises Forbidden for those who may not look into it.
    """
    query = query_of(
        action=action, actor=actor, target=target, start=start, end=end, page_size=page_size
    )
    return Call("GET", _AUDIT, results.read_page(AuditEvent, "events"), query)


def _head() -> Call[AuditHead | None]:
    """The end of your account's log, None if it has nothing yet."""
    return Call("GET", _AUDIT, read_head, {"limit": 1})


class Audit(Resource):
    """The audit log of your account."""

    list: Final = sync_pages(_list)
    head: Final = sync(_head)


class AsyncAudit(AsyncResource):
    """The audit log of your account."""

    list: Final = awaited_pages(_list)
    head: Final = awaited(_head)
