"""Which other workers have fallen silent, by a clock that nobody can set.

Owns how long each heartbeat has stood still, counted in monotonic seconds of this process. Clocks
of hosts, and the database's own, may be wrong, differ or jump: what counts is that a heartbeat
changed, not what it says. Must not read the database.

An observer that has not looked for a while, because the database was away or because it was
stopped itself, cannot know who spoke meanwhile: it begins to count anew. So everybody who lives has
the whole time to be heard again after an outage, and nobody is closed for the observer's absence.
"""

from collections.abc import Sequence
from typing import NamedTuple

from bursar.store.plane.workers import WorkerRow


class _Seen(NamedTuple):
    """A heartbeat, and since when it has stood still."""

    heartbeat_ms: int
    since_s: float


class Watch:
    """One observer: silent for `silent_s` is dead; after `apart_s` without a look, count anew."""

    def __init__(self, *, silent_s: float, apart_s: float) -> None:
        self._silent_s = silent_s
        self._apart_s = apart_s
        self._seen: dict[int, _Seen] = {}
        self._looked_s = float("-inf")

    def look(self, live: Sequence[WorkerRow], *, asked_s: float, heard_s: float) -> list[WorkerRow]:
        """The dead among the workers that the database has just named as live.

        `asked_s` and `heard_s` are monotonic: when it was asked, and when it had answered.
        """
        known = self._seen if asked_s - self._looked_s <= self._apart_s else {}
        self._looked_s = heard_s
        self._seen = {}
        silent = []
        for worker in live:
            seen = known.get(worker.id)
            if seen is None or seen.heartbeat_ms != worker.heartbeat_ms:
                seen = _Seen(worker.heartbeat_ms, heard_s)
            self._seen[worker.id] = seen
            if asked_s - seen.since_s >= self._silent_s:
                silent.append(worker)
        return silent
