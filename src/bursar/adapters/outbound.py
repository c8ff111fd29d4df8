"""Calls to addresses that somebody else has named: which may be reached, and how much is read.

Owns the rules against being sent to the wrong place. A name is resolved once, every address that it
has must be allowed, and the connection goes to one of these, so that a second answer of the name
server changes nothing. No redirect is followed, no proxy or variable of the environment is asked,
and an answer has a bound in bytes and in time. Must not know what is fetched.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

import httpx2

_LONGEST_URL: Final = 2_048
_MOST_BYTES: Final = 262_144
_TOTAL_S: Final = 10.0
_NAT64: Final = ip_network("64:ff9b::/96")
_COMPATIBLE: Final = ip_network("::/96")
_IPV4_BITS: Final = 0xFFFFFFFF
# Where clouds hand out a machine's own credentials: not even an internal service is there.
_METADATA: Final = frozenset(map(ip_address, ("100.100.100.200", "fd00:ec2::254")))

Ip = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class NotReached(Exception):
    """Nothing usable came back; the text says why, for the log."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes = field(repr=False)


def is_allowed(address: Ip, *, is_internal: bool) -> bool:
    """Whether an address may be reached: a public one, or for internal services a private one.

    Of those that carry an IPv4 address within, that one counts.
    """
    inner = _inner(address)
    if inner is not None:
        return is_allowed(inner, is_internal=is_internal)
    if address in _METADATA or address.is_multicast or address.is_unspecified:
        return False
    if address.is_link_local or (address.is_reserved and not address.is_loopback):
        return False
    return is_internal or address.is_global


def split(url: str, *, is_internal: bool) -> tuple[str, str, int]:
    """Return scheme, host and port of an address; raises NotReached for one that is not allowed."""
    if len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable():
        raise NotReached("the address is not plain text")
    if any(character in url for character in ' \\"<>^`{|}'):
        raise NotReached("the address has characters that no address has")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise NotReached("the address cannot be read") from error
    if parts.scheme != "https" and not (is_internal and parts.scheme == "http"):
        raise NotReached("the address is not https")
    if not host or "@" in parts.netloc or "%" in parts.netloc or parts.fragment or port == 0:
        raise NotReached("the address has no host, or more than host and port")
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80)


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses that a name has."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


class Outbound:
    """Fetches from where others say, by these rules."""

    def __init__(
        self, *, is_internal: bool, resolve: Resolve = resolve, total_s: float = _TOTAL_S
    ) -> None:
        self._is_internal = is_internal
        self._resolve = resolve
        self._total_s = total_s
        self._tls: ssl.SSLContext | None = None

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Answer:
        """Return what is answered there; raises NotReached."""
        scheme, host, port = split(url, is_internal=self._is_internal)
        try:
            async with asyncio.timeout(self._total_s):
                address = await self._find_address(host, port)
                return await self._send(
                    method, url, (scheme, host, port), address, headers, content
                )
        except TimeoutError as error:
            raise NotReached(f"{host} took more than {self._total_s:g} s") from error
        except (httpx2.HTTPError, OSError, UnicodeError) as error:
            raise NotReached(f"{host}: {type(error).__name__}") from error

    async def _find_address(self, host: str, port: int) -> Ip:
        found = [ip_address(text.partition("%")[0]) for text in await self._resolve(host, port)]
        if not found or not all(is_allowed(each, is_internal=self._is_internal) for each in found):
            raise NotReached(f"{host} is at an address that may not be reached")
        return found[0]

    async def _send(
        self,
        method: str,
        url: str,
        place: tuple[str, str, int],
        address: Ip,
        headers: Mapping[str, str] | None,
        content: bytes | None,
    ) -> Answer:
        scheme, host, port = place
        literal = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        named = f"[{host}]" if ":" in host else host
        is_usual = port == (443 if scheme == "https" else 80)
        target = httpx2.URL(url).copy_with(host=literal.strip("[]"), port=port)
        request_headers = {
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": "bursar",
            **(headers or {}),
            "host": named if is_usual else f"{named}:{port}",
        }
        async with (
            httpx2.AsyncClient(
                verify=self._context(),
                trust_env=False,
                follow_redirects=False,
                timeout=self._total_s,
            ) as client,
            client.stream(
                method,
                target,
                headers=request_headers,
                content=content,
                extensions={"sni_hostname": host},
            ) as response,
        ):
            if response.headers.get("content-encoding", "identity") != "identity":
                raise NotReached(f"{host} answers in an encoding that was not asked for")
            body = bytearray()
            async for part in response.aiter_raw():
                body += part
                if len(body) > _MOST_BYTES:
                    raise NotReached(f"{host} answers with more than {_MOST_BYTES} bytes")
            return Answer(response.status_code, bytes(body))

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


def _inner(address: Ip) -> IPv4Address | None:
    if not isinstance(address, IPv6Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    is_plain = address.is_loopback or address.is_unspecified
    if address in _NAT64 or (address in _COMPATIBLE and not is_plain):
        return IPv4Address(int(address) & _IPV4_BITS)
    return None
