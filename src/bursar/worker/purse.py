"""The purse: every lease that this worker holds, and the holds that requests have on them.

Owns the arithmetic of hold, settle and release in memory. Everything here is a plain function: on
one event loop a function that never awaits is atomic, so two requests cannot both get the last
cent, and a cancelled request's clean-up cannot be cancelled again half-way.

A slot is one allowance as this worker sees it. Its lease belongs to one window; when the window
ends the slot begins a new, empty lease, and requests in flight keep the old one.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

import msgspec

from bursar.core.allowances import Allowance, AllowanceRef, Resource
from bursar.core.windows import Window, bounds
from bursar.store.plane.charges import Move

COST, REQUESTS, TOKENS, CONCURRENCY = range(4)
_INDEX = {
    Resource.COST.value: COST,
    Resource.REQUESTS.value: REQUESTS,
    Resource.TOKENS.value: TOKENS,
    Resource.CONCURRENCY.value: CONCURRENCY,
}
_NEVER_MS = 2**62


# Makes a move of a tuple of its fields, at a third of what its own constructor takes.
_move: Final[Callable[[tuple[object, ...]], Move]] = partial(tuple.__new__, Move)


class Amounts(NamedTuple):
    """What a request needs, or truly used, of each resource."""

    cost_nanos: int
    requests: int
    tokens: int
    concurrency: int


class Lease:
    """A slice of one allowance in one window: available + held + pending is what the store says.

    `held` is set aside for requests in flight; `pending` is spent but not settled yet. A lease of
    another era than its slot's belonged to an identity of this worker that has been fenced.
    """

    __slots__ = ("available", "end_ms", "era", "held", "pending", "start_ms")

    def __init__(self, start_ms: int, end_ms: int, era: int) -> None:
        self.start_ms = start_ms
        self.end_ms = end_ms
        self.era = era
        self.available = 0
        self.held = 0
        self.pending = 0

    def total(self) -> int:
        """What the store should say that this lease is worth."""
        return self.available + self.held + self.pending

    @property
    def is_empty(self) -> bool:
        """True when nothing of this lease is left anywhere in memory."""
        return not (self.available or self.held or self.pending)


class Slot:
    """One allowance as this worker sees it: its limit, its lease and how fast it is spent.

    `limit` None refuses nobody. It is leased all the same where `is_leased`: see
    `Allowance.ceiling`.
    """

    __slots__ = (
        "__weakref__",
        "columns",
        "era",
        "exhausted_need",
        "exhausted_until_ms",
        "index",
        "is_leased",
        "is_refilling",
        "is_stored",
        "known_left",
        "lease",
        "limit",
        "low_water",
        "peak",
        "ref",
        "refilled_ms",
        "spent",
        "touched_ms",
        "users",
        "zone",
    )

    def __init__(self, allowance: Allowance, *, zone: str, now_ms: int) -> None:
        self.ref = allowance.ref
        self.columns = (self.ref.scope, self.ref.resource, self.ref.window, self.ref.model)
        self.limit = allowance.limit
        self.is_leased = allowance.ceiling is not None
        self.is_stored = allowance.is_stored
        self.zone = zone
        self.index = _INDEX[allowance.ref.resource]
        self.era = 0
        self.lease = self._new_lease(now_ms)
        self.low_water = 0
        self.is_refilling = False
        # Until then the store is known not to have `exhausted_need` more, nor anything larger.
        self.exhausted_until_ms = 0
        self.exhausted_need = 0
        self.known_left: int | None = None
        self.spent = 0
        self.peak = 0
        self.refilled_ms = now_ms
        self.touched_ms = now_ms
        self.users = 0
        self.learn(allowance)

    def free_at(self, now_ms: int) -> int | None:
        """What no request has used or holds here, as far as this worker knows; None: unlimited."""
        self.current(now_ms)
        return None if self.known_left is None else max(0, self.known_left - self.lease.held)

    def current(self, now_ms: int) -> Lease:
        """The lease of the window that `now_ms` is in; a new, empty one when it has just begun."""
        if now_ms >= self.lease.end_ms:
            self.lease = self._new_lease(now_ms)
            self.known_left = self.limit
            self.exhausted_until_ms = 0
        return self.lease

    def void(self, now_ms: int) -> None:
        """Forget the lease, and those of former windows: a fenced worker's."""
        self.era += 1
        self.lease = self._new_lease(now_ms)
        self.is_refilling = False

    def learn(self, allowance: Allowance) -> None:
        """Take over what the store said of this allowance."""
        self.limit = allowance.limit
        self.is_leased = allowance.ceiling is not None
        self.is_stored = self.is_stored or allowance.is_stored
        if allowance.limit is None:
            self.known_left = None
        else:
            self.known_left = allowance.limit - allowance.used - self.lease.pending

    def move(self, zone: str, now_ms: int) -> None:
        """Live in another time zone: where that has another window now, with a new lease."""
        self.zone = zone
        lease = self._new_lease(now_ms)
        if lease.start_ms == self.lease.start_ms:
            self.lease.end_ms = lease.end_ms
        else:
            self.lease = lease
            self.exhausted_until_ms = 0

    def _new_lease(self, now_ms: int) -> Lease:
        limits = bounds(Window(self.ref.window), now_ms=now_ms, zone=self.zone)
        end_ms = _NEVER_MS if limits.end_ms is None else limits.end_ms
        return Lease(limits.start_ms, end_ms, self.era)


class Hold(msgspec.Struct, eq=False):
    """One request's set-aside; ends settled or released, never otherwise.

    `is_low` says that some lease should be refilled before the next requests find it empty.
    """

    _needs: Amounts
    _parts: list[tuple[Slot, Lease | None]]
    at_ms: int
    is_ended: bool = False
    is_low: bool = False

    @property
    def cost_nanos(self) -> int:
        """What is held of every cost allowance."""
        return self._needs.cost_nanos

    def release(self) -> None:
        """End the hold unspent. Ending it twice does nothing."""
        if self.is_ended:
            return
        self.is_ended = True
        for slot, lease in self._parts:
            if lease is not None:
                amount = self._needs[slot.index]
                lease.held -= amount
                lease.available += amount

    def settle(self, used: Amounts) -> "Settlement":
        """Replace the hold by the true use and say what that does to each allowance.

        Cost beyond the hold is taken from the same leases as far as all of them go together; the
        rest is `excess_nanos`, for the ledger to decide; all of it where the leases went with a
        fenced worker's, since what is held under its next name pays for other requests.
        """
        if self.is_ended:
            raise RuntimeError("a hold ends once")
        self.is_ended = True
        cost, held_cost = used[COST], self._needs[COST]
        covered = cost
        if cost > held_cost:
            covered = held_cost + min((cost - held_cost, *self._spare()))
        moves: list[Move] = []
        parts: list[tuple[Lease, int]] = []
        for slot, lease in self._parts:
            index = slot.index
            true = covered if index == COST else used[index]
            from_lease = 0
            if lease is None:
                start_ms = slot.lease.start_ms
            elif lease.era != slot.era:
                return self._beyond(used)
            else:
                start_ms = lease.start_ms
                amount = self._needs[index]
                # An estimate that was too low is corrected by what the window has left, unasked.
                from_lease = true if index == COST or true < amount else amount
                lease.held -= amount
                lease.available += amount - from_lease
                lease.pending += from_lease
                if from_lease:
                    parts.append((lease, from_lease))
                    slot.spent += from_lease
                if slot.known_left is not None and lease is slot.lease:
                    slot.known_left -= true
            if true:
                moves.append(_move((*slot.columns, start_ms, from_lease, true)))
        return Settlement(covered, cost - covered, moves, parts)

    def outlook(self, used: Amounts) -> "Settlement":
        """What `settle` would say of this use and no more; changes nothing.

        Never more than is held.
        """
        moves: list[Move] = []
        for slot, lease in self._parts:
            if lease is not None and lease.era != slot.era:
                return self._beyond(Amounts(*map(min, used, self._needs)))
            true = min(used[slot.index], self._needs[slot.index])
            from_lease = 0 if lease is None else true
            start_ms = slot.lease.start_ms if lease is None else lease.start_ms
            if true:
                moves.append(Move(*slot.columns, start_ms, from_lease, true))
        return Settlement(min(used[COST], self._needs[COST]), 0, moves, [])

    def _beyond(self, used: Amounts) -> "Settlement":
        """No lease pays for this use: whatever it costs is for the ledger to decide."""
        moves = [
            Move(
                *slot.columns,
                slot.lease.start_ms if lease is None else lease.start_ms,
                0,
                0 if slot.index == COST else used[slot.index],
            )
            for slot, lease in self._parts
            if used[slot.index]
        ]
        return Settlement(0, used[COST], moves, [])

    def _spare(self) -> list[int]:
        return [
            lease.available
            for slot, lease in self._parts
            if slot.index == COST and lease is not None
        ]


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """A hold's end: cost covered by leases, cost beyond them, and what moves where."""

    covered_nanos: int
    excess_nanos: int
    moves: list[Move]
    parts: list[tuple[Lease, int]]


class Purse:
    """All slots of one worker.

    An allowance has one slot and never two, each of which would take the other's leases for too
    much: one that was forgotten comes back if a request still knows it.
    """

    def __init__(self) -> None:
        self.slots: dict[AllowanceRef, Slot] = {}
        self._known: WeakValueDictionary[AllowanceRef, Slot] = WeakValueDictionary()

    def slot_for(self, allowance: Allowance, *, zone: str, now_ms: int) -> Slot:
        """The slot of this allowance, with its limit brought up to date."""
        slot = self._known.get(allowance.ref)
        if slot is None:
            slot = self._known[allowance.ref] = Slot(allowance, zone=zone, now_ms=now_ms)
        self.slots[allowance.ref] = slot
        if slot.zone != zone:
            slot.move(zone, now_ms)
        is_leased = allowance.ceiling is not None
        if slot.limit != allowance.limit or slot.is_leased is not is_leased:
            slot.learn(allowance)
            slot.exhausted_until_ms = 0
        return slot

    @contextmanager
    def using(self, slots: Sequence[Slot]) -> Iterator[None]:
        """Keep these slots while a request waits for leases of them, though its key may go."""
        for slot in slots:
            self.slots[slot.ref] = slot
            slot.users += 1
        try:
            yield
        finally:
            for slot in slots:
                slot.users -= 1

    def forget(self, slot: Slot) -> None:
        """Let go of a slot that no key uses and in which nothing is left."""
        if not slot.users and slot.lease.is_empty:
            self.slots.pop(slot.ref, None)

    def idle(self, *, before_ms: int) -> list[Slot]:
        """Slots with something available that no request has touched since `before_ms`."""
        return [
            slot
            for slot in self.slots.values()
            if slot.touched_ms < before_ms and (slot.lease.available or not slot.users)
        ]

    def void(self, now_ms: int) -> None:
        """Forget every lease; holds in flight keep what they hold and settle without it."""
        for slot in self._known.values():
            slot.void(now_ms)


def paid(settled: Iterable[Sequence[tuple[Lease, int]]]) -> None:
    """The store has settled these amounts: they leave the leases."""
    for parts in settled:
        for lease, amount in parts:
            lease.pending -= amount
