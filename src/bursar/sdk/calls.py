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
            raise self.invalid(
                f"The answer is not the JSON that it should be but {kind} ({error}): "
            ) from None

    def document(self, *names: str) -> Mapping[str, Any]:
        """The body as a JSON object that has these fields; raises InvalidAnswer."""
        found = self.json()
        missing = [name for name in names if not isinstance(found, dict) or name not in found]
        if not isinstance(found, dict) or missing:
            what = f"has no {missing[0]}" if missing else "is no JSON object"
            raise self.invalid(f"The answer {what}: ")
        return found

    def invalid(self, words: str) -> InvalidAnswer:
        """Return the error of an answer that is none of Bursar's; words end with a colon."""
        return InvalidAnswer(
            f"{words}is the base URL that of a Bursar server?",
            status=self.status,
            request_id=self.request_id,
        )


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
    kind: type | None = field(default=None, repr=False, compare=False)

    def to_frame(self) -> Any:
        """A pandas DataFrame, one item a row; needs pandas."""
        return frames.frame(self.items, self.kind)

    def _repr_html_(self) -> str:
        return frames.listing(self.items, self.kind)


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
    """Read an answer that says nothing beside its success; raises InvalidAnswer.

    That is 204 and nothing else: a page of a proxy, or of another program, comes with 200.
    """
    if answer.status != 204:
        kind = answer.headers.get("content-type", "no type")
        raise answer.invalid(
            f"The answer is not the empty one that it should be but {answer.status} with {kind}: "
        )


def only(name: str) -> Callable[[Answer], None]:
    """Return what reads an answer that says, in this field, no more than that it is done."""

    def from_answer(answer: Answer) -> None:
        answer.document(name)

    return from_answer
