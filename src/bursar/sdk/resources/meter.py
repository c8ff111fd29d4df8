"""Metering: reporting what was used beside the gateway, to be priced and charged like any call."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NotRequired, TypedDict

from bursar.sdk import results, values
from bursar.sdk.calls import Call
from bursar.sdk.faces import AsyncResource, Resource, awaited, sync
from bursar.sdk.results import Result


class MeterEvent(TypedDict):
    """What was used: so much of each meter, of a product or a model; without `at`, now.

    An `id` is charged once, however often it is sent. With `key_id` the limits of that key apply
    too, and its labels go with those that are given.
    """

    id: str
    quantities: Mapping[str, int]
    product: NotRequired[str]
    model: NotRequired[str]
    at: NotRequired[datetime]
    key_id: NotRequired[int]
    labels: NotRequired[Mapping[str, str]]


class Rejection(Result):
    """Why the event at `index` of the list, from 0, was not charged; it may be sent again."""

    index: int
    code: str
    message: str
    param: str | None = None


class Receipt(Result):
    """How many events were charged, how many had been before, and which were refused."""

    accepted: int
    duplicates: int
    rejected: tuple[Rejection, ...]


def _record(events: Sequence[MeterEvent], *, idempotency_key: str | None = None) -> Call[Receipt]:
    """Report up to 1000 events; each is charged once by its `id`, or refused by itself.

    Nothing is raised for an event that is refused: look at `rejected`, whose codes are those of
    the errors, such as `insufficient_quota`.
    """
    return Call(
        "POST",
        "/v1/meter/events",
        results.read(Receipt),
        body={"events": [_fields(event) for event in events]},
        is_kept=True,
        idempotency_key=idempotency_key,
    )


def _fields(event: MeterEvent) -> dict[str, object]:
    fields: dict[str, object] = {**event}
    return {**fields, "at": values.moment(event["at"])} if "at" in event else fields


class Meter(Resource):
    """Metering."""

    record: Final = sync(_record)


class AsyncMeter(AsyncResource):
    """Metering."""

    record: Final = awaited(_record)
