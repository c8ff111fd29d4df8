"""One served installation for a whole module of faults: each test is a deal, settled by itself.

Owns the comparison of the two ledgers, the upstream's and ours, after every deal, and the proof
that nothing is lost when the server is killed after all of them. What goes wrong is the test's.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from bursar.service.verify import Difference, verify
from bursar.store.database import Database
from bursar.worker.plane import wall_clock_ms
from tests import descriptors
from tests.copies import Template
from tests.live import Installation
from tests.loads import MODELS, WHOLE, cost
from tests.upstream_double import Sale, ScriptedUpstream

CREDIT_NANOS = 100_000_000_000
# Longer than anything here may take; a busy machine is not a fault.
PATIENCE_S = 45.0
_RESET = struct.pack("ii", 1, 0)


@dataclass
class Shop:
    """A server in a process of its own, and the upstream behind it."""

    made: Installation
    upstream: ScriptedUpstream

    # Calls

    def wire(self, *, words: str = "hi", **fields: Any) -> bytes:
        """A chat request as bytes."""
        asked = [{"role": "user", "content": words}]
        body = json.dumps({"model": WHOLE, "messages": asked, "max_tokens": 900, **fields}).encode()
        return self.post("/v1/chat/completions", body, secret=self.made.secrets.inference_key)

    def post(self, path: str, body: bytes, *, secret: str) -> bytes:
        """A POST as bytes."""
        return (
            b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
            % (path.encode(), secret.encode(), len(body), body)
        )

    def connect(self, *, window: int | None = None) -> socket.socket:
        """A connection; with a `window`, little fits into it that nobody reads."""
        parts = urlsplit(self.made.url)
        peer = socket.socket()
        if window is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        peer.settimeout(PATIENCE_S)
        peer.connect((parts.hostname, parts.port))
        return peer

    def ask(self, *, words: str = "hi", **fields: Any) -> httpx2.Response:
        """One chat call, to its end."""
        asked = [{"role": "user", "content": words}]
        return httpx2.post(
            f"{self.made.url}/v1/chat/completions",
            json={"model": WHOLE, "messages": asked, "max_tokens": 900, **fields},
            headers={"authorization": f"Bearer {self.made.secrets.inference_key}"},
            timeout=PATIENCE_S,
        )

    # What can be seen of the server from outside

    def figure(self, name: str) -> float:
        """One of its figures, all labels together."""
        text = httpx2.get(f"{self.made.url}/metrics", timeout=PATIENCE_S).text
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M)
        return sum(map(float, found))

    def open_files(self) -> int:
        """Its descriptors, but those of connections to upstream and database, which are kept."""
        return descriptors.count(self._pid) - self.upstream.open_connections

    def resident_bytes(self) -> int:
        """Its memory."""
        status = Path(f"/proc/{self._pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.M)
        assert found is not None
        return int(found[1]) * 1024

    @property
    def _pid(self) -> int:
        assert self.made.process is not None
        return self.made.process.popen.pid

    def wait_for_holds(self, count: int, *, within_s: float = PATIENCE_S) -> None:
        """Return once so many calls are in flight."""
        until(lambda: self.figure("bursar_holds_open") == count, within_s=within_s)


@dataclass
class Deal:
    """What has happened since a moment, in both ledgers."""

    shop: Shop
    rows_before: int
    sales_before: int
    is_compared: bool = False

    def sales(self) -> list[Sale]:
        """What the upstream has written down, once nothing is in flight any more."""
        self.shop.wait_for_holds(0)
        return self.shop.upstream.sales[self.sales_before :]

    def rows(self) -> list[Any]:
        """What has been charged, once nothing is in flight any more."""
        self.shop.wait_for_holds(0)
        return self.shop.made.rows()[self.rows_before :]

    def sold(self) -> int:
        """What the upstream has sold, in nano-USD."""
        return sum(map(cost, self.sales()))

    def billed(self) -> int:
        """What our rows say, what nobody could pay included, in nano-USD."""
        return sum(row.cost_nanos + row.overrun_nanos for row in self.rows())

    def require_even(self, *outcomes: str) -> None:
        """Fail unless exactly what was sold is billed, with these outcomes."""
        self.is_compared = True
        rows = self.rows()
        assert [row.outcome for row in rows] == list(outcomes)
        assert not any(row.is_estimated for row in rows)
        assert self.billed() == self.sold() > 0

    def require_free(self, *, lost: bool = False) -> None:
        """Fail unless nobody was charged; `lost` says that the upstream has sold all the same."""
        self.is_compared = True
        assert self.rows() == []
        assert (self.sold() > 0) is lost

    def require_estimated(self, outcome: str, *, tolerance: int = 0) -> Any:
        """Fail unless one row charges by estimate; its tokens come to those sold, or nearly."""
        self.is_compared = True
        (row,), (sale,) = self.rows(), self.sales()
        assert (row.outcome, bool(row.is_estimated), row.overrun_nanos) == (outcome, True, 0)
        assert row.cost_nanos > 0
        # What was produced and never came is not seen here.
        assert 0 <= sale.completion_tokens - row.output_tokens <= tolerance
        return row


@contextmanager
def opened(
    template: Template,
    folder: Path,
    *,
    upstreams: Sequence[Mapping[str, Any]] = (),
    environment: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Shop]:
    """A shop on SQLite; at its end the server is killed, and everything is proved once more.

    `settings` are the first upstream's, `upstreams` further ones.
    """
    shutil.copytree(template.folder, folder / "data")
    made = Installation(folder / "data", template.secrets)
    made.environment |= {"BURSAR_LOG_FORMAT": "json", **(environment or {})}
    with ScriptedUpstream.in_thread() as upstream:
        local = {"name": "local", "base_url": upstream.base_url, "models": MODELS}
        made.configure({**local, **(settings or {})}, *upstreams)
        try:
            made.start()
            shop = Shop(made, upstream)
            yield shop
            _require_survived(shop)
        finally:
            made.close()


@contextmanager
def dealing(shop: Shop) -> Iterator[Deal]:
    """A deal; at its end our books are proved, and the test must have compared both ledgers."""
    shop.wait_for_holds(0)
    deal = Deal(shop, len(shop.made.rows()), len(shop.upstream.sales))
    yield deal
    assert deal.is_compared, "the two ledgers were not compared"
    shop.wait_for_holds(0)
    rows = shop.made.rows()
    assert shop.made.balance_nanos() == CREDIT_NANOS - sum(row.cost_nanos for row in rows)
    require_proved(shop.made)


def require_proved(made: Installation) -> None:
    """Fail unless `bursar verify` would find nothing; without the seconds that a command takes."""

    async def prove() -> list[Difference]:
        database = Database(made.database_url, clock_ms=wall_clock_ms)
        try:
            async with database.read() as tx:
                return (await verify(tx, now_ms=wall_clock_ms())).differences
        finally:
            await database.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        assert runner.run(prove()) == []


def _require_survived(shop: Shop) -> None:
    made = shop.made
    before = [row.event_id for row in made.rows()]
    made.kill()
    made.start()
    assert shop.ask().status_code == 200, "a good upstream is not called any more"
    assert [row.event_id for row in made.rows()][: len(before)] == before
    require_proved(made)
    assert made.stop() == 0
    assert (made.journals, made.leased()) == ([], 0)
    made.verify()


def until(holds: Callable[[], bool], *, within_s: float = PATIENCE_S) -> None:
    """Wait until something holds; fail if it takes longer."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def hang_up(peer: socket.socket, *, abruptly: bool = True) -> None:
    """Leave: with a reset, or in order."""
    if abruptly:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    peer.close()


def at_once(work: Callable[[int], None], count: int) -> None:
    """Do something so many times at the same time."""
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))
