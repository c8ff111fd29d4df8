"""Summaries: usage of a span by key, project, user, model, endpoint or label.

Owns which spans can be summed, and what is left over where there are many groups. Must not know how
a summary is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bursar.core import permissions
from bursar.core.errors import Invalid
from bursar.store import keys, summaries
from bursar.store.database import ReadTx
from bursar.store.summaries import DAY_MS, HOUR_MS, GroupSum, SummaryFilter
from bursar.store.tenants import projects, users

GROUPS: Final = ("key", "project", "user", "model", "endpoint")
LABEL: Final = "label:"
DEFAULT_DAYS: Final = 30
# Labels are in no roll-up: every single event of the span is read.
_MOST_LABELLED_MS: Final = 31 * DAY_MS


@dataclass(frozen=True, slots=True)
class Group:
    """What one group used; `name` is what it is called, None for what has no name of its own."""

    sums: GroupSum
    name: str | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Usage of a span: all of it, the largest groups, and the rest (None: there is no rest)."""

    where: SummaryFilter
    total: GroupSum
    groups: list[Group]
    other: GroupSum | None


def parse_group(text: str) -> str:
    """Return what to group by; raises Invalid (`invalid_value`, `invalid_label`)."""
    if text.startswith(LABEL):
        permissions.clean_label_name(text.removeprefix(LABEL), param="group_by")
    elif text not in GROUPS:
        message = f"Group by one of: {', '.join(GROUPS)}, or {LABEL} and a label's name."
        raise Invalid("invalid_value", message, param="group_by")
    return text


async def summarize(
    tx: ReadTx,
    *,
    account_id: int,
    group_by: str,
    where: SummaryFilter,
    limit: int,
    now_ms: int,
) -> Summary:
    """Return the account's usage by group, the dearest first; `group_by` is of `parse_group`.

    Raises Invalid (`invalid_range`) for a span that ends before it begins, does not begin and end
    with a full hour, or is too long for labels.
    """
    is_labelled = group_by.startswith(LABEL) or where.label is not None
    _check_span(where, is_labelled=is_labelled, now_ms=now_ms)
    found = await summaries.sum_by_group(tx, account_id=account_id, group_by=group_by, where=where)
    # Text of one thing and of another would not compare: None is not text.
    found.sort(key=lambda sums: (-sums.cost_nanos, -sums.requests, str(sums.group or "")))
    names = await _names(tx, account_id=account_id, group_by=group_by)
    groups = [Group(sums, names.get(sums.group)) for sums in found[:limit]]
    other = _total(found[limit:]) if len(found) > limit else None
    return Summary(where, _total(found), groups, other)


def default_start(now_ms: int) -> int:
    """The beginning of the span that is summed when nobody says otherwise: 30 days, with today."""
    return now_ms - now_ms % DAY_MS - (DEFAULT_DAYS - 1) * DAY_MS


def _check_span(where: SummaryFilter, *, is_labelled: bool, now_ms: int) -> None:
    to_ms = where.to_ms
    if to_ms is not None and where.from_ms > to_ms:
        raise Invalid("invalid_range", "The span must not end before it begins.", param="from")
    if is_labelled:
        end_ms = now_ms if to_ms is None else to_ms
        if end_ms - where.from_ms > _MOST_LABELLED_MS:
            message = "By label at most 31 days can be summed at once."
            raise Invalid("invalid_range", message, param="from")
        return
    for param, at_ms in (("from", where.from_ms), ("to", to_ms or 0)):
        if at_ms % HOUR_MS:
            message = "The span must begin and end with a full hour, in UTC."
            raise Invalid("invalid_range", message, param=param)


async def _names(tx: ReadTx, *, account_id: int, group_by: str) -> dict[str | int | None, str]:
    found: dict[int, str] = {}
    if group_by == "key":
        found = await keys.list_names(tx, account_id=account_id)
    elif group_by == "project":
        found = await projects.list_names(tx, account_id=account_id)
    elif group_by == "user":
        found = await users.list_names(tx, account_id=account_id)
    return dict(found.items())


def _total(parts: Sequence[GroupSum]) -> GroupSum:
    return GroupSum(
        group=None,
        requests=sum(part.requests for part in parts),
        cost_nanos=sum(part.cost_nanos for part in parts),
        input_tokens=sum(part.input_tokens for part in parts),
        cached_input_tokens=sum(part.cached_input_tokens for part in parts),
        output_tokens=sum(part.output_tokens for part in parts),
        reasoning_tokens=sum(part.reasoning_tokens for part in parts),
    )
