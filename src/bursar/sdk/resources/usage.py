"""What your account used: the report of the last days, and single events."""

from datetime import date, datetime
from typing import Any

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


class Activity(Result):
    """A report: days newest first, models and keys by use. It shows what was there `as_of`."""

    period_days: int
    total_stats: Total
    daily_stats: tuple[Day, ...]
    top_models: tuple[ModelUsage, ...]
    api_key_usage: tuple[KeyUsage, ...]
    as_of: Moment

    def to_frame(self) -> Any:
        """The days as a pandas DataFrame; needs pandas."""
        return frames.frame(self.daily_stats)


class UsageEvent(Result):
    """One request, or whatever else was metered; `input_tokens` includes cached ones."""

    id: str
    at: Moment
    key_id: int
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
    start: datetime | None = None,
    end: datetime | None = None,
    page_size: int | None = None,
) -> Call[Page[UsageEvent]]:
    """Your account's usage, newest first: from `start` and before `end`, which have time zones."""
    query = {
        "key_id": key_id,
        "model": model,
        "from": values.moment(start),
        "to": values.moment(end),
        "limit": page_size,
    }
    read = results.read_page(UsageEvent, "events")
    return Call("GET", "/v1/account/usage/events", read, query)


class Usage(Resource):
    """What your account used."""

    activity = sync(_activity)
    events = sync_pages(_events)


class AsyncUsage(AsyncResource):
    """What your account used."""

    activity = awaited(_activity)
    events = awaited_pages(_events)
