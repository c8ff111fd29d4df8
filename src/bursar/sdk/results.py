"""Results: what answers are read into.

Owns their form: frozen, typed, with fields that this SDK does not know kept beside those that it
does, so that a newer server breaks nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, ValidationError
from pydantic import Field as Field  # noqa: PLC0414 - resources take it from here

from bursar.sdk import frames, values
from bursar.sdk.calls import Answer, Page
from bursar.sdk.errors import InvalidAnswer
from bursar.sdk.frames import Listing as Listing  # noqa: PLC0414
from bursar.sdk.values import Secret

R = TypeVar("R", bound="Result")

# Money in USD, a moment with its time zone, and a secret that its repr does not show.
Usd = Decimal
Moment = AwareDatetime
SecretText = Annotated[str, AfterValidator(Secret)]


class Result(BaseModel):
    """One answer, or a part of one; fields that are not described here are kept as they came."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow", strict=False)

    def fields(self) -> dict[str, Any]:
        """Every field by name, unknown ones last."""
        known = {name: getattr(self, name) for name in type(self).model_fields}
        return {**known, **(self.model_extra or {})}

    def to_frame(self) -> Any:
        """A pandas DataFrame with one row; needs pandas."""
        return frames.frame([self])

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        for name, value in self.fields().items():
            yield name, _Shown(value)

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        return frames.sheet(self)


class _Shown:
    """A value whose repr is for people, and holds no secret."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        if isinstance(self._value, Decimal | datetime):
            return frames.shown(self._value)
        return values.redact(repr(self._value))


def read(kind: type[R]) -> Callable[[Answer], R]:
    """Return what reads an answer as this kind of result; it raises InvalidAnswer."""
    return partial(_read, kind)


def read_list(kind: type[R], name: str) -> Callable[[Answer], Listing[R]]:
    """Return what reads the list of that name in an answer."""

    def from_answer(answer: Answer) -> Listing[R]:
        items = (parse(kind, item, answer) for item in _items(answer.json(), answer, name))
        return Listing(items, kind)

    return from_answer


def read_page(kind: type[R], name: str) -> Callable[[Answer], Page[R]]:
    """Return what reads a page of the list of that name in an answer."""

    def from_answer(answer: Answer) -> Page[R]:
        document = answer.json()
        items = tuple(parse(kind, item, answer) for item in _items(document, answer, name))
        cursor = document.get("next_cursor")
        if not isinstance(cursor, str | None):
            raise answer.invalid("The answer has a cursor that is no text: ")
        return Page(items, cursor, kind)

    return from_answer


def parse(kind: type[R], document: object, answer: Answer) -> R:
    """Return a result from parsed JSON; raises InvalidAnswer."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidAnswer(
            f"The answer is not a {kind.__name__} ({place}: {first['msg'].lower()}): server and "
            "SDK may be of versions that do not fit.",
            status=answer.status,
            request_id=answer.request_id,
        ) from None


def _read(kind: type[R], answer: Answer) -> R:
    return parse(kind, answer.json(), answer)


def _items(document: object, answer: Answer, name: str) -> list[object]:
    items = document.get(name) if isinstance(document, Mapping) else None
    if not isinstance(items, list):
        raise answer.invalid(f"The answer has no list of {name}: ")
    return items
