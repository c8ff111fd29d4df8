"""The messages of a chat request: who says what, and what beside text is said.

Owns what a message may be, which parts can hide more tokens than they have bytes, and which
addresses a part may name. Nothing is ever fetched here, but the model server behind may do it: a
caller must not be able to send it to a neighbour. Must not know the rest of a request.
"""

import ipaddress
import socket
from collections.abc import Iterator
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec

from bursar.core.errors import Invalid
from bursar.gateway.wire import bulk
from bursar.gateway.wire.fields import UNREADABLE, Fields, invalid

MOST_MESSAGES: Final = 10_000

_NULL: Final = b"null"
_TEXT: Final = frozenset((b'"text"', b'"refusal"', b'"thinking"', b'"redacted_thinking"'))
_ADDRESSES: Final = frozenset(
    ("url", "uri", "image_url", "video_url", "audio_url", "file_url", "input_image")
)
_NEIGHBOURS: Final = ("localhost", "local", "internal", "lan", "home.arpa")
_TRANSLATED: Final = ipaddress.ip_network("64:ff9b::/32")

_Object = Annotated[dict[str, msgspec.Raw], msgspec.Meta(min_length=1)]


class _Message(msgspec.Struct, gc=False):
    role: Literal["system", "user", "assistant", "tool", "developer", "function"]
    content: str | list[str | _Object] | None = None
    audio: msgspec.Raw = msgspec.Raw(_NULL)


_decode_messages = msgspec.json.Decoder(list[_Message]).decode
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
        media = [part for message in messages for part in _media(message)]
        _require_public(media)
    except UNREADABLE as error:
        raise _wrong("messages must be objects with a known role and text or parts.") from error
    return bool(media) or any(bytes(message.audio) != _NULL for message in messages)


def _media(message: _Message) -> list[Fields]:
    """The parts of a message's content that are not text."""
    content = message.content
    if content is None or isinstance(content, str):
        return []
    parts = [part for part in content if not isinstance(part, str)]
    return [part for part in parts if bytes(part.get("type", _NULL)) not in _TEXT]


def _require_public(media: list[Fields]) -> None:
    if bulk.has_many_members(value for part in media for value in part.values()):
        raise _wrong("Parts of the content have too many members.")
    for part in media:
        for address in _addresses({name: _decode_any(value) for name, value in part.items()}):
            if not is_public(address):
                raise _wrong("Media must be inline, or at a public http or https address.")


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
