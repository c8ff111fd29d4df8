"""An event loop whose time passes only when nothing is left to do, and whose order is a seed's.

Owns what a machine does to processes: it decides which of all steps that could be next is next, it
stops processes, lets them go on, and kills them. A killed process takes no further step: no
`finally`, no `__aexit__`. Must not know what runs on it.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final, TypeVar

T = TypeVar("T")
_STEP_S: Final = 20e-6
_MOST_STEPS: Final = 2_000_000


class Stuck(AssertionError):
    """Nothing is left that could ever happen, or things go on happening without end."""


class Process:
    """One process of the simulated system: its name, its clock, and whether it runs."""

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.is_dead = False
        self.is_stopped = False
        self.aside: list[asyncio.Handle] = []
        self.context: Context = copy_context()
        self.context.run(_PROCESS.set, self)


_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


def current_process() -> Process | None:
    """Whose step is being taken; None: the simulation's own."""
    return _PROCESS.get()


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs one step at a time, of whichever process the seed picks."""

    # What the standard library's loop keeps, under its own names.
    _ready: deque[Any]
    _scheduled: list[Any]

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = random.Random(f"order {seed}")
        self.now_s = 1_000.0
        self.steps = 0
        self.trace: list[str] = []
        self.is_ending = False
        self.on_step: Callable[[Process], None] | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        # What a killed process had still to do; dropped, it would be cleaned up behind our back.
        self._never: list[asyncio.Handle] = []
        self._failure: BaseException | None = None
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]
        self.set_exception_handler(self._fail)

    def time(self) -> float:
        """Seconds that have passed in the simulation."""
        return self.now_s

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        if not self.is_ending:
            self.trace.append(f"{self.now_s - 1_000:10.4f} {text}")

    def spawn(self, process: Process, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task as a part of this process."""
        return self.create_task(work, context=process.context.copy())

    def stop_process(self, process: Process) -> None:
        """Let a process take no step until it goes on."""
        process.is_stopped = True

    def go_on(self, process: Process) -> None:
        """Let a stopped process go on where it stood."""
        process.is_stopped = False
        self._ready.extend(process.aside)
        process.aside.clear()

    def unwind(self) -> None:
        """End everything that is still there, living or dead, in silence."""
        self.is_ending = True
        self.on_step = None
        self.set_exception_handler(lambda *_: None)
        self._ready.extend(self._never)
        for task in self._tasks:
            task.cancel()
        self.run_until_complete(_ended(self._tasks))
        self.close()

    def _make_task(
        self, _loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], **options: Any
    ) -> asyncio.Task[T]:
        task: asyncio.Task[T] = asyncio.Task(work, loop=self, name="task", **options)
        self._tasks.append(task)
        return task

    def _run_once(self) -> None:
        self.now_s += self.rng.random() * _STEP_S
        self._move_due()
        while not self._ready:
            if not self._scheduled:
                raise Stuck("nothing is left that could happen")
            self.now_s = max(self.now_s, self._scheduled[0]._when)
            self._move_due()
        ready = self._ready
        pick = self.rng.randrange(len(ready))
        ready[pick], ready[-1] = ready[-1], ready[pick]
        self._step(ready.pop())

    def _step(self, handle: Any) -> None:
        if handle._cancelled:
            return
        process = handle._context.get(_PROCESS)
        if process is not None and not self.is_ending:
            if process.is_dead:
                self._never.append(handle)
                return
            if process.is_stopped:
                process.aside.append(handle)
                return
        self.steps += 1
        if self.steps > _MOST_STEPS:
            raise Stuck("it goes on without end")
        handle._run()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if process is not None and self.on_step is not None:
            self.on_step(process)

    def _fail(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a callback raises ends the run; what a task leaves behind is its own matter."""
        if context.get("task") is None and context.get("future") is None:
            self._failure = context.get("exception")

    def _move_due(self) -> None:
        scheduled = self._scheduled
        while scheduled and (scheduled[0]._cancelled or scheduled[0]._when <= self.now_s):
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            if not handle._cancelled:
                self._ready.append(handle)

    def _process_events(self, event_list: object) -> None:
        """There is nothing outside."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""


async def _ended(tasks: list[asyncio.Task[Any]]) -> None:
    me = asyncio.current_task()
    await asyncio.gather(*(task for task in tasks if task is not me), return_exceptions=True)
