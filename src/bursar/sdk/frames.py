"""Tables: for pandas and for notebooks.

Owns how results become rows. pandas is imported only here and only when asked for. Money stays a
`Decimal`: turn a column into floats yourself where a plot wants them.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from importlib import import_module
from typing import Any, TypeVar

from bursar.sdk import values
from bursar.sdk.errors import MissingDependency

T = TypeVar("T")


class Listing(tuple[T, ...]):
    """A whole list: a tuple that knows how to become a table."""

    __slots__ = ()

    def to_frame(self) -> Any:
        """A pandas DataFrame, one item a row; needs pandas."""
        return frame(self)

    def __repr__(self) -> str:
        lines = "".join(f"\n  {item!r}," for item in self)
        return f"[{lines}\n]" if self else "[]"

    def _repr_html_(self) -> str:
        return table([row(item) for item in self])


def frame(items: Sequence[object]) -> Any:
    """Return a pandas DataFrame with one row an item; raises MissingDependency."""
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise MissingDependency("Tables need pandas: pip install 'bursar[pandas]'.") from error
    return pandas.DataFrame([row(item) for item in items])


def row(item: object) -> dict[str, Any]:
    """Return an item's fields by name; of those within them, `outer_inner`."""
    found: dict[str, Any] = {}
    for name, value in _fields(item).items():
        if _fields(value):
            found |= {f"{name}_{inner}": each for inner, each in row(value).items()}
        else:
            found[name] = value
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as an HTML table, all text escaped and all keys shortened."""
    names = list(dict.fromkeys(name for each in rows for name in each))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(shown(each.get(name)))}</td>" for name in names)
        + "</tr>"
        for each in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def shown(value: object) -> str:
    """Return a value as people read it."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        text = value.astimezone(UTC).isoformat() if value.tzinfo else value.isoformat()
        return text.replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, values.Secret):
        return repr(value)[1:-1]
    return values.redact(str(value))


def _fields(item: object) -> dict[str, Any]:
    found: Callable[[], dict[str, Any]] | None = getattr(item, "fields", None)
    return {} if found is None else found()
