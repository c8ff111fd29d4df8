"""The head that came last on a connection, by which the next one is known without a parser.

Owns the comparison. Whoever keeps a connection mostly sends the same head again, but for how long
the body is: to compare it costs a fifth of what parsing it does. What is the same byte for byte was
judged when it came first. Must not know what heads mean.
"""

import re
from typing import Final, Generic, TypeVar

_Meaning = TypeVar("_Meaning")

# A line that begins so is this header: values have no line breaks. Longer bodies are parsed.
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r\n", re.IGNORECASE)
_MOST_DIGITS: Final = 9
_END: Final = b"\r\n\r\n"


class LastHead(Generic[_Meaning]):
    """The bytes of a head around its Content-Length, and what it meant.

    Only heads with one plain Content-Length are remembered, of messages that leave the connection
    open. Where heads never repeat, ever fewer are remembered.
    """

    __slots__ = ("_after", "_before", "_misses", "meaning")

    def __init__(self) -> None:
        self._before = b""
        self._after = b""
        self._misses = 0
        self.meaning: _Meaning | None = None

    def body_of(self, message: bytes) -> bytes | None:
        """The body of a message that is whole, has this head and has a body; else None."""
        before = self._before
        if not before:
            return None
        start = len(before)
        if message.startswith(before):
            end = message.find(b"\r", start, start + _MOST_DIGITS + 1)
            digits = message[start:end]
            if digits.isdigit() and message.startswith(self._after, end):
                body = message[end + len(self._after) :]
                if body and len(body) == int(digits):
                    self._misses = 0
                    return body
        return None

    def remember(self, message: bytes, body_bytes: int, meaning: _Meaning) -> None:
        """Keep the head of this message, which was whole and had a body of so many bytes."""
        self._misses += 1
        if self._misses & (self._misses - 1):
            return
        head = message[: len(message) - body_bytes]
        found = _LENGTH.search(head)
        if (
            found is None
            or int(found[1]) != body_bytes
            or head.find(_END) != len(head) - len(_END)
            or _LENGTH.search(head, found.end(1)) is not None
        ):
            self._before = b""
            return
        self._before, self._after = head[: found.start(1)], head[found.end(1) :]
        self.meaning = meaning
