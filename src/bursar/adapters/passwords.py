"""Passwords: their slow hash, and what everybody tries first.

Owns the parameters of Argon2id: 64 MiB, three passes, one lane, above what OWASP asks for. Must not
know users. Each hash takes about 0.1 s of one core and 64 MiB: those that serve others make it in a
`PasswordPool`, which has a bound.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Final, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from bursar.core.errors import Unavailable

_HASHER = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=1, type=Type.ID)
_LIST: Final = "common_passwords.txt"
_MOST_WAITING: Final = 64

T = TypeVar("T")


def hash_password(password: str) -> str:
    """Return the password's hash with its parameters and a fresh salt in it."""
    return _HASHER.hash(password)


def list_common() -> frozenset[str]:
    """Return the 8000 passwords that are found most often in stolen lists, in small letters.

    Of those with eight characters and more; after Royce Williams' list of common passwords.
    """
    text = resources.files("bursar.adapters").joinpath(_LIST).read_text("ascii")
    return frozenset(line.lower() for line in text.splitlines())


class PasswordPool:
    """Hashes and checks passwords in a few threads, beside the event loop.

    Of those that wait there are at most 64; one more is refused (Unavailable `overloaded`), so that
    a rush of guesses takes neither all memory nor the time of everybody else.
    """

    def __init__(
        self, threads: int = 2, *, hasher: PasswordHasher = _HASHER, most: int = _MOST_WAITING
    ) -> None:
        self._hasher = hasher
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._most = most
        self._waiting = 0
        self._nobody = ""

    async def hash(self, password: str) -> str:
        """Return the password's hash."""
        return await self._run(lambda: self._hasher.hash(password))

    async def is_right(self, password_hash: str | None, password: str) -> bool:
        """Whether the password has this hash; None takes as long, and is never right."""
        return await self._run(lambda: self._verify(password_hash, password))

    def is_old(self, password_hash: str) -> bool:
        """Whether the hash was made with other parameters than those of today."""
        return self._hasher.check_needs_rehash(password_hash)

    def close(self) -> None:
        """Take no more work; what is at work is finished."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _verify(self, password_hash: str | None, password: str) -> bool:
        if not self._nobody:
            self._nobody = self._hasher.hash("nobody has this password")
        try:
            self._hasher.verify(password_hash or self._nobody, password)
        except InvalidHashError:
            # Nothing that Argon2 has made: nobody's password, checked as long as anybody's.
            return self._verify(None, password)
        except VerificationError:
            return False
        # Somebody without a password has an empty hash: nothing is it.
        return bool(password_hash)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= self._most:
            message = "Too many people sign in at this moment. Try again shortly."
            raise Unavailable("overloaded", message, retry_after_s=1)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1
