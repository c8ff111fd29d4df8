"""What a key may reach: models, endpoints and networks; and the labels that calls carry.

Owns how each is written and when it matches. Patterns are not regular expressions: `*` and `?` are
wild and nothing else is, and matching takes time in proportion to the name, whatever the pattern.
An address that carries an IPv4 address inside IPv6 counts as the IPv4 address everywhere. Must not
know keys, requests or databases.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, TypeAlias

from bursar.core.errors import Invalid

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# The model endpoints by the names that usage rows and allow-lists have for them.
ENDPOINTS: Final = ("chat.completions", "embeddings")
# What confines a key, as its fields are called. An expiry does not: nothing else is less for it.
CONFINEMENTS: Final = frozenset(("environment", "project_id", "models", "endpoints", "networks"))
MOST_LABELS: Final = 16
_PATTERN_LENGTH: Final = 255
_MOST_STARS: Final = 8
# Letters of other pattern languages: whoever uses them means something that we do not do.
_REFUSED_IN_PATTERNS: Final = frozenset("[]{}()|^$+\\")
_NETWORK: Final = re.compile(r"[0-9A-Fa-f:.]{2,45}(?:/(?:0|[1-9][0-9]{0,2}))?", re.ASCII)
_LABEL_NAME: Final = re.compile(r"[a-z0-9_.-]{1,64}", re.ASCII)
_LABEL_LENGTH: Final = 255
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_MAPPED_BITS: Final = 96


class Environment(StrEnum):
    """Where a key's calls go: to every upstream, or to the built-in sandbox alone."""

    LIVE = "live"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Rights:
    """What a key may do, or have the keys do that it makes; None is no restriction."""

    environment: str = Environment.LIVE
    project_id: int | None = None
    models: tuple[str, ...] | None = None
    endpoints: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None
    expires_ms: int | None = None

    @property
    def is_confined(self) -> bool:
        """Whether anything but their end is restricted."""
        return find_excess(self, Rights(), only=CONFINEMENTS) is not None


def find_excess(own: Rights, given: Rights, *, only: Collection[str] | None = None) -> str | None:
    """Return the field (of these, or of all) in which `given` goes beyond `own`, or None.

    Patterns and networks that are within others in a way that is not plain to see count as going
    beyond.
    """
    beyond = {
        "environment": own.environment == Environment.TEST != given.environment,
        "project_id": own.project_id is not None and given.project_id != own.project_id,
        "models": own.models is not None and not _are_within(given.models, own.models),
        "endpoints": own.endpoints is not None
        and (given.endpoints is None or not set(given.endpoints) <= set(own.endpoints)),
        "networks": own.networks is not None and not _are_inside(given.networks, own.networks),
        "expires_at": own.expires_ms is not None
        and (given.expires_ms is None or given.expires_ms > own.expires_ms),
    }
    for name, is_beyond in beyond.items():
        if is_beyond and (only is None or name in only):
            return name
    return None


def clean_pattern(text: str, *, param: str = "models") -> str:
    """Return a model name or pattern as it was given.

    1 to 255 printable ASCII characters without spaces and without `[ ] { } ( ) | ^ $ + \\`, at most
    eight of them `*`. Raises Invalid (`invalid_pattern`).
    """
    is_plain = text.isascii() and text.isprintable() and " " not in text
    if not is_plain or not 1 <= len(text) <= _PATTERN_LENGTH:
        message = f"A pattern has 1 to {_PATTERN_LENGTH} printable ASCII characters and no spaces."
        raise Invalid("invalid_pattern", message, param=param)
    if not _REFUSED_IN_PATTERNS.isdisjoint(text):
        message = "In a pattern only * and ? are wild; it is not a regular expression."
        raise Invalid("invalid_pattern", message, param=param)
    if text.count("*") > _MOST_STARS:
        message = f"A pattern has at most {_MOST_STARS} asterisks."
        raise Invalid("invalid_pattern", message, param=param)
    return text


def matches(pattern: str, model: str) -> bool:
    """Whether the pattern means this model: `*` is any text, `?` any one character.

    All ways to match are followed at once, as bits of a number, so that no pattern is slow.
    """
    if "*" not in pattern and "?" not in pattern:
        return pattern == model
    return _follow(pattern, model, is_pattern=False)


def any_matches(patterns: Iterable[str], model: str) -> bool:
    """Whether one of the patterns means this model."""
    return any(matches(pattern, model) for pattern in patterns)


def clean_endpoint(text: str, *, param: str = "endpoints") -> str:
    """Return the name of a model endpoint; raises Invalid (`invalid_endpoint`) for another."""
    if text not in ENDPOINTS:
        message = f"The endpoints are {', '.join(ENDPOINTS)}."
        raise Invalid("invalid_endpoint", message, param=param)
    return text


def clean_network(text: str, *, param: str = "networks") -> str:
    """Return an address or a network (`203.0.113.0/24`, `2001:db8::/32`) in its one form.

    An address is the network of that one address. A network is given by its first address: others
    are refused, because they are mostly mistakes. Raises Invalid (`invalid_network`).
    """
    network = _parse_network(text)
    if network is None:
        message = (
            "Expected an IPv4 or IPv6 address, or a network by its first address: 203.0.113.0/24."
        )
        raise Invalid("invalid_network", message, param=param)
    return str(network)


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return networks that `clean_network` has written."""
    return tuple(ip_network(text) for text in texts)


def parse_address(text: str) -> Address | None:
    """Return an address, None for anything else; addresses with a zone are none."""
    if "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def contains(networks: Iterable[Network], address: Address | None) -> bool:
    """Whether one of the networks has this address; nobody knows where None is."""
    return address is not None and any(address in network for network in networks)


def client_address(
    peer: str | None, forwarded: Sequence[bytes], trusted: Sequence[Network]
) -> Address | None:
    """Return where a request comes from; None when that cannot be told.

    That is the peer, unless the peer is a trusted proxy: then it is the last address in the
    `x-forwarded-for` headers that is no trusted proxy's, for all before it may be made up. Where
    every one is trusted it is the first. A malformed address on the way there makes it None.
    """
    address = None if peer is None else parse_address(peer)
    if not forwarded or not contains(trusted, address):
        return address
    for entry in reversed(b",".join(forwarded).split(b",")):
        address = parse_address(entry.strip(b" \t").decode("latin-1"))
        if not contains(trusted, address):
            break
    return address


def clean_label_name(text: str, *, param: str = "labels") -> str:
    """Return a label's name: 1 to 64 of a-z, 0-9, `_`, `.` and `-`. Raises `invalid_label`."""
    if _LABEL_NAME.fullmatch(text) is None:
        message = "A label's name has 1 to 64 characters: a-z, 0-9, '_', '.' and '-'."
        raise Invalid("invalid_label", message, param=param)
    return text


def clean_labels(labels: Mapping[str, str], *, param: str = "labels") -> dict[str, str]:
    """Return labels, sorted by name: at most 16, each value 1 to 255 printable characters.

    Raises Invalid (`invalid_label`).
    """
    if len(labels) > MOST_LABELS:
        raise Invalid("invalid_label", f"At most {MOST_LABELS} labels.", param=param)
    for name, value in labels.items():
        clean_label_name(name, param=param)
        if not 1 <= len(value) <= _LABEL_LENGTH or not value.isprintable() or value.isspace():
            message = f"A label's value has 1 to {_LABEL_LENGTH} printable characters."
            raise Invalid("invalid_label", message, param=param)
    return dict(sorted(labels.items()))


def encode_labels(labels: Mapping[str, str]) -> str:
    """Return labels as they are stored: one text for one set of labels, in ASCII."""
    return json.dumps(labels, sort_keys=True, separators=(",", ":"))


def _are_within(given: tuple[str, ...] | None, own: tuple[str, ...]) -> bool:
    if given is None:
        return False
    return all(any(_follow(wide, each, is_pattern=True) for wide in own) for each in given)


def _are_inside(given: tuple[str, ...] | None, own: tuple[str, ...]) -> bool:
    if given is None:
        return False
    wide = parse_networks(own)
    return all(any(_is_inside(each, one) for one in wide) for each in parse_networks(given))


def _is_inside(network: Network, wide: Network) -> bool:
    # Addresses of two kinds are in no order.
    if network.version != wide.version or network.prefixlen < wide.prefixlen:
        return False
    return network.network_address in wide


def _follow(pattern: str, text: str, *, is_pattern: bool) -> bool:
    """Whether the pattern takes the text or, where the text is a pattern, all that it takes."""
    any_one = 0
    stars = 0
    masks: dict[str, int] = {}
    end = 1
    for letter in pattern:
        if letter == "*":
            stars |= end
            continue
        if letter == "?":
            any_one |= end
        else:
            masks[letter] = masks.get(letter, 0) | end
        end <<= 1
    state = 1
    for letter in text:
        steps = masks.get(letter, 0) | any_one
        if is_pattern and letter == "*":
            # Only an asterisk takes whatever an asterisk takes.
            steps = 0
        state = ((state & steps) << 1) | (state & stars)
    return state & end != 0


def _parse_network(text: str) -> Network | None:
    # Masks in other forms than a length, and zones, are known to the library but not meant here.
    if _NETWORK.fullmatch(text) is None:
        return None
    try:
        network = ip_network(text)
    except ValueError:
        return None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        start = network.network_address.ipv4_mapped
        return ip_network((start, network.prefixlen - _MAPPED_BITS)) if start else None
    return network
