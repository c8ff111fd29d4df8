"""A head that comes again is known without a parser, and then it is what a parser would see."""

from __future__ import annotations

from collections.abc import Callable

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bursar.gateway.http.last_head import LastHead

BODY = b'{"model":"m"}'


def message(*lines: bytes, body: bytes = BODY, length: bytes = b"content-length: %d") -> bytes:
    """A request with these header lines around its length."""
    named = [b"host: x", *lines[:1], length % len(body), *lines[1:]]
    return b"POST /v1/chat/completions HTTP/1.1\r\n" + b"\r\n".join(named) + b"\r\n\r\n" + body


class Seen:
    """What a parser says of one message, and nothing of what may follow it."""

    def __init__(self, data: bytes) -> None:
        self.said: list[object] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.is_whole = False
        self.parser = httptools.HttpRequestParser(self)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.is_whole = False

    def on_url(self, url: bytes) -> None:
        self.said.append(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.said += [
            self.parser.get_method(),
            self.parser.get_http_version(),
            self.parser.should_keep_alive(),
            self.parser.should_upgrade(),
        ]

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_whole = not self.is_whole

    @property
    def meaning(self) -> tuple[object, ...]:
        """All but the body and its length."""
        others = [header for header in self.headers if header[0] != b"content-length"]
        return *self.said, others, len(self.headers) - len(others)


LINES = st.sampled_from(
    [
        b"authorization: Bearer bsk_1",
        b"Content-Length-Not: 3",
        b"x-note: content-length: 13",
        b"x-empty:",
        b"connection: keep-alive",
        b"accept: */*",
    ]
)
LENGTHS = st.sampled_from(
    [
        b"content-length: %d",
        b"Content-Length:%d",
        b"CONTENT-LENGTH: \t%d",
        b"content-length: %d ",
        b"content-length: 0%d",
    ]
)
BODIES = st.binary(min_size=1, max_size=40)


def cut(data: bytes, place: int) -> bytes:
    return data[: place % (len(data) + 1)]


def insert(data: bytes, place: int) -> bytes:
    place %= len(data) + 1
    return data[:place] + b"1\r\n :0"[place % 6 :] + data[place:]


def flip(data: bytes, place: int) -> bytes:
    place %= len(data)
    return data[:place] + bytes([data[place] ^ (1 << place % 7)]) + data[place + 1 :]


def drop(data: bytes, place: int) -> bytes:
    place %= len(data)
    return data[:place] + data[place + 1 :]


def same(data: bytes, place: int) -> bytes:
    return data


CHANGES: list[Callable[[bytes, int], bytes]] = [same, cut, insert, flip, drop]


@given(
    st.lists(LINES, max_size=4),
    LENGTHS,
    BODIES,
    BODIES,
    st.sampled_from(CHANGES),
    st.integers(min_value=0, max_value=400),
)
@example([], b"content-length: %d", b"a", b"a" * 10, same, 0)
def test_what_is_taken_for_the_same_head_is_the_same_to_a_parser(
    lines: list[bytes],
    length: bytes,
    first: bytes,
    second: bytes,
    change: Callable[[bytes, int], bytes],
    place: int,
) -> None:
    known = message(*lines, body=first, length=length)
    head: LastHead[str] = LastHead()
    head.remember(known, len(first), "known")
    data = change(message(*lines, body=second, length=length), place)
    body = head.body_of(data)
    if body is not None:
        seen = Seen(data)
        assert seen.is_whole
        assert seen.body == body
        assert seen.meaning == Seen(known).meaning


@pytest.mark.parametrize("size", [1, 9, 10, 13, 99, 1000, 123_456])
def test_a_head_is_known_whatever_the_length(size: int) -> None:
    head: LastHead[str] = LastHead()
    known = message(b"a: b", b"c: d")
    head.remember(known, len(BODY), "known")
    assert head.meaning == "known"
    body = b"x" * size
    assert head.body_of(message(b"a: b", b"c: d", body=body)) == body


@pytest.mark.parametrize(
    "other",
    [
        b"",
        b"x",
        message(b"a: c", b"c: d"),
        message(b"a: b", b"c: e"),
        message(b"a: b", b"c: d") + b"x",
        message(b"a: b", b"c: d")[:-1],
        message(b"a: b", b"c: d") * 2,
        message(b"a: b", b"c: d", body=b""),
        message(b"a: b", b"c: d").replace(b"length: 13", b"length: +13"),
        message(b"a: b", b"c: d").replace(b"length: 13", b"length: 0x0d"),
        message(b"a: b", b"c: d").replace(b"length: 13", b"length: 1 3"),
        message(b"a: b", b"c: d").replace(b"length: 13", b"length: "),
        message(b"a: b", b"c: d").replace(b"length: 13", b"length: 0000000013"),
        message(b"a: b", b"c: d").replace(b"length: 13", b"length: 13\r\nx: y"),
    ],
)
def test_another_message_is_not_known(other: bytes) -> None:
    head: LastHead[str] = LastHead()
    assert head.body_of(other) is None
    head.remember(message(b"a: b", b"c: d"), len(BODY), "known")
    assert head.body_of(other) is None


@pytest.mark.parametrize(
    "unfit",
    [
        b"",
        BODY,
        message()[3:-20] + BODY,
        b"GET /before HTTP/1.1\r\nhost: x\r\n\r\n" + message(),
        message(length=b"content-length: 1%d"),
        message(length=b"x: %d"),
        message(length=b"content-length: %d\r\nContent-Length: 13"),
    ],
)
def test_what_is_no_one_message_with_one_length_is_not_remembered(unfit: bytes) -> None:
    head: LastHead[str] = LastHead()
    head.remember(unfit, len(BODY), "known")
    assert head.body_of(unfit) is None
    assert head.body_of(message()) is None


def test_where_heads_never_repeat_ever_fewer_are_remembered() -> None:
    head: LastHead[int] = LastHead()
    kept = []
    for number in range(1, 101):
        head.remember(message(b"id: %d" % number), len(BODY), number)
        kept.append(head.meaning)
    assert sorted({number for number in kept if number}) == [1, 2, 4, 8, 16, 32, 64]
    assert head.body_of(message(b"id: 64")) == BODY
    head.remember(message(b"id: 101"), len(BODY), 101)
    assert head.body_of(message(b"id: 101")) == BODY
