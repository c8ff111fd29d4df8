"""Other services' own clients, each in a process and an environment of its own, one call at a time.

Owns the processes. What the calls are is each dialect's `driver.py`'s business.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import environments

BUILD_S = 240


class Raised(Exception):
    """The client raised: `kinds` are its exception's classes, from the one that was raised."""

    def __init__(self, said: dict[str, Any]) -> None:
        super().__init__(f"{said['kinds'][0]}: {said['message']}")
        self.kinds: list[str] = said["kinds"]
        self.message: str = said["message"]
        self.status: int | None = said["status"]
        self.code: str | None = said["code"]
        self.retry_after: int | None = said["retry_after"]
        self.cause: str | None = said["cause"]


@dataclass
class Client:
    """One client; `with_key` and `at` say for whom and where it calls."""

    process: subprocess.Popen[str]
    name: str
    url: str = ""
    key: str = ""

    def at(self, url: str, key: str) -> Client:
        """The same client for another server or key."""
        return Client(self.process, self.name, url, key)

    async def __call__(self, name: str, /, *, retries: int = 1, **arguments: Any) -> Any:
        """What the client's method returns, as JSON has it; raises Raised for what it raises."""
        call = {"base_url": self.url, "key": self.key, "name": name, "retries": retries}
        said = await asyncio.to_thread(self._ask, {**call, "arguments": arguments})
        if "raised" in said:
            raise Raised(said["raised"])
        return said["returned"]

    def _ask(self, call: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"{self.name} has ended"
        return json.loads(line)


@contextmanager
def running(cache: Path, *, driver: Path, name: str, lock: str) -> Iterator[Client]:
    """Run a client until the block ends; raises EnvironmentUnavailable."""
    environment = environments.make(cache, lock, most_s=BUILD_S)
    process = subprocess.Popen(
        [environment / "bin" / "python", str(driver), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=cache,
        # Nothing of this machine: neither keys nor a proxy.
        env={"PATH": "/usr/bin:/bin", "NO_PROXY": "*", "HOME": str(cache)},
    )
    try:
        yield Client(process, name)
    finally:
        process.terminate()
        process.wait(20)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()


@contextmanager
def starting(
    request: pytest.FixtureRequest, run: Callable[[Path, str], Any]
) -> Iterator[Callable[[str], Client]]:
    """Clients by name, each started when it is first asked for; a test without one is skipped."""
    cache = environments.find_cache() or Path(request.config.cache.mkdir("clients"))
    with ExitStack() as started:
        found: dict[str, Client] = {}

        def start(name: str) -> Client:
            if name not in found:
                try:
                    found[name] = started.enter_context(run(cache, name))
                except environments.EnvironmentUnavailable as reason:
                    pytest.skip(str(reason))
            return found[name]

        yield start
