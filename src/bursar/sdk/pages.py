"""Lists that are fetched page by page while they are read.

Owns how one page leads to the next. What is read twice is asked twice: each reading begins anew.
"""

import html
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, Generic, TypeAlias, TypeVar

from bursar.sdk.calls import Answer, Call, Page
from bursar.sdk.errors import InvalidAnswer
from bursar.sdk.frames import Listing

T = TypeVar("T")
Run: TypeAlias = Callable[[Call[Page[T]]], tuple[Page[T], Answer]]
AsyncRun: TypeAlias = Callable[[Call[Page[T]]], Awaitable[tuple[Page[T], Answer]]]


class Paged(Generic[T]):
    """A list to iterate over; further pages are fetched when they are reached."""

    def __init__(self, run: "Run[T]", call: Call[Page[T]]) -> None:
        self._run = run
        self._call = call

    def pages(self) -> Iterator[Page[T]]:
        """Each page, from the first."""
        call: Call[Page[T]] | None = self._call
        while call is not None:
            page, _ = self._run(call)
            yield page
            call = _following(call, page)

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from page.items

    def first(self) -> T | None:
        """The first item, None if there is none."""
        return next(iter(self), None)

    def all(self) -> Listing[T]:
        """Every item, fetched now."""
        found: list[T] = []
        kind = None
        for page in self.pages():
            found += page.items
            kind = page.kind
        return Listing(found, kind)

    def to_frame(self) -> Any:
        """All items as a pandas DataFrame, one a row; needs pandas."""
        return self.all().to_frame()

    def _repr_html_(self) -> str:
        """The first page, fetched now: to show a list is to read it."""
        page = next(self.pages())
        return page._repr_html_() + ("<p>There are more: .all()</p>" if page.next_cursor else "")

    def __repr__(self) -> str:
        return f"<pages of {self._call.path}: iterate, .pages(), .first(), .all() or .to_frame()>"


class AsyncPaged(Generic[T]):
    """A list to iterate over with `async for`; further pages are fetched when they are reached."""

    def __init__(self, run: "AsyncRun[T]", call: Call[Page[T]]) -> None:
        self._run = run
        self._call = call

    async def pages(self) -> AsyncIterator[Page[T]]:
        """Each page, from the first."""
        call: Call[Page[T]] | None = self._call
        while call is not None:
            page, _ = await self._run(call)
            yield page
            call = _following(call, page)

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for item in page.items:
                yield item

    async def first(self) -> T | None:
        """The first item, None if there is none."""
        async for item in self:
            return item
        return None

    async def all(self) -> Listing[T]:
        """Every item, fetched now."""
        found: list[T] = []
        kind = None
        async for page in self.pages():
            found += page.items
            kind = page.kind
        return Listing(found, kind)

    async def to_frame(self) -> Any:
        """All items as a pandas DataFrame, one a row; needs pandas."""
        return (await self.all()).to_frame()

    def _repr_html_(self) -> str:
        """What to do with it: a notebook cannot await what it shows."""
        return f"<p>{html.escape(repr(self))}</p>"

    def __repr__(self) -> str:
        return f"<pages of {self._call.path}: async for, .pages(), .first(), .all() or .to_frame()>"


def _following(call: Call[Page[T]], page: Page[T]) -> Call[Page[T]] | None:
    if page.next_cursor is None:
        return None
    if page.next_cursor == call.query.get("cursor"):
        raise InvalidAnswer("The server's next page is the one that it has just sent.")
    return replace(call, query={**call.query, "cursor": page.next_cursor})
