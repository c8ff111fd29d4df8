"""What your account used: the report of the last days, and single events."""

from datetime import date, datetime
from typing import Any, Final

from bursar.sdk import frames, results, values
from bursar.sdk.calls import Call, Page
from bursar.sdk.faces import AsyncResource, Resource, awaited, awaited_pages, sync, sync_pages
from bursar.sdk.results import Moment, Result, Usd


class Total(Result):
    """What was used in a whole period; cost in USD."""

    total_requests: int
    total_cost: Usd
    total_input_tokens: int
    total_output_tokens: int


class Day(Total):
    """What was used on one day, in UTC."""

    date: date


class Part(Result):
    """What one model or one key was used for; cost in USD."""

    request_count: int
    total_cost: Usd
    total_input_tokens: int
    total_output_tokens: int


class ModelUsage(Part):
    """What one model was used for."""

    model_name: str


class KeyUsage(Part):
    """What one key, deleted or not, was used for."""

    api_key_id: int
    api_key_name: str


class ProjectUsage(Part):
    """What the keys of one project, deleted or not, were used for while they belonged to it."""

    project_id: int
    project_name: str


class Activity(Result):
    """A report: days newest first, the rest by use. It shows what was there `as_of`."""

    period_days: int
    total_stats: Total
    daily_stats: tuple[Day, ...]
    top_models: tuple[ModelUsage, ...]
    api_key_usage: tuple[KeyUsage, ...]
    project_usage: tuple[ProjectUsage, ...] = ()
    as_of: Moment

    def to_frame(self) -> Any:
        """The days as a pandas DataFrame; needs pandas."""
        return frames.frame(self.daily_stats, Day)


class UsageEvent(Result):
    """One request, or whatever else was metered; cost in USD, `input_tokens` with cached ones."""

    id: str
    at: Moment
    key_id: int | None
    model: str
    product: str
    endpoint: str
    outcome: str
    is_stream: bool
    is_estimated: bool
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    quantities: dict[str, Any] | None
    cost: Usd
    duration_ms: int
    first_byte_ms: int
    labels: dict[str, Any] | None
    project_id: int | None = None
    user_id: int | None = None


class Sum(Result):
    """What was used; cost in USD, `input_tokens` includes cached ones."""

    request_count: int
    total_cost: Usd
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int


class Group(Sum):
    """What one group used: its id, name or label value, None for usage that has none."""

    group: str | int | None
    name: str | None


class Summary(Result):
    """Usage of a span by group, the dearest first; `other` is that of further groups together.

    `starts_at` is in the span and `ends_at` is not; None is now.
    """

    group_by: str
    starts_at: Moment
    ends_at: Moment | None
    total: Sum
    groups: tuple[Group, ...]
    other: Sum | None

    def to_frame(self) -> Any:
        """The groups as a pandas DataFrame; needs pandas."""
        return frames.frame(self.groups, Group)


def _activity(*, days: int = 30, fresh: bool = False) -> Call[Activity]:
    """What your account used in the last days (1 to 30), in sum and by day, model and key.

    The report may be some minutes old; `fresh` has it made anew.
    """
    query = {"days": days, "fresh": True if fresh else None}
    return Call("GET", "/v1/account/activity", results.read(Activity), query)


def _events(
    *,
    key_id: int | None = None,
    model: str | None = None,
    project_id: int | None = None,
    label: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    page_size: int | None = None,
) -> Call[Page[UsageEvent]]:
    """Your account's usage, newest first: from `start` and before `end`, which have time zones.

    A `label` is `name=value`.
    """
    query = {
        "key_id": key_id,
        "model": model,
        "project_id": project_id,
        "label": label,
        "from": values.moment(start),
        "to": values.moment(end),
        "limit": page_size,
    }
    read = results.read_page(UsageEvent, "events")
    return Call("GET", "/v1/account/usage/events", read, query)


def _summary(
    *,
    group_by: str,
    start: datetime | None = None,
    end: datetime | None = None,
    key_id: int | None = None,
    project_id: int | None = None,
    user_id: int | None = None,
    model: str | None = None,
    label: str | None = None,
    most_groups: int | None = None,
) -> Call[Summary]:
    """What was used from `start` (30 days ago) and before `end` (now), by what it is grouped by.

    That is `key`, `project`, `user`, `model`, `endpoint`, or `label:` and a label's name.
    """
    query = {
        "group_by": group_by,
        "from": values.moment(start),
        "to": values.moment(end),
        "key_id": key_id,
        "project_id": project_id,
        "user_id": user_id,
        "model": model,
        "label": label,
        "limit": most_groups,
    }
    return Call("GET", "/v1/account/usage/summary", results.read(Summary), query)


class Usage(Resource):
    """What your account used."""

    activity: Final = sync(_activity)
    events: Final = sync_pages(_events)
    summary: Final = sync(_summary)


class AsyncUsage(AsyncResource):
    """What your account used."""

    activity: Final = awaited(_activity)
    events: Final = awaited_pages(_events)
    summary: Final = awaited(_summary)
