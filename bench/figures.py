"""What readings say: medians, ratios within a round, and whether they reach what they must.

Owns the limits of `--check`. Must not know how a reading was taken.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import sub, truediv

from bench.loads import BURST_CASE, FIXED_CASE, JSON_CASES, PACED_CASE, Case, Reading
from bench.processes import Memory
from bench.targets import BARE, NGINX

MIN_JSON_OF_BARE = 0.5
MIN_JSON_OF_NGINX = 0.2
MAX_FIRST_ADDED_MS = 1.0
MAX_BASE_MB = 150
MAX_KEYS_MB = 400
ACTIVE_KEYS = 100_000


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """A Bursar's memory at one moment; `keys` is how many had been used by then."""

    target: str
    moment: str
    keys: int
    memory: Memory


@dataclass(frozen=True, slots=True)
class Settlement:
    """Settled charges a second, and what pgbench makes of the same server."""

    batch: int
    settled_per_s: float
    tpcb_per_s: float


@dataclass(slots=True)
class Results:
    """Everything that one run found out."""

    machine: dict[str, str]
    products: list[str] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    memories: list[MemoryReading] = field(default_factory=list)
    settlement: Settlement | None = None
    skipped: dict[str, str] = field(default_factory=dict)

    def targets(self, cases: Sequence[Case]) -> list[str]:
        """Return the names of what was measured with these cases, in order."""
        found = dict.fromkeys(each.target for each in self.readings if each.case in cases)
        return sorted(found, key=self._order)

    def median(self, case: Case, target: str, name: str) -> float | None:
        """Return the median over the rounds of one figure; None where it was not measured."""
        return _median(self._by_round(case, target, name).values())

    def ratio(self, case: Case, target: str, yardstick: str, name: str) -> float | None:
        """Return the median of each round's ratio: neighbours in time are compared."""
        return self._compare(case, target, yardstick, name, truediv)

    def added(self, case: Case, target: str, yardstick: str, name: str) -> float | None:
        """Return the median of each round's difference."""
        return self._compare(case, target, yardstick, name, sub)

    def errors(self) -> list[str]:
        """Return the readings in which answers were wrong, one sentence each."""
        return [
            f"{each.target}, {each.case.name}, round {each.round + 1}: {each.errors} wrong answers"
            f" (the first with status {each.first_bad_status})"
            for each in self.readings
            if each.errors
        ]

    def failures(self) -> list[str]:
        """Return what falls short of the limits, one sentence each; a missing figure does too."""
        found = [f"{name} was not measured: {reason}" for name, reason in self.skipped.items()]
        found += self.errors()
        for product in self.products:
            found += self._speed_failures(product)
        if self.memories:
            found += self._memory_failures()
        return found

    def _speed_failures(self, product: str) -> list[str]:
        found = []
        for case in self._measured(JSON_CASES[1:]):
            for yardstick, least in ((BARE, MIN_JSON_OF_BARE), (NGINX, MIN_JSON_OF_NGINX)):
                ratio = self.ratio(case, product, yardstick, "per_s")
                if ratio is None or ratio < least:
                    found.append(f"{product}, {case.name}: {ratio} of {yardstick}, not {least}")
        for case in self._measured((PACED_CASE,)):
            added = self.added(case, product, BARE, "first_p50_ms")
            if added is None or added > MAX_FIRST_ADDED_MS:
                found.append(
                    f"{product}: first streamed byte {added} ms after {BARE},"
                    f" not within {MAX_FIRST_ADDED_MS} ms"
                )
        return found

    def _memory_failures(self) -> list[str]:
        found = []
        for each in self.memories:
            limit_mb = MAX_BASE_MB if not each.keys else MAX_KEYS_MB
            if each.moment != "after load" and each.memory.rss_kb >= limit_mb * 1000:
                found.append(
                    f"{each.target}, {each.moment}: {each.memory.rss_kb // 1000} MB,"
                    f" not below {limit_mb} MB"
                )
        if all(each.keys < ACTIVE_KEYS for each in self.memories):
            found.append(f"memory with {ACTIVE_KEYS} active keys was not measured")
        return found

    def _measured(self, cases: Iterable[Case]) -> list[Case]:
        known = {each.case for each in self.readings}
        return [case for case in cases if case in known]

    def _by_round(self, case: Case, target: str, name: str) -> dict[int, float]:
        return {
            each.round: value
            for each in self.readings
            if each.case == case and each.target == target
            if (value := getattr(each, name)) is not None
        }

    def _compare(
        self,
        case: Case,
        target: str,
        yardstick: str,
        name: str,
        operation: Callable[[float, float], float],
    ) -> float | None:
        ours = self._by_round(case, target, name)
        theirs = self._by_round(case, yardstick, name)
        return _median(operation(ours[n], theirs[n]) for n in ours if theirs.get(n))

    def _order(self, target: str) -> tuple[bool, int]:
        names = list(dict.fromkeys(each.target for each in self.readings))
        return (target in self.products, names.index(target))


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None


SPEED_CASES = (*JSON_CASES, FIXED_CASE)
STREAM_CASES = (BURST_CASE, PACED_CASE)
