"""Metered events over HTTP: a batch of reports, and what became of them.

Owns their shapes, and that one report that cannot be read keeps none of the others from being
taken. Must not know prices or limits; `service.metering` does.
"""

from typing import Annotated, Any, Final

from pydantic import Field, WithJsonSchema
from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.core.errors import Invalid
from bursar.edge.body import Model, check
from bursar.edge.calls import JSON, Call, encode, reply
from bursar.edge.fields import IdIn, MomentIn
from bursar.service import idempotency
from bursar.service.access import ProvisioningPrincipal
from bursar.service.idempotency import Answer, Request
from bursar.service.metering import events
from bursar.service.metering.events import MOST_EVENTS, Receipt, Rejection
from bursar.service.metering.fields import NewEvent
from bursar.store.database import WriteTx

# A thousand events of full size; most have a tenth of that.
MOST_BYTES: Final = 2_097_152


class EventFields(Model):
    """What was used: so much of each meter, of a product or a model; without `at`, now.

    An `id` is charged once, however often it is sent. With `key_id` the limits of that inference
    key apply too, and its labels go with those that are given.
    """

    id: str
    quantities: dict[str, int]
    at: MomentIn | None = None
    product: str | None = None
    model: str | None = None
    key_id: IdIn | None = None
    labels: dict[str, str] | None = None


# Each is checked by itself: a document that has one which does not fit is taken all the same.
EventIn = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "title": "Event", "description": EventFields.__doc__}),
]


class EventListFields(Model):
    """What was used, at most 1000 events."""

    events: list[EventIn] = Field(min_length=1, max_length=MOST_EVENTS)


class RejectionShape(TypedDict):
    """Why the event at this place of the list (from 0) was not charged; it may be sent again."""

    index: int
    code: str
    message: str
    param: str | None


class ReceiptShape(TypedDict):
    """How many events were charged, how many had been before, and which were refused."""

    accepted: int
    duplicates: int
    rejected: list[RejectionShape]


async def record(call: Call[ProvisioningPrincipal]) -> Response:
    """Report what was used beside the gateway: documents, images, storage, anything with a price.

    Each event is charged once by its id, or refused by itself with a code. A limit of cost that
    does not cover it refuses it; limits of requests and tokens count it.
    """
    fields = check(EventListFields, call.document)
    request = _request(call)
    if request is None:
        return reply(await _record(call, fields))
    plane = call.plane
    with plane.running.hold(request):

        async def find(tx: WriteTx) -> Answer | None:
            return await idempotency.find_answer(tx, request=request)

        kept = await plane.database.transact(find)
        if kept is not None:
            headers = {"idempotent-replayed": "true"}
            return Response(kept.body, kept.status, headers, media_type=JSON)
        # Events are charged in transactions of their own. Whoever repeats the request after a crash
        # between those and this one is told that they are duplicates.
        done = Answer(200, encode(await _record(call, fields)))

        async def keep(tx: WriteTx) -> None:
            if await idempotency.find_answer(tx, request=request) is None:
                await idempotency.keep_answer(
                    tx, request=request, answer=done, random_bytes=plane.random_bytes
                )

        await plane.database.transact(keep)
    return Response(done.body, done.status, media_type=JSON)


async def _record(call: Call[ProvisioningPrincipal], fields: EventListFields) -> ReceiptShape:
    read: dict[int, NewEvent] = {}
    refused: dict[int, Rejection] = {}
    for place, document in enumerate(fields.events):
        try:
            read[place] = _read(document)
        except Invalid as refusal:
            refused[place] = Rejection(refusal.code, refusal.message, refusal.param)
    receipt = await events.record(
        call.plane.database, account_id=call.caller.account_id, events=read
    )
    receipt.rejected.update(refused)
    return _shape(receipt)


def _read(document: dict[str, Any]) -> NewEvent:
    event = check(EventFields, document)
    return NewEvent(
        id=event.id,
        quantities=event.quantities,
        at_ms=event.at,
        product=event.product,
        model=event.model,
        key_id=event.key_id,
        labels=event.labels,
    )


def _shape(receipt: Receipt) -> ReceiptShape:
    return ReceiptShape(
        accepted=receipt.accepted,
        duplicates=receipt.duplicates,
        rejected=[
            RejectionShape(
                index=place, code=refusal.code, message=refusal.message, param=refusal.param
            )
            for place, refusal in sorted(receipt.rejected.items())
        ],
    )


def _request(call: Call[ProvisioningPrincipal]) -> Request | None:
    if call.idempotency_key is None:
        return None
    return Request(
        account_id=call.caller.account_id,
        key_id=call.caller.key_id,
        route=call.route,
        key=call.idempotency_key,
        body=call.body,
        secret=call.caller.seal or call.secret,
    )
