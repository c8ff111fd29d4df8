"""The messages of a chat request: who says what, and what beside text is said.

Owns what a message may be, which parts can hide more tokens than they have bytes, and which
addresses a part may name. Nothing is ever fetched here, but the model server behind may do it: a
caller must not be able to send it to a neighbour. Must not know the rest of a request.
"""

import ipaddress
import socket
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import msgspec

from bursar.core.errors import Invalid
from bursar.gateway.wire.fields import UNREADABLE, Fields, invalid

MOST_MESSAGES: Final = 10_000

_NULL: Final = b"null"
_ROLES: Final = frozenset(
    (b'"system"', b'"user"', b'"assistant"', b'"tool"', b'"developer"', b'"function"')
)
_CONTENT: Final = frozenset((b'"', b"[", b"n"))
_TEXT: Final = frozenset(("text", "refusal", "thinking", "redacted_thinking"))
_ADDRESSES: Final = frozenset(
    ("url", "uri", "image_url", "video_url", "audio_url", "file_url", "input_image")
)
_NEIGHBOURS: Final = ("localhost", "local", "internal", "lan", "home.arpa")
_TRANSLATED: Final = ipaddress.ip_network("64:ff9b::/32")

_decode_messages = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_decode_any = msgspec.json.decode


def check(fields: Fields) -> bool:
    """Whether the messages have parts whose tokens their bytes do not bound.

    Raises Invalid unless they are some, with known roles and plain content, and addresses that
    anybody on the Internet could ask for.
    """
    raw = fields.get("messages")
    if raw is None:
        raise _wrong("messages are required.")
    try:
        messages = _decode_messages(raw)
        if not 1 <= len(messages) <= MOST_MESSAGES:
            raise _wrong(f"messages must have 1 to {MOST_MESSAGES} entries.")
        return sum(map(_has_media, messages)) > 0
    except UNREADABLE as error:
        raise _wrong("messages must be a list of objects.") from error


def _has_media(message: Fields) -> bool:
    role = message.get("role")
    if role is None or bytes(role) not in _ROLES:
        raise _wrong("A message has no known role.")
    content = bytes(message.get("content", _NULL))
    if content[:1] not in _CONTENT:
        raise _wrong("content must be text or a list of parts.")
    if content[:1] != b"[":
        return bytes(message.get("audio", _NULL)) != _NULL
    media = [part for part in _decode_any(content) if not _is_text(part)]
    for address in _addresses(media):
        if not is_public(address):
            raise _wrong("Media must be inline, or at a public http or https address.")
    return bool(media)


def _is_text(part: object) -> bool:
    if isinstance(part, str):
        return True
    if not isinstance(part, dict):
        raise _wrong("A part of the content must be an object.")
    return part.get("type") in _TEXT


def _addresses(value: object) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _addresses(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in _ADDRESSES and isinstance(item, str):
                yield item
            else:
                yield from _addresses(item)


def is_public(address: str) -> bool:
    """Whether an address is inline data, or http(s) at a host that is nobody's neighbour.

    A name that resolves to a neighbour cannot be told from another without asking, and what it
    resolves to later is not in our hands: that is for the network that the model server is in.
    """
    if address.startswith("data:"):
        return True
    try:
        parts = urlsplit(address)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or "\\" in address:
        return False
    number = _number(host)
    if number is not None:
        return _is_public_number(number)
    return "." in host and not host.endswith(tuple(f".{name}" for name in _NEIGHBOURS))


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        if ":" in host:
            return ipaddress.IPv6Address(host)
        # As C reads it: 127.1, 0x7f000001 and 2130706433 are one host.
        return ipaddress.IPv4Address(socket.inet_aton(host)) if host.isascii() else None
    except (OSError, ValueError):
        return None


def _is_public_number(number: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(number, ipaddress.IPv6Address):
        # An IPv4 address in disguise may be anybody's.
        if number.ipv4_mapped or number.sixtofour or number.teredo or number in _TRANSLATED:
            return False
    return number.is_global and not number.is_multicast


def _wrong(message: str) -> Invalid:
    return invalid("invalid_value", "messages", message)
