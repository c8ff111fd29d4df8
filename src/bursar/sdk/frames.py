"""Tables: for pandas and for notebooks.

Owns how results become rows. pandas is imported only here and only when asked for. Money stays a
`Decimal`: turn a column into floats yourself where a plot wants them. Of a secret a table has what
may be shown, since tables are printed and saved: the result that it was made of has the whole.
"""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from bursar.sdk import values
from bursar.sdk.errors import MissingDependency

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")


class Listing(tuple[T, ...]):
    """A whole list: a tuple that knows how to become a table.

    `kind` is what its items are: an empty table has their columns.
    """

    kind: type | None

    def __new__(cls, items: Iterable[T] = (), kind: type | None = None) -> "Self":
        made = super().__new__(cls, items)
        made.kind = kind
        return made

    def to_frame(self) -> Any:
        """A pandas DataFrame, one item a row; needs pandas."""
        return frame(self, self.kind)

    def __repr__(self) -> str:
        lines = "".join(f"\n  {item!r}," for item in self)
        return f"[{lines}\n]" if self else "[]"

    def _repr_html_(self) -> str:
        return listing(self, self.kind)


def frame(items: Sequence[object], kind: type | None = None) -> Any:
    """Return a pandas DataFrame with one row an item, of none with the columns of their kind.

    Secrets in it are shortened. Raises MissingDependency.
    """
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise MissingDependency("Tables need pandas: pip install 'bursar[pandas]'.") from error
    rows = [{name: _harmless(value) for name, value in row(item).items()} for item in items]
    return pandas.DataFrame(rows, columns=None if rows else columns(kind))


def row(item: object) -> dict[str, Any]:
    """Return an item's fields by name; of those within them, `outer_inner`."""
    found: dict[str, Any] = {}
    for name, value in _fields(item).items():
        if _fields(value):
            found |= {f"{name}_{inner}": each for inner, each in row(value).items()}
        else:
            found[name] = value
    return found


def columns(kind: type | None) -> list[str]:
    """Return the names of the fields that items of a kind have, as `row` has them."""
    found: list[str] = []
    for name, described in getattr(kind, "model_fields", {}).items():
        within = columns(described.annotation)
        found += [f"{name}_{inner}" for inner in within] or [name]
    return found


def listing(items: Sequence[object], kind: type | None = None) -> str:
    """Return items as an HTML table, one a row."""
    return table([row(item) for item in items], columns(kind) if not items else ())


def sheet(item: object) -> str:
    """Return an item as HTML: a table of its fields, and one of each list within it."""
    fields = row(item)
    lists = {name: value for name, value in fields.items() if _is_list(value)}
    plain = [{"": name, " ": fields[name]} for name in fields if name not in lists]
    tables = [f"<p>{html.escape(name)}</p>{listing(each)}" for name, each in lists.items()]
    return "".join([table(plain), *tables])


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Return rows as an HTML table, all text escaped and all keys shortened."""
    names = list(dict.fromkeys([*columns, *(name for each in rows for name in each)]))
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


def _harmless(value: Any) -> Any:
    """A value as it may lie in a table: of a secret within it, what may be shown."""
    if isinstance(value, values.Secret):
        return shown(value)
    if isinstance(value, str):
        return values.redact(value)
    if isinstance(value, Mapping):
        return {name: _harmless(each) for name, each in value.items()}
    return type(value)(map(_harmless, value)) if type(value) in (list, tuple) else value


def _is_list(value: object) -> bool:
    """Whether it is a list of items, each of which has fields."""
    return isinstance(value, tuple) and bool(value) and all(map(_fields, value))


def _fields(item: object) -> dict[str, Any]:
    found: Callable[[], dict[str, Any]] | None = getattr(item, "fields", None)
    return {} if found is None else found()
