"""Driving either face of the SDK by one test.

A test is written for the blocking face, whose types it has, and awaits `do`: the blocking face runs
in a thread, so that a server in the test's own process can answer, the other on the test's loop.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from bursar import AsyncBursar, Bursar
from bursar.sdk.pages import AsyncPaged, Paged
from bursar.sdk.streams import AsyncStream

P = ParamSpec("P")
T = TypeVar("T")
FACES = ("blocking", "awaited")


class Face:
    """One face, and the clients of it that a test has made."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.clients: list[Bursar | AsyncBursar] = []

    @property
    def is_awaited(self) -> bool:
        """Whether its methods are awaited."""
        return self.name == "awaited"

    def client(self, api_key: str | None = None, **options: Any) -> Bursar:
        """A client of this face; the type is the other's, whose methods have the same names."""
        made = (AsyncBursar if self.is_awaited else Bursar)(api_key, **options)
        self.clients.append(made)
        return cast("Bursar", made)

    async def do(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of a client of this face."""
        if not self.is_awaited:
            return await asyncio.to_thread(method, *args, **kwargs)
        value: Any = method(*args, **kwargs)
        found: T = await value if inspect.isawaitable(value) else value
        return found

    async def items(self, several: Any) -> list[Any]:
        """Everything that can be iterated over: pages or a stream."""
        if isinstance(several, AsyncPaged | AsyncStream):
            return [item async for item in several]
        return await asyncio.to_thread(list, several)

    async def all(self, paged: Paged[T]) -> list[T]:
        """Every item of a paged list."""
        return list(await self.do(paged.all))
