"""Processes of the bench: start, stop by id, readiness, CPU time and memory from /proc.

Knows nothing of what a process is for. Linux only.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
STOP_S = 10.0
LOWEST_PRIORITY = 19


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process tree in kB: RSS, and PSS, where shared pages are counted once."""

    rss_kb: int
    pss_kb: int


def start(
    command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a server with its output in `log`, out of reach of the terminal's interrupt."""
    with log.open("a") as output:
        return subprocess.Popen(
            list(command),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment(env or {}),
            start_new_session=True,
            text=True,
        )


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return ours with `extra`, but no setting of a Bursar that somebody else runs."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("BURSAR_")}
    return {**ours, **extra}


def stop(process: subprocess.Popen[str]) -> None:
    """End one process: politely, then, after ten seconds, for certain."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(
    is_ready: Callable[[], bool], *, process: subprocess.Popen[str], timeout_s: float
) -> bool:
    """Poll until `is_ready`; False where the process ended or the time is up."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and process.poll() is None:
        if is_ready():
            return True
        time.sleep(0.05)
    return False


def call(
    port: int,
    path: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Make one HTTP call on loopback and return status and body; status 0: no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def _stat_fields(pid: int) -> list[str]:
    # The command's name stands in brackets and may hold spaces: count fields from its end.
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2 :].split()


def tree(roots: Iterable[int]) -> list[int]:
    """Return `roots` that live, with all their descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                children.setdefault(int(_stat_fields(int(entry.name))[1]), []).append(
                    int(entry.name)
                )
    found: list[int] = []
    waiting = [pid for pid in roots if Path(f"/proc/{pid}").exists()]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def yield_to_others(root: int) -> None:
    """Have a process, and all that it starts from now on, work only when nobody else wants to."""
    for pid in tree([root]):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, LOWEST_PRIORITY)
            if os.getsid(pid) != os.getsid(0):
                # Sessions share a core as equals, whatever their processes' priorities are.
                Path(f"/proc/{pid}/autogroup").write_text(str(LOWEST_PRIORITY))


def cpu_us(roots: Iterable[int]) -> int:
    """Return the CPU time in µs of process trees, children that ended and were reaped included."""
    ticks = 0
    for pid in tree(roots):
        with suppress(OSError):
            ticks += sum(int(field) for field in _stat_fields(pid)[11:15])
    return ticks * TICK_US


def core_busy_us(core: int) -> int:
    """Return for how long a core has worked for anybody, time stolen by a hypervisor included."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _wait, _irq, _softirq, steal, *_ = map(int, fields)
            return (user + nice + system + steal) * TICK_US
    return 0


def memory(roots: Iterable[int]) -> Memory:
    """Return the memory of process trees."""
    totals = {"Rss": 0, "Pss": 0}
    for pid in tree(roots):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in totals:
                    totals[name] += int(rest.split()[0])
    return Memory(rss_kb=totals["Rss"], pss_kb=totals["Pss"])
