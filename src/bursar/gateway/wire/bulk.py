"""Large bodies: what megabytes may be made of, so that nobody waits while they are read.

Owns the bounds on texts and members. A long text costs a millisecond a megabyte; the same bytes as
names, numbers or brackets cost up to a hundred times that, and meanwhile the whole worker stands
still. Must not know what the fields mean.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from bursar.core.errors import Unreadable

# Below this nothing can be made that takes long.
LARGE: Final = 600_000
MOST_TEXTS: Final = 200_000
MOST_MEMBERS: Final = 50_000
_MOST_BESIDE: Final = 2_000_000
# No text that anybody wrote has brackets in every fifth place.
_BYTES_A_BRACKET: Final = 5
_HEAD: Final = 1_024
_MOST_LIKE_IT: Final = 8


class _Bulk(msgspec.Struct):
    messages: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Bulk).decode


def split(body: bytes) -> tuple[bytes, dict[str, msgspec.Raw]]:
    """A large body with null for its messages and input, where megabytes belong; and those.

    Raises Unreadable for too many names and texts anywhere, or a rest that takes long to read.
    """
    # Each text opens with a quote that no backslash precedes, so none can hide.
    if body.count(b'"') - body.count(b'\\"') > 2 * MOST_TEXTS:
        raise Unreadable("invalid_json", "The body has too many names and texts.")
    if (body.count(b"[") + body.count(b"{")) * _BYTES_A_BRACKET > len(body):
        raise Unreadable("invalid_json", "The body has too many lists and objects.")
    try:
        found = _decode(body)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Unreadable("invalid_json", "The body is not a JSON object.") from error
    beside, parts = body, {}
    for name, part in (("messages", found.messages), ("input", found.input)):
        rest = _cut_out(beside, bytes(part))
        if rest is not None:
            beside, parts[name] = rest, part
    if len(beside) > _MOST_BESIDE or _has_many_members([beside]):
        raise Unreadable("invalid_json", "Beside messages and input the body is too large.")
    return beside, parts


def has_many_members(parts: Iterable[msgspec.Raw]) -> bool:
    """Whether JSON has, all parts together, so many values that building them would take long."""
    return _has_many_members([bytes(part) for part in parts])


def _has_many_members(texts: Sequence[bytes]) -> bool:
    if sum(map(len, texts)) <= LARGE:
        return False
    members = 0
    for mark in (b",", b"[", b"{"):
        # Each count takes as long as a look at every byte: the first is mostly enough.
        members += sum(text.count(mark) for text in texts)
        if members > MOST_MEMBERS:
            return True
    return False


def _cut_out(body: bytes, part: bytes) -> bytes | None:
    """The body with null for the part; None if the part is not found in it soon."""
    head = part[:_HEAD]
    at = body.find(head) if head else -1
    for _ in range(_MOST_LIKE_IT):
        if at < 0:
            break
        if body.startswith(part, at):
            return body[:at] + b"null" + body[at + len(part) :]
        at = body.find(head, at + 1)
    return None
