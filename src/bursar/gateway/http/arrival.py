"""How much of a request is here while it is not whole.

Owns the count of bytes on the wire, and the bounds of what is no content: heads, and what frames a
body. Must not know what the bytes say.
"""

from typing import Final

from bursar.gateway.http.heads import MOST_HEAD_BYTES, TOO_LARGE, Fault

# What chunk sizes, their extensions and trailers may add to a body: one-byte chunks come to five.
_MOST_OVERHEAD: Final = 8
_ALL_FRAME: Final = Fault(400, "invalid_http", "The body is more frame than content.")


class Arrival:
    """The present head or body; `packet` is how many bytes came last, `body_bytes` is content.

    `since_s` is the loop's time when the request was first seen to be incomplete; 0: not seen yet.
    """

    __slots__ = ("_is_fresh", "_wire_bytes", "body_bytes", "packet", "since_s")

    def __init__(self) -> None:
        self.packet = 0
        self.body_bytes = 0
        self.since_s = 0.0
        # All but those that came in the packet in which it began.
        self._wire_bytes = 0
        self._is_fresh = True

    def begin_head(self) -> None:
        """A new request begins within the present packet."""
        self.since_s = 0.0
        self._wire_bytes = 0
        self._is_fresh = True

    def begin_body(self) -> None:
        """The head has ended within the present packet."""
        self._wire_bytes = self.body_bytes = 0
        self._is_fresh = True

    @property
    def most_bytes(self) -> int:
        """No head that ends in this packet is longer."""
        return self.packet + self._wire_bytes

    def count(self, *, is_body: bool) -> Fault | None:
        """Take the packet into account, at whose end more is to come; return what is too much."""
        if self._is_fresh:
            self._is_fresh = False
        else:
            self._wire_bytes += self.packet
        if not is_body:
            return TOO_LARGE if self._wire_bytes > MOST_HEAD_BYTES else None
        overhead = self._wire_bytes - self.body_bytes
        most = MOST_HEAD_BYTES + _MOST_OVERHEAD * self.body_bytes
        return _ALL_FRAME if overhead > most else None
