"""LiteLLM's proxy with mock answers: an upstream that nobody here wrote.

Owns its process, which gets no secret of this machine. Must know nothing of Bursar.
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

import httpx2

from tests import environments

BUILD_S = 240
START_S = 90
API_KEY = "sk-of-the-proxy"  # gitleaks:allow - made up
ANSWER = "The quick brown fox jumps over the lazy dog."
CHAT, EMBED, LIMITED, BROKEN = "mock-chat", "mock-embed", "mock-limited", "mock-broken"

_CONFIG = f"""
model_list:
  - model_name: {CHAT}
    litellm_params: {{model: openai/gpt-4o-mini, api_key: none, mock_response: "{ANSWER}"}}
  - model_name: {EMBED}
    litellm_params:
      model: openai/text-embedding-3-small
      api_key: none
      mock_response: [0.25, -0.5]
  - model_name: {LIMITED}
    litellm_params:
      model: openai/gpt-4o-mini
      api_key: none
      mock_response: litellm.RateLimitError
  - model_name: {BROKEN}
    litellm_params:
      model: openai/gpt-4o-mini
      api_key: none
      mock_response: litellm.InternalServerError
router_settings: {{num_retries: 0}}
"""


class LiteLLMUnavailable(RuntimeError):
    """It cannot be installed or started here; the text says why."""


@dataclass(frozen=True)
class LiteLLM:
    """The running proxy; `base_url` is what a gateway is configured with."""

    base_url: str


@contextmanager
def serving(cache: Path, folder: Path) -> Iterator[LiteLLM]:
    """Run the proxy until the block ends; its files go into `folder`.

    Raises LiteLLMUnavailable.
    """
    program = _install(cache) / "bin" / "litellm"
    (folder / "config.yaml").write_text(_CONFIG)
    port = _free_port()
    log = folder / "litellm.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            env={
                "PATH": os.defpath,
                "HOME": str(folder),
                "LITELLM_MASTER_KEY": API_KEY,
                # Without it, prices are fetched from the network at each start.
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "LITELLM_TELEMETRY": "False",
                "NO_PROXY": "*",
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_ready(process, port, log)
        yield LiteLLM(f"http://127.0.0.1:{port}/v1")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _install(cache: Path) -> Path:
    try:
        environment = environments.make(cache, "litellm", most_s=BUILD_S)
    except environments.EnvironmentUnavailable as reason:
        raise LiteLLMUnavailable(str(reason)) from reason
    if not (environment / "bin" / "litellm").exists():
        raise LiteLLMUnavailable("LiteLLM has no release for this Python")
    return environment


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx2.TransportError):
            url = f"http://127.0.0.1:{port}/health/liveliness"
            if httpx2.get(url, timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    end = log.read_text(errors="replace")[-500:]
    raise LiteLLMUnavailable(f"LiteLLM's proxy does not start: {end}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
