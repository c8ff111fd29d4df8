"""What the commands of an account's owner have in common: options, and how they are read.

Owns their forms. Must not know what a command does.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final

import typer

from bursar.cli import output
from bursar.cli.output import Output
from bursar.cli.session import MAX_ID
from bursar.core import money
from bursar.core.errors import Invalid

_AGO: Final = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_UNITS: Final = {"h": "hours", "d": "days", "w": "weeks"}

KeyId = Annotated[int, typer.Argument(metavar="ID", min=1, max=MAX_ID, help="The key's id.")]
Project = Annotated[
    int | None,
    typer.Option("--project", metavar="ID", min=1, max=MAX_ID, help="The project it belongs to."),
]
Description = Annotated[str | None, typer.Option(help="What it is for.")]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=VALUE", help="A label of all its calls; repeatable."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
From = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="MOMENT", help="From when: 2026-11-01T00:00:00Z, 2026-11-01, or 7d ago."
    ),
]
To = Annotated[
    str | None, typer.Option("--to", metavar="MOMENT", help="Until before when; absent: now.")
]
OfKey = Annotated[
    int | None, typer.Option("--key", metavar="ID", min=1, max=MAX_ID, help="Only of this key.")
]
OfProject = Annotated[
    int | None,
    typer.Option("--project", metavar="ID", min=1, max=MAX_ID, help="Only of this project."),
]
OfModel = Annotated[str | None, typer.Option("--model", help="Only of this model.")]
OfLabel = Annotated[
    str | None, typer.Option("--label", metavar="NAME=VALUE", help="Only with this label.")
]


def parse_labels(given: Sequence[str] | None) -> dict[str, str]:
    """Return labels given as NAME=VALUE; raises BadParameter."""
    found: dict[str, str] = {}
    for text in given or ():
        name, is_pair, value = text.partition("=")
        if not is_pair or name in found:
            raise typer.BadParameter("A label is NAME=VALUE, and each name is given once.")
        found[name] = value
    return found


def parse_moment(text: str | None, *, param: str) -> datetime | None:
    """Return an ISO 8601 moment; raises Invalid for one without a time zone."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        message = "A moment looks like 2027-01-31T12:00:00Z."
        raise Invalid("invalid_timestamp", message, param=param)
    return moment


def parse_since(text: str | None, *, param: str, now: datetime | None = None) -> datetime | None:
    """Return a moment, a day's beginning in UTC, or a full hour so long ago (`24h`, `7d`, `4w`)."""
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    if ago is not None:
        moment = (now or datetime.now(UTC)) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return moment.replace(minute=0, second=0, microsecond=0)
    is_day = re.fullmatch(r"\d{4}-\d\d-\d\d", text) is not None
    return parse_moment(f"{text}T00:00:00Z" if is_day else text, param=param)


def parse_usd(text: str) -> Decimal:
    """Return an amount in USD; raises InvalidAmount."""
    return Decimal(money.parse_usd(text)) / money.NANOS_PER_USD


def parse_amount(text: str | None, *, resource: str, param: str) -> Decimal | int | None:
    """Return an amount in the resource's own unit; raises Invalid (`invalid_amount`)."""
    if text is None:
        return None
    if resource == "cost":
        return parse_usd(text)
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        message = f"It must be a whole number of {resource}."
        raise Invalid("invalid_amount", message, param=param)
    return int(text)


def changes(given: Mapping[str, Any], *, lift: Mapping[str, bool]) -> dict[str, Any]:
    """Return what is given, and None for what is lifted; raises BadParameter for both of one."""
    found = {field: value for field, value in given.items() if value is not None}
    for field, is_lifted in lift.items():
        if is_lifted and field in found:
            name = field.replace("_", " ")
            raise typer.BadParameter(f"The {name} is either set or lifted.")
        if is_lifted:
            found[field] = None
    return found


def confirm(question: str, *, yes: bool, out: Output) -> None:
    """Have somebody say that they mean it; raises BadParameter where nobody can be asked.

    The one rule for all that destroys something, which is then asked before anything is done.
    """
    if yes:
        return
    if out.is_json or not sys.stdin.isatty():
        raise typer.BadParameter(f"{question} There is nobody to ask: if so, say --yes.")
    if output.ask(f"{question} [y/N]:").strip().lower() not in ("y", "yes"):
        raise typer.Abort
