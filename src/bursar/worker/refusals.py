"""Refusals by limits on their way to the limit log.

Owns gathering them: noting one is plain arithmetic on the path of the request that is refused, and
writing them down is a loop's work, once a second. Whoever is refused ten thousand times a second
makes one row of it. What finds no room is counted and not written: the log tells people where they
stand, money does not depend on it. Must not decide who is refused.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog

from bursar.core.errors import MoneyRefused
from bursar.core.refusals import Deny
from bursar.store.database import UNAVAILABLE, Database, describe
from bursar.store.limits import refusals
from bursar.store.limits.refusals import RefusalRow
from bursar.telemetry import Metrics

_log = structlog.get_logger("bursar.refusals")
_EVERY_S: Final = 1.0
_SECOND_MS: Final = 1_000
# Limits times seconds that wait to be written: more than a worker can refuse while it is ready.
MOST: Final = 10_000
_MANY: Final = 1_000


class Refusals:
    """One worker's refusals that are not written down yet, by limit and second."""

    def __init__(
        self, database: Database, metrics: Metrics, *, clock_ms: Callable[[], int]
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._rows: dict[tuple[int, int, str], RefusalRow] = {}
        self._counts: dict[tuple[int, int, str], int] = {}

    def note(
        self, refusal: Deny, *, account_id: int, key_id: int, model: str, endpoint: str
    ) -> None:
        """Remember that a limit refused this call; what no limit refused is not of this log."""
        if refusal.allowance is None:
            return
        now_ms = self._clock_ms()
        second = (account_id, now_ms - now_ms % _SECOND_MS, refusal.allowance)
        count = self._counts.get(second)
        if count is not None:
            self._counts[second] = count + 1
        elif len(self._counts) < MOST:
            self._counts[second] = 1
            self._rows[second] = RefusalRow(
                account_id=account_id,
                at_ms=second[1],
                allowance=refusal.allowance,
                key_id=key_id,
                model=model,
                endpoint=endpoint,
                status=402 if issubclass(refusal.reason.error, MoneyRefused) else 429,
                resource=refusal.resource or "",
                window_name=refusal.allowance.split("/", 3)[2],
                limit_amount=refusal.limit,
                count=1,
            )
        else:
            self._metrics.refusals_unlogged += 1

    async def run(self) -> None:
        """Write down what has been noted, every second, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                await self.flush()
            except UNAVAILABLE as error:
                _log.warning("refusals_not_logged", error=describe(error))

    async def flush(self) -> None:
        """Write down what has been noted so far; raises what the database does, and keeps it."""
        while self._counts:
            part = list(self._counts)[:_MANY]
            rows = [replace(self._rows[each], count=self._counts[each]) for each in part]
            async with self._database.write() as tx:
                await refusals.add_refusals(tx, rows=rows)
            for row, each in zip(rows, part, strict=True):
                # Refused again while it was written: the rest is written next time.
                self._counts[each] -= row.count
                if not self._counts[each]:
                    del self._counts[each], self._rows[each]
            if len(part) < _MANY:
                return
