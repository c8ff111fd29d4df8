"""Passwords: their slow hash, and what everybody tries first.

Owns the parameters of Argon2id: 64 MiB, three passes, one lane, above what OWASP asks for. Must not
know users. Each hash takes about 0.1 s of one core and 64 MiB: those that serve others make it in a
`PasswordPool`, which has a bound.
"""

import asyncio
import string
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Final, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from bursar.core.errors import Unavailable

_HASHER = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=1, type=Type.ID)
_LIST: Final = "common_passwords.txt"
_MOST_WAITING: Final = 64
# How long such passwords are, and what their runs are of: numbers, the alphabet, rows of keys.
_USUAL: Final = range(8, 13)
_ROWS: Final = (
    string.digits * 2,
    string.digits[1:] * 2,
    string.ascii_lowercase,
    "qwertyuiop",
    "qwertzuiop",
    "asdfghjkl",
)

T = TypeVar("T")


def hash_password(password: str) -> str:
    """Return the password's hash with its parameters and a fresh salt in it."""
    return _HASHER.hash(password)


def list_common() -> frozenset[str]:
    """Return the passwords that others try first, in small letters, of eight characters and more.

    Those found most often in stolen lists, as zxcvbn has them (its licence is beside the file), and
    what it knows by rule instead: one character or pair all over, runs of letters and digits.
    """
    text = resources.files("bursar.adapters").joinpath(_LIST).read_text("ascii")
    return frozenset((*text.splitlines(), *_repeated(), *_runs()))


def _repeated() -> Iterator[str]:
    signs = string.digits + string.ascii_lowercase
    for size in _USUAL:
        yield from (sign * size for sign in signs)
        yield from ((one + other) * (size // 2) for one in signs for other in signs)
        yield from ((string.digits[1 : 1 + part] * size)[:size] for part in (3, 4, 5, 6))


def _runs() -> Iterator[str]:
    for row in _ROWS:
        for line in (row, row[::-1]):
            for size in _USUAL:
                yield from (line[at : at + size] for at in range(len(line) - size + 1))


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
