"""Metered events: reports of what was used, priced and charged like any call, each of them once.

Owns which reports are taken, and why one is not. Each stands for itself: one that is refused keeps
none of the others from being charged. Nothing is kept of a refused one, so it may be sent again.
Must not know how a report travels.

A charge is refused where a limit of cost does not cover it, as a call would be: there is no debt.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bursar.core import permissions, refusals
from bursar.core.errors import BursarError, Conflict, Invalid, NotFound
from bursar.core.pricebook import PriceBook
from bursar.core.prices import InvalidQuantity, Price, Unpriced, cost_nanos
from bursar.core.refusals import Reason
from bursar.service import ledger
from bursar.service.metering import fields
from bursar.service.metering.fields import Event, NewEvent
from bursar.store import prices
from bursar.store.database import Database, WriteTx
from bursar.store.metering import payers
from bursar.store.metering.payers import NOBODY, Payer
from bursar.store.plane import metering
from bursar.store.plane.charges import Charge
from bursar.store.plane.metering import Short

MOST_EVENTS: Final = 1_000
ENDPOINT: Final = "meter"
# The product of what is reported by its model alone.
_PRODUCT: Final = "meter"
_REQUESTS: Final = "requests"
_COLUMNS: Final = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a report was not charged; `param` names the field at fault, if it is one."""

    code: str
    message: str
    param: str | None = None


@dataclass(slots=True)
class Receipt:
    """How many reports were charged and how many had been before; the others by their places."""

    accepted: int = 0
    duplicates: int = 0
    rejected: dict[int, Rejection] = field(default_factory=dict)


@dataclass(slots=True)
class _Round:
    """What one transaction did; `left` are the places that it did nothing about."""

    receipt: Receipt
    left: set[int]


async def record(database: Database, *, account_id: int, events: Mapping[int, NewEvent]) -> Receipt:
    """Charge what an account reports, in the order of its places; each event in one transaction.

    Where credit would be enough but for what workers have leased of it, they are asked to return
    what lies idle, for three seconds at most. All limits of the event's key (if it has one), its
    project and user, the account and the wallet apply, as of the moment that it was used.
    """
    now_ms = database.clock_ms()
    receipt = Receipt()
    pending: dict[int, Event] = {}
    for place, new in sorted(events.items()):
        try:
            pending[place] = fields.clean(new, now_ms=now_ms)
        except Invalid as refusal:
            receipt.rejected[place] = _rejection(refusal)

    async def attempt(*, waits: bool = True) -> None:
        async def work(tx: WriteTx) -> _Round:
            return await _charge(tx, account_id=account_id, pending=pending, waits=waits)

        done = await database.transact(work)
        receipt.accepted += done.receipt.accepted
        receipt.duplicates += done.receipt.duplicates
        receipt.rejected.update(done.receipt.rejected)
        for place in pending.keys() - done.left:
            del pending[place]
        if pending:
            raise ledger.is_leased()

    if pending:
        await database.catch_up()
        try:
            await ledger.when_leases_return(database, account_id=account_id, attempt=attempt)
        except Conflict:
            await attempt(waits=False)
    return receipt


async def _charge(
    tx: WriteTx, *, account_id: int, pending: Mapping[int, Event], waits: bool
) -> _Round:
    """Price and charge what is pending, in the order of its places."""
    of_keys = {event.key_id for event in pending.values() if event.key_id is not None}
    known = await payers.list_payers(tx, account_id=account_id, key_ids=of_keys)
    names = {event.model for event in pending.values()}
    named = {event.product for event in pending.values() if event.product is not None}
    book = PriceBook(await prices.list_of(tx, models=names, products=named | names))
    done = _Round(Receipt(), set(pending))
    places: list[int] = []
    charges: list[Charge] = []
    for place, event in pending.items():
        try:
            charges.append(_price(event, account_id=account_id, payers=known, book=book))
        except (Invalid, NotFound) as refusal:
            done.receipt.rejected[place] = _rejection(refusal)
        else:
            places.append(place)
    if charges:
        limits = {key_id: payer.limits for key_id, payer in known.items()}
        found = await metering.charge(
            tx, account_id=account_id, charges=charges, limits=limits, waits=waits
        )
        done.receipt.accepted = len(found.charged)
        done.receipt.duplicates = len(found.known)
        done.left -= {places[n] for n in (*found.charged, *found.known)}
        for n, short in found.short:
            if not (waits and short.is_leased):
                done.receipt.rejected[places[n]] = _short(short, tx.now_ms)
    done.left -= done.receipt.rejected.keys()
    return done


def _price(
    event: Event, *, account_id: int, payers: Mapping[int, Payer], book: PriceBook
) -> Charge:
    payer = payers.get(event.key_id or NOBODY)
    if payer is None or event.key_id == NOBODY or _was_deleted(payer, event):
        message = "There is no such inference key in this account, or not any more at that time."
        raise NotFound("not_found", message, param="key_id")
    price = _find_price(event, book)
    quantities = dict(event.quantities)
    if price.tables[0].per_request:
        quantities.setdefault(_REQUESTS, 1)
    try:
        cost = cost_nanos(price, quantities)
    except Unpriced as error:
        raise Invalid(Reason.MODEL_NOT_PRICED.code, str(error), param="quantities") from error
    except InvalidQuantity as error:
        raise Invalid("invalid_value", str(error), param="quantities") from error
    others = {meter: n for meter, n in event.quantities.items() if n and meter not in _COLUMNS}
    labels = {**payer.labels, **event.labels}
    return Charge(
        seq=0,
        event_id=event.id,
        at_ms=event.at_ms,
        account_id=account_id,
        key_id=payer.key_id,
        user_id=payer.user_id,
        project_id=payer.project_id,
        product=event.product or price.product or _PRODUCT,
        endpoint=ENDPOINT,
        model=event.model,
        upstream="",
        outcome="ok",
        is_stream=0,
        is_estimated=0,
        **{name: quantities.get(name, 0) for name in _COLUMNS},
        quantities=json.dumps(others) if others else None,
        price_id=price.id,
        cost_nanos=cost,
        excess_nanos=0,
        duration_ms=0,
        first_byte_ms=0,
        labels=permissions.encode_labels(labels) if labels else None,
        moves=[],
    )


def _was_deleted(payer: Payer, event: Event) -> bool:
    return payer.deleted_ms is not None and payer.deleted_ms < event.at_ms


def _find_price(event: Event, book: PriceBook) -> Price:
    """The price of the model or, where that has none, of the product, at the moment of use."""
    for found in (
        book.find(event.model, at_ms=event.at_ms),
        book.find_product(event.product or event.model, at_ms=event.at_ms),
    ):
        if found is not None:
            return found
    message = f"There was no price for {event.product or event.model} at that time."
    param = "model" if event.product is None else "product"
    raise Invalid(Reason.MODEL_NOT_PRICED.code, message, param=param)


def _short(short: Short, now_ms: int) -> Rejection:
    refused = refusals.deny_by_limit(
        short.allowance.ref,
        limit=short.allowance.limit,
        left=short.allowance.left or 0,
        needed=short.needed,
        resets_at_ms=short.resets_at_ms,
        now_ms=now_ms,
    )
    return Rejection(refused.reason.code, refused.message)


def _rejection(refusal: BursarError) -> Rejection:
    return Rejection(refusal.code, refusal.message, refusal.param)
