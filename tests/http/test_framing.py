"""Where one request ends and the next begins is never a matter of opinion, and never takes long."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bursar.gateway.http.patience import Patience
from bursar.store.database import sqlite_url
from tests import books, wire
from tests.serving import MODEL, House, serving
from tests.upstream_double import Behaviour
from tests.wire import Connection, Talk

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE = Patience(head_s=0.8, body_s=1.0, reading_s=1.0, parting_s=0.5)
MOST_BODY = 200_000
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}).encode()
GET = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    directory = tmp_path_factory.mktemp("framing")
    path = directory / "bursar.db"
    shutil.copyfile(migrated_sqlite, path)
    async with serving(
        sqlite_url(path),
        directory,
        patience=PATIENCE,
        settings={"max_body_bytes": MOST_BODY},
    ) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module")
async def nothing_moves(house: House) -> AsyncIterator[None]:
    before = await books.read(house)
    yield
    assert await books.at_rest(house) == before


@pytest_asyncio.fixture(loop_scope="module")
async def everything_adds_up(house: House) -> AsyncIterator[None]:
    yield
    books.require_consistent(await books.at_rest(house), credit="10")


def head(house: House, headers: bytes = b"", *, path: bytes = b"/v1/chat/completions") -> bytes:
    """The head of a chat request, but for what says how long its body is."""
    secret = house.installation.inference_key.encode()
    return (
        b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer %b\r\n%b" % (path, secret, headers)
    )


def plain(house: House, headers: bytes = b"", body: bytes = BODY) -> bytes:
    """A whole chat request with its body's length."""
    return head(house, headers) + b"content-length: %d\r\n\r\n" % len(body) + body


def chunked(house: House, chunks: bytes = CHUNKS, headers: bytes = b"") -> bytes:
    """A whole chat request in chunks."""
    return head(house, CHUNKED + headers) + b"\r\n" + chunks


def get(target: bytes = b"/v1/models", headers: bytes = b"host: x\r\n") -> bytes:
    return b"GET %b HTTP/1.1\r\n%b\r\n" % (target, headers)


def refused(talk: Talk, status: int, code: str) -> None:
    """One answer, in our shape, and the end."""
    assert (talk.statuses, talk.is_closed) == ([status], True)
    (answer,) = talk.answers
    assert answer.code == code
    assert answer.headers["connection"] == "close"


def rows(table: dict[str, Any]) -> Any:
    return [pytest.param(value, id=name) for name, value in table.items()]


# Framing that has two readings

LENGTHS: dict[str, bytes] = {
    "D-68 length and chunks": b"content-length: 5\r\n" + CHUNKED,
    "D-68 chunks and length": CHUNKED + b"content-length: 5\r\n",
    "D-69 two lengths": b"content-length: 5\r\ncontent-length: %d\r\n" % len(BODY),
    "D-69 the same twice": b"content-length: %d\r\n" % len(BODY) * 2,
    "D-70 plus": b"content-length: +5\r\n",
    "D-70 hexadecimal": b"content-length: 0x5\r\n",
    "D-70 negative": b"content-length: -1\r\n",
    "D-70 list": b"content-length: 5,5\r\n",
    "D-70 two numbers": b"content-length: 5 5\r\n",
    "D-70 empty": b"content-length: \r\n",
    "D-70 underscore": b"content-length: 1_0\r\n",
    "D-70 not ASCII": b"content-length: \xef\xbc\x95\r\n",
    "D-70 beyond 64 bits": b"content-length: 18446744073709551616\r\n",
    "D-71 unknown coding": b"transfer-encoding: xchunked\r\n",
    "D-71 identity": b"transfer-encoding: identity\r\n",
    "D-71 chunked and identity": b"transfer-encoding: chunked, identity\r\n",
    "D-71 gzip, chunked": b"transfer-encoding: gzip, chunked\r\n",
    "D-71 twice": CHUNKED * 2,
    "D-71 vertical tab": b"transfer-encoding: \x0bchunked\r\n",
    "D-71 quoted": b'transfer-encoding: "chunked"\r\n',
    "D-71 empty": b"transfer-encoding: \r\n",
}


@pytest.mark.usefixtures("nothing_moves")
@pytest.mark.parametrize("length", rows(LENGTHS))
async def test_a_body_of_doubtful_length_is_refused(house: House, length: bytes) -> None:
    smuggled = BODY + CHUNKS + GET
    refused(
        await wire.talk(house.url, head(house, length), b"\r\n" + smuggled), 400, "invalid_http"
    )


SIZES: dict[str, bytes] = {
    "D-72 overflow": b"ffffffffffffffffff\r\n" + BODY,
    "D-72 negative": b"-5\r\n" + BODY,
    "D-72 prefix": b"0x5\r\n" + BODY,
    "D-72 not a number": b"zz\r\n" + BODY,
    "D-72 too short": b"5\r\n" + BODY,
    "D-72 no line break behind": b"%x\r\n%bXX0\r\n\r\n" % (len(BODY), BODY),
    "D-72 bare line feeds": CHUNKS.replace(b"\r\n", b"\n"),
    "D-72 bare carriage returns": CHUNKS.replace(b"\r\n", b"\r"),
    "D-72 blank before the size": b" " + CHUNKS,
    "D-72 bad trailer": CHUNKS[:-2] + b"no colon\r\n\r\n",
    "D-72 trailer with NUL": CHUNKS[:-2] + b"a: \0\r\n\r\n",
    "D-72 endless trailer": CHUNKS[:-2] + b"a: " + b"b" * 500_000,
    "D-72 1 MB extension": b"%x;" % len(BODY) + b"a" * 1_000_000 + b"\r\n" + BODY,
    "D-72 extensions all over": b"1;"
    + b"a" * 9_000
    + b"\r\nx\r\n"
    + b"1;aaaaaaaaaa\r\nx\r\n" * 9_000,
}


@pytest.mark.usefixtures("nothing_moves")
@pytest.mark.parametrize("chunks", rows(SIZES))
async def test_chunks_that_are_none_are_refused(house: House, chunks: bytes) -> None:
    refused(await wire.talk(house.url, chunked(house, chunks + GET)), 400, "invalid_http")


@pytest.mark.usefixtures("everything_adds_up")
async def test_d_73_many_small_chunks_are_one_body(house: House) -> None:
    words = b" " * 10_000 + BODY
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in words) + b"0\r\n\r\n"
    talk = await wire.talk(house.url, chunked(house, chunks) + GET, expect=2)
    assert talk.statuses == [200, 200]


@pytest.mark.usefixtures("nothing_moves")
async def test_a_trailer_is_no_header(house: House) -> None:
    secret = house.installation.inference_key.encode()
    trailer = b"authorization: Bearer %b\r\nhost: evil\r\n" % secret
    anonymous = chunked(house, CHUNKS[:-2] + trailer + b"\r\n").replace(
        b"authorization: Bearer %b\r\n" % secret, b"", 1
    )
    talk = await wire.talk(house.url, anonymous + GET, expect=2)
    assert talk.statuses == [401, 200]


HEADS: dict[str, tuple[int, str, bytes]] = {
    "D-74 70 kB in one header": (431, "headers_too_large", b"x: " + b"a" * 70_000 + b"\r\n"),
    "D-74 70 kB in many": (431, "headers_too_large", (b"x: " + b"a" * 1_000 + b"\r\n") * 70),
    "D-74 1 000 headers": (431, "headers_too_large", b"x: y\r\n" * 1_000),
    "D-74 folded": (400, "invalid_http", b"x: a\r\n b\r\n"),
    "D-74 NUL": (400, "invalid_http", b"x: a\0b\r\n"),
    "D-74 carriage return": (400, "invalid_http", b"x: a\rb: c\r\n"),
    "D-74 line feed": (400, "invalid_http", b"x: a\nb: c\r\n"),
    "D-74 blank before the colon": (400, "invalid_http", b"content-length : 5\r\n"),
    "D-74 name in brackets": (400, "invalid_http", b"x(y): a\r\n"),
    "D-74 no name": (400, "invalid_http", b": a\r\n"),
    "D-74 no colon": (400, "invalid_http", b"xyz\r\n"),
    "D-74 blank in front": (400, "invalid_http", b" x: a\r\n"),
    "D-75 two hosts": (400, "invalid_host", b"host: x\r\n"),
    "D-85 unknown expectation": (417, "expectation_failed", b"expect: pie\r\n"),
}


@pytest.mark.usefixtures("nothing_moves")
@pytest.mark.parametrize("row", rows(HEADS))
async def test_a_head_that_is_none_is_refused(house: House, row: tuple[int, str, bytes]) -> None:
    status, code, headers = row
    refused(await wire.talk(house.url, plain(house, headers) + GET), status, code)


TARGETS: dict[str, tuple[int, str, bytes]] = {
    "D-75 no host": (400, "invalid_host", get(headers=b"")),
    "D-75 empty host": (400, "invalid_host", get(headers=b"host: \r\n")),
    "D-75 host with a path": (400, "invalid_host", get(headers=b"host: a/../admin?\r\n")),
    "D-75 host with a user": (400, "invalid_host", get(headers=b"host: a@b\r\n")),
    "D-75 host of two words": (400, "invalid_host", get(headers=b"host: a b\r\n")),
    "D-47 9 kB": (414, "uri_too_long", get(b"/v1/models/" + b"a" * 9_000)),
    "9 kB of query": (414, "uri_too_long", get(b"/v1/models?" + b"a" * 9_000)),
    "no slash": (400, "invalid_http", get(b"v1/models")),
    "blank": (400, "invalid_http", get(b"/v1/mo dels")),
    "NUL": (400, "invalid_http", get(b"/v1/models\0")),
    "not ASCII": (400, "invalid_http", get("/v1/mödels".encode())),
    "host alone": (400, "invalid_http", get(b"http://evil.example")),
    "D-80 unknown method": (400, "invalid_http", GET.replace(b"GET", b"FOO")),
    "D-80 small letters": (400, "invalid_http", GET.replace(b"GET", b"get")),
    "D-80 CONNECT": (501, "method_not_supported", b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n"),
    "D-84 HTTP/1.2": (400, "invalid_http", GET.replace(b"/1.1", b"/1.2")),
    "D-84 HTTP/2.0": (505, "version_not_supported", GET.replace(b"/1.1", b"/2.0")),
    "D-84 HTTP/2 preface": (400, "invalid_http", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9),
    "D-84 TLS": (400, "invalid_http", bytes.fromhex("16030100c8010000c40303") + b"a" * 99),
    "D-84 nonsense": (400, "invalid_http", b"\r\n\r\nhello\r\n\r\n"),
    "D-84 HTTP/0.9": (408, "request_timeout", b"GET /v1/models\r\n"),
}


@pytest.mark.usefixtures("nothing_moves")
@pytest.mark.parametrize("row", rows(TARGETS))
async def test_a_request_line_that_is_none_is_refused(
    house: House, row: tuple[int, str, bytes]
) -> None:
    status, code, request = row
    refused(await wire.talk(house.url, request), status, code)


@pytest.mark.usefixtures("nothing_moves")
@pytest.mark.parametrize(
    ("request_", "statuses", "is_closed"),
    [
        pytest.param(get(headers=b"host: evil.example\r\n"), [200], False, id="another host"),
        pytest.param(get(b"http://evil.example/v1/models"), [200], False, id="absolute"),
        pytest.param(get(b"http://evil.example/v1/account/keys"), [401], False, id="not ours"),
        pytest.param(get(b"*"), [404], False, id="asterisk"),
        pytest.param(get(b"/v1/../v1/models"), [404], False, id="dots"),
        pytest.param(get(b"//v1/models"), [404], False, id="two slashes"),
        pytest.param(b"GET /v1/models HTTP/1.0\r\n\r\n", [200], True, id="HTTP/1.0, no host"),
        pytest.param(b"\r\n\r\n" + GET, [200], False, id="blank lines in front"),
        pytest.param(GET * 3, [200] * 3, False, id="three at once"),
        pytest.param(GET.replace(b"host", b"x: \xff\xfe\r\nhost"), [200], False, id="Latin-1"),
    ],
)
async def test_odd_requests_with_one_meaning_are_answered(
    house: House, request_: bytes, statuses: list[int], *, is_closed: bool
) -> None:
    talk = await wire.talk(house.url, request_, expect=len(statuses))
    assert (talk.statuses, talk.is_closed) == (statuses, is_closed)


# One answer for each request, in their order

BAD_JSON = b'{"model"'


@pytest.mark.usefixtures("everything_adds_up")
async def test_d_84_pipelined_requests_are_answered_one_by_one_in_order(house: House) -> None:
    many = b"".join(
        plain(house) if n % 10 == 0 else get(b"/v1/models/%d" % n) if n % 2 else GET
        for n in range(300)
    )
    talk = await wire.talk(house.url, many, expect=300, within_s=20)
    wanted = [200 if n % 10 == 0 else 404 if n % 2 else 200 for n in range(300)]
    assert (talk.statuses, talk.is_closed) == (wanted, False)


@pytest.mark.usefixtures("everything_adds_up")
@pytest.mark.parametrize("garbage", [b"garbage\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0\0\0\0"])
async def test_who_came_before_garbage_is_answered_in_full(house: House, garbage: bytes) -> None:
    house.upstream.behave(Behaviour(delay_s=0.1))
    talk = await wire.talk(house.url, plain(house) + GET + garbage + GET, expect=9)
    assert (talk.statuses, talk.is_closed) == ([200, 200], True)


@pytest.mark.usefixtures("everything_adds_up")
async def test_nothing_is_answered_behind_a_request_to_close(house: House) -> None:
    talk = await wire.talk(house.url, plain(house, b"connection: close\r\n") + GET + GET, expect=9)
    assert (talk.statuses, talk.is_closed) == ([200], True)


@pytest.mark.usefixtures("nothing_moves")
@pytest.mark.parametrize("path", [b"/v1/models", b"/v1/account/balance", b"/healthz"])
async def test_a_body_is_never_the_next_request(house: House, path: bytes) -> None:
    request = get(path, b"host: x\r\ncontent-length: %d\r\n" % len(GET)) + GET
    talk = await wire.talk(house.url, request)
    assert len(talk.answers) == 1


@pytest.mark.usefixtures("nothing_moves")
async def test_a_connection_lives_on_after_a_refused_request(house: House) -> None:
    wrong_key = plain(house).replace(b"Bearer bsk_", b"Bearer xyz_")
    wrong_type = plain(house).replace(b"application/json", b"text/plain")
    requests = [plain(house, body=BAD_JSON), wrong_key, wrong_type, get(b"/v1/nothing"), GET]
    talk = await wire.talk(house.url, *requests, expect=5)
    assert (talk.statuses, talk.is_closed) == ([400, 401, 415, 404, 200], False)


@pytest.mark.usefixtures("everything_adds_up")
@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"h2c, websocket", b"TLS/1.0"])
@pytest.mark.parametrize("cut", [0, 30, 300])
async def test_d_87_an_offered_upgrade_is_declined_and_the_request_answered(
    house: House, protocol: bytes, cut: int
) -> None:
    """Java's client offers h2c with every first request; its body stays a body."""
    offer = (
        b"connection: Upgrade, HTTP2-Settings\r\nupgrade: %b\r\nhttp2-settings: AA\r\n" % protocol
    )
    for request in (plain(house, offer), chunked(house, headers=offer)):
        stream = request + get(headers=b"host: x\r\n" + offer) + GET
        parts = [stream[:cut], stream[cut:]] if cut else [stream]
        talk = await wire.talk(house.url, *parts, expect=3)
        assert (talk.statuses, talk.is_closed) == ([200, 200, 200], False)


@pytest.mark.usefixtures("nothing_moves")
async def test_the_body_of_an_offered_upgrade_is_not_a_request(house: House) -> None:
    request = plain(house, b"connection: upgrade\r\nupgrade: h2c\r\n", body=GET)
    for cut in (0, 40, len(request) - len(GET), len(request) - 10):
        talk = await wire.talk(house.url, request[:cut], request[cut:], GET, expect=2)
        assert talk.statuses == [400, 200]


# Size

LARGE = b'{"model":"' + b"a" * MOST_BODY + b'"}'


@pytest.mark.usefixtures("nothing_moves")
async def test_d_66_a_declared_length_above_the_limit_is_refused_unread(house: House) -> None:
    request = head(house, b"content-length: 99999999999\r\n\r\n") + b"{"
    refused(await wire.talk(house.url, request), 413, "body_too_large")


@pytest.mark.usefixtures("nothing_moves")
async def test_d_66_a_body_above_the_limit_is_refused_while_it_arrives(house: House) -> None:
    refused(await wire.talk(house.url, plain(house, body=LARGE * 5)), 413, "body_too_large")
    endless = chunked(house, b"%x\r\n" % (10**9)) + LARGE
    refused(await wire.talk(house.url, endless), 413, "body_too_large")


@pytest.mark.usefixtures("nothing_moves")
@pytest.mark.parametrize("path", [b"/v1/account/keys", b"/v1/models", b"/v1/nothing"])
async def test_nobody_reads_a_body_that_nobody_wants(house: House, path: bytes) -> None:
    secret = house.installation.provisioning_key.encode()
    request = head(house, b"content-length: 99999999\r\n\r\n", path=path)
    async with Connection.open(house.url) as connection:
        await connection.send(request.replace(house.installation.inference_key.encode(), secret))
        for _ in range(5):
            await connection.send(b"a" * 10_000)
            await asyncio.sleep(0.02)
        talk = await connection.talk()
        assert talk.is_closed
        assert talk.statuses in ([413], [405], [404])
        # A caller that goes on sending talks to nobody, and not for long.
        with pytest.raises(ConnectionError):
            for _ in range(100):
                connection.writer.write(b"a" * 10_000)
                await connection.writer.drain()
                await asyncio.sleep(0.02)


# Time


@pytest.mark.usefixtures("nothing_moves")
@pytest.mark.parametrize("sent", [b"", b"\r\n", b"\r\n\r\n"])
async def test_a_connection_that_says_nothing_is_closed(house: House, sent: bytes) -> None:
    talk = await wire.talk(house.url, sent, within_s=4)
    assert (talk.statuses, talk.is_closed) == ([], True)


@pytest.mark.usefixtures("nothing_moves")
async def test_d_83_a_head_that_drips_is_cut_off(house: House) -> None:
    await drip(house, head(house))


@pytest.mark.usefixtures("nothing_moves")
async def test_d_83_a_body_that_drips_is_cut_off(house: House) -> None:
    await drip(house, BODY, after=head(house, b"content-length: %d\r\n\r\n" % len(BODY)))


@pytest.mark.usefixtures("nothing_moves")
async def test_d_83_chunks_that_drip_are_cut_off(house: House) -> None:
    await drip(house, b"1\r\n{\r\n" * 50, after=head(house, CHUNKED + b"\r\n"))


async def drip(house: House, data: bytes, *, after: bytes = b"") -> None:
    """Send bytes ever so slowly; the answer must come long before they are out."""
    async with Connection.open(house.url) as connection:
        await connection.send(after)

        async def go_on() -> None:
            for byte in data:
                await connection.send(bytes([byte]))
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(go_on())
        refused(await connection.talk(within_s=3), 408, "request_timeout")
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


@pytest.mark.usefixtures("nothing_moves")
async def test_d_85_a_body_that_was_asked_for_and_never_comes_is_given_up(house: House) -> None:
    expect = b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(BODY)
    refused(await wire.talk(house.url, head(house, expect), within_s=3), 408, "request_timeout")


@pytest.mark.usefixtures("everything_adds_up")
async def test_a_slow_body_that_moves_is_waited_for(house: House) -> None:
    body = b" " * 150_000 + BODY
    async with Connection.open(house.url) as connection:
        await connection.send(head(house, b"content-length: %d\r\n\r\n" % len(body)))
        for start in range(0, len(body), 6_000):
            await connection.send(body[start : start + 6_000])
            await asyncio.sleep(0.05)
        assert (await connection.talk()).statuses == [200]


@pytest.mark.usefixtures("everything_adds_up")
async def test_an_answer_may_take_longer_than_a_request(house: House) -> None:
    house.upstream.behave(Behaviour(delay_s=1.0))
    talk = await wire.talk(house.url, plain(house) + GET, expect=2)
    assert (talk.statuses, talk.is_closed) == ([200, 200], False)


@pytest.mark.usefixtures("everything_adds_up")
async def test_d_83_slow_callers_stand_in_nobodys_way(house: House) -> None:
    async with AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(Connection.open(house.url)) for _ in range(50)]
        for connection in slow:
            await connection.send(head(house)[:40])
        assert (await wire.talk(house.url, GET)).statuses == [200]
        for connection in slow:
            refused(await connection.talk(), 408, "request_timeout")
