"""strace beside a running process: it ends it, as the kernel would, at its nth system call."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def require() -> None:
    """Skip, and say why, where processes cannot be traced."""
    path = shutil.which("strace")
    if path is None:
        pytest.skip("strace is not installed: apt-get install strace")
    done = subprocess.run(
        [path, "-f", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"strace may not trace processes here: {done.stderr.strip()}")


@contextmanager
def killing(pid: int, calls: str, *, nth: int) -> Iterator[None]:
    """SIGKILL `pid` when one of its threads begins the `nth` of these system calls."""
    command = ["strace", "-f", "-o", "/dev/null", "-p", str(pid)]
    tracer = subprocess.Popen(
        [*command, "-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={nth}"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert tracer.stderr is not None
        while "attached" not in (line := tracer.stderr.readline()):
            assert line, "strace did not attach"
        yield
        tracer.wait(20)
    finally:
        if tracer.poll() is None:
            tracer.terminate()
            tracer.wait(5)
        tracer.stderr.close()


def is_over(process: subprocess.Popen[str], *, within_s: float) -> bool:
    """Whether the process ends in time; what it leaves is waited for."""
    deadline = time.monotonic() + within_s
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return process.poll() is not None
