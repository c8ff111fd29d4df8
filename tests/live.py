"""The product itself: `bursar` in processes of their own, started, asked, stopped and killed.

Owns the processes and their files. What stands before and behind them (clients, upstreams, a
PostgreSQL) is the test's.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx2
from sqlalchemy import func, select

from bursar.core.money import parse_usd
from bursar.store import tables
from bursar.store.database import Database, sqlite_url

SOURCE = Path(__file__).parents[1] / "src"
READY = re.compile(r"Bursar serves on (http://\S+)")
START_S = 60
STOP_S = 40


@dataclass(frozen=True)
class Secrets:
    """What `bursar init --json` prints, once."""

    operator_key: str
    provisioning_key: str
    inference_key: str
    email: str
    password: str
    account_id: int
    url: str


class Process:
    """A running `bursar`, its output as it comes."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self.url = ""
        self._is_ready = threading.Event()
        pipes = ((popen.stdout, self.stdout), (popen.stderr, self.stderr))
        self._threads = [threading.Thread(target=self._read, args=pipe) for pipe in pipes]
        for thread in self._threads:
            thread.start()

    def wait_until_ready(self) -> None:
        """Return once it says where it serves; fails with what it said instead."""
        deadline = time.monotonic() + START_S
        while not self._is_ready.wait(0.02):
            is_over = self.popen.poll() is not None or time.monotonic() > deadline
            assert not is_over, "".join(self.stdout + self.stderr)

    def end(self) -> int:
        """Ask it to stop; its exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it as the kernel would when memory runs out."""
        self.popen.kill()
        self.wait()

    def wait(self) -> int:
        """Its exit code, once it has ended and everything that it said is here."""
        try:
            code = self.popen.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise
        for thread in self._threads:
            thread.join()
        return code

    def _read(self, pipe: IO[str], lines: list[str]) -> None:
        for line in pipe:
            lines.append(line)
            found = READY.search(line)
            if found:
                self.url = found[1]
                self._is_ready.set()
        pipe.close()


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start `bursar` as a shell would."""
    return subprocess.Popen(
        [sys.executable, "-c", "from bursar.cli import main; main()", *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    process = start(*arguments, **environment)
    stdout, stderr = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


@contextmanager
def served(*arguments: str, **environment: str) -> Iterator[Process]:
    """A server that is ready, on a port of its own."""
    process = Process(start("serve", "--port", "0", *arguments, **environment))
    try:
        process.wait_until_ready()
        yield process
    finally:
        if process.popen.poll() is None:
            process.end()


class Installation:
    """A data directory and a database, and between `start` and the end a server on them."""

    def __init__(
        self, data_dir: Path, secrets: Secrets | None = None, *, database_url: str | None = None
    ) -> None:
        """Take over what is there already, with its `secrets`, or set it up: `bursar init`."""
        self.data_dir = data_dir
        self.database_url = database_url or sqlite_url(data_dir / "bursar.db")
        self.environment = {"BURSAR_DATA_DIR": str(data_dir), "BURSAR_PORT": "0"}
        if database_url is not None:
            self.environment["BURSAR_DATABASE_URL"] = database_url
        self.process: Process | None = None
        self.secrets = secrets or Secrets(**json.loads(self.run("init", "--json")))

    def configure(self, *upstreams: Mapping[str, Any]) -> None:
        """Write these upstreams into bursar.toml; the next start reads it."""
        (self.data_dir / "bursar.toml").write_text(_toml(upstreams))

    def load_prices(self, text: str) -> None:
        """Take over a price file."""
        path = self.data_dir / "prices.yaml"
        path.write_text(text)
        self.run("prices", "load", str(path))

    # The server

    @property
    def url(self) -> str:
        """Where the server listens."""
        return self._running().url

    @property
    def journals(self) -> list[Path]:
        """The files that workers have left, or hold."""
        return sorted((self.data_dir / "journal").glob("*"))

    @property
    def said(self) -> list[str]:
        """What the server has written to standard error."""
        return self._running().stderr

    def start(self) -> None:
        """Serve, and return once `/readyz` says so."""
        self.process = Process(start("serve", **self.environment))
        try:
            self.process.wait_until_ready()
            self.wait_until_ready()
        except BaseException:
            self.process.kill()
            raise
        # Clients find it again where it was.
        self.environment["BURSAR_PORT"] = self.url.rpartition(":")[2]

    def wait_until_ready(self, *, within_s: float = 45.0) -> None:
        """Return once requests are served."""
        deadline = time.monotonic() + within_s
        while httpx2.get(f"{self.url}/readyz", timeout=5).status_code != 200:
            assert time.monotonic() < deadline, "not ready"
            time.sleep(0.02)

    def wait_until_heard(self) -> None:
        """Return once the server has heard, and done, all that was changed before."""
        began = time.monotonic()
        silent = re.compile(r"^bursar_ledger_silent_seconds (\S+)$", re.M)
        while True:
            asked = time.monotonic()
            found = silent.search(httpx2.get(f"{self.url}/metrics", timeout=20).text)
            assert found is not None
            if asked - float(found[1]) > began:
                return
            time.sleep(0.02)

    def stop(self) -> int:
        """End the server as a service manager does; its exit code."""
        self.tell(signal.SIGTERM)
        return self.wait()

    def tell(self, number: int) -> None:
        """Send the server a signal."""
        self._running().popen.send_signal(number)

    def wait(self) -> int:
        """The server's exit code, once it has ended."""
        code = self._running().wait()
        self.process = None
        return code

    def kill(self) -> None:
        """SIGKILL the server."""
        self._running().kill()
        self.process = None

    def close(self) -> None:
        """Leave no process behind."""
        if self.process is not None:
            self.process.kill()

    # Beside it

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of this installation to its end, whatever that is."""
        return run(*arguments, **self.environment)

    def run(self, *arguments: str) -> str:
        """What a command prints; it must succeed."""
        done = self.attempt(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def verify(self) -> dict[str, int]:
        """Prove the books; how many rows of each kind were compared."""
        done = self.attempt("verify", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        checked: dict[str, int] = json.loads(done.stdout)["checked"]
        return checked

    def control(
        self, method: str, path: str, *, secret: str | None = None, **options: Any
    ) -> httpx2.Response:
        """One call of the control API, as the account's user if not as another; must succeed."""
        secret = secret or self.secrets.provisioning_key
        headers = {"authorization": f"Bearer {secret}"}
        answer = httpx2.request(method, f"{self.url}{path}", headers=headers, timeout=20, **options)
        assert answer.is_success, answer.text
        return answer

    def make_key(self, *, limit_usd: float | None = None) -> tuple[int, str]:
        """A fresh inference key: its id and its secret."""
        body = {"name": "test", "credit_limit": limit_usd}
        made = self.control("POST", "/v1/account/keys", json=body).json()
        return made["id"], made["key"]

    def balance_nanos(self) -> int:
        """The balance as the customer reads it."""
        return parse_usd(self.control("GET", "/v1/account/balance").json()["balance"])

    # Beneath it

    def rows(self) -> list[Any]:
        """Every usage row, in the order of the charges, once those made so far are settled."""
        if self.process is not None:
            # Asked as the operator: an account's own keys may be refused by now.
            path = f"/v1/operator/accounts/{self.secrets.account_id}"
            self.control("GET", path, secret=self.secrets.operator_key)
        usage = tables.usage_events.c
        return self._ask(select(tables.usage_events).order_by(usage.worker_id, usage.seq))

    def leased(self) -> int:
        """What workers hold of any allowance."""
        return int(self._ask(select(func.coalesce(func.sum(tables.leases.c.amount), 0)))[0][0])

    def _ask(self, query: Any) -> list[Any]:
        async def ask() -> list[Any]:
            database = Database(self.database_url, clock_ms=lambda: 0)
            try:
                async with database.read() as tx:
                    return list(await tx.execute(query))
            finally:
                await database.close()

        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            return runner.run(ask())

    def _running(self) -> Process:
        assert self.process is not None, "the server does not run"
        return self.process


def _toml(upstreams: Sequence[Mapping[str, Any]]) -> str:
    """Upstreams as bursar.toml has them; JSON's texts, lists and numbers are TOML's too."""
    lines = []
    for upstream in upstreams:
        lines.append("[[upstreams]]")
        for name, value in upstream.items():
            text = json.dumps(value)
            if isinstance(value, dict):
                pairs = (f"{json.dumps(a)} = {json.dumps(b)}" for a, b in value.items())
                text = f"{{ {', '.join(pairs)} }}"
            lines.append(f"{name} = {text}")
    return "\n".join(lines) + "\n"
