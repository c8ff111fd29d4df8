"""Whose journal it is: one small file for each worker, locked while the worker lives.

Owns what a worker says of itself before it writes anything else: the moment at which it registered,
and the boot of the machine in which it lives. That is forced to the disk once, so that it is known
after a power cut, whatever has become of the journal. Must not know charges.
"""

import fcntl
import os
import zlib
from pathlib import Path
from typing import NamedTuple

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MOST_BYTES = 256


class Identity(NamedTuple):
    """When a worker registered, and in which boot of its machine; "" where the system has none."""

    born_ms: int
    boot_id: str


class Lock:
    """An exclusive lock on a file, held by this process's open descriptor."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def acquire(self) -> bool:
        """Take the lock; False when somebody has it."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def make(self, identity: Identity) -> bool:
        """Take the lock of a worker that begins, and say to the disk itself whose it is; blocks.

        False when somebody has it. It has no name before it is locked: whoever finds one that is
        not takes its worker for dead.
        """
        former = Lock(self._path)
        if self._path.exists() and not former.acquire():
            return False
        new = Lock(self._path.with_suffix(".new"))
        if not new.acquire():
            former.release(remove=False)
            return False
        try:
            os.ftruncate(new._fd, 0)
            os.pwrite(new._fd, _text_of(identity), 0)
            os.fsync(new._fd)
            new._path.rename(self._path)
        except OSError:
            new.release(remove=True)
            raise
        finally:
            former.release(remove=False)
        self._fd = new._fd
        _sync_folder(self._path.parent)
        return True

    def read(self) -> Identity | None:
        """Whose lock this is; None when it does not say."""
        text = os.pread(self._fd, _MOST_BYTES, 0)
        words = text.decode("ascii", "replace").split()
        if len(words) not in (2, 3) or not words[0].isdecimal():
            return None
        found = Identity(int(words[0]), words[1] if len(words) == 3 else "")
        return found if text == _text_of(found) else None

    def release(self, *, remove: bool) -> None:
        """Let others have it; does nothing when it is not held."""
        if self._fd < 0:
            return
        if remove:
            self._path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1


def this_boot() -> str:
    """What tells this boot of the machine from every other; "" where the system does not say."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _text_of(identity: Identity) -> bytes:
    told = f"{identity.born_ms} {identity.boot_id}".rstrip().encode("ascii")
    return b"%b %08x\n" % (told, zlib.crc32(told))


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
