"""What is asked and what came back, without a word about how.

Owns the form of a call and of its answer. A resource describes its calls with these; the two faces
carry them out. Must not know the network.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from bursar.sdk import frames, values
from bursar.sdk.errors import InvalidAnswer

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came: status, headers (names in lower case) and the whole body.

    Of a stream, `stream` is the open response and the body is left in it.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)
    stream: Any = field(default=None, repr=False)

    @property
    def request_id(self) -> str | None:
        """The server's id of the request."""
        return self.headers.get("x-request-id")

    def json(self) -> Any:
        """The body as JSON, fractions as decimals; raises InvalidAnswer."""
        try:
            return values.decode(self.content)
        except ValueError as error:
            kind = self.headers.get("content-type", "no type")
            raise InvalidAnswer(
                f"The answer is not the JSON that it should be but {kind} ({error}): is the base "
                "URL that of a Bursar server?",
                status=self.status,
                request_id=self.request_id,
            ) from None


Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """One request, and how its answer is read.

    `is_kept` says that the server keeps the answer under an idempotency key, so that a POST may be
    repeated, and `is_answered_again` that it answers a second one like the first; all other methods
    may be repeated. None among the parameters of `query` is not sent. What `is_slow` has more time,
    what `is_public` needs no key, and what `is_anonymous` is sent without one.
    """

    method: Method
    path: str
    read: Callable[[Answer], T_co]
    query: Mapping[str, object] = field(default_factory=dict)
    body: Mapping[str, object] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_kept: bool = False
    idempotency_key: str | None = None
    is_slow: bool = False
    is_stream: bool = False
    is_public: bool = False
    is_anonymous: bool = False
    is_answered_again: bool = False

    @property
    def may_repeat(self) -> bool:
        """Whether sending it twice does what sending it once does."""
        return self.method != "POST" or self.is_kept or self.is_answered_again


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """A part of a list, and the cursor of the next part; None on the last one."""

    items: tuple[T_co, ...]
    next_cursor: str | None

    def to_frame(self) -> Any:
        """A pandas DataFrame, one item a row; needs pandas."""
        return frames.frame(self.items)


@dataclass(frozen=True, slots=True)
class RawResponse(Generic[T_co]):
    """An answer as it came, and its value."""

    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)
    value: T_co

    @property
    def request_id(self) -> str | None:
        """The server's id of the request."""
        return self.headers.get("x-request-id")

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")


def nothing(answer: Answer) -> None:
    """Read an answer that says nothing beside its success."""
