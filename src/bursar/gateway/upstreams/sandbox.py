"""The built-in upstream: models that need no provider, for first calls and for testing failures.

Owns the models `sandbox/*`, what they answer and what they cost. Must not know keys, holds or how
it is configured. Deterministic: the same request gets the same bytes; the only clock is the wait
that a slow model is asked for. A token is a word here.

| model | answer |
|---|---|
| `sandbox/echo` | the last user message, word by word |
| `sandbox/lorem` | words up to the output limit (512 without one) |
| `sandbox/slow`, `slow-<n>ms`, `slow-<n>s` | an echo after n (1 s), n/10 between words |
| `sandbox/fail-<status>` | that error status, 400 to 599; 429 says when to retry |
| `sandbox/cut` | an echo whose connection breaks half-way |
| `sandbox/no-usage` | an echo that does not report usage |
| `sandbox/garbage` | status 200 with a page of HTML |
| `sandbox/embed` | vectors, at `/embeddings` |
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from bursar.gateway.upstreams.port import Headers, UpstreamError

_CREATED = 1_760_000_000
_MAX_OUTPUT = 4_096
_MAX_CHOICES = 8
_MAX_TEXTS = 256
_MAX_DIMENSIONS = 1024
_DEFAULT_DIMENSIONS = 256
_DEFAULT_LOREM = 512
_MAX_SLOW_MS = 120_000
_WORD = re.compile(r"\s*\S+")
_SLOW = re.compile(r"slow(?:-(\d{1,6})(ms|s))?")
_FAIL = re.compile(r"fail-([45]\d\d)")
_LOREM = (
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut "
    "labore et dolore magna aliqua"
).split()
_PAGE = b"<!doctype html><title>Bad gateway</title><h1>502 Bad gateway</h1>"


@dataclass(frozen=True, slots=True)
class SandboxPrice:
    """A model's price, USD per million as decimal strings by meter, and its sizes in tokens."""

    per_million: Mapping[str, str]
    context_window: int
    max_output_tokens: int | None


_CHAT = SandboxPrice(
    MappingProxyType({"input_tokens": "0.10", "output_tokens": "0.40"}), 128_000, _MAX_OUTPUT
)
_EMBED = SandboxPrice(MappingProxyType({"input_tokens": "0.02"}), 128_000, None)

# A model is callable only by a name that has a price: other delays and statuses than these need a
# row in the price book first.
SANDBOX_PRICES: Mapping[str, SandboxPrice] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "sandbox/echo",
                "sandbox/lorem",
                "sandbox/slow",
                "sandbox/slow-100ms",
                "sandbox/slow-5s",
                "sandbox/slow-30s",
                "sandbox/fail-400",
                "sandbox/fail-401",
                "sandbox/fail-429",
                "sandbox/fail-500",
                "sandbox/fail-503",
                "sandbox/cut",
                "sandbox/no-usage",
                "sandbox/garbage",
            ),
            _CHAT,
        ),
        "sandbox/embed": _EMBED,
    }
)


class _Part(msgspec.Struct):
    text: str = ""


class _Message(msgspec.Struct):
    role: str = ""
    content: str | list[_Part] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Ask(msgspec.Struct):
    model: str
    messages: list[_Message] = []
    input: str | list[str | int | list[int]] = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    dimensions: int | None = None
    encoding_format: str | None = None


@dataclass(frozen=True, slots=True)
class _Manner:
    """How an answer is given, apart from what it says."""

    delay_s: float = 0.0
    is_cut: bool = False
    has_usage: bool = True


_MANNERS = {
    "echo": _Manner(),
    "lorem": _Manner(),
    "embed": _Manner(),
    "cut": _Manner(is_cut=True),
    "no-usage": _Manner(has_usage=False),
}

_decode_ask = msgspec.json.Decoder(_Ask).decode
_encode = msgspec.json.encode


class Sandbox:
    """An `UpstreamClient` that answers by itself."""

    def __init__(self) -> None:
        self._is_closed = False

    async def send(
        self, method: bytes, path: bytes, headers: Headers, body: bytes, *, is_again: bool = False
    ) -> SandboxResponse:
        """Answer one request; see `UpstreamClient.send`."""
        if self._is_closed:
            raise UpstreamError("closed", "the upstream client is closed", request_sent=False)
        if method == b"GET" and path == b"/models":
            rows = [{"id": model, "object": "model"} for model in SANDBOX_PRICES]
            return _json(200, {"object": "list", "data": rows})
        if method != b"POST" or path not in (b"/chat/completions", b"/embeddings"):
            return _error(404, "unknown_url", "The sandbox has no such endpoint.")
        try:
            ask = _decode_ask(body)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            return _error(400, "invalid_request", "The sandbox cannot read this request.")
        name = ask.model.removeprefix("sandbox/")
        if name == "garbage":
            return SandboxResponse(200, [(b"content-type", b"text/html")], iter([_PAGE]))
        failing = _FAIL.fullmatch(name)
        if failing:
            return _error(int(failing[1]), "sandbox_failure", "This model always fails.")
        manner = _slowness(name) or _MANNERS.get(name)
        if manner is None:
            return _error(404, "model_not_found", "The sandbox has no such model.")
        if (name == "embed") is not (path == b"/embeddings"):
            return _error(400, "wrong_endpoint", "This model is served at another endpoint.")
        await asyncio.sleep(manner.delay_s)
        if name == "embed":
            return _embeddings(ask)
        return _completion(ask, manner, words=_words(name, ask), seed=body)

    def start(self, method: bytes, path: bytes, headers: Headers, body: bytes) -> None:
        """Never at once; see `UpstreamClient.start`."""

    async def close(self) -> None:
        """Refuse what comes later; what is being answered is finished."""
        self._is_closed = True


class SandboxResponse:
    """One answer of the sandbox, an `UpstreamResponse`."""

    def __init__(
        self,
        status: int,
        headers: list[tuple[bytes, bytes]],
        pieces: Iterator[bytes],
        *,
        gap_s: float = 0.0,
        is_cut: bool = False,
    ) -> None:
        self.status = status
        self.headers = headers
        self._pieces = pieces
        self._gap_s = gap_s
        self._is_cut = is_cut
        self._is_begun = False
        self._is_aborted = False

    async def read(self) -> bytes:
        """Return the whole body; see `UpstreamResponse.read`."""
        pieces = []
        while piece := await self.next_chunk():
            pieces.append(piece)
        return b"".join(pieces)

    async def next_chunk(self) -> bytes:
        """Return the next piece; see `UpstreamResponse.next_chunk`."""
        if self._is_begun and not self._is_aborted:
            await asyncio.sleep(self._gap_s)
        self._is_begun = True
        piece = b"" if self._is_aborted else next(self._pieces, b"")
        if self._is_aborted or (not piece and self._is_cut):
            raise UpstreamError("closed", "the sandbox broke off its answer", request_sent=True)
        return piece

    def abort(self) -> None:
        """End the exchange now; see `UpstreamResponse.abort`."""
        self._is_aborted = True


def _slowness(name: str) -> _Manner | None:
    asked = _SLOW.fullmatch(name)
    if asked is None:
        return None
    wait_ms = int(asked[1] or 1) * (1 if asked[2] == "ms" else 1000)
    return _Manner(delay_s=wait_ms / 1000) if wait_ms <= _MAX_SLOW_MS else None


def _words(name: str, ask: _Ask) -> list[str]:
    if name == "lorem":
        limit = _limit(ask)
        # One more than fits, so that the answer ends as a long one does: by its limit.
        count = _DEFAULT_LOREM if limit is None else min(max(limit, 0), _MAX_OUTPUT) + 1
        words = itertools.islice(itertools.cycle(_LOREM), count)
        return [word if index == 0 else f" {word}" for index, word in enumerate(words)]
    mine = [message for message in ask.messages if message.role == "user"]
    return _WORD.findall(_text(mine[-1])) if mine else []


def _completion(ask: _Ask, manner: _Manner, *, words: list[str], seed: bytes) -> SandboxResponse:
    choices = 1 if ask.n is None else ask.n
    if not 1 <= choices <= _MAX_CHOICES:
        return _error(400, "invalid_request", f"n must be from 1 to {_MAX_CHOICES}.")
    limit = _limit(ask)
    if limit is not None and limit < 1:
        return _error(400, "invalid_request", "The output limit must be at least 1.")
    said = words[: _MAX_OUTPUT if limit is None else min(limit, _MAX_OUTPUT)]
    finish = "stop" if len(said) == len(words) else "length"
    prompt = max(1, sum(len(_text(message).split()) for message in ask.messages))
    answer = _Answer(
        f"chatcmpl-sandbox-{hashlib.sha256(seed).hexdigest()[:16]}",
        ask.model,
        said,
        finish,
        choices,
        _usage(prompt, len(said) * choices) if manner.has_usage else None,
    )
    if not ask.stream:
        return _json(200, answer.whole(), is_cut=manner.is_cut)
    reports = ask.stream_options is not None and ask.stream_options.include_usage
    events = answer.events(reports_usage=reports)
    if manner.is_cut:
        events = itertools.islice(events, 1 + len(said) * choices // 2)
    headers = [(b"content-type", b"text/event-stream")]
    return SandboxResponse(200, headers, events, gap_s=manner.delay_s / 10, is_cut=manner.is_cut)


@dataclass(frozen=True, slots=True)
class _Answer:
    id: str
    model: str
    words: list[str]
    finish: str
    choices: int
    usage: dict[str, object] | None

    def whole(self) -> dict[str, object]:
        message = {"role": "assistant", "content": "".join(self.words)}
        answer = self._envelope("chat.completion")
        answer["choices"] = [
            {"index": index, "message": message, "logprobs": None, "finish_reason": self.finish}
            for index in range(self.choices)
        ]
        if self.usage is not None:
            answer["usage"] = self.usage
        return answer

    def events(self, *, reports_usage: bool) -> Iterator[bytes]:
        envelope = self._envelope("chat.completion.chunk")
        reports = reports_usage and self.usage is not None
        if reports:
            envelope["usage"] = None
        for place, word in enumerate(self.words):
            role = {} if place else {"role": "assistant"}
            for index in range(self.choices):
                delta = {**role, "content": word}
                yield _event(envelope, [_choice(index, delta, None)])
        yield _event(envelope, [_choice(i, {}, self.finish) for i in range(self.choices)])
        if reports:
            yield _event({**envelope, "usage": self.usage}, [])
        yield b"data: [DONE]\n\n"

    def _envelope(self, kind: str) -> dict[str, object]:
        return {"id": self.id, "object": kind, "created": _CREATED, "model": self.model}


def _choice(index: int, delta: dict[str, str], finish: str | None) -> dict[str, object]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _event(envelope: dict[str, object], choices: list[dict[str, object]]) -> bytes:
    return b"data: " + _encode({**envelope, "choices": choices}) + b"\n\n"


def _usage(prompt: int, completion: int) -> dict[str, object]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _embeddings(ask: _Ask) -> SandboxResponse:
    dimensions = _DEFAULT_DIMENSIONS if ask.dimensions is None else ask.dimensions
    if not 1 <= dimensions <= _MAX_DIMENSIONS:
        return _error(400, "invalid_request", f"dimensions must be 1 to {_MAX_DIMENSIONS}.")
    texts = _texts(ask.input)
    if len(texts) > _MAX_TEXTS:
        return _error(400, "invalid_request", f"At most {_MAX_TEXTS} inputs.")
    rows = [
        {"object": "embedding", "index": index, "embedding": _vector(text, dimensions, ask)}
        for index, text in enumerate(texts)
    ]
    tokens = max(1, sum(len(text.split() if isinstance(text, str) else text) for text in texts))
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _json(200, {"object": "list", "data": rows, "model": ask.model, "usage": usage})


def _texts(given: str | list[str | int | list[int]]) -> list[str | list[int]]:
    """The inputs; a list of numbers is one text that has been cut into tokens already."""
    if isinstance(given, str):
        return [given]
    numbers = [item for item in given if isinstance(item, int)]
    return [numbers] if numbers else [item for item in given if not isinstance(item, int)]


def _vector(text: str | list[int], dimensions: int, ask: _Ask) -> list[float] | str:
    seed = text if isinstance(text, str) else " ".join(map(str, text))
    digest = hashlib.shake_256(seed.encode("utf-8", "replace")).digest(dimensions * 2)
    numbers = [number / 32_768 for number in struct.unpack(f"<{dimensions}h", digest)]
    if ask.encoding_format != "base64":
        return numbers
    return base64.b64encode(struct.pack(f"<{dimensions}f", *numbers)).decode()


def _json(status: int, answer: dict[str, object], *, is_cut: bool = False) -> SandboxResponse:
    body = _encode(answer)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 429:
        headers.append((b"retry-after", b"1"))
    piece = body[: len(body) // 2] if is_cut else body
    return SandboxResponse(status, headers, iter([piece]), is_cut=is_cut)


def _error(status: int, code: str, message: str) -> SandboxResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return _json(status, {"error": {"message": message, "type": kind, "param": None, "code": code}})


def _limit(ask: _Ask) -> int | None:
    return ask.max_tokens if ask.max_completion_tokens is None else ask.max_completion_tokens


def _text(message: _Message) -> str:
    content = message.content
    if isinstance(content, list):
        return " ".join(part.text for part in content)
    return content or ""
