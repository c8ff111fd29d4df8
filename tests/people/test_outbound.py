"""Calls to addresses that others named go nowhere else, and read no more than they may."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from bursar.adapters import outbound
from bursar.adapters.outbound import NotReached, Outbound, is_allowed, split
from tests.authority import DAY, NOW, Authority

LOCAL = (
    *("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "198.18.0.1"),
    *("fc00::1", "fd12:3456::1", "::ffff:10.0.0.1", "::10.0.0.1"),
)
NOWHERE = (
    *("0.0.0.0", "::", "169.254.169.254", "fe80::1", "fd00:ec2::254", "100.100.100.200"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "ff02::1"),
    *("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "::ffff:0.0.0.0"),
    "2001:0:4136:e378:8000:63bf:5601:5601",  # Teredo of 169.254.169.254
)
PUBLIC = ("1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101")


def test_addresses_that_are_nobody_elses_are_not_reached() -> None:
    for text in PUBLIC:
        assert is_allowed(ip_address(text), is_internal=False), text
    for text in LOCAL:
        assert not is_allowed(ip_address(text), is_internal=False), text
        assert is_allowed(ip_address(text), is_internal=True), text
    for text in NOWHERE:
        assert not is_allowed(ip_address(text), is_internal=False), text
        assert not is_allowed(ip_address(text), is_internal=True), text


@pytest.mark.parametrize(
    "url",
    [
        *("", "evil.example", "//evil.example", "/path", " https://a.example", "https://"),
        *("http://a.example", "file:///etc/passwd", "gopher://a.example", "ftp://a.example"),
        *("data:,x", "javascript:alert(1)", "unix:/x", "dict://a.example:11211/"),
        *(
            "https://user:pass@a.example",
            "https://evil.example#@a.example",
            "https://a.example\\@b",
        ),
        *("https://a\t.example", "https://a.example/\n", "https://\u0430.example", "https://%6c/"),
        *("https://a.example:0", "https://a.example:65536", "https://a.example:x", "https://[::1"),
        f"https://a.example/{'x' * 2_048}",
    ],
)
def test_what_is_no_plain_address_is_not_reached(url: str) -> None:
    with pytest.raises(NotReached):
        split(url, is_internal=False)


def naming(*addresses: str) -> tuple[Callable[..., object], list[str]]:
    """A name server that says this of every name, and who it was asked for."""
    asked: list[str] = []

    async def resolve(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return addresses

    return resolve, asked


@pytest.mark.parametrize(
    "addresses", [("127.0.0.1",), ("1.1.1.1", "10.0.0.1"), ("1.1.1.1", "::1"), ()], ids=str
)
async def test_a_name_is_not_reached_if_any_of_its_addresses_must_not_be(
    addresses: tuple[str, ...],
) -> None:
    resolve, asked = naming(*addresses)
    with pytest.raises(NotReached, match="may not be reached"):
        await Outbound(is_internal=False, resolve=resolve).fetch("GET", "https://a.example/")
    assert asked == ["a.example"]


async def test_numbers_that_mean_this_machine_are_not_reached() -> None:
    async def resolve(host: str, _port: int) -> Sequence[str]:
        """As the C library reads numbers."""
        return [socket.inet_ntoa(socket.inet_aton(host))]

    for host in ("127.1", "0x7f000001", "2130706433", "017700000001", "0"):
        with pytest.raises(NotReached, match="may not be reached"):
            await Outbound(is_internal=False, resolve=resolve).fetch("GET", f"https://{host}/")


class Answering:
    """A server on this machine that answers with these bytes, slowly if wanted."""

    def __init__(self, sent: bytes, *, pause_s: float = 0.0, times: int = 1) -> None:
        self.sent, self.pause_s, self.times = sent, pause_s, times
        self.heard = b""
        self.port = 0

    @contextmanager
    def running(self) -> Iterator[Answering]:
        """It, for the block."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        thread = threading.Thread(target=self._answer, args=(listener,))
        thread.start()
        try:
            yield self
        finally:
            listener.close()
            thread.join()

    def _answer(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            self.heard = connection.recv(65_536)
            try:
                for _ in range(self.times):
                    connection.sendall(self.sent)
                    time.sleep(self.pause_s)
            except OSError:
                return


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


async def test_the_connection_goes_to_the_address_that_was_checked_and_names_the_host() -> None:
    resolve, asked = naming("127.0.0.1")
    with Answering(HEAD + b"content-length: 2\r\n\r\n{}").running() as server:
        url = f"http://login.acme.example:{server.port}/path?x=1"
        found = await Outbound(is_internal=True, resolve=resolve).fetch("GET", url)
    assert (found.status, found.body) == (200, b"{}")
    assert asked == ["login.acme.example"]
    assert server.heard.startswith(b"GET /path?x=1 HTTP/1.1\r\n")
    assert f"host: login.acme.example:{server.port}".encode() in server.heard.lower()
    assert b"gzip" not in server.heard


async def test_no_redirect_is_followed() -> None:
    moved = b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n"
    with Answering(moved).running() as server:
        found = await Outbound(is_internal=True).fetch("GET", f"http://127.0.0.1:{server.port}/")
    assert found.status == 302


@pytest.mark.parametrize(
    "server",
    [
        Answering(b"x" * 65_536, times=100),
        Answering(HEAD + b"\r\n" + b"x" * 300_000),
        Answering(HEAD + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nxyz"),
        Answering(HEAD + b"x-long: " + b"x" * 200_000 + b"\r\n\r\n"),
        Answering(HEAD + b"content-length: 9000\r\n\r\n" + b"x", pause_s=0.3, times=6),
        Answering(b""),
    ],
    ids=["noise", "endless", "compressed", "long header", "slow", "nothing"],
)
async def test_an_answer_has_a_bound(server: Answering) -> None:
    with server.running():
        reach = Outbound(is_internal=True, total_s=1.0)
        with pytest.raises(NotReached):
            await reach.fetch("GET", f"http://127.0.0.1:{server.port}/")


async def test_the_certificate_is_the_names_and_not_the_addresss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    tls = authority.serve(tmp_path, host="login.acme.example", until=NOW + DAY)
    (tmp_path / "authority.pem").write_bytes(authority.pem)
    resolve, _ = naming("127.0.0.1")

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"content-length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        stranger = Outbound(is_internal=True, resolve=resolve)
        with pytest.raises(NotReached):
            await stranger.fetch("GET", f"https://login.acme.example:{port}/")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        trusting = Outbound(is_internal=True, resolve=resolve)
        found = await trusting.fetch("GET", f"https://login.acme.example:{port}/")
        assert found.body == b"{}"
        for other in ("other.acme.example", "127.0.0.1"):
            with pytest.raises(NotReached):
                await trusting.fetch("GET", f"https://{other}:{port}/")


async def test_variables_of_the_environment_send_nothing_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with Answering(HEAD + b"content-length: 2\r\n\r\n{}").running() as server:
        reach = Outbound(is_internal=True)
        assert (await reach.fetch("GET", f"http://127.0.0.1:{server.port}/")).status == 200


async def test_a_names_addresses_are_those_that_the_machine_knows() -> None:
    assert "127.0.0.1" in await outbound.resolve("127.0.0.1", 80)
