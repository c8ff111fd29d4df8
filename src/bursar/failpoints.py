"""Failpoints: named places at which tests have a process die, fail, wait or hang.

Owns the names, what happens at each, and the one environment variable, `BURSAR_FP`, which is read
once, when the program is loaded: `name:kill|err|oom|delay|hang[@nth]`. Without it a decorator here
returns the very function that it was given, so nothing costs anything. An aid for tests and for
nothing else: a server that has one set says so, loudly. Must not know the places themselves.

`kill` ends the process as SIGKILL does, `err` raises an OSError, `oom` a MemoryError, `delay` waits
a second and `hang` for ever; each once, at the `nth` time that the place is reached (the first).
"""

import asyncio
import inspect
import os
import re
import signal
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar

VARIABLE: Final = "BURSAR_FP"
NAMES: Final = frozenset(
    (
        "lease.granted",  # the database has granted a lease, and the worker does not know it yet
        "hold.taken",  # credit is held, and no upstream has been called
        "request.sent",  # an upstream has the request, and not a byte of its answer is here
        "stream.chunk",  # a piece of a stream has been passed on
        "charge.known",  # what a call costs is known, and nothing has been written down
        "charge.written",  # it is in the journal
        "batch.applied",  # within a batch's transaction, before its COMMIT
        "batch.committed",  # after its COMMIT, and the journal does not know it yet
        "replay.applied",  # within the transaction that settles a dead worker's charges
    )
)
_DELAY_S: Final = 1.0
_FOR_EVER_S: Final = 86_400.0
_WRITTEN: Final = re.compile(r"([a-z.]+):(kill|err|oom|delay|hang)(?:@([1-9]\d{0,8}))?")

F = TypeVar("F", bound=Callable[..., Any])


class _Fault:
    """What happens at one place, once."""

    def __init__(self, text: str) -> None:
        found = _WRITTEN.fullmatch(text)
        self.name = found[1] if found else ""
        self._kind = found[2] if found else ""
        self._left = int(found[3] or 1) if found else 0

    def at(self, name: str) -> bool:
        """Whether this is the time at which it happens."""
        if name != self.name:
            return False
        self._left -= 1
        return self._left == 0

    def happen(self) -> float:
        """Kill or raise; otherwise how long to wait, in seconds."""
        if self._kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._kind == "err":
            raise OSError(f"failpoint {self.name}")
        if self._kind == "oom":
            raise MemoryError(f"failpoint {self.name}")
        return _DELAY_S if self._kind == "delay" else _FOR_EVER_S


_TEXT: Final = os.environ.get(VARIABLE, "")
_FAULT: Final = _Fault(_TEXT)


def what_is_set() -> str:
    """The failpoint of this process; empty when there is none. Raises ValueError for nonsense."""
    if _TEXT and _FAULT.name not in NAMES:
        raise ValueError(f"{VARIABLE} is NAME:kill|err|oom|delay|hang[@NTH], not {_TEXT!r}")
    return _TEXT


def is_set(*names: str) -> bool:
    """Whether the failpoint of this process is one of these."""
    return _FAULT.name in names


def before(name: str) -> Callable[[F], F]:
    """Have the failpoint `name` at the beginning of the function."""
    return _bind(name, is_before=True)


def after(name: str) -> Callable[[F], F]:
    """Have the failpoint `name` at the end of the function, when it has not raised."""
    return _bind(name, is_before=False)


def _bind(name: str, *, is_before: bool) -> Callable[[F], F]:
    if name not in NAMES:
        raise ValueError(f"{name} is no failpoint")

    def bind(function: F) -> F:
        if name != _FAULT.name:
            return function
        made: Any = _awaited if inspect.iscoroutinefunction(function) else _plain
        bound: F = made(name, function, is_before)
        return bound

    return bind


def _plain(name: str, function: Callable[..., Any], is_before: bool) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if is_before and _FAULT.at(name):
            time.sleep(_FAULT.happen())
        answer = function(*arguments, **named)
        if not is_before and _FAULT.at(name):
            time.sleep(_FAULT.happen())
        return answer

    return call


def _awaited(name: str, function: Callable[..., Any], is_before: bool) -> Callable[..., Any]:
    @wraps(function)
    async def call(*arguments: Any, **named: Any) -> Any:
        if is_before and _FAULT.at(name):
            await asyncio.sleep(_FAULT.happen())
        answer = await function(*arguments, **named)
        if not is_before and _FAULT.at(name):
            await asyncio.sleep(_FAULT.happen())
        return answer

    return call
