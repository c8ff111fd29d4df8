"""`bursar export`: usage events in a file, one line each.

Owns the forms of the file, and that there is never half of one: it gets its name when it is whole.
"""

import csv
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TextIO

import typer

from bursar.cli import output
from bursar.cli.owner import options
from bursar.cli.owner.options import From, OfKey, OfLabel, OfModel, OfProject, To
from bursar.cli.owner.shapes import shape
from bursar.cli.places.owner import Owner

if TYPE_CHECKING:
    from bursar.sdk.resources.usage import UsageEvent

_COLUMNS: Final = (
    *("id", "at", "key_id", "project_id", "user_id", "product", "model", "endpoint", "outcome"),
    *("is_stream", "is_estimated", "input_tokens", "cached_input_tokens", "output_tokens"),
    *("reasoning_tokens", "quantities", "cost", "duration_ms", "first_byte_ms", "labels"),
)
_PAGE: Final = 1_000
# What a spreadsheet would take for a formula.
_FORMULAS: Final = tuple("=+-@\t\r")


class Form(StrEnum):
    """How the lines are written."""

    CSV = "csv"
    JSONL = "jsonl"


def export(
    owner: Owner,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to write; - is standard output.")
    ],
    form: Annotated[
        Form | None, typer.Option("--format", help="csv or jsonl; absent: by the file's name.")
    ] = None,
    since: From = "30d",
    until: To = None,
    key: OfKey = None,
    project: OfProject = None,
    model: OfModel = None,
    label: OfLabel = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Replace a file that is there, unasked.")
    ] = False,
) -> None:
    """Write the account's usage into a file, newest first: one line for each request.

    With --json it says what was written; on standard output the lines themselves are JSON then.

    \b
    bursar export usage.csv --from 2026-11-01 --to 2026-12-01
    bursar export - --format jsonl --key 3 | jq -s 'map(.cost | tonumber) | add'
    """
    is_stdout = str(file) == "-"
    chosen = form or (Form.JSONL if file.suffix in (".jsonl", ".ndjson", ".json") else Form.CSV)
    if is_stdout and owner.out.is_json:
        if form is Form.CSV:
            raise typer.BadParameter("--json is no CSV: standard output has the events alone.")
        chosen = Form.JSONL
    if not is_stdout and file.exists():
        options.confirm(f"Replace {file}, which is there already?", yes=yes, out=owner.out)
    where: dict[str, Any] = {
        "start": options.parse_since(since, param="from"),
        "end": options.parse_since(until, param="to"),
        "key_id": key,
        "project_id": project,
        "model": model,
        "label": label,
    }
    found = owner.client.usage.events(**where, page_size=_PAGE)
    write = _write_csv if chosen is Form.CSV else _write_jsonl
    if is_stdout:
        write(sys.stdout, found)
        sys.stdout.flush()
        return
    whole = _count(owner, where)
    with _whole_file(file) as opened:
        count = write(opened, _counted(found, whole))
    if owner.out.is_json:
        owner.out.show({"file": str(file), "format": chosen.value, "events": count})
    else:
        output.say(f"{count} events are in {file}.")


def _count(owner: Owner, where: dict[str, Any]) -> int | None:
    """How many events there will be; None where nobody keeps count of parts of hours."""
    if any(
        each is not None and (each.minute or each.second) for each in (where["start"], where["end"])
    ):
        return None
    return owner.client.usage.summary(group_by="model", most_groups=1, **where).total.request_count


def _write_csv(file: TextIO, events: "Iterable[UsageEvent]") -> int:
    writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    count = 0
    for count, event in enumerate(events, 1):  # noqa: B007 - how many there were
        shown = shape(event)
        writer.writerow({name: _cell(shown.get(name)) for name in _COLUMNS})
    return count


def _write_jsonl(file: TextIO, events: "Iterable[UsageEvent]") -> int:
    count = 0
    for count, event in enumerate(events, 1):  # noqa: B007
        file.write(output.to_json(shape(event)) + "\n")
    return count


def _cell(value: Any) -> Any:
    if isinstance(value, bool | dict | list):
        return output.to_json(value)
    if isinstance(value, str) and value.startswith(_FORMULAS):
        return f"'{value}"
    return value


@contextmanager
def _whole_file(file: Path) -> Iterator[TextIO]:
    """A file of its owner's alone, which gets its name once all of it is written."""
    fd, written = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(fd, "w", encoding="utf-8", newline="") as opened:
            yield opened
        Path(written).replace(file)
    except BaseException:
        Path(written).unlink(missing_ok=True)
        raise


def _counted(events: "Iterable[UsageEvent]", whole: int | None) -> "Iterator[UsageEvent]":
    """The events, with a bar on a terminal that says how far it has come."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    columns = (TextColumn("events"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield from progress.track(events, total=whole)
