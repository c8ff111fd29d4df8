"""File systems of a few megabytes, to be filled to the last byte.

Owns mounting them and filling them. Mounting takes rights that not every user has: without them the
tests say so and are skipped.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_PIECE = 4_096


@contextlib.contextmanager
def small_disk(*, megabytes: int) -> Iterator[Path]:
    """A file system of this size, gone with the block."""
    # Any user may pass: a database that gives up its rights must get at it.
    with tempfile.TemporaryDirectory(prefix="bursar-disk-", dir="/tmp") as name:
        path = Path(name)
        path.chmod(0o755)
        options = f"size={megabytes}m,mode=0755"
        command = ["mount", "-t", "tmpfs", "-o", options, "bursar-test", name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount to make a small file system with")
        if done.returncode:
            pytest.skip(f"this user may not mount a small file system: {done.stderr.strip()}")
        try:
            yield path
        finally:
            subprocess.run(["umount", "-l", name], check=True)


@contextlib.contextmanager
def filled(disk: Path) -> Iterator[None]:
    """No byte is free on it until the block ends."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(_PIECE))
    try:
        yield
    finally:
        path.unlink()


def make_read_only(disk: Path, *, is_read_only: bool = True) -> None:
    """Refuse every write to it, or allow them again."""
    how = "remount,ro" if is_read_only else "remount,rw"
    subprocess.run(["mount", "-o", how, os.fspath(disk)], check=True)
