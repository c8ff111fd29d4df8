"""The network: the two drivers of a flow, one that blocks and one that is awaited.

Owns the HTTP library's clients, how much of an answer is read, and what its exceptions mean. The
library is imported at the first call, so that importing the SDK costs little.
"""

import threading
import time
import weakref
from contextlib import aclosing, closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from bursar.sdk import flow
from bursar.sdk.calls import Answer, Call
from bursar.sdk.configuration import Options
from bursar.sdk.errors import (
    BursarError,
    ConfigurationError,
    ConnectionFailed,
    InvalidAnswer,
    MissingDependency,
    TimedOut,
    TlsFailed,
)
from bursar.sdk.flow import Came, Send, Steps, Wait

if TYPE_CHECKING:
    import asyncio

    import httpx2

T = TypeVar("T")

MOST_BYTES: Final = 64_000_000
MOST_ERROR_BYTES: Final = 64_000
_CONNECT_S: Final = 10.0


class Connection:
    """The connections of one or more blocking clients; opened when first used."""

    def __init__(self, http_client: "httpx2.Client | None") -> None:
        self._http = http_client
        self._is_ours = http_client is None
        self._is_closed = False
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close what was opened here; a client that was handed in stays open."""
        with self._lock:
            self._is_closed = True
            if self._http is not None and self._is_ours:
                self._http.close()

    def run(self, call: Call[object], options: Options) -> Answer:
        """Carry out a call; of a stream, up to its first byte."""
        return self.drive(flow.exchange(call, options))

    def drive(self, steps: Steps[T]) -> T:
        """Carry out steps to their end, and return what they come to."""
        # However it ends, it ends now: a step may hold a lock.
        with closing(steps):
            try:
                step = next(steps)
                while True:
                    step = steps.send(self._take(step))
            except StopIteration as done:
                value: T = done.value
                return value

    def _take(self, step: Send | Wait) -> Came:
        import httpx2

        if isinstance(step, Wait):
            time.sleep(step.seconds)
            return None
        http = self._client()
        try:
            response = http.send(_prepared(http, step), stream=True, follow_redirects=False)
            if _is_streamed(response, step):
                return _head(response, stream=response)
            return _read(response)
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
            return failure(error, step.url)

    def _client(self) -> "httpx2.Client":
        import httpx2

        with self._lock:
            if self._is_closed:
                raise _closed()
            if self._http is None:
                try:
                    self._http = httpx2.Client()
                    # Whoever forgets to close a client leaves no socket behind.
                    weakref.finalize(self, self._http.close)
                except (httpx2.InvalidURL, ImportError, OSError, ValueError) as error:
                    raise _unusable(error) from error
            return self._http


class AsyncConnection:
    """The connections of one or more awaited clients; opened when first used."""

    def __init__(self, http_client: "httpx2.AsyncClient | None") -> None:
        self._http = http_client
        self._is_ours = http_client is None
        self._is_closed = False
        self._on_the_way: set[asyncio.Task[Came]] = set()

    async def close(self) -> None:
        """Close what was opened here; a client that was handed in stays open."""
        self._is_closed = True
        if self._on_the_way:
            import asyncio

            await asyncio.wait(self._on_the_way, timeout=_CONNECT_S)
        if self._http is not None and self._is_ours:
            await self._http.aclose()

    async def run(self, call: Call[object], options: Options) -> Answer:
        """Carry out a call; of a stream, up to its first byte."""
        return await self.drive(flow.exchange(call, options))

    async def drive(self, steps: Steps[T]) -> T:
        """Carry out steps to their end, and return what they come to.

        Cancelled while something is on its way that must arrive, they are left to take it.
        """
        sending: asyncio.Task[Came] | None = None
        try:
            step = next(steps)
            while True:
                if isinstance(step, Send) and step.must_arrive:
                    sending = self._sending(step)
                    came = await _shield(sending)
                    sending = None
                else:
                    came = await self._take(step)
                step = steps.send(came)
        except StopIteration as done:
            value: T = done.value
            return value
        finally:
            if sending is None:
                steps.close()
            else:
                sending.add_done_callback(partial(_hand_over, steps))

    def _sending(self, step: Send) -> "asyncio.Task[Came]":
        import asyncio

        sending = asyncio.ensure_future(self._take(step))
        self._on_the_way.add(sending)
        sending.add_done_callback(self._on_the_way.discard)
        return sending

    async def _take(self, step: Send | Wait) -> Came:
        import httpx2

        if isinstance(step, Wait):
            import asyncio

            await asyncio.sleep(step.seconds)
            return None
        http = self._client()
        try:
            response = await http.send(_prepared(http, step), stream=True, follow_redirects=False)
            if _is_streamed(response, step):
                return _head(response, stream=response)
            return await _read_async(response)
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
            return failure(error, step.url)

    def _client(self) -> "httpx2.AsyncClient":
        import httpx2

        if self._is_closed:
            raise _closed()
        if self._http is None:
            try:
                self._http = httpx2.AsyncClient()
            except (httpx2.InvalidURL, ImportError, OSError, ValueError) as error:
                raise _unusable(error) from error
        return self._http


async def _shield(sending: "asyncio.Task[Came]") -> Came:
    import asyncio

    return await asyncio.shield(sending)


def _hand_over(steps: Steps[Any], sending: "asyncio.Task[Came]") -> None:
    """Let steps that nobody waits for any more take what has come, and no further step."""
    with closing(steps), suppress(StopIteration, BursarError):
        if not sending.cancelled() and sending.exception() is None:
            steps.send(sending.result())


def failure(error: Exception, url: str) -> BursarError:
    """Return what an exception of the HTTP library means to a caller."""
    import ssl

    import httpx2

    parts = urlsplit(url)
    where = f"{parts.scheme}://{parts.netloc}"
    if isinstance(error, httpx2.TimeoutException):
        return TimedOut(f"{where} did not answer in time: try again, or with a larger timeout_s.")
    if _has_cause(error, ssl.SSLError):
        return TlsFailed(
            f"No secure connection to {where} could be made ({_reason(error)}): check the base URL "
            "and the server's certificate; SSL_CERT_FILE names further authorities."
        )
    if isinstance(error, httpx2.ConnectError | httpx2.ProxyError):
        return ConnectionFailed(
            f"{where} cannot be reached ({_reason(error)}): check that it runs, and base_url or "
            "BURSAR_BASE_URL."
        )
    if isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError):
        return ConnectionFailed(
            f"The connection to {where} broke before the answer was complete ({_reason(error)})."
        )
    if isinstance(error, httpx2.DecodingError):
        return InvalidAnswer(f"The answer of {where} cannot be decompressed.")
    return ConfigurationError(f"The request to {where} cannot be sent: {_reason(error)}.")


def _prepared(http: "httpx2.Client | httpx2.AsyncClient", step: Send) -> "httpx2.Request":
    import httpx2

    connect_s = _CONNECT_S if step.timeout_s is None else min(_CONNECT_S, step.timeout_s)
    return http.build_request(
        step.method,
        step.url,
        params=dict(step.query) or None,
        headers=dict(step.headers),
        content=step.content,
        timeout=httpx2.Timeout(step.timeout_s, connect=connect_s),
    )


def _is_streamed(response: "httpx2.Response", step: Send) -> bool:
    kind = response.headers.get("content-type", "")
    return step.is_stream and response.status_code == 200 and kind.startswith("text/event-stream")


def _read(response: "httpx2.Response") -> Came:
    parts = _Parts(response)
    with closing(response):
        for part in response.iter_bytes():
            if not parts.take(part):
                break
    return parts.answer()


async def _read_async(response: "httpx2.Response") -> Came:
    parts = _Parts(response)
    async with aclosing(response):
        async for part in response.aiter_bytes():
            if not parts.take(part):
                break
    return parts.answer()


class _Parts:
    """A body as it comes, up to what an answer may have."""

    def __init__(self, response: "httpx2.Response") -> None:
        self._response = response
        self._parts: list[bytes] = []
        self._left = MOST_BYTES if response.status_code < 300 else MOST_ERROR_BYTES

    def take(self, part: bytes) -> bool:
        """Whether more may come."""
        self._parts.append(part)
        self._left -= len(part)
        return self._left >= 0

    def answer(self) -> Came:
        """What came; of a refusal that is too long, all but its words."""
        if self._left >= 0:
            return _head(self._response, content=b"".join(self._parts))
        head = _head(self._response)
        if head.status >= 300:
            return head
        return InvalidAnswer(
            f"The answer is larger than {MOST_BYTES:,} bytes: is the base URL that of a Bursar "
            "server?",
            status=head.status,
            request_id=head.request_id,
        )


def _head(response: "httpx2.Response", *, content: bytes = b"", stream: Any = None) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, content, stream)


def _has_cause(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _closed() -> ConfigurationError:
    return ConfigurationError("This client is closed: make another one.")


def _unusable(error: Exception) -> BursarError:
    if isinstance(error, ImportError):
        return MissingDependency(
            "The environment's proxy is one of SOCKS, which needs a package: pip install "
            "'httpx2[socks]', or unset ALL_PROXY."
        )
    return ConfigurationError(
        f"The environment's settings for proxies or certificates cannot be used: {_reason(error)}."
    )
