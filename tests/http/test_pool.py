"""What every upstream client guarantees: the same tests for our own pool and for its twin."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from bursar.gateway.upstreams.pool import KeepAlivePool
from bursar.gateway.upstreams.pool_aiohttp import AiohttpPool
from bursar.gateway.upstreams.port import Limits, Timeouts, UpstreamError, UpstreamResponse
from tests.upstream_double import Behaviour, ScriptedUpstream

Client = KeepAlivePool | AiohttpPool
Connect = Callable[..., Client]

PATIENT = Timeouts(connect_s=5, headers_s=5, idle_s=5, total_s=10)
JSON = [(b"content-type", b"application/json"), (b"authorization", b"Bearer sk-upstream")]


def ask(**fields: object) -> bytes:
    message = {"role": "user", "content": "one two three"}
    return json.dumps({"model": "gpt-4o-mini", "messages": [message], **fields}).encode()


@pytest_asyncio.fixture
async def up() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest_asyncio.fixture(params=["own", "aiohttp"])
async def connect(request: pytest.FixtureRequest, up: ScriptedUpstream) -> AsyncIterator[Connect]:
    made: list[Client] = []

    def make(
        base_url: str | None = None,
        timeouts: Timeouts = PATIENT,
        limits: Limits | None = None,
    ) -> Client:
        url = base_url or up.base_url
        if request.param == "own":
            made.append(KeepAlivePool(url, timeouts=timeouts, limits=limits, sweep_s=0.01))
        else:
            made.append(AiohttpPool(url, timeouts=timeouts, limits=limits))
        return made[-1]

    yield make
    for client in made:
        await client.close()
        assert (client.in_use, client.waiting) == (0, 0)


async def call(client: Client, body: bytes, path: bytes = b"/chat/completions") -> bytes:
    response = await client.send(b"POST", path, JSON, body)
    return await response.read()


async def drain(client: Client, body: bytes) -> bytes:
    response = await client.send(b"POST", b"/chat/completions", JSON, body)
    chunks: list[bytes] = []
    await collect(response, chunks)
    assert await response.next_chunk() == b""
    return b"".join(chunks)


async def collect(response: UpstreamResponse, chunks: list[bytes]) -> None:
    while chunk := await response.next_chunk():
        chunks.append(chunk)


async def failure_of(client: Client, body: bytes) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await call(client, body)
    return caught.value


# What goes out, what comes back


async def test_an_answer_arrives_whole_with_lower_case_header_names(
    up: ScriptedUpstream, connect: Connect
) -> None:
    up.behave(Behaviour(headers=(("X-Mixed-Case", "Kept As Is"),)))
    response = await connect().send(b"POST", b"/chat/completions", JSON, ask())
    assert response.status == 200
    assert (b"x-mixed-case", b"Kept As Is") in response.headers
    answer = json.loads(await response.read())
    assert answer["usage"]["prompt_tokens"] == 3


async def test_the_request_arrives_as_given_at_the_base_url_s_path_and_host(
    up: ScriptedUpstream, connect: Connect
) -> None:
    body = ask(temperature=0.5)
    await call(connect(), body)
    sale = up.sales[0]
    assert (sale.method, sale.path, sale.raw_body) == ("POST", "/v1/chat/completions", body)
    assert sale.headers == {
        "host": f"127.0.0.1:{up.port}",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "authorization": "Bearer sk-upstream",
        "content-length": str(len(body)),
    }


async def test_headers_that_decide_destination_or_length_are_the_client_s_own(
    up: ScriptedUpstream, connect: Connect
) -> None:
    forged = [
        (b"Host", b"evil.example"),
        (b"content-length", b"1"),
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"close"),
        (b"accept-encoding", b"gzip"),
        (b"expect", b"100-continue"),
        (b"x-kept", b"yes"),
    ]
    response = await connect().send(b"POST", b"/chat/completions", forged, ask())
    await response.read()
    headers = up.sales[0].headers
    assert headers["host"] == f"127.0.0.1:{up.port}"
    assert headers["content-length"] == str(len(ask()))
    assert headers["accept-encoding"] == "identity"
    assert headers["x-kept"] == "yes"
    assert not headers.keys() & {"transfer-encoding", "connection", "expect"}


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (b"/ok", [(b"x-a", b"b\r\nx-evil: 1")]),
        (b"/ok", [(b"x-a\r\nx-evil", b"b")]),
        (b"/ok", [(b"x-a", b"b\nc")]),
        (b"/ok", [(b"x-a", b"b\rc")]),
        (b"/ok", [(b"x-a", b"b\0c")]),
        (b"/a b", []),
        (b"/a\r\nx-evil: 1", []),
        (b"http://evil.example/", []),
        ("/ü".encode(), []),
    ],
)
async def test_nothing_breaks_out_of_its_line(
    up: ScriptedUpstream, connect: Connect, path: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    client = connect()
    with pytest.raises(ValueError, match=r"."):
        await client.send(b"POST", path, headers, b"{}")
    assert (client.in_use, up.sales) == (0, [])


async def test_a_get_is_sent_without_a_body(up: ScriptedUpstream, connect: Connect) -> None:
    response = await connect().send(b"GET", b"/models?limit=2", JSON, b"")
    assert json.loads(await response.read())["object"] == "list"
    assert (up.sales[0].path, "content-length" in up.sales[0].headers) == (
        "/v1/models?limit=2",
        False,
    )


async def test_a_request_of_some_megabytes_arrives_intact(
    up: ScriptedUpstream, connect: Connect
) -> None:
    body = ask(padding="x" * 6_000_000)
    await call(connect(), body)
    assert up.sales[0].raw_body == body


async def test_a_stream_arrives_piece_by_piece_as_it_is_sent(
    up: ScriptedUpstream, connect: Connect
) -> None:
    up.behave(Behaviour(gap_s=0.03))
    response = await connect().send(b"POST", b"/chat/completions", JSON, ask(stream=True))
    first = await response.next_chunk()
    assert b'"w0 "' in first
    assert b"[DONE]" not in first
    rest = []
    while chunk := await response.next_chunk():
        rest.append(chunk)
    assert len(rest) >= 3
    assert rest[-1].endswith(b"data: [DONE]\n\n")


async def test_a_stream_may_be_read_whole(up: ScriptedUpstream, connect: Connect) -> None:
    up.behave(Behaviour(gap_s=0.005))
    body = await call(connect(), ask(stream=True))
    assert body.count(b"data: ") == 7


# Connections


async def test_one_connection_serves_one_call_after_another(
    up: ScriptedUpstream, connect: Connect
) -> None:
    client = connect()
    for _ in range(3):
        await call(client, ask())
        await drain(client, ask(stream=True))
    assert up.connections == 1


async def test_a_connection_that_the_upstream_means_to_close_is_not_used_again(
    up: ScriptedUpstream, connect: Connect
) -> None:
    client = connect()
    up.behave(Behaviour(keep_alive=False))
    await call(client, ask())
    await call(client, ask())
    assert up.connections == 2


async def test_an_idle_connection_expires(up: ScriptedUpstream, connect: Connect) -> None:
    client = connect(limits=Limits(idle_expiry_s=0.03))
    await call(client, ask())
    await asyncio.sleep(0.1)
    await call(client, ask())
    assert up.connections == 2


async def test_a_reused_connection_found_closed_is_replaced_once(
    up: ScriptedUpstream, connect: Connect
) -> None:
    client = connect()
    await call(client, ask())
    up.behave(Behaviour(drop=True))
    assert json.loads(await call(client, ask()))["object"] == "chat.completion"
    assert (len(up.sales), up.connections) == (3, 2)


async def test_a_call_is_never_repeated_twice(up: ScriptedUpstream, connect: Connect) -> None:
    client = connect()
    await call(client, ask())
    up.behave(Behaviour(drop=True), Behaviour(drop=True))
    error = await failure_of(client, ask())
    assert (error.kind, error.request_sent, len(up.sales)) == ("closed", True, 3)


async def test_a_call_on_a_new_connection_is_never_repeated(
    up: ScriptedUpstream, connect: Connect
) -> None:
    up.behave(Behaviour(drop=True))
    error = await failure_of(connect(), ask())
    assert (error.kind, error.request_sent, len(up.sales)) == ("closed", True, 1)


async def test_a_call_that_got_a_byte_of_an_answer_is_never_repeated(
    up: ScriptedUpstream, connect: Connect
) -> None:
    client = connect()
    await call(client, ask())
    up.behave(Behaviour(raw=(b"HTTP/1.1 20",)))
    assert (await failure_of(client, ask())).kind in ("closed", "protocol")
    assert len(up.sales) == 2


# Failures


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 502, 503, 529])
async def test_an_error_status_is_an_answer(
    up: ScriptedUpstream, connect: Connect, status: int
) -> None:
    up.behave(Behaviour(status=status, retry_after=7))
    response = await connect().send(b"POST", b"/chat/completions", JSON, ask())
    assert response.status == status
    assert (b"retry-after", b"7") in response.headers
    assert b"scripted failure" in await response.read()


async def test_a_redirect_is_an_answer_and_not_followed(
    up: ScriptedUpstream, connect: Connect
) -> None:
    up.behave(Behaviour(redirect_to=f"{up.base_url}/elsewhere"))
    response = await connect().send(b"POST", b"/chat/completions", JSON, ask())
    assert response.status == 307
    await response.read()
    assert len(up.sales) == 1


async def test_a_body_cut_short_is_closed_and_never_an_answer(
    up: ScriptedUpstream, connect: Connect
) -> None:
    for behaviour in (Behaviour(cut_after=20), Behaviour(length_error=10, keep_alive=False)):
        up.behave(behaviour)
        client = connect()
        response = await client.send(b"POST", b"/chat/completions", JSON, ask())
        with pytest.raises(UpstreamError) as caught:
            await response.read()
        assert (caught.value.kind, client.in_use) == ("closed", 0)


async def test_a_stream_cut_short_yields_what_came_and_then_fails(
    up: ScriptedUpstream, connect: Connect
) -> None:
    up.behave(Behaviour(cut_after=3, gap_s=0.01))
    response = await connect().send(b"POST", b"/chat/completions", JSON, ask(stream=True))
    got: list[bytes] = []
    with pytest.raises(UpstreamError) as caught:
        await collect(response, got)
    assert (caught.value.kind, b"".join(got).count(b"data: ")) == ("closed", 3)
    assert len(got) == up.sales[0].completion_tokens


async def test_an_upstream_that_ends_its_side_without_an_answer_is_closed(
    up: ScriptedUpstream, connect: Connect
) -> None:
    up.behave(Behaviour(half_close=True))
    assert (await failure_of(connect(), ask())).kind == "closed"


async def test_nobody_listening_is_a_connect_error_before_anything_was_sent(
    up: ScriptedUpstream, connect: Connect
) -> None:
    await up.stop()
    error = await failure_of(connect(), ask())
    assert (error.kind, error.request_sent) == ("connect", False)


async def test_a_name_that_does_not_resolve_is_a_connect_error(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail_to_resolve(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail_to_resolve)
    error = await failure_of(connect("http://upstream.invalid/v1"), ask())
    assert (error.kind, error.request_sent) == ("connect", False)


async def test_a_name_that_cannot_be_one_is_a_connect_error(connect: Connect) -> None:
    error = await failure_of(connect(f"http://{'a' * 70}.invalid/v1"), ask())
    assert (error.kind, error.request_sent) == ("connect", False)


async def test_an_encoded_body_is_refused_because_it_cannot_be_metered(
    up: ScriptedUpstream, connect: Connect
) -> None:
    up.behave(Behaviour(headers=(("content-encoding", "gzip"),)))
    assert (await failure_of(connect(), ask())).kind == "protocol"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_body_above_the_limit_is_refused(
    up: ScriptedUpstream, connect: Connect, stream: bool
) -> None:
    client = connect(limits=Limits(max_body=20_000))
    up.behave(Behaviour(content="x" * 20_000))
    assert (await failure_of(client, ask(stream=stream))).kind == "too_large"
    assert client.in_use == 0
    await call(client, ask())


# Time


@pytest.mark.parametrize(
    ("behaviour", "timeouts", "kind"),
    [
        (Behaviour(hang_before_headers=True), Timeouts(headers_s=0.1), "timeout_headers"),
        (Behaviour(hang_after=2), Timeouts(idle_s=0.1), "timeout_idle"),
        (Behaviour(tokens=99, gap_s=0.03), Timeouts(idle_s=5, total_s=0.15), "timeout_total"),
        (Behaviour(hang_before_headers=True), Timeouts(total_s=0.1), "timeout_total"),
    ],
)
async def test_an_upstream_that_takes_too_long_is_given_up_and_hears_of_it(
    up: ScriptedUpstream, connect: Connect, behaviour: Behaviour, timeouts: Timeouts, kind: str
) -> None:
    up.behave(behaviour)
    client = connect(timeouts=timeouts)
    error = await failure_of(client, ask(stream=True))
    assert (error.kind, error.request_sent, client.in_use) == (kind, True, 0)
    await asyncio.sleep(0.05)
    assert up.open_connections == 0


# Giving up


async def test_a_cancelled_call_gives_its_slot_back_and_the_upstream_hears_of_it(
    up: ScriptedUpstream, connect: Connect
) -> None:
    client = connect(limits=Limits(max_connections=1))
    for behaviour, body in (
        (Behaviour(hang_before_headers=True), ask()),
        (Behaviour(hang_after=1), ask(stream=True)),
    ):
        up.behave(behaviour)
        task = asyncio.create_task(drain(client, body))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.in_use == 0
        await asyncio.sleep(0.05)
        assert up.sales[-1].is_abandoned
    await call(client, ask())


async def test_abort_ends_an_unread_answer_and_may_be_repeated(
    up: ScriptedUpstream, connect: Connect
) -> None:
    client = connect()
    up.behave(Behaviour(hang_after=1))
    response = await client.send(b"POST", b"/chat/completions", JSON, ask(stream=True))
    response.abort()
    response.abort()
    assert client.in_use == 0
    with pytest.raises(UpstreamError) as caught:
        await collect(response, [])
    assert caught.value.kind == "closed"
    await asyncio.sleep(0.05)
    assert up.sales[0].is_abandoned


async def test_abort_of_a_complete_answer_keeps_the_connection(
    up: ScriptedUpstream, connect: Connect
) -> None:
    client = connect()
    response = await client.send(b"POST", b"/chat/completions", JSON, ask())
    await response.read()
    response.abort()
    await call(client, ask())
    assert up.connections == 1


async def test_closing_the_client_fails_what_is_in_flight_and_what_comes_later(
    up: ScriptedUpstream, connect: Connect
) -> None:
    client = connect()
    up.behave(Behaviour(hang_after=1))
    task = asyncio.create_task(drain(client, ask(stream=True)))
    await asyncio.sleep(0.05)
    await client.close()
    with pytest.raises(UpstreamError) as caught:
        await task
    assert caught.value.kind == "closed"
    assert (await failure_of(client, ask())).kind == "closed"


# Bounds


async def test_calls_wait_for_a_free_connection_in_order(
    up: ScriptedUpstream, connect: Connect
) -> None:
    client = connect(limits=Limits(max_connections=2))
    up.default = Behaviour(delay_s=0.01)
    await asyncio.gather(*(call(client, ask(user=str(index))) for index in range(10)))
    assert up.connections <= 2
    users = [int(sale.body["user"]) for sale in up.sales]
    assert all(abs(user - place) <= 1 for place, user in enumerate(users))


async def test_a_full_queue_refuses_at_once(up: ScriptedUpstream, connect: Connect) -> None:
    client = connect(limits=Limits(max_connections=1, max_waiters=1))
    up.default = Behaviour(delay_s=0.1)
    tasks = [asyncio.create_task(call(client, ask())) for _ in range(2)]
    await asyncio.sleep(0.03)
    error = await failure_of(client, ask())
    assert (error.kind, error.request_sent) == ("busy", False)
    await asyncio.gather(*tasks)


async def test_a_wait_for_a_connection_ends_after_connect_s(
    up: ScriptedUpstream, connect: Connect
) -> None:
    client = connect(timeouts=Timeouts(connect_s=0.05), limits=Limits(max_connections=1))
    up.default = Behaviour(delay_s=0.2)
    first = asyncio.create_task(call(client, ask()))
    await asyncio.sleep(0.02)
    assert (await failure_of(client, ask())).kind == "busy"
    await first


async def test_a_cancelled_waiter_leaves_the_queue(up: ScriptedUpstream, connect: Connect) -> None:
    client = connect(limits=Limits(max_connections=1))
    up.default = Behaviour(delay_s=0.08)
    tasks = [asyncio.create_task(call(client, ask())) for _ in range(3)]
    await asyncio.sleep(0.03)
    tasks[1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)
    assert [isinstance(result, bytes) for result in results] == [True, False, True]
    assert client.in_use == 0


async def test_many_calls_cancelled_at_any_moment_leak_nothing(
    up: ScriptedUpstream, connect: Connect
) -> None:
    client = connect(limits=Limits(max_connections=4))
    up.default = Behaviour(gap_s=0.002)
    tasks = [asyncio.create_task(drain(client, ask(stream=index % 2 == 0))) for index in range(60)]
    for index, task in enumerate(tasks):
        await asyncio.sleep(0.001 * (index % 3))
        if index % 4:
            task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} <= {bytes, asyncio.CancelledError}
    assert (client.in_use, client.waiting) == (0, 0)
    await call(client, ask())
