"""Streams of server-sent events, read as they come.

Owns the events' form, the end mark, and that a stream which stops before it is an error and never
a shorter answer. What comes after the mark is not waited for: something on the way may hold the
connection open, or break it. Must not know what the events say.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from bursar.sdk import errors, flow, transport, values
from bursar.sdk.calls import Answer
from bursar.sdk.errors import InvalidAnswer, StreamCut

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

_END: Final = b"[DONE]"
_MOST_EVENT_BYTES: Final = 16_000_000


class Events(Generic[T]):
    """The events of one stream: bytes go in as they come, values come out.

    `read` makes a value of an event's JSON. `is_complete` once the end mark has come.
    """

    def __init__(self, answer: Answer, read: Callable[[object, Answer], T]) -> None:
        self._answer = answer
        self._read = read
        self._rest = b""
        self._data: list[bytes] = []
        self.is_complete: bool = False

    def feed(self, part: bytes) -> Iterator[T]:
        """Take bytes; yields the values of the events that they complete, up to the end mark."""
        *lines, self._rest = (self._rest + part).split(b"\n")
        if len(self._rest) > _MOST_EVENT_BYTES:
            raise InvalidAnswer(
                "An event of the stream is too large.", request_id=self._answer.request_id
            )
        for line in lines:
            yield from self._line(line.removesuffix(b"\r"))

    def finish(self) -> None:
        """Say that nothing more comes; raises StreamCut unless the end mark was there."""
        if not self.is_complete:
            raise StreamCut(
                "The stream ended before its end: the answer is not whole. What came is charged; "
                "ask again for a whole one.",
                request_id=self._answer.request_id,
            )

    def _line(self, line: bytes) -> Iterator[T]:
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        elif not line and self._data:
            data, self._data = b"\n".join(self._data), []
            if data == _END:
                self.is_complete = True
            elif not self.is_complete:
                yield self._value(data)

    def _value(self, data: bytes) -> T:
        try:
            document = values.decode(data)
        except ValueError as error:
            raise InvalidAnswer(
                f"An event of the stream is not JSON ({error}).",
                status=self._answer.status,
                request_id=self._answer.request_id,
            ) from None
        said = flow.error_in(document)
        if said is not None:
            status = errors.STATUS_BY_TYPE.get(str(said.get("type")), 500)
            raise flow.refused(said, status=status, headers=self._answer.headers)
        return self._read(document, self._answer)


class Stream(Generic[T]):
    """An answer that is read while it comes: iterate over it, once. Leaving early closes it."""

    def __init__(self, answer: Answer, read: Callable[[object, Answer], T]) -> None:
        self._answer = answer
        self._events = Events(answer, read)
        self._response: httpx2.Response = response_of(answer)
        self._is_over = False

    @property
    def request_id(self) -> str | None:
        """The server's id of the request."""
        return self._answer.request_id

    def __iter__(self) -> Iterator[T]:
        if self._is_over:
            raise _over(self._answer)
        self._is_over = True
        with closing(self._response):
            for part in self._parts():
                yield from self._events.feed(part)
                if self._events.is_complete:
                    return
            self._events.finish()

    def close(self) -> None:
        """Stop reading."""
        self._is_over = True
        self._response.close()

    def __enter__(self) -> "Stream[T]":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _parts(self) -> Iterator[bytes]:
        import httpx2

        try:
            yield from self._response.iter_bytes()
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise _cut(error, self._response, self._answer) from error


class AsyncStream(Generic[T]):
    """An answer that is read while it comes: `async for` over it, once."""

    def __init__(self, answer: Answer, read: Callable[[object, Answer], T]) -> None:
        self._answer = answer
        self._events = Events(answer, read)
        self._response: httpx2.Response = response_of(answer)
        self._is_over = False

    @property
    def request_id(self) -> str | None:
        """The server's id of the request."""
        return self._answer.request_id

    async def __aiter__(self) -> AsyncIterator[T]:
        if self._is_over:
            raise _over(self._answer)
        self._is_over = True
        async with aclosing(self._response):
            async for part in self._parts():
                for value in self._events.feed(part):
                    yield value
                if self._events.is_complete:
                    return
            self._events.finish()

    async def close(self) -> None:
        """Stop reading."""
        self._is_over = True
        await self._response.aclose()

    async def __aenter__(self) -> "AsyncStream[T]":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _parts(self) -> AsyncIterator[bytes]:
        import httpx2

        try:
            async for part in self._response.aiter_bytes():
                yield part
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise _cut(error, self._response, self._answer) from error


def response_of(answer: Answer) -> Any:
    """Return the open response of a stream; raises InvalidAnswer where the answer is none."""
    if answer.stream is None:
        raise answer.invalid("The answer is not a stream: ")
    return answer.stream


def _over(answer: Answer) -> errors.BursarError:
    return errors.ConfigurationError(
        "This stream has been read, or was closed: it is read once; ask for another one.",
        request_id=answer.request_id,
    )


def _cut(error: Exception, response: "httpx2.Response", answer: Answer) -> errors.BursarError:
    failure = transport.failure(error, str(response.url))
    if isinstance(failure, errors.TimedOut):
        failure.request_id = answer.request_id
        return failure
    return StreamCut(
        f"The stream broke before its end: {failure.message} What came is charged.",
        request_id=answer.request_id,
    )
