"""Chains: how each row of an audit log vouches for all rows before it.

Owns the one form in which a row is hashed. A row's hash is SHA-256 over the hash of the row before
it and this form, so that nobody changes, removes, adds or reorders rows without changing every hash
from there on. Must not know where rows are kept.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# What the first row of every chain follows.
START: Final = bytes(32)
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Link:
    """One row as it is hashed; `before` and `after` are JSON texts, or None."""

    account_id: int
    id: int
    at_ms: int
    action: str
    target: str
    actor: str
    address: str
    request_id: str
    before: str | None
    after: str | None


def encode(values: Mapping[str, object] | None) -> str | None:
    """Return the one JSON text of a mapping: names sorted, ASCII, no spaces."""
    if values is None:
        return None
    return json.dumps(values, ensure_ascii=True, sort_keys=True, separators=(",", ":"))


def digest(link: Link, *, previous: bytes) -> bytes:
    """Return the hash of a row that follows one with this hash.

    The form is a JSON array: the version of the form, then the fields of `Link` in their order.
    """
    form = json.dumps(
        [
            _VERSION,
            link.account_id,
            link.id,
            link.at_ms,
            link.action,
            link.target,
            link.actor,
            link.address,
            link.request_id,
            link.before,
            link.after,
        ],
        ensure_ascii=True,
        separators=(",", ":"),
    )
    return hashlib.sha256(previous + form.encode()).digest()
