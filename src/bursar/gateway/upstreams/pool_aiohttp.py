"""The pool's twin on aiohttp, for upstreams behind a proxy or with unusual TLS.

Owns the translation of the port into aiohttp and of aiohttp's errors into ours. Must not know
what bodies mean. Costs about seven times the processor time of `pool`, and its framing is as
strict as aiohttp's; in everything else the two pass the same tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import ssl
from collections.abc import AsyncIterator
from types import SimpleNamespace

import aiohttp
from yarl import URL

from bursar.gateway.upstreams.http11.connections import STALE_WITHIN_S
from bursar.gateway.upstreams.http11.exchanges import PAUSE_ABOVE
from bursar.gateway.upstreams.http11.slots import Slots
from bursar.gateway.upstreams.port import (
    OWN_HEADERS,
    FailureKind,
    Headers,
    Limits,
    Timeouts,
    UpstreamError,
    check_target,
    parse_origin,
)

_LARGE = 1_048_576  # aiohttp writes more than this in pieces, and wants it as a file
_AUTOMATIC = ("user-agent", "accept", "content-type")


class AiohttpPool:
    """An `UpstreamClient` over aiohttp; belongs to one event loop."""

    def __init__(
        self,
        base_url: str,
        *,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        """Prepare a pool for `base_url`; `proxy` is an http URL, `tls` replaces the trust store.

        Raises ValueError for an unusable URL.
        """
        origin = parse_origin(base_url)
        scheme = "https" if origin.is_tls else "http"
        self._base = f"{scheme}://{origin.authority}{origin.prefix}"
        self._timeouts = timeouts or Timeouts()
        self._limits = limits or Limits()
        self._tls = tls
        self._proxy = proxy
        self._slots = Slots(self._limits.max_connections, self._limits.max_waiters)
        self._pooled: aiohttp.ClientSession | None = None
        self._single_use: aiohttp.ClientSession | None = None
        self._calls: set[AiohttpResponse] = set()

    @property
    def in_use(self) -> int:
        """How many slots are taken."""
        return self._slots.taken

    @property
    def waiting(self) -> int:
        """How many calls wait for a slot."""
        return self._slots.waiting

    async def send(
        self, method: bytes, path: bytes, headers: Headers, body: bytes, *, is_again: bool = False
    ) -> AiohttpResponse:
        """Send one request; see `UpstreamClient.send` and `KeepAlivePool.send`."""
        check_target(method, path)
        url = URL(self._base + path.decode(), encoded=True)
        fields = [
            (name.decode(), value.decode())
            for name, value in headers
            if name.lower() not in OWN_HEADERS
        ]
        fields.append(("accept-encoding", "identity"))
        await self._take_slot()
        call = AiohttpResponse(self._slots, self._timeouts, self._limits, self._calls)
        try:
            answer = await self._request(call, method.decode(), url, fields, body)
            call.begin(answer)
        except BaseException:
            call.abort()
            raise
        return call

    def start(self, method: bytes, path: bytes, headers: Headers, body: bytes) -> None:
        """Never at once: aiohttp waits; see `UpstreamClient.start`."""

    async def close(self) -> None:
        """Close every connection; see `UpstreamClient.close`."""
        self._slots.close()
        for call in tuple(self._calls):
            call.abort()
        for session in (self._pooled, self._single_use):
            if session is not None:
                await session.close()

    async def _take_slot(self) -> None:
        try:
            async with asyncio.timeout(self._timeouts.connect_s):
                await self._slots.take()
        except TimeoutError as error:
            message = "no connection became free in time"
            raise UpstreamError("busy", message, request_sent=False) from error

    async def _request(
        self,
        call: AiohttpResponse,
        method: str,
        url: URL,
        fields: list[tuple[str, str]],
        body: bytes,
    ) -> aiohttp.ClientResponse:
        if self._pooled is None:
            self._pooled = self._session()
        trace = SimpleNamespace(is_reused=False)

        async def request(session: aiohttp.ClientSession) -> aiohttp.ClientResponse:
            return await session.request(
                method,
                url,
                headers=fields,
                data=_payload(body),
                allow_redirects=False,
                proxy=self._proxy,
                trace_request_ctx=trace,
            )

        loop = asyncio.get_running_loop()
        async with call.deadline("timeout_headers", self._timeouts.headers_s):
            sent_at = loop.time()
            try:
                return await request(self._pooled)
            except aiohttp.ClientConnectionError as error:
                is_late = loop.time() - sent_at > STALE_WITHIN_S
                if not trace.is_reused or is_late or not _is_silent(error):
                    raise
            # Its pool may hold more of the same age: repeat where nothing is ever reused.
            if self._single_use is None:
                self._single_use = self._session(force_close=True)
            return await request(self._single_use)

    def _session(self, *, force_close: bool = False) -> aiohttp.ClientSession:
        limits = self._limits
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        connector = aiohttp.TCPConnector(
            limit=0,
            ssl=self._tls or True,
            force_close=force_close,
            keepalive_timeout=None if force_close else limits.idle_expiry_s,
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeouts.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_AUTOMATIC,
            read_bufsize=PAUSE_ABOVE // 2,  # aiohttp pauses at twice this
            max_line_size=limits.max_head,
            max_field_size=limits.max_head,
            trace_configs=[trace],
        )


class AiohttpResponse:
    """One answer through aiohttp, an `UpstreamResponse`; holds a slot until it is over."""

    def __init__(
        self, slots: Slots, timeouts: Timeouts, limits: Limits, calls: set[AiohttpResponse]
    ) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._slots = slots
        self._timeouts = timeouts
        self._max_body = limits.max_body
        self._ends_at = asyncio.get_running_loop().time() + timeouts.total_s
        self._answer: aiohttp.ClientResponse | None = None
        self._is_over = False
        self._is_whole = False
        self._calls = calls
        calls.add(self)

    def begin(self, answer: aiohttp.ClientResponse) -> None:
        """Take over what aiohttp has received so far; raises `UpstreamError` if it is no use."""
        self._answer = answer
        self.headers = [(name.lower(), value) for name, value in answer.raw_headers]
        if self._is_over:
            raise UpstreamError("closed", "the upstream client was closed", request_sent=True)
        is_plain = all(
            value.lower() == b"identity"
            for name, value in self.headers
            if name == b"content-encoding"
        )
        if not is_plain or not 200 <= answer.status <= 599:
            message = "the upstream's answer is encoded or no final answer"
            raise UpstreamError("protocol", message, request_sent=True)
        self.status = answer.status
        self._note_end(answer)

    async def read(self) -> bytes:
        """Return the whole body; see `UpstreamResponse.read`."""
        chunks: list[bytes] = []
        size = 0
        while chunk := await self.next_chunk():
            chunks.append(chunk)
            size += len(chunk)
            if size > self._max_body:
                self.abort()
                message = f"the upstream's answer is larger than {self._max_body} bytes"
                raise UpstreamError("too_large", message, request_sent=True)
        return b"".join(chunks)

    async def next_chunk(self) -> bytes:
        """Return what has arrived; see `UpstreamResponse.next_chunk`."""
        answer = self._answer
        if answer is None or (self._is_over and not self._is_whole):
            raise UpstreamError("closed", "the call was given up", request_sent=True)
        try:
            async with self.deadline("timeout_idle", self._timeouts.idle_s):
                chunk = await answer.content.readany()
        except BaseException:
            self.abort()
            raise
        self._note_end(answer)
        return chunk

    def abort(self) -> None:
        """End the exchange now; see `UpstreamResponse.abort`."""
        if self._answer is not None and not self._is_whole:
            self._answer.close()
        self._end()

    @contextlib.asynccontextmanager
    async def deadline(self, kind: FailureKind, seconds: float) -> AsyncIterator[None]:
        """Bound what is awaited within and raise aiohttp's errors as `UpstreamError`."""
        left = self._ends_at - asyncio.get_running_loop().time()
        if left < seconds:
            kind, seconds = "timeout_total", left
        try:
            async with asyncio.timeout(seconds):
                yield
        except aiohttp.ServerTimeoutError as error:
            message = f"no connection within {self._timeouts.connect_s:g} s"
            raise UpstreamError("timeout_connect", message, request_sent=False) from error
        except TimeoutError as error:
            message = f"the upstream took longer than {seconds:g} s"
            raise UpstreamError(kind, message, request_sent=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _translated(error) from error
        except UnicodeError as error:
            # The resolver's word for a name that cannot be one.
            message = f"cannot connect: {error}"
            raise UpstreamError("connect", message, request_sent=False) from error

    def _note_end(self, answer: aiohttp.ClientResponse) -> None:
        if answer.content.is_eof() and answer.content.exception() is None:
            self._is_whole = True
            self._end()

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._calls.discard(self)
            self._slots.give_back()


async def _note_reuse(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _params: aiohttp.TraceConnectionReuseconnParams,
) -> None:
    context.trace_request_ctx.is_reused = True


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    return io.BytesIO(body) if len(body) > _LARGE else body or None


def _is_silent(error: aiohttp.ClientConnectionError) -> bool:
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)  # else it carries the answer's beginning
    is_socket = isinstance(error, (aiohttp.ClientOSError, ConnectionResetError))
    return is_socket and not isinstance(error, aiohttp.ClientConnectorError)


def _translated(error: aiohttp.ClientError | OSError) -> UpstreamError:
    kind: FailureKind = "closed"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        kind = "tls"
    elif isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError):
        kind = "connect"
    elif isinstance(error, aiohttp.ClientResponseError):
        kind = "too_large" if "more than" in str(error) else "protocol"
    elif isinstance(error, aiohttp.ClientPayloadError) and "Not enough data" not in str(error):
        kind = "protocol"
    return UpstreamError(kind, f"{error}", request_sent=kind not in ("tls", "connect"))
