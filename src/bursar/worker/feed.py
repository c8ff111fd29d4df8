"""The change feed's reader: how this worker learns what the control plane did.

Owns the cursor and the moment at which the database was last heard. Changes of this process arrive
at once, through the store's listeners; those of others by notification, where the database has one,
and by polling underneath, always. Must not know what a change means to anybody.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from bursar.store import changes
from bursar.store.database import POSTGRESQL, UNAVAILABLE, Change, Database, describe

_log = structlog.get_logger("bursar.feed")
_POLL_S = 0.2
# Half of the second within which every worker refuses what was taken away, should a notification
# be lost.
_NOTIFIED_POLL_S = 0.5
_LEAST_PAUSE_S = 0.05


class Feed:
    """Follows the changes of one database and hands them to `apply`; `forget` after a silence.

    `taken_over` when another server has taken the database's place, which may have lost something.
    """

    def __init__(
        self,
        database: Database,
        apply: Callable[[Sequence[Change]], None],
        forget: Callable[[], None],
        *,
        taken_over: Callable[[], None] = lambda: None,
        stale_s: float,
        fenced_after: Callable[[], float] = lambda: float("inf"),
    ) -> None:
        self._database = database
        self._apply = apply
        self._forget = forget
        self._taken_over = taken_over
        self._stale_s = stale_s
        self._fenced_after = fenced_after
        self._cursor = 0
        self._timeline = 0
        self._heard = 0.0
        # Until then, in monotonic seconds, no change can have gone unnoticed for too long.
        self.fresh_until = 0.0
        self._hear(time.monotonic())
        self._wake = asyncio.Event()
        database.listen(apply)

    @property
    def is_stale(self) -> bool:
        """True when the database has been silent for longer than changes may go unnoticed."""
        return time.monotonic() >= self.fresh_until

    @property
    def silent_s(self) -> float:
        """Seconds since the database was last heard."""
        return time.monotonic() - self._heard

    async def start(self) -> None:
        """Begin at the newest change."""
        async with self._database.read() as tx:
            self._cursor = await changes.get_last(tx)
            self._timeline = self._database.timeline
        self._hear(time.monotonic())

    async def run(self) -> None:
        """Follow until cancelled."""
        is_notified = self._database.dialect == POSTGRESQL
        listening: asyncio.Task[None] | None = None
        try:
            while True:
                if is_notified and (listening is None or listening.done()):
                    listening = asyncio.create_task(self._listen())
                asked = time.monotonic()
                # What is announced from now on may be missing in the answer: ask again at once.
                self._wake.clear()
                if await self._poll() == changes.MOST_AT_ONCE:
                    continue
                # From question to question: a slow database is not heard of more rarely still.
                next_s = asked + (_NOTIFIED_POLL_S if is_notified else _POLL_S)
                await self._pause(max(_LEAST_PAUSE_S, next_s - time.monotonic()))
        finally:
            if listening is not None:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    async def _poll(self) -> int:
        """Apply what is new; how many changes that were."""
        asked = time.monotonic()
        try:
            async with asyncio.timeout(self._stale_s), self._database.peek() as tx:
                news = await changes.list_after(tx, cursor=self._cursor)
        except UNAVAILABLE as error:
            _log.warning("feed_silent", error=describe(error), silent_s=round(self.silent_s, 1))
            return 0
        if self._database.timeline != self._timeline:
            # A standby has taken over. It may not have heard of the latest changes, and counts on
            # from where it stands: from there they are read again.
            self._taken_over()
            await self.start()
            self._forget()
            return 0
        if self.is_stale:
            # Changes are kept for a day; whoever was deaf for longer has missed some for good.
            self._forget()
        if news:
            self._cursor = news[-1].id
            self._apply(news)
        # What was true when the question was asked, not when the answer came.
        self._hear(asked)
        return len(news)

    def _hear(self, moment: float) -> None:
        self._heard = moment
        # Whoever was silent for as long as others wait may be dead to them: its leases are theirs,
        # and what it hears of changes does not tell it so.
        self.fresh_until = min(moment + self._stale_s, self._fenced_after())

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _listen(self) -> None:
        try:
            await changes.listen(self._database, self._wake.set)
        except UNAVAILABLE as error:
            _log.warning("feed_not_notified", error=describe(error))
            await asyncio.sleep(_NOTIFIED_POLL_S)
