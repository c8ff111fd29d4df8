"""oidc-provider-mock: a sign-in service (OpenID Connect) that nobody here wrote.

Owns its process, which gets no secret of this machine, and what a person does in their browser.
Must know nothing of Bursar.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import httpx2

from tests import environments

BUILD_S = 120
START_S = 60


@dataclass(frozen=True)
class MockProvider:
    """The running service."""

    issuer: str

    def put(self, subject: str, **claims: object) -> None:
        """Have it know somebody."""
        url = f"{self.issuer}/users/{quote(subject)}"
        assert httpx2.put(url, json=claims, timeout=30).status_code == 204

    def visit(self, authorization_url: str, subject: str) -> tuple[str, dict[str, str]]:
        """Sign in there as this person; where the browser is sent back to, and with what."""
        sent = httpx2.post(authorization_url, data={"sub": subject}, timeout=30)
        assert sent.status_code == 302, sent.text
        back = urlsplit(sent.headers["location"])
        return f"{back.scheme}://{back.netloc}{back.path}", dict(parse_qsl(back.query))


@contextmanager
def serving(cache: Path, folder: Path) -> Iterator[MockProvider]:
    """Run the service until the block ends; raises EnvironmentUnavailable."""
    environment = environments.make(cache, "oidc", most_s=BUILD_S)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "provider.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                environment / "bin" / "python",
                *("-m", "oidc_provider_mock", "--port", str(port), "--require-nonce"),
            ],
            cwd=folder,
            env={"PATH": os.defpath, "HOME": str(folder), "NO_PROXY": "*"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        issuer = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, issuer, log)
        yield MockProvider(issuer)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], issuer: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(f"{issuer}/jwks", timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    end = log.read_text(errors="replace")[-500:]
    raise environments.EnvironmentUnavailable(f"the service does not start: {end}")
