"""Virtual environments of their own, for what cannot be installed beside the tests.

Owns where they are kept (where `BURSAR_TEST_CACHE` says, else in pytest's cache) and how they are
made: once, from a lock in `requirements`. Must not know what is run in them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


class EnvironmentUnavailable(RuntimeError):
    """It cannot be made here; the text says why."""


def find_cache() -> Path | None:
    """The folder for what takes long to make, as the environment says."""
    named = os.environ.get("BURSAR_TEST_CACHE")
    return Path(named) if named else None


def make(cache: Path, name: str, *, most_s: float) -> Path:
    """The environment of this lock, made anew when the lock has changed.

    Raises EnvironmentUnavailable.
    """
    lock_file = ROOT / "requirements" / f"{name}.txt"
    wanted = hashlib.sha256(lock_file.read_bytes() + sys.version.encode()).hexdigest()
    cache.mkdir(parents=True, exist_ok=True)
    environment, stamp = cache / name, cache / f"{name}.made"
    with (cache / f"{name}.lock").open("w") as lock:
        # Of several test processes one makes it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            _install(environment, lock_file, most_s)
            stamp.write_text(wanted)
    return environment


def _install(environment: Path, lock_file: Path, most_s: float) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "environment.py"), str(environment)]
    # The tests' own environment has an installer, quicker than what the system may have.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    try:
        made = subprocess.run(
            [*command, "--create", "--lock", str(lock_file)],
            env={**os.environ, "PATH": path, "PIP_RETRIES": "0", "UV_HTTP_RETRIES": "0"},
            capture_output=True,
            text=True,
            timeout=most_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentUnavailable(f"installing took more than {most_s} s") from error
    if made.returncode != 0:
        said = " / ".join((made.stdout + made.stderr).strip().splitlines()[:3])
        raise EnvironmentUnavailable(f"it cannot be installed: {said}")
