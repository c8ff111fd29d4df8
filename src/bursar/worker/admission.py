"""Admission: may this request go ahead, decided from memory in one step.

Owns the order in which allowances are asked and the words of a refusal. Must not wait, look at a
clock, or know where leases come from. Either every applicable allowance holds what the request
needs, or none does: a refusal consumes nothing of any limit.
"""

from collections.abc import Sequence

from bursar.core.refusals import ORDER, Deny, deny_by_limit, reason_of
from bursar.worker.purse import CONCURRENCY, Amounts, Hold, Lease, Slot


def admit(slots: Sequence[Slot], needs: Amounts, now_ms: int) -> Hold | list[Slot]:
    """Hold the request's needs on every slot, or say which slots are too short for it."""
    parts: list[tuple[Slot, Lease | None]] = []
    short: list[Slot] = []
    for slot in slots:
        if not slot.is_leased:
            parts.append((slot, None))
            continue
        lease = slot.lease if now_ms < slot.lease.end_ms else slot.current(now_ms)
        if lease.available >= needs[slot.index]:
            parts.append((slot, lease))
        elif slot.limit is not None or now_ms >= slot.exhausted_until_ms:
            short.append(slot)
        # Else the ledger, by other clocks, is in a later window, where this call does not count: a
        # limit that stops nobody does not do so then.
    if short:
        return short
    hold = Hold(needs, parts, now_ms)
    for slot, held in parts:
        if held is not None:
            amount = needs[slot.index]
            held.available -= amount
            held.held += amount
            slot.touched_ms = now_ms
            slot.peak = max(slot.peak, held.held)
            if held.available < slot.low_water:
                hold.is_low = True
    return hold


def dry(slots: Sequence[Slot]) -> list[Slot]:
    """The slots that should be refilled before the next requests find them empty."""
    return [
        slot
        for slot in slots
        if slot.is_leased and slot.lease.available < slot.low_water and not slot.is_refilling
    ]


def is_settled(short: Sequence[Slot], needs: Amounts, now_ms: int) -> bool:
    """True when the store has said lately that a short slot cannot be filled."""
    return any(_is_exhausted(slot, needs, now_ms) for slot in short)


def refuse(short: Sequence[Slot], needs: Amounts, now_ms: int) -> Deny:
    """The refusal for the slot that stands most in the way: spent credit, rate, held credit.

    Credit that only requests in flight hold is worth waiting for (429 `credit_held`); credit that
    is spent is not (402 `insufficient_quota`).
    """
    # What is known to be spent goes first though nobody has asked the store for it: the answer must
    # not depend on which limit happened to be asked about before.
    certain = [s for s in short if _is_exhausted(s, needs, now_ms) or _is_beyond(s, needs)]
    slot = min(certain or short, key=lambda each: (_precedence(each, needs), each.ref))
    # Calls at once are never used up, only held: there are none left where one is refused.
    left = 0 if slot.index == CONCURRENCY else max(0, slot.known_left or 0)
    return deny_by_limit(
        slot.ref,
        limit=slot.limit,
        left=left,
        needed=needs[slot.index],
        resets_at_ms=None if slot.ref.window == "lifetime" else slot.lease.end_ms,
        now_ms=now_ms,
    )


def _is_exhausted(slot: Slot, needs: Amounts, now_ms: int) -> bool:
    missing = needs[slot.index] - slot.lease.available
    return now_ms < slot.exhausted_until_ms and missing >= max(1, slot.exhausted_need)


def _is_beyond(slot: Slot, needs: Amounts) -> bool:
    return slot.known_left is not None and needs[slot.index] > slot.known_left


def _precedence(slot: Slot, needs: Amounts) -> int:
    left = max(0, slot.known_left or 0)
    return ORDER[reason_of(slot.ref.resource, needed=needs[slot.index], left=left)]
