"""Recalls: how a worker gets at credit that lies idle in the leases of others, and they at its.

Owns how long a request waits for that, how often the store is asked meanwhile, and who yields to
whom. Must not know the store: `leasing` asks it, and `leases.take` tells the others.

A worker that is short of an allowance of which others have leases opens one recall, whatever number
of requests wait: the others hear of it by the change feed and return what they have idle, and the
store is asked again at growing intervals until there is enough or patience ends. Of two workers
that are both short the one with the lower number goes first: it keeps what one of its requests
waits for, and the other does not ask again at once. Otherwise two could take the same credit out of
each other's hands for ever, the more easily as a request mostly needs several allowances.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from bursar.worker.purse import Amounts, Slot

# A request waits so long at most before it is refused.
PATIENCE_S: Final = 0.8
_FIRST_PAUSE_S: Final = 0.025
_LONGEST_PAUSE_S: Final = 0.2
# What has become idle meanwhile is asked for again after so long.
_REMIND_S: Final = 0.2
# Whoever has yielded to a worker that goes first leaves it time for one more question.
_DEFER_S: Final = 0.25
# For so long a worker that has yielded takes exact amounts only: longer than until a reminder.
_MODEST_S: Final = 0.4
_MOST_REMEMBERED: Final = 1_000
_NOTHING: Final = Amounts(0, 0, 0, 0)


class Demand:
    """What requests wait for: their needs of each slot, and how to have them look again."""

    __slots__ = ("largest", "needs", "waiting")

    def __init__(self) -> None:
        self.needs: dict[Slot, list[int]] = {}
        # By account: the most that a single one of its requests needs of each resource.
        self.largest: dict[int, Amounts] = {}
        self.waiting: list[asyncio.Future[None]] = []

    def add(self, short: Sequence[Slot], needs: Amounts) -> asyncio.Future[None]:
        """Take a request in; the future tells it to look again."""
        for slot in short:
            self.needs.setdefault(slot, []).append(needs[slot.index])
        self._keep_largest(short[0].ref.account_id, needs)
        return self.wait()

    def wait(self) -> asyncio.Future[None]:
        """A future that `answer` resolves."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        return future

    def merge(self, other: "Demand") -> None:
        """Take over everything that waits there."""
        for slot, needs in other.needs.items():
            self.needs.setdefault(slot, []).extend(needs)
        for account_id, largest in other.largest.items():
            self._keep_largest(account_id, largest)
        self.waiting += other.waiting

    def answer(self, error: Exception | None = None) -> None:
        """Have everybody look again, or fail."""
        for future in self.waiting:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def _keep_largest(self, account_id: int, needs: Amounts) -> None:
        known = self.largest.get(account_id, _NOTHING)
        self.largest[account_id] = Amounts(*map(max, known, needs))


class _Recall:
    """One slot's: until when, whom it keeps waiting, and what one of them needs."""

    __slots__ = ("asked", "ends_s", "kept", "pause_s", "reminds_s", "timer")

    def __init__(self, now_s: float) -> None:
        self.ends_s = now_s + PATIENCE_S
        self.reminds_s = now_s + _REMIND_S
        self.pause_s = _FIRST_PAUSE_S
        self.kept = _NOTHING
        self.asked = Demand()
        self.timer: asyncio.TimerHandle | None = None


class Recalls:
    """One worker's open recalls; `ask` puts a demand before the store once more."""

    def __init__(self, *, worker_id: int, ask: Callable[[Demand], None]) -> None:
        self._worker_id = worker_id
        self._ask = ask
        self._open: dict[Slot, _Recall] = {}
        self._modest_until_s: dict[Slot, float] = {}
        # By account: until then a worker with a lower number goes first.
        self._deferred_until_s: dict[int, float] = {}

    def join(self, short: Sequence[Slot], needs: Amounts) -> asyncio.Future[None] | None:
        """Wait with those who wait already for one of these slots; None where nobody does."""
        for slot in short:
            if slot in self._open:
                return self._open[slot].asked.add(short, needs)
        return None

    def tells(self, slot: Slot) -> bool:
        """Whether the others should be told, now, if the store has too little."""
        recall = self._open.get(slot)
        return recall is None or _now_s() >= recall.reminds_s

    def goes_on(self, slot: Slot, demand: Demand) -> bool:
        """The store had too little and others have leases: whether that is worth waiting for."""
        now_s = _now_s()
        recall = self._open.get(slot)
        if recall is None:
            recall = self._open[slot] = _Recall(now_s)
        elif now_s >= recall.ends_s:
            return False
        elif now_s >= recall.reminds_s:
            recall.reminds_s = now_s + _REMIND_S
        recall.kept = demand.largest.get(slot.ref.account_id, _NOTHING)
        deferred_s = self._deferred_until_s.get(slot.ref.account_id, 0.0) - now_s
        self._retry_in(slot, recall, max(recall.pause_s, deferred_s))
        recall.pause_s = min(2 * recall.pause_s, _LONGEST_PAUSE_S)
        return True

    def end(self, slot: Slot) -> bool:
        """The store had enough, or there is nothing to wait for; whether a recall was open."""
        recall = self._open.pop(slot, None)
        if recall is None:
            return False
        if recall.asked.waiting:
            self._ask(recall.asked)
        return True

    def yields(self, slot: Slot, *, asker: int) -> int:
        """Another worker is short of this: what to keep of it, in its unit, for one's own.

        For a while after it this worker asks for exact amounts of it only (`is_modest`).
        """
        if len(self._modest_until_s) >= _MOST_REMEMBERED:
            self._forget_past()
        self._modest_until_s[slot] = _now_s() + _MODEST_S
        account_id = slot.ref.account_id
        own = [(s, r) for s, r in self._open.items() if s.ref.account_id == account_id]
        if asker > self._worker_id:
            return max((recall.kept[slot.index] for _, recall in own), default=0)
        self._deferred_until_s[account_id] = _now_s() + _DEFER_S
        for each, recall in own:
            self._retry_in(each, recall, _DEFER_S)
        return 0

    def is_modest(self, slot: Slot) -> bool:
        """Whether nothing may be leased of this in advance: others wait for it, or one's own."""
        if slot in self._open:
            return True
        until_s = self._modest_until_s.get(slot)
        if until_s is None:
            return False
        if _now_s() >= until_s:
            del self._modest_until_s[slot]
            return False
        return True

    def _forget_past(self) -> None:
        now_s = _now_s()
        self._modest_until_s = {k: s for k, s in self._modest_until_s.items() if s > now_s}
        self._deferred_until_s = {k: s for k, s in self._deferred_until_s.items() if s > now_s}

    def _retry_in(self, slot: Slot, recall: _Recall, delay_s: float) -> None:
        delay_s = max(0.0, min(delay_s, recall.ends_s - _now_s()))
        if recall.timer is not None:
            recall.timer.cancel()
        loop = asyncio.get_running_loop()
        recall.timer = loop.call_later(delay_s, self._retry, slot, recall)

    def _retry(self, slot: Slot, recall: _Recall) -> None:
        if self._open.get(slot) is not recall:
            return
        if recall.asked.waiting:
            asked, recall.asked = recall.asked, Demand()
            self._ask(asked)
        elif _now_s() >= recall.ends_s:
            # Whoever waited has gone, or waits for another slot of the same request.
            del self._open[slot]
        else:
            self._retry_in(slot, recall, PATIENCE_S)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
