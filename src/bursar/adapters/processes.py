"""Several processes of one server: started together, told together, replaced when one ends.

Owns forking and signals. Must not know what a process does.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

import structlog

_log: Final = structlog.get_logger("bursar")
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_RESTART_S: Final = 1.0
_PR_SET_PDEATHSIG: Final = 1


def supervise(count: int, run: Callable[[int], None]) -> None:
    """Run `count` processes until told to stop; returns in each of them, when it has ended."""
    children: set[int] = set()
    told: list[int] = []
    own = os.getpid()

    def pass_on(number: int, _frame: object) -> None:
        told.append(number)
        for pid in children:
            os.kill(pid, number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    waiting = [*range(1, count), 0]
    while waiting or children:
        if waiting and not told:
            pid = os.fork()
            if pid == 0:
                for number, handler in before.items():
                    signal.signal(number, handler)
                if not told and _end_with(own):
                    run(waiting[-1])
                return
            children.add(pid)
            waiting.pop()
            if told:
                os.kill(pid, told[-1])
            continue
        waiting.clear()
        pid, status = os.wait()
        children.discard(pid)
        if not told:
            _log.error("process_ended", status=os.waitstatus_to_exitcode(status))
            time.sleep(_RESTART_S)
            # Its successor has nothing to announce: secrets are shown once.
            waiting.append(count)


def _end_with(parent: int) -> bool:
    """Have this process told to stop when its parent dies, which tells nobody; False: it has.

    Where the system cannot do that (not Linux), whoever kills the parent ends its children too.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    return os.getppid() == parent
