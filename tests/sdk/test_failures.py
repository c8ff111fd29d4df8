"""What can go wrong on the way: one sentence that says what to do, and never a hang or a secret."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from bursar import (
    BursarError,
    ConfigurationError,
    ConnectionFailed,
    InvalidAnswer,
    RateLimited,
    ServerFailed,
    StreamCut,
    TimedOut,
    TlsFailed,
)
from tests.authority import DAY, NOW, Authority
from tests.sdk.faces import Face

SECRET = "bpk_" + "S3cret" * 6
HELLO = [{"role": "user", "content": "hello"}]
HTML = b"<!doctype html><title>It works!</title>"
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-request-id: req_7\r\n"
CHUNK = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that does as it likes; its host and port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def saying(*answers: bytes) -> Serve:
    """Say these bytes, one answer a connection, the last again and again."""
    left = list(answers)

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()

    return serve


def answer(body: bytes, *, status: str = "200 OK", head: str = "content-type: x/y") -> bytes:
    """A whole answer."""
    return (
        f"HTTP/1.1 {status}\r\n{head}\r\nx-request-id: req_1\r\nconnection: close\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body


def is_a_sentence(error: BursarError) -> bool:
    """Whether it can be shown to people as it is."""
    text = error.message
    return text[-1] in ".?" and "\n" not in text and len(text) < 400 and SECRET not in repr(error)


async def fail(face: Face, url: str, *, retries: int = 0, **options: float) -> BursarError:
    """The error of a call that must not succeed."""
    client = face.client(SECRET, base_url=url, max_retries=retries, **options)
    with pytest.raises(BursarError) as failed:
        await face.do(client.billing.balance)
    assert is_a_sentence(failed.value)
    return failed.value


async def test_nobody_listens(face: Face) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = await fail(face, f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert type(error) is ConnectionFailed
    assert "BURSAR_BASE_URL" in error.message


async def test_a_server_that_never_answers_is_given_up(face: Face) -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with listening(silent) as where:
        error = await fail(face, f"http://{where}", timeout_s=0.2)
    assert isinstance(error, TimedOut)
    assert isinstance(error, TimeoutError)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", b"\0\0"])
async def test_a_connection_that_breaks_is_no_answer(face: Face, said: bytes) -> None:
    async with listening(saying(said)) as where:
        error = await fail(face, f"http://{where}")
    assert type(error) is ConnectionFailed
    assert "broke" in error.message


@pytest.mark.parametrize("body", [HTML, b"", b'{"balance":', b"null", b"\xff\xfe", b"[" * 10_000])
async def test_what_is_no_answer_of_a_bursar_is_not_taken_for_one(face: Face, body: bytes) -> None:
    async with listening(saying(answer(body, head="content-type: text/html"))) as where:
        error = await fail(face, f"http://{where}")
    assert isinstance(error, InvalidAnswer)
    assert (error.status, error.request_id) == (200, "req_1")


async def test_a_page_of_a_proxy_is_a_refusal_that_says_so(face: Face) -> None:
    said = answer(HTML, status="502 Bad Gateway")
    async with listening(saying(said)) as where:
        error = await fail(face, f"http://{where}")
    assert isinstance(error, ServerFailed)
    assert (error.status, error.code, error.request_id) == (502, None, "req_1")


async def test_a_refusal_of_ten_megabytes_is_not_read(face: Face) -> None:
    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 500 Oh\r\nx-request-id: req_9\r\ncontent-length: 10000000\r\n\r\n")
        for _ in range(10):
            writer.write(b"x" * 100_000)
            await writer.drain()
        await asyncio.sleep(30)

    async with listening(endless) as where:
        error = await fail(face, f"http://{where}", timeout_s=10)
    assert isinstance(error, ServerFailed)
    assert error.request_id == "req_9"


async def test_a_small_answer_that_unpacks_to_a_large_one_is_not_read(face: Face) -> None:
    packed = gzip.compress(b" " * 80_000_000)
    said = answer(packed, head="content-encoding: gzip")
    async with listening(saying(said)) as where:
        error = await fail(face, f"http://{where}")
    assert isinstance(error, InvalidAnswer)
    assert "larger" in error.message


async def test_what_cannot_be_unpacked_is_no_answer(face: Face) -> None:
    async with listening(saying(answer(b"nonsense", head="content-encoding: gzip"))) as where:
        assert isinstance(await fail(face, f"http://{where}"), InvalidAnswer)


async def test_a_redirect_takes_the_key_nowhere(face: Face) -> None:
    reached = False

    async def elsewhere(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal reached
        reached = True

    async with listening(elsewhere) as other:
        head = f"location: http://{other}/v1/account/balance"
        async with listening(saying(answer(b"", status="307 Go", head=head))) as where:
            error = await fail(face, f"http://{where}")
    assert isinstance(error, InvalidAnswer)
    assert not reached


async def test_a_passing_failure_passes(face: Face) -> None:
    busy = answer(b"{}", status="503 Busy", head="retry-after: 0")
    limited = answer(b"{}", status="429 Slow", head="retry-after: 0")
    fine = answer(b'{"balance":"1.00"}')
    async with listening(saying(busy, limited, fine)) as where:
        client = face.client(SECRET, base_url=f"http://{where}")
        assert (await face.do(client.billing.balance)).balance == 1
    async with listening(saying(busy, limited, fine)) as where:
        error = await fail(face, f"http://{where}", retries=1)
    assert isinstance(error, RateLimited)
    assert error.retry_after == 0


async def test_a_broken_connection_is_tried_again(face: Face) -> None:
    async with listening(saying(b"", answer(b'{"balance":"1.00"}'))) as where:
        client = face.client(SECRET, base_url=f"http://{where}")
        assert (await face.do(client.billing.balance)).balance == 1


async def test_a_call_of_a_model_is_sent_once(face: Face) -> None:
    sent = 0

    async def failing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        sent += 1
        writer.write(answer(b"{}", status="503 Busy", head="retry-after: 0"))

    async with listening(failing) as where:
        client = face.client(SECRET, base_url=f"http://{where}")
        for stream in (False, True):
            with pytest.raises(ServerFailed):
                await face.do(client.chat.complete, model="m", messages=HELLO, stream=stream)  # type: ignore[call-overload]
    assert sent == 2


async def test_pages_that_lead_nowhere_end(face: Face) -> None:
    async with listening(saying(answer(b'{"alerts":[],"next_cursor":"again"}'))) as where:
        client = face.client(SECRET, base_url=f"http://{where}")
        with pytest.raises(InvalidAnswer, match="next page"):
            await face.all(client.alerts.list())


# ── Who it is ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("is_expired", [False, True])
async def test_a_server_that_cannot_prove_who_it_is_gets_nothing(
    face: Face, tmp_path: Path, is_expired: bool
) -> None:
    authority = Authority()
    until = NOW - DAY if is_expired else NOW + DAY
    tls = authority.serve(tmp_path, host="127.0.0.1", until=until)
    async with listening(saying(answer(b"{}")), tls=tls) as where:
        error = await fail(face, f"https://{where}", retries=2)
    assert isinstance(error, TlsFailed)
    assert "certificate" in error.message


async def test_a_server_that_is_not_on_tls_is_said_to_be_so(face: Face) -> None:
    async with listening(saying(answer(b"{}"))) as where:
        error = await fail(face, f"https://{where}", timeout_s=2)
    assert isinstance(error, ConnectionFailed)


async def test_a_client_that_was_handed_in_is_used_and_stays_open(tmp_path: Path) -> None:
    from bursar import AsyncBursar

    authority = Authority()
    tls = authority.serve(tmp_path, host="127.0.0.1", until=NOW + dt.timedelta(hours=1))
    async with (
        listening(saying(answer(b'{"balance":"1.00"}')), tls=tls) as where,
        httpx2.AsyncClient(verify=authority.trust()) as http,
    ):
        async with AsyncBursar(SECRET, base_url=f"https://{where}", http_client=http) as client:
            assert (await client.billing.balance()).balance == 1
        assert not http.is_closed


async def test_a_closed_client_says_so(face: Face) -> None:
    client = face.client(SECRET, base_url="http://127.0.0.1:9")
    await face.do(client.close)
    with pytest.raises(ConfigurationError, match="closed"):
        await face.do(client.billing.balance)


# ── Streams ─────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def streaming(said: bytes) -> AsyncIterator[str]:
    """A server whose every answer is this stream, cut where it ends."""
    head = SSE_HEAD + f"content-length: {len(said)}\r\n\r\n".encode()
    async with listening(saying(head + said)) as where:
        yield f"http://{where}"


async def texts(face: Face, url: str) -> list[str]:
    """What comes of a streamed call."""
    client = face.client(SECRET, base_url=url)
    stream = await face.do(client.chat.complete, model="m", messages=HELLO, stream=True)
    return [chunk.text for chunk in await face.items(stream)]


@pytest.mark.parametrize(
    "said",
    [
        CHUNK + b"data: [DONE]\n\n",
        CHUNK.replace(b"\n", b"\r\n") + b"data:[DONE]\r\n\r\n",
        b": comment\n\nevent: x\nid: 1\n" + CHUNK + b"data: [DONE]\n\n" + CHUNK,
        CHUNK.replace(b'"model"', b'\ndata: "model"') + b"data: [DONE]\n\n",
    ],
)
async def test_a_whole_stream_is_read_to_its_end_mark(face: Face, said: bytes) -> None:
    async with streaming(said) as url:
        assert await texts(face, url) == ["hi"]


@pytest.mark.parametrize(
    "said", [b"", CHUNK, CHUNK + b"data: [DONE]", CHUNK[:20], CHUNK + b'data: {"id"']
)
async def test_a_stream_without_its_end_mark_is_an_error(face: Face, said: bytes) -> None:
    async with streaming(said) as url:
        with pytest.raises(StreamCut) as cut:
            await texts(face, url)
    assert cut.value.request_id == "req_7"
    assert is_a_sentence(cut.value)


async def test_a_stream_that_breaks_is_an_error(face: Face) -> None:
    head = SSE_HEAD + b"content-length: 9999\r\n\r\n"
    async with listening(saying(head + CHUNK)) as where:
        with pytest.raises(StreamCut) as cut:
            await texts(face, f"http://{where}")
    assert cut.value.request_id == "req_7"


async def test_a_refusal_in_a_stream_is_one(face: Face) -> None:
    said = b'data: {"error":{"type":"upstream_error","code":"upstream_timeout","message":"Late."}}'
    async with streaming(CHUNK + said + b"\n\n") as url:
        with pytest.raises(ServerFailed) as refused:
            await texts(face, url)
    assert (refused.value.code, refused.value.request_id) == ("upstream_timeout", "req_7")


@pytest.mark.parametrize("event", [b"nonsense", b"[1]", b'{"id":1}', b"NaN"])
async def test_an_event_that_makes_no_sense_is_said_to_make_none(face: Face, event: bytes) -> None:
    async with streaming(b"data: " + event + b"\n\n") as url:
        with pytest.raises(InvalidAnswer) as refused:
            await texts(face, url)
    assert is_a_sentence(refused.value)


async def test_an_answer_that_is_no_stream_is_not_taken_for_one(face: Face) -> None:
    async with listening(saying(answer(HTML))) as where:
        with pytest.raises(InvalidAnswer, match="not a stream"):
            await texts(face, f"http://{where}")


async def test_a_stream_can_be_left(face: Face) -> None:
    gone = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE_HEAD + b"\r\n" + CHUNK)
        await reader.read()
        gone.set()

    async with listening(endless) as where:
        client = face.client(SECRET, base_url=f"http://{where}")
        stream = await face.do(client.chat.complete, model="m", messages=HELLO, stream=True)
        await face.do(stream.close)
        await asyncio.wait_for(gone.wait(), 5)
