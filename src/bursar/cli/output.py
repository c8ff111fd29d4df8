"""What is printed: data on stdout, words on stderr.

Owns the two forms of data: JSON for programs (`--json`: one document, stable), tables for people.
Must not know what the data means. Nothing from outside is taken for markup.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from bursar.cli import charts, streams

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHOWN_ONCE: Final = "This is the only time that the secret is shown."
_AMOUNTS: Final = frozenset(
    "id balance credit_limit amount cost requests tokens_in tokens_out now".split()
)
# A column of bars takes what the others leave it, and stands last.
_BAR: Final = "bar"
_SHORTEST: Final = 6
# Of a column, with the line between it and the next.
_PADDING: Final = 3
# A table that goes into a file or a pipe is not cut to the width of a screen.
_ENDLESS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command's data goes, in the form that was asked for."""

    is_json: bool

    def show(self, data: Mapping[str, Any], *, title: str = "") -> None:
        """Print one thing: its fields."""
        if self.is_json:
            write(to_json(data, indent=2))
        else:
            _print_fields(data, title)

    def show_list(
        self, name: str, rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str], empty: str
    ) -> None:
        """Print many things: an object with one list in JSON, a table for people."""
        if self.is_json:
            write(to_json({name: list(rows)}, indent=2))
        elif rows:
            make_console().print(make_table(rows, columns))
        else:
            say(empty)


def to_json(data: Any, *, indent: int | None = None) -> str:
    """Return a document for stdout; what its encoding does not have is escaped as JSON does it."""
    return json.dumps(data, indent=indent, ensure_ascii=not streams.is_unicode())


def write(text: str) -> None:
    """Print text as it is on stdout, at once."""
    print(f"{text}\n", end="", flush=True)


def say(text: str) -> None:
    """Print words for people on stderr, in one piece: the log is written there too."""
    print(f"{text}\n", end="", file=sys.stderr, flush=True)


def ask(question: str) -> str:
    """Ask on stderr, and return the line that is typed: stdout is for data alone."""
    print(f"{question} ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline()


def format_moment(at_ms: int | None) -> str | None:
    """A moment as ISO 8601 in UTC, to the second."""
    if at_ms is None:
        return None
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def make_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> "Table":
    """A table for people; names and values are text, whatever they look like."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    cells = [[_printed(row[column]) for column in columns] for row in rows]
    if _BAR in columns:
        columns, cells = _fit_bars(columns, cells)
    for column in columns:
        table.add_column(
            column.replace("_", " "),
            justify="right" if column in _AMOUNTS else "left",
            style="cyan" if column == _BAR else None,
        )
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def make_console() -> "Console":
    """What tables are printed with: stdout, without colours where NO_COLOR is set."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _ENDLESS
    return Console(highlight=False, markup=False, emoji=False, width=width)


def _print_fields(data: Mapping[str, Any], title: str) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, show_header=False, box=None, title_justify="left")
    for name, value in data.items():
        table.add_row(Text(name.replace("_", " "), style="bold"), Text(_printed(value)))
    make_console().print(table)


def _fit_bars(
    columns: Sequence[str], cells: list[list[str]]
) -> tuple[Sequence[str], list[list[str]]]:
    """Columns and cells with bars no longer than there is room on a terminal, or without them."""
    if not sys.stdout.isatty():
        return columns, cells
    taken = [
        max(map(len, (column, *(row[place] for row in cells)))) + _PADDING
        for place, column in enumerate(columns[:-1])
    ]
    room = make_console().width - sum(taken) - _PADDING - 1
    if room >= charts.WIDTH:
        return columns, cells
    if room < _SHORTEST:
        return columns[:-1], [row[:-1] for row in cells]
    return columns, [[*row[:-1], charts.fitted(row[-1], room)] for row in cells]


def _printed(value: Any) -> str:
    # Escaped here and not when it is written: a column is as wide as what stands in it.
    return streams.as_printed(_cell(value))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(inner)}" for name, inner in value.items()) or "-"
    if isinstance(value, list):
        return "; ".join(_cell(inner) for inner in value) or "-"
    return str(value)
