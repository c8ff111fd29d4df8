"""How long a connection may keep us waiting.

Owns the bounds in time. Must not know clocks or connections.
"""

from dataclasses import dataclass
from typing import Final

# A body may take longer than its time if it moves at this speed, but not for ever.
_BODY_BYTES_PER_S: Final = 50_000
_LONGEST_BODY: Final = 10


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: `head_s` for a request's head, `body_s` for head and body together while little has
    come, and `reading_s` for a caller that does not read its answer.

    After a refusal what still arrives is thrown away for `parting_s`: closing at once would destroy
    the answer on its way.
    """

    head_s: float = 20.0
    body_s: float = 30.0
    reading_s: float = 60.0
    parting_s: float = 2.0

    def allowed_s(self, body_bytes: int) -> float:
        """How long head and body together may take when so much of the body is here."""
        longest_s = self.body_s * _LONGEST_BODY
        return min(self.body_s + body_bytes / _BODY_BYTES_PER_S, longest_s)
