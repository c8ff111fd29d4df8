"""The yardsticks: the upstream itself, a bare proxy, nginx, and nginx with auth_request.

Each `start_…` runs a target for the length of a `with` block and yields where to reach it, or
raises `Unavailable`. Bursar itself is in `bench.bursar`.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import processes
from bench.lab import Lab, Unavailable, find_tool, pinned, start_mock

DIRECT = "direct"
BARE = "bare proxy"
NGINX = "nginx"
NGINX_AUTH = "nginx + auth_request"
PATH = "/v1/chat/completions"
MODEL = "gpt-4o-mini"
YARDSTICK_KEY = "bsk_" + "0" * 36
START_S = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """Something that takes chat completions on a loopback port."""

    name: str
    port: int
    key: str
    roots: tuple[int, ...]  # its processes; their children are counted with them
    database_roots: tuple[int, ...] = ()
    settles_late: bool = False  # work goes on after the last answer and belongs to its CPU time


def chat_body(*, model: str = MODEL, is_stream: bool = False) -> bytes:
    """Return the request's body: 201 bytes for the plain one."""
    fields: dict[str, object] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Say hello to the gateway benchmark, please."},
        ],
        "temperature": 0.2,
        "max_tokens": 64,
    }
    if is_stream:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(fields, separators=(",", ":")).encode()


def chat_headers(key: str) -> dict[str, str]:
    """Return the request's headers."""
    return {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}


def call_chat(port: int, key: str) -> tuple[int, bytes]:
    """Make one chat completion and return status and body."""
    return processes.call(port, PATH, method="POST", body=chat_body(), headers=chat_headers(key))


def tail(log: Path) -> str:
    """Return the end of a log, for an error message."""
    return log.read_text(errors="replace")[-600:].strip() if log.exists() else ""


@contextmanager
def serving(
    name: str,
    command: Sequence[str],
    *,
    lab: Lab,
    port: int,
    env: Mapping[str, str] | None = None,
    is_ready: Callable[[], bool] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Run a server on the target's core; enter the block once it is ready.

    Without `is_ready` it is ready when it has answered a whole call.
    """
    log = lab.workdir / f"{name.replace(' ', '-')}.log"
    with pinned(lab.cores.target):
        process = processes.start(command, log=log, env=env)

    def has_answered() -> bool:
        return call_chat(port, YARDSTICK_KEY)[0] == 200

    try:
        if not processes.wait_until(is_ready or has_answered, process=process, timeout_s=START_S):
            raise Unavailable(f"{name} did not come up: {tail(log) or 'no output'}")
        yield process
    finally:
        processes.stop(process)


@contextmanager
def start_direct(lab: Lab) -> Iterator[Target]:
    """The mock upstream with nothing in between; its CPU time is nobody's."""
    yield Target(DIRECT, lab.upstream_port, YARDSTICK_KEY, ())


@contextmanager
def start_bare(lab: Lab) -> Iterator[Target]:
    """Bursar's own stack with nothing on it: uvicorn, raw ASGI, the product's upstream pool."""
    port = processes.free_port()
    command = [sys.executable, "-m", "bench.bare", str(port), str(lab.upstream_port)]
    with serving(BARE, command, lab=lab, port=port) as process:
        yield Target(BARE, port, YARDSTICK_KEY, (process.pid,))


@contextmanager
def start_nginx(lab: Lab) -> Iterator[Target]:
    """One nginx worker, proxy_pass with keep-alive."""
    with _nginx(lab, NGINX, auth_port=None) as target:
        yield target


@contextmanager
def start_nginx_auth(lab: Lab) -> Iterator[Target]:
    """The same, and each request asks a C endpoint first, over keep-alive connections."""
    with (
        start_mock(lab.mock_program, cores=lab.cores.target) as (auth_port, auth_pid),
        _nginx(lab, NGINX_AUTH, auth_port=auth_port) as target,
    ):
        roots = (*target.roots, auth_pid)
        yield Target(target.name, target.port, target.key, roots)


@contextmanager
def _nginx(lab: Lab, name: str, *, auth_port: int | None) -> Iterator[Target]:
    port = processes.free_port()
    home = lab.workdir / name.replace(" ", "-")
    home.mkdir()
    config = home / "nginx.conf"
    config.write_text(_nginx_config(home, port=port, upstream=lab.upstream_port, auth=auth_port))
    command = [find_tool("nginx"), "-p", str(home), "-c", str(config), "-e", "stderr"]
    with serving(name, command, lab=lab, port=port) as process:
        yield Target(name, port, YARDSTICK_KEY, (process.pid,))


def _nginx_config(home: Path, *, port: int, upstream: int, auth: int | None) -> str:
    """Buffering is off, as it must be in front of an API that streams."""
    forever = "keepalive_requests 1000000000;"
    user = f"user {pwd.getpwuid(os.geteuid()).pw_name};" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"{kind}_temp_path {home}/{kind};\n  "
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    to_upstream = 'proxy_http_version 1.1; proxy_set_header Connection "";'
    authority = auth_request = ""
    if auth is not None:
        authority = f"upstream authority {{ server 127.0.0.1:{auth}; keepalive 128; {forever} }}"
        auth_request = f"""
    auth_request /auth;
    location = /auth {{
      internal;
      proxy_pass http://authority/auth;
      {to_upstream}
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
    }}"""
    return f"""{user}
worker_processes 1;
daemon off;
pid {home}/pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  {temporary}
  {forever}
  upstream models {{ server 127.0.0.1:{upstream}; keepalive 128; {forever} }}
  {authority}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    {auth_request}
    location / {{
      proxy_pass http://models;
      {to_upstream}
      proxy_buffering off;
    }}
  }}
}}
"""
