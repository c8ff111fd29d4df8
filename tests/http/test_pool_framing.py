"""An answer means one thing or it is refused, however its bytes are cut up on the way."""

import asyncio
import itertools
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.gateway.upstreams.http11.connections import Connection
from bursar.gateway.upstreams.http11.exchanges import PAUSE_ABOVE
from bursar.gateway.upstreams.port import Limits, UpstreamError

OK = b"HTTP/1.1 200 OK\r\n"
LIMITS = Limits(max_head=4096, max_body=100_000)


class FakeTransport(asyncio.Transport):
    """Remembers what a connection did to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.unsent = 0
        self.is_open = True
        self.is_paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return not self.is_open

    def abort(self) -> None:
        self.is_open = False

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class FakeOwner:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.ends: list[bool] = []
        self.gone = 0

    def connection_open(self, connection: Connection) -> None: ...

    def exchange_over(self, connection: Connection, *, is_reusable: bool) -> None:
        self.ends.append(is_reusable)

    def connection_gone(self, connection: Connection) -> None:
        self.gone += 1


class Wire:
    """One connection, one request, and whatever bytes the test lets arrive."""

    def __init__(self, *, is_head_request: bool = False) -> None:
        self.owner = FakeOwner()
        self.transport = FakeTransport()
        self.connection = Connection(self.owner, LIMITS, LOOPS[0])
        self.connection.connection_made(self.transport)
        self.exchange = self.connection.start(b"request", is_head_request=is_head_request)

    def arrive(self, *pieces: bytes, ends: bool = False) -> None:
        for piece in pieces:
            if self.transport.is_open:
                self.connection.data_received(piece)
        if ends and self.transport.is_open:
            self.connection.eof_received()
        if ends or not self.transport.is_open:
            self.connection.connection_lost(None)

    def outcome(self) -> tuple[object, ...]:
        """All that a caller and the pool can see."""
        exchange = self.exchange
        failure = exchange.error and exchange.error.kind
        body = None if failure else finished(exchange.read())
        return (
            exchange.status,
            None if failure else exchange.headers,
            body,
            failure,
            self.owner.ends,
        )


LOOPS: list[asyncio.AbstractEventLoop] = []


@pytest.fixture(autouse=True, scope="module")
def _loop() -> Iterator[None]:
    LOOPS[:] = [asyncio.new_event_loop()]
    yield
    LOOPS.pop().close()


def finished(reading: Coroutine[Any, Any, bytes]) -> bytes:
    """The result of a coroutine that must not suspend."""
    try:
        reading.send(None)
    except StopIteration as stop:
        return bytes(stop.value)
    reading.close()
    raise AssertionError("it waits for what has already arrived")


def chunked(*parts: bytes, trailer: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return OK + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n" + trailer + b"\r\n"


def sized(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return OK + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


# name: bytes, the body that they mean, whether the connection may be used again
VALID: dict[str, tuple[bytes, bytes, bool]] = {
    "length": (sized(b'{"ok":true}'), b'{"ok":true}', True),
    "empty": (sized(b""), b"", True),
    "reason left out": (b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nhi", b"hi", True),
    "chunks": (chunked(b"data: 1\n\n", b"data: [DONE]\n\n"), b"data: 1\n\ndata: [DONE]\n\n", True),
    "chunks of binary": (chunked(b"\r\n0\r\n\r\n", b"\x00\xff"), b"\r\n0\r\n\r\n\x00\xff", True),
    "chunk extension": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
        b"abc",
        True,
    ),
    "trailer": (chunked(b"abc", trailer=b"X-Sum: 1\r\n"), b"abc", True),
    "identity": (sized(b"abc", b"Content-Encoding: identity"), b"abc", True),
    "continue first": (b"HTTP/1.1 100 Continue\r\n\r\n" + sized(b"abc"), b"abc", True),
    "early hints first": (b"HTTP/1.1 103 E\r\nLink: </a>\r\n\r\n" + sized(b"abc"), b"abc", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "not modified": (b"HTTP/1.1 304 N\r\nContent-Length: 9\r\n\r\n", b"", True),
    "close": (sized(b"abc", b"Connection: close"), b"abc", False),
    "old keep-alive": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",
        b"abc",
        True,
    ),
    "old": (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc", False),
    "until the end": (OK + b"\r\nabc", b"abc", False),
    "bytes behind a length": (sized(b"abc") + b"HTTP/1.1 200 OK\r\n", b"abc", False),
    "garbage behind a length": (sized(b"abc") + b"!", b"abc", False),
    "second answer": (chunked(b"abc") + sized(b"evil"), b"abc", False),
    "body behind no content": (b"HTTP/1.1 204 N\r\n\r\nabc", b"", False),
}

MALFORMED: dict[str, bytes] = {
    "length and chunks": OK
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunks and length": OK
    + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "the same length twice": OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": OK + b"Content-Length: 3, 3\r\n\r\nabc",
    "signed length": OK + b"Content-Length: +3\r\n\r\nabc",
    "negative length": OK + b"Content-Length: -3\r\n\r\nabc",
    "hexadecimal length": OK + b"Content-Length: 0x3\r\n\r\nabc",
    "no length": OK + b"Content-Length:\r\n\r\nabc",
    "length beyond reason": OK + b"Content-Length: 99999999999999999999\r\n\r\nabc",
    "two encodings": OK
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "unknown encoding": OK + b"Transfer-Encoding: xchunked\r\n\r\nabc",
    "space before the colon": OK + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "encoded body": sized(b"\x1f\x8b", b"Content-Encoding: gzip"),
    "chunk size not hexadecimal": OK + b"Transfer-Encoding: chunked\r\n\r\nz\r\nabc\r\n0\r\n\r\n",
    "chunk size negative": OK + b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
    "chunk size beyond 64 bits": OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc",
    "chunk size followed by a space": OK
    + b"Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n",
    "chunk longer than its size": OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "chunk lines ended by LF": OK + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    "length in the trailer": chunked(b"abc", trailer=b"Content-Length: 5\r\n"),
    "folded header": OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "lines ended by LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "NUL in a header": OK + b"A: b\0c\r\nContent-Length: 0\r\n\r\n",
    "CR in a header": OK + b"A: b\rc\r\nContent-Length: 0\r\n\r\n",
    "nameless header": OK + b": b\r\nContent-Length: 0\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "HTML": b"<html>502</html>",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "status 000": b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
    "status 999": b"HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc",
    "unknown informational": b"HTTP/1.1 199 X\r\n\r\n" + sized(b"abc"),
    "informational with a length": b"HTTP/1.1 100 C\r\nContent-Length: 0\r\n\r\n" + OK + b"\r\nabc",
    "informational with a body": b"HTTP/1.1 100 C\r\nContent-Length: 3\r\n\r\nabc" + sized(b""),
}

OVERSIZED: dict[str, bytes] = {
    "one header": OK + b"A: " + b"b" * 5000 + b"\r\nContent-Length: 0\r\n\r\n",
    "many headers": OK + b"A: b\r\n" * 500 + b"Content-Length: 0\r\n\r\n",
    "a header without end": OK + b"A: " + b"b" * 20_000,
    "a trailer without end": chunked(b"abc")[:-2] + b"A: " + b"b" * 20_000,
    "a chunk extension without end": OK + b"Transfer-Encoding: chunked\r\n\r\n3;" + b"a" * 20_000,
    "informational answers without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
}

TRUNCATED: dict[str, bytes] = {
    "nothing": b"",
    "status line": b"HTTP/1.1 200",
    "headers": OK + b"Content-Length: 3\r\n",
    "body": OK + b"Content-Length: 3\r\n\r\nab",
    "chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
    "last chunk": chunked(b"abc")[:-5],
    "last line break": chunked(b"abc")[:-2],
    "only an informational answer": b"HTTP/1.1 100 Continue\r\n\r\n",
}


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


@pytest.mark.parametrize("name", VALID)
def test_a_valid_answer_means_one_body(name: str) -> None:
    data, body, is_reusable = VALID[name]
    wire = Wire()
    wire.arrive(data, ends=name == "until the end")
    assert (wire.outcome()[2], wire.owner.ends) == (body, [is_reusable])
    assert wire.transport.is_open is is_reusable


@given(name=st.sampled_from(sorted(VALID)), places=st.lists(st.integers(1, 200), max_size=12))
def test_where_an_answer_is_cut_up_changes_nothing(name: str, places: list[int]) -> None:
    data, _body, _is_reusable = VALID[name]
    ends = name == "until the end"
    whole, pieces = Wire(), Wire()
    whole.arrive(data, ends=ends)
    pieces.arrive(*cut(data, places), ends=ends)
    assert pieces.outcome()[:4] == whole.outcome()[:4]
    # What lies behind an answer may arrive when the connection is already idle: it closes then.
    assert pieces.transport.is_open is whole.transport.is_open
    assert len(pieces.owner.ends) == 1


@pytest.mark.parametrize("name", VALID)
def test_an_answer_byte_by_byte_means_the_same(name: str) -> None:
    data, body, is_reusable = VALID[name]
    wire = Wire()
    wire.arrive(*(data[place : place + 1] for place in range(len(data))), ends="until" in name)
    assert wire.outcome()[2] == body
    assert wire.transport.is_open is is_reusable


@pytest.mark.parametrize("name", MALFORMED)
def test_an_answer_that_can_be_read_in_two_ways_is_refused(name: str) -> None:
    data = MALFORMED[name]
    for pieces in ([data], [data[place : place + 1] for place in range(len(data))]):
        wire = Wire()
        wire.arrive(*pieces)
        assert wire.outcome()[2:] == (None, "protocol", [False])
        assert not wire.transport.is_open


@pytest.mark.parametrize("name", OVERSIZED)
def test_headers_without_end_are_refused(name: str) -> None:
    data = OVERSIZED[name]
    for size in (5500, 700):
        wire = Wire()
        wire.arrive(*(data[place : place + size] for place in range(0, len(data), size)))
        assert wire.outcome()[2:] == (None, "too_large", [False])


@pytest.mark.parametrize("name", TRUNCATED)
def test_an_answer_without_its_end_is_never_an_answer(name: str) -> None:
    wire = Wire()
    wire.arrive(TRUNCATED[name], ends=True)
    assert wire.outcome()[2:] == (None, "closed", [False])
    assert wire.owner.gone == 1


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_no_bytes_whatsoever_break_a_connection(pieces: list[bytes]) -> None:
    wire = Wire()
    wire.arrive(*pieces, ends=True)
    wire.outcome()
    assert (len(wire.owner.ends), wire.owner.gone) == (1, 1)


@given(
    name=st.sampled_from(sorted(VALID)),
    place=st.integers(0, 150),
    junk=st.binary(min_size=1, max_size=3),
    replaced=st.integers(0, 3),
)
def test_a_damaged_answer_ends_in_one_way(
    name: str, place: int, junk: bytes, replaced: int
) -> None:
    data = VALID[name][0]
    damaged = data[:place] + junk + data[place + replaced :]
    whole, pieces = Wire(), Wire()
    whole.arrive(damaged, ends=True)
    pieces.arrive(*(damaged[at : at + 1] for at in range(len(damaged))), ends=True)
    assert len(whole.owner.ends) == len(pieces.owner.ends) == 1
    # Both see the same body or neither sees any.
    assert pieces.outcome()[2] == whole.outcome()[2]


KEPT = sorted(name for name, (_, _, is_kept) in VALID.items() if is_kept)


@given(
    first=st.sampled_from(KEPT),
    second=st.sampled_from(KEPT),
    place=st.integers(0, 300),
    junk=st.binary(max_size=3),
    replaced=st.integers(0, 3),
)
def test_an_answer_is_the_same_behind_another(
    first: str, second: str, place: int, junk: bytes, replaced: int
) -> None:
    data = VALID[second][0]
    data = data[:place] + junk + data[place + replaced :]
    alone, behind = Wire(), Wire()
    behind.arrive(VALID[first][0])
    behind.exchange = behind.connection.start(b"request", is_head_request=False)
    alone.arrive(data, ends=True)
    behind.arrive(data, ends=True)
    assert behind.outcome()[:4] == alone.outcome()[:4]
    assert behind.owner.ends == [True, *alone.owner.ends]


def test_a_head_that_comes_again_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire()
    wire.arrive(sized(b"first", b"Content-Type: text/plain"))
    monkeypatch.setattr(wire.connection, "_parser", None)
    for body in (b"again", b"longer than that", b"x"):
        wire.exchange = wire.connection.start(b"request", is_head_request=False)
        wire.arrive(sized(body, b"Content-Type: text/plain"))
        status, headers, *rest = wire.outcome()
        length = (b"content-length", b"%d" % len(body))
        assert (status, headers) == (200, [(b"content-type", b"text/plain"), length])
        assert rest[:2] == [body, None]
    assert wire.owner.ends == [True] * 4


def test_an_error_that_comes_again_is_one_again() -> None:
    wire = Wire()
    for _ in range(3):
        wire.arrive(sized(b"no such model").replace(b"200 OK", b"404 Not Found"))
        assert wire.exchange.status == 404
        wire.exchange = wire.connection.start(b"request", is_head_request=False)


def test_a_body_that_looks_like_the_answer_before_it_is_a_body() -> None:
    wire = Wire()
    answer = sized(b"abc")
    wire.arrive(answer)
    wire.exchange = wire.connection.start(b"request", is_head_request=False)
    wire.arrive(OK + b"Content-Length: %d\r\n\r\n" % (5 + len(answer)), b"first", answer)
    assert finished(wire.exchange.read()) == b"first" + answer


def test_an_answer_to_head_has_no_body_behind_another_either() -> None:
    outcomes = []
    for is_warm in (False, True):
        wire = Wire(is_head_request=not is_warm)
        if is_warm:
            wire.arrive(sized(b"abc"))
            wire.exchange = wire.connection.start(b"request", is_head_request=True)
        wire.arrive(sized(b"abc"))
        outcomes.append((wire.exchange.buffered, wire.owner.ends[-1]))
    assert outcomes == [(0, False)] * 2


def test_a_body_that_only_the_end_delimits_is_cut_short_by_a_reset() -> None:
    wire = Wire()
    wire.arrive(OK + b"\r\nabc")
    wire.connection.connection_lost(ConnectionResetError())
    assert wire.outcome()[3] == "closed"


def test_an_answer_to_head_has_no_body_and_ends_the_connection() -> None:
    wire = Wire(is_head_request=True)
    wire.arrive(OK + b"Content-Length: 1000\r\n\r\n")
    assert wire.outcome() == (200, [(b"content-length", b"1000")], b"", None, [False])


def test_headers_of_an_informational_answer_are_not_the_answer_s() -> None:
    wire = Wire()
    wire.arrive(VALID["early hints first"][0])
    assert wire.exchange.headers == [(b"content-length", b"3")]


def test_bytes_that_nobody_asked_for_close_an_idle_connection() -> None:
    wire = Wire()
    wire.arrive(sized(b"abc"))
    assert wire.connection.is_usable
    wire.arrive(sized(b"evil"))
    assert not wire.connection.is_usable
    assert wire.outcome()[2] == b"abc"


def test_a_line_break_behind_an_answer_never_becomes_part_of_one() -> None:
    wire = Wire()
    wire.arrive(sized(b"abc") + b"\r\n")
    assert finished(wire.exchange.read()) == b"abc"
    wire.exchange = wire.connection.start(b"request", is_head_request=False)
    wire.arrive(b"\r\n" + sized(b"next"))
    assert finished(wire.exchange.read()) == b"next"


def test_an_answer_before_the_request_is_out_ends_the_connection() -> None:
    wire = Wire()
    wire.transport.unsent = 1
    wire.arrive(sized(b"too much"))
    assert wire.outcome()[2:] == (b"too much", None, [False])


def test_a_request_on_a_lost_connection_fails_without_being_sent() -> None:
    wire = Wire()
    wire.arrive(sized(b"abc"), ends=True)
    exchange = wire.connection.start(b"request", is_head_request=False)
    assert exchange.error is not None
    assert (exchange.error.kind, exchange.error.request_sent) == ("closed", False)
    assert wire.owner.ends == [True, False]


def test_reading_pauses_when_nobody_takes_and_goes_on_when_somebody_does() -> None:
    wire = Wire()
    wire.arrive(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    part = b"x" * 1000
    for sent in range(1, 90):
        wire.arrive(b"3e8\r\n" + part + b"\r\n")
        assert wire.transport.is_paused is (sent * 1000 > PAUSE_ABOVE)
    assert finished(wire.exchange.next_chunk()) == part * 89
    assert not wire.transport.is_paused
    wire.arrive(b"0\r\n\r\n")
    assert finished(wire.exchange.next_chunk()) == b""
    assert wire.owner.ends == [True]


def test_a_connection_that_was_paused_reads_on_when_it_is_idle() -> None:
    wire = Wire()
    wire.arrive(OK + b"Content-Length: 80000\r\n\r\n" + b"x" * 70_000)
    assert wire.transport.is_paused
    wire.arrive(b"x" * 10_000)
    assert not wire.transport.is_paused
    assert finished(wire.exchange.read()) == b"x" * 80_000


@pytest.mark.parametrize("data", [sized(b"x" * 100_001), chunked(b"x" * 60_000, b"x" * 60_000)])
def test_a_body_above_the_limit_is_not_read_even_if_it_is_there(data: bytes) -> None:
    wire = Wire()
    wire.arrive(data)
    with pytest.raises(UpstreamError) as caught:
        finished(wire.exchange.read())
    assert caught.value.kind == "too_large"


def test_a_declared_length_above_the_limit_is_refused_before_it_comes() -> None:
    wire = Wire()
    wire.arrive(OK + b"Content-Length: 10000000000\r\n\r\n")
    with pytest.raises(UpstreamError) as caught:
        finished(wire.exchange.read())
    assert (caught.value.kind, wire.transport.is_open) == ("too_large", False)


def test_many_small_chunks_are_kept_as_one_piece_a_read() -> None:
    wire = Wire()
    wire.arrive(OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 5000)
    assert wire.exchange.chunks == [b"x" * 5000]
