"""An installation whose way to PostgreSQL goes through a proxy, and the books of all its calls.

Owns the parts, started once for a module of tests, and the comparison that each test ends with.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests import loads
from tests.faults.tcp_proxy import TcpProxy
from tests.live import Installation
from tests.postgres import PostgresServer
from tests.upstream_double import ScriptedUpstream

# The database is back: from then on everything must work again within this, without hands.
RECOVERY_S = 10.0
# No statement and no attempt to connect takes longer than five seconds; the rest is the answer.
ANSWER_S = 7.0
_NOISE = """
import select, sys, time
worst = 0.0
while True:
    before = time.monotonic()
    is_asked = bool(select.select([sys.stdin], [], [], 0.05)[0])
    worst = max(worst, time.monotonic() - before - 0.05)
    if is_asked and not sys.stdin.readline():
        break
    if is_asked:
        print(worst, flush=True)
"""


class Noise:
    """How late this machine wakes a process that does nothing: what it does to every other too."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _NOISE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def longest_s(self) -> float:
        """The longest delay since the beginning, in seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=10)


@dataclass
class Proxied:
    """The database, the proxy before it, the server behind that, its upstream, and all calls."""

    server: PostgresServer
    proxy: TcpProxy
    upstream: ScriptedUpstream
    made: Installation
    noise: Noise
    calls: list[loads.Call] = field(default_factory=list)

    @contextlib.contextmanager
    def load(self, *, clients: int = 10, secret: str = "") -> Iterator[loads.Load]:
        """Callers until the block ends."""
        secret = secret or self.made.secrets.inference_key
        load = None
        try:
            with loads.calling(self.made.url, secret, clients=clients) as load:
                yield load
        finally:
            if load is not None:
                self.calls += load.calls

    def call(self, count: int = 1, *, secret: str = "") -> list[loads.Call]:
        """So many calls at the same time."""
        secret = secret or self.made.secrets.inference_key
        calls = loads.call_at_once(self.made.url, secret, count, model=loads.WHOLE)
        self.calls += calls
        return calls

    def ask(self, path: str = "/v1/account/balance", **options: Any) -> httpx2.Response:
        """One call of the control API, whatever comes of it."""
        headers = {"authorization": f"Bearer {self.made.secrets.provisioning_key}"}
        return httpx2.get(f"{self.made.url}{path}", headers=headers, timeout=40, **options)

    def require_unavailable(self) -> None:
        """Fail unless the control API says soon that it cannot know, and when to ask again."""
        began = time.monotonic()
        answer = self.ask()
        assert time.monotonic() - began < ANSWER_S
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ledger_unavailable")
        assert int(answer.headers["retry-after"]) >= 1

    def require_books(self, *, within_s: float = RECOVERY_S) -> None:
        """Fail unless the server is well again in time, and every call of its life charged once."""
        began = time.monotonic()
        self.made.wait_until_ready(within_s=within_s)
        eventually(lambda: self.ask().status_code == 200, within_s=within_s)
        eventually(lambda: self.call()[0].status == 200, within_s=within_s)
        assert time.monotonic() - began < within_s
        eventually(lambda: self.metric("bursar_settlement_backlog") == 0, within_s=within_s)
        rows = self.made.rows()
        loads.require_charged_once(self.calls, self.upstream.sales, rows, of=loads.cost)
        charged = sum(row.cost_nanos for row in rows)
        assert charged == self.upstream.sold_nanos(loads.cost)
        assert self.metric("bursar_charges_quarantined_total") == 0
        self.made.verify()

    def metric(self, name: str) -> float:
        """One figure of the server."""
        text = httpx2.get(f"{self.made.url}/metrics", timeout=5).text
        (line,) = (line for line in text.splitlines() if line.startswith(f"{name} "))
        return float(line.split()[1])

    def require_alive(self, seconds: float) -> None:
        """Fail unless the event loop answers all the time, beyond what the machine itself takes.

        What this machine makes every process wait is measured beside it.
        """
        end = time.monotonic() + seconds
        worst = 0.0
        with httpx2.Client(timeout=5) as http:
            while time.monotonic() < end:
                began = time.monotonic()
                assert http.get(f"{self.made.url}/healthz").status_code == 200
                worst = max(worst, time.monotonic() - began)
                time.sleep(0.01)
        lag, machine = self.metric("bursar_loop_lag_seconds"), self.noise.longest_s()
        print(f"longest: health {worst:.3f} s, loop {lag:.3f} s, machine {machine:.3f} s")
        assert lag < 0.05 + 2 * machine

    def backends(self, condition: str = "true") -> list[int]:
        """The processes that PostgreSQL has for the server's connections."""
        rows = self.server.execute(
            "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            f" AND backend_type = 'client backend' AND {condition}"
        )
        return [row["pid"] for row in rows]


@contextlib.contextmanager
def proxied(
    folder: Path,
    *,
    settings: dict[str, str] | None = None,
    place: Path | None = None,
    **environment: str,
) -> Iterator[Proxied]:
    """All of it, with a server that serves."""
    with contextlib.ExitStack() as parts:
        noise = Noise()
        parts.callback(noise.close)
        server = parts.enter_context(PostgresServer(fsync=True, settings=settings, place=place))
        url = parts.enter_context(server.database())
        proxy = parts.enter_context(TcpProxy.before(server.port))
        upstream = parts.enter_context(ScriptedUpstream.in_thread())
        made = Installation(folder / "data", database_url=url)
        made.load_prices(loads.PRICES)
        local = {"name": "local", "base_url": upstream.base_url, "models": loads.MODELS}
        made.configure(local)
        made.environment |= environment
        served_by = url.replace(f":{server.port}/", f":{proxy.port}/")
        made.environment["BURSAR_DATABASE_URL"] = served_by
        parts.callback(made.close)
        loads.slow_streams(upstream, tokens=5, gap_s=0.005)
        made.start()
        yield Proxied(server, proxy, upstream, made, noise)


@contextlib.contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread while the block runs; its end is waited for."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
        assert not thread.is_alive()


def eventually(holds: Callable[[], bool], *, within_s: float = RECOVERY_S) -> None:
    """Return once it holds."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
