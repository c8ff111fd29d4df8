"""A scripted model server on loopback that keeps its own sales ledger: the oracle of billing tests.

It speaks OpenAI's chat completions (JSON and server-sent events) and embeddings over real sockets,
misbehaves as told, and writes down for every request what it really produced, whatever it reports.

    async with ScriptedUpstream() as up:
        up.behave(Behaviour(status=429, retry_after=7))      # the next request
        up.models["slow"] = Behaviour(delay_s=0.2)           # every request for that model
        ...
        assert up.sold_nanos(cost) == billed
        up.ledger(cost)["Bearer sk-up", "call-7"]            # what one request of a key came to

`with ScriptedUpstream.in_thread() as up:` runs it beside a test that has no event loop.
A word is a token: prompts are counted in words, answers are made of them. What has been produced
is sold, whatever becomes of its way: a client that leaves, does not read or is cut off owes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import ssl
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

LONG_LINE = 1_048_576


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one request is answered; the default is a good answer of `tokens` words at once."""

    tokens: int = 5
    prompt_tokens: int | None = None  # what it really costs; None: the words of the prompt
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    status: int = 200
    retry_after: int | None = None
    delay_s: float = 0.0  # before the status line
    gap_s: float = 0.0  # before each event but the first
    cut_after: int | None = (
        None  # events (stream) or bytes of the body (JSON), then the socket ends
    )
    cut_within: int = 0  # bytes of the event after those that go out before the socket ends
    hang_before_headers: bool = False
    hang_after: int | None = None  # events, then silence
    works_on: bool = False  # whether an abandoned answer is produced, and sold, all the same
    # reported, absent, null, negative, string, huge, twice, decreasing, tenfold
    usage: str = "reported"
    garbage: bool = False  # 200 with a page of HTML
    long_line: bool = False  # one event whose line is above 1 MiB
    newline: bytes = b"\n"
    comment: bytes = b""  # sent before each event
    content: str | None = None  # instead of words: one event, or the whole message
    without_end: str = ""  # events, one line, or a body: until the client leaves
    is_dripping: bool = False  # a whole answer's body byte by byte, `gap_s` apart
    gzip_bytes: int = 0  # so many zeros, a thousand times smaller on the wire
    in_band_error: bool = False  # a stream that ends with an error event
    no_done: bool = False
    redirect_to: str | None = None
    length_error: int = 0  # added to Content-Length
    half_close: bool = False  # ends its sending side before the answer and listens on
    drop: bool = False  # closes without an answer, after `delay_s`
    keep_alive: bool = True
    headers: tuple[tuple[str, str], ...] = ()
    raw: tuple[bytes, ...] | None = None  # sent as they are, `gap_s` apart, then the socket ends
    raw_keeps_alive: bool = False


GOOD = Behaviour()


@dataclass(slots=True)
class Sale:
    """One request, and what was produced for it."""

    connection: int
    method: str
    path: str
    headers: dict[str, str]
    raw_body: bytes
    body: dict[str, Any] = field(default_factory=dict)
    status: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reported: dict[str, Any] | None = None
    is_complete: bool = False
    is_abandoned: bool = False

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")

    @property
    def request(self) -> str:
        """The first word of what was asked, by which a test knows its requests."""
        words = _text_of(self.body.get("messages", self.body.get("input", ""))).split()
        return words[0] if words else ""

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))

    @property
    def is_stream(self) -> bool:
        return bool(self.body.get("stream"))


class ScriptedUpstream:
    """The server; `base_url` is what a gateway is configured with."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, default: Behaviour = GOOD) -> None:
        self.sales: list[Sale] = []
        self.models: dict[str, Behaviour] = {}
        self.default = default
        self.connections = 0
        self.open_connections = 0
        self.port = 0
        self._queue: deque[Behaviour] = deque()
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self.port}/v1"

    def behave(self, *behaviours: Behaviour) -> None:
        """Script the next requests, one behaviour each; they go before models and the default."""
        self._queue.extend(behaviours)

    def sold_nanos(self, cost: Callable[[Sale], int], *, authorization: str | None = None) -> int:
        """Price everything that was sold, to everybody or to one credential."""
        return sum(
            cost(sale)
            for sale in self.sales
            if authorization is None or sale.authorization == authorization
        )

    def ledger(self, cost: Callable[[Sale], int]) -> dict[tuple[str, str], int]:
        """What each request of each credential came to, those that came to nothing included."""
        found: dict[tuple[str, str], int] = {}
        for sale in self.sales:
            key = (sale.authorization, sale.request)
            found[key] = found.get(key, 0) + cost(sale)
        return found

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls, limit=2**26
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Close the port and every connection."""
        assert self._server is not None
        self._server.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @classmethod
    @contextlib.contextmanager
    def in_thread(
        cls, *, default: Behaviour = GOOD, tls: ssl.SSLContext | None = None
    ) -> Iterator[Self]:
        """Run in a thread of its own."""
        upstream = cls(default=default, tls=tls)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(upstream.__aenter__(), loop).result(10)
            yield upstream
            asyncio.run_coroutine_threadsafe(upstream.stop(), loop).result(10)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()

    # One connection

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open_connections += 1
        number = self.connections
        try:
            while await self._serve_one(number, reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The client left, or the test is over.
        finally:
            self.open_connections -= 1
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _serve_one(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        sale = await _read_request(number, reader)
        self.sales.append(sale)
        behaviour = self._choose(sale)
        answer = _Answer(sale, behaviour, reader, writer)
        if behaviour.drop:
            await asyncio.sleep(behaviour.delay_s)
            return False
        if behaviour.raw is not None:
            return await answer.send_raw(behaviour.raw)
        return await answer.send()

    def _choose(self, sale: Sale) -> Behaviour:
        if self._queue:
            return self._queue.popleft()
        return self.models.get(sale.model, self.default)


class _ClientLeft(OSError):
    """The client closed its side while an answer was being made."""


class _Answer:
    def __init__(
        self,
        sale: Sale,
        behaviour: Behaviour,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.sale = sale
        self.how = behaviour
        self.reader = reader
        self.writer = writer

    async def send_raw(self, pieces: tuple[bytes, ...]) -> bool:
        self.sale.status = -1
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(self.how.gap_s)
        return self.how.raw_keeps_alive

    async def send(self) -> bool:
        how, sale = self.how, self.sale
        if how.hang_before_headers:
            await self._wait(None)
        await self._wait(how.delay_s)
        if how.half_close:
            self.writer.write_eof()
            await self._wait(None)
        if how.redirect_to is not None:
            return await self._send_json(307, {}, [("location", how.redirect_to)])
        if how.status >= 400:
            return await self._send_error()
        if how.garbage:
            page = b"<!doctype html><title>502</title><h1>Bad gateway</h1>"
            return await self._send_body(200, page, [("content-type", "text/html")])
        if how.gzip_bytes:
            packed = gzip.compress(bytes(how.gzip_bytes), compresslevel=1)
            kind = [("content-type", "application/json"), ("content-encoding", "gzip")]
            return await self._send_body(200, packed, kind)
        if sale.method == "GET":
            models = [{"id": name, "object": "model"} for name in ("gpt-4o-mini", "my-model")]
            return await self._send_json(200, {"object": "list", "data": models})
        sale.prompt_tokens = _prompt_tokens(sale.body, how)
        sale.cached_tokens = how.cached_tokens
        if how.without_end:
            return await self._send_without_end()
        if sale.path.endswith("/embeddings"):
            return await self._send_embeddings()
        if sale.is_stream:
            return await self._send_stream()
        return await self._send_message()

    async def _send_error(self) -> bool:
        extra = [] if self.how.retry_after is None else [("retry-after", str(self.how.retry_after))]
        error = {"message": "scripted failure", "type": "scripted", "code": "scripted"}
        return await self._send_json(self.how.status, {"error": error}, extra)

    async def _send_embeddings(self) -> bool:
        given = self.sale.body.get("input", "")
        count = len(given) if isinstance(given, list) else 1
        rows = [
            {"object": "embedding", "index": index, "embedding": [0.25, -0.5]}
            for index in range(count)
        ]
        answer: dict[str, Any] = {"object": "list", "model": self.sale.model, "data": rows}
        tokens = self.sale.prompt_tokens
        truth = {"prompt_tokens": tokens, "total_tokens": tokens}
        self._report(answer, truth)
        return await self._send_json(200, answer)

    async def _send_message(self) -> bool:
        words, finish = self._words()
        n = int(self.sale.body.get("n", 1))
        text = "".join(words)
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish,
            }
            for index in range(n)
        ]
        answer = {**self._envelope("chat.completion"), "choices": choices}
        self.sale.completion_tokens = len(words) * n
        self._report(answer, self._truth())
        return await self._send_json(200, answer)

    async def _send_stream(self) -> bool:
        await self._head(200, [("content-type", "text/event-stream")], chunked=True)
        for count, (event, tokens) in enumerate(self._events()):
            if count == self.how.cut_after:
                if self.how.cut_within:
                    await self._chunk(event[: self.how.cut_within])
                return False
            if count == self.how.hang_after:
                await self._wait(None)
            await self._wait(self.how.gap_s if count else 0)
            self.sale.completion_tokens += tokens
            await self._chunk(self.how.comment + event)
        await self._chunk(b"")
        self.sale.is_complete = True
        return self.how.keep_alive

    async def _send_without_end(self) -> bool:
        is_stream = self.sale.is_stream
        kind = "text/event-stream" if is_stream else "application/json"
        await self._head(200, [("content-type", kind)], chunked=True)
        delta = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
        event = self._event({**self._envelope("chat.completion.chunk"), "choices": [delta]})
        piece, words = b"x" * 65_536, 0
        if self.how.without_end == "events":
            words = 65_536 // len(event)
            piece = event * words
        elif is_stream:
            await self._chunk(b'data: {"choices":[{"delta":{"content":"')
        while True:
            self.sale.completion_tokens += words
            await self._chunk(piece)
            await self._wait(self.how.gap_s)

    def _events(self) -> Iterator[tuple[bytes, int]]:
        how, body = self.how, self.sale.body
        words, finish = self._words()
        n = int(body.get("n", 1))
        reports = bool(body.get("stream_options", {}).get("include_usage"))
        envelope = self._envelope("chat.completion.chunk")
        if reports:
            envelope["usage"] = None
        for word in words:
            for index in range(n):
                delta = {"index": index, "delta": {"content": word}, "finish_reason": None}
                yield self._event({**envelope, "choices": [delta]}), 1
        if how.long_line:
            delta = {"index": 0, "delta": {"content": "x" * LONG_LINE}, "finish_reason": None}
            yield self._event({**envelope, "choices": [delta]}), 1
        if how.in_band_error:
            yield self._event({"error": {"message": "overloaded", "type": "server_error"}}), 0
            return
        last = [{"index": index, "delta": {}, "finish_reason": finish} for index in range(n)]
        yield self._event({**envelope, "choices": last}), 0
        if reports:
            for usage in self._reports(self._truth()):
                yield self._event({**envelope, "choices": [], "usage": usage}), 0
        if not how.no_done:
            yield b"data: [DONE]" + how.newline * 2, 0

    def _words(self) -> tuple[list[str], str]:
        if self.how.content is not None:
            return [self.how.content], "stop"
        body = self.sale.body
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or self.how.tokens
        count = min(self.how.tokens, int(limit))
        return [f"w{index} " for index in range(count)], (
            "length" if count < self.how.tokens else "stop"
        )

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": self.sale.model}

    def _truth(self) -> dict[str, Any]:
        sale = self.sale
        return {
            "prompt_tokens": sale.prompt_tokens,
            "completion_tokens": sale.completion_tokens,
            "total_tokens": sale.prompt_tokens + sale.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": sale.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": self.how.reasoning_tokens},
        }

    def _report(self, answer: dict[str, Any], truth: dict[str, Any]) -> None:
        reports = self._reports(truth)
        if reports:
            answer["usage"] = reports[-1]

    def _reports(self, truth: dict[str, Any]) -> list[Any]:
        """What is claimed: the truth, or one of the lies that the behaviour names."""
        numbers = {key: value for key, value in truth.items() if isinstance(value, int)}
        lies: dict[str, list[Any]] = {
            "reported": [truth],
            "absent": [],
            "null": [None],
            "negative": [{key: -value - 1 for key, value in numbers.items()}],
            "string": [{key: str(value) for key, value in numbers.items()}],
            "huge": [dict.fromkeys(numbers, 10**18)],
            "twice": [truth, truth],
            "decreasing": [truth, {key: value // 2 for key, value in numbers.items()}],
            "tenfold": [{key: value * 10 for key, value in numbers.items()}],
        }
        reports = lies[self.how.usage]
        self.sale.reported = reports[-1] if reports else None
        return reports

    def _event(self, event: dict[str, Any]) -> bytes:
        return b"data: " + json.dumps(event).encode() + self.how.newline * 2

    # Bytes

    async def _send_json(
        self, status: int, answer: dict[str, Any], extra: list[tuple[str, str]] | None = None
    ) -> bool:
        headers = [("content-type", "application/json"), *(extra or [])]
        return await self._send_body(status, json.dumps(answer).encode(), headers)

    async def _send_body(self, status: int, body: bytes, headers: list[tuple[str, str]]) -> bool:
        how = self.how
        declared = len(body) + how.length_error
        is_cut = how.cut_after is not None
        head = self._head_bytes(status, [*headers, ("content-length", str(declared))])
        body = body[: how.cut_after] if is_cut else body
        if how.is_dripping:
            await self._drip(head, body)
        else:
            self.writer.write(head + body)
        await self.writer.drain()
        self.sale.is_complete = not is_cut and how.length_error <= 0
        return how.keep_alive and not is_cut and how.length_error <= 0

    async def _drip(self, head: bytes, body: bytes) -> None:
        self.writer.write(head)
        for byte in body:
            await self._wait(self.how.gap_s)
            self.writer.write(bytes((byte,)))

    async def _head(self, status: int, headers: list[tuple[str, str]], *, chunked: bool) -> None:
        extra = [("transfer-encoding", "chunked")] if chunked else []
        self.writer.write(self._head_bytes(status, [*headers, *extra]))
        await self.writer.drain()

    def _head_bytes(self, status: int, headers: list[tuple[str, str]]) -> bytes:
        self.sale.status = status
        if not self.how.keep_alive:
            headers = [*headers, ("connection", "close")]
        lines = [f"{name}: {value}\r\n" for name, value in (*headers, *self.how.headers)]
        return f"HTTP/1.1 {status} Scripted\r\n{''.join(lines)}\r\n".encode()

    async def _chunk(self, data: bytes) -> None:
        with contextlib.suppress(*((OSError,) if self.how.works_on else ())):
            self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await self.writer.drain()

    async def _wait(self, seconds: float | None) -> None:
        """Pause, for ever if `seconds` is None; ends early when the client leaves."""
        if seconds is not None and (seconds == 0 or self.how.works_on):
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                with contextlib.suppress(ConnectionError):
                    await self.reader.read(1)
                raise self._left()

    def _left(self) -> OSError:
        self.sale.is_abandoned = True
        return _ClientLeft()


@contextlib.asynccontextmanager
async def listening(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Serve each connection with `handle`, give the port, and leave nothing behind at the end."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await handle(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield int(server.sockets[0].getsockname()[1])
    server.close()
    for task in tuple(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _read_request(number: int, reader: asyncio.StreamReader) -> Sale:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request_line, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _version = request_line.split(" ")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in lines)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    sale = Sale(number, method, path, headers, body)
    with contextlib.suppress(ValueError):
        decoded = json.loads(body)
        sale.body = decoded if isinstance(decoded, dict) else {}
    return sale


def _prompt_tokens(body: dict[str, Any], how: Behaviour) -> int:
    if how.prompt_tokens is not None:
        return how.prompt_tokens
    given = body.get("input", body.get("messages", body.get("prompt", "")))
    return max(1, len(_text_of(given).split()))


def _text_of(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return " ".join(map(_text_of, value))
    if isinstance(value, dict):
        return _text_of(value.get("content", value.get("text", "")))
    return ""
