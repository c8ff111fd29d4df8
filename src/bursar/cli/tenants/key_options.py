"""What the commands for keys and projects have in common: options, and how rows are shown.

Owns their forms. Must not know what a command does.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import output
from bursar.cli.session import MAX_ID
from bursar.core.errors import Invalid
from bursar.core.money import format_usd, parse_usd

if TYPE_CHECKING:
    from bursar.service.keys import KeySettings, Wanted
    from bursar.service.keys.views import KeyView
    from bursar.store.keys import KeyRow

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

AccountOption = Annotated[
    int,
    typer.Option(
        "--account", metavar="ID", min=1, max=MAX_ID, help="The account that it belongs to."
    ),
]
KeyId = Annotated[int, typer.Argument(metavar="ID", min=1, max=MAX_ID, help="The key's id.")]
Expiry = Annotated[
    str | None,
    typer.Option("--expires", metavar="MOMENT", help="When it ends: 2027-01-31T12:00:00Z."),
]
Limit = Annotated[
    str | None,
    typer.Option("--limit", metavar="USD", help="The most that it may ever spend."),
]
Project = Annotated[
    int | None,
    typer.Option("--project", metavar="ID", min=1, max=MAX_ID, help="The project it belongs to."),
]
Description = Annotated[str | None, typer.Option(help="What it is for.")]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=VALUE", help="A label of all its calls; repeatable."),
]
LabelNames = Annotated[
    list[str] | None,
    typer.Option("--allow-label", metavar="NAME", help="A label that calls may set; repeatable."),
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="PATTERN", help="A model that it may use; repeatable."),
]
Endpoints = Annotated[
    list[str] | None,
    typer.Option("--endpoint", metavar="NAME", help="An endpoint that it may use; repeatable."),
]
Networks = Annotated[
    list[str] | None,
    typer.Option("--network", metavar="CIDR", help="Where it may be used; repeatable."),
]


class Liftable(StrEnum):
    """What can be taken away from a key, so that nothing restricts or marks it there."""

    PROJECT = "project"
    LABELS = "labels"
    LABEL_NAMES = "label-names"
    MODELS = "models"
    ENDPOINTS = "endpoints"
    NETWORKS = "networks"


def settings(
    *,
    project: int | None,
    environment: str,
    description: str | None,
    labels: Sequence[str] | None,
    lists: Sequence[Sequence[str] | None],
) -> "KeySettings":
    """What a key is made with; `lists` are labels to allow, models, endpoints and networks."""
    from bursar.service.keys import KeySettings

    # An option that was not given restricts nothing.
    label_names, models, endpoints, networks = (given or None for given in lists)
    return KeySettings(
        project_id=project,
        environment=environment,
        description=description or "",
        labels=parse_labels(labels),
        label_names=label_names,
        models=models,
        endpoints=endpoints,
        networks=networks,
    )


def wanted(
    name: str, *, user: int | None, limit: str | None, expires: str | None, settings: "KeySettings"
) -> "Wanted":
    """The key that is to be made."""
    from bursar.service.keys import Wanted

    return Wanted(
        name=name,
        user_id=user,
        credit_limit_nanos=None if limit is None else parse_usd(limit),
        expires_ms=None if expires is None else parse_moment(expires),
        settings=settings,
    )


def changes(given: Mapping[str, Any], *, lift: Sequence[Liftable]) -> dict[str, Any]:
    """Return the fields that are given or lifted (None); raises BadParameter for both."""
    found = {field: value for field, value in given.items() if value}
    for each in lift:
        field = "project_id" if each is Liftable.PROJECT else each.replace("-", "_")
        if found.get(field) is not None:
            raise typer.BadParameter(f"The {each} are either set or lifted.")
        found[field] = None
    return found


def parse_labels(given: Sequence[str] | None) -> dict[str, str]:
    """Return labels given as NAME=VALUE; raises BadParameter."""
    found: dict[str, str] = {}
    for text in given or ():
        name, is_pair, value = text.partition("=")
        if not is_pair or name in found:
            raise typer.BadParameter("A label is NAME=VALUE, and each name is given once.")
        found[name] = value
    return found


def parse_moment(text: str) -> int:
    """Return the ms since the epoch of an ISO 8601 moment; raises Invalid."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return (moment - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        pass
    message = "A moment looks like 2027-01-31T12:00:00Z."
    raise Invalid("invalid_timestamp", message, param="expires")


def shape(row: "KeyRow") -> dict[str, Any]:
    """A key as it is shown; money in USD."""
    limit = row.credit_limit_nanos
    return {
        "id": row.id,
        "account_id": row.account_id,
        "user_id": row.user_id,
        "project_id": row.project_id,
        "kind": str(row.kind),
        "environment": row.environment,
        "name": row.name,
        "description": row.description,
        "secret": f"{row.prefix}…{row.last6}",
        "is_enabled": row.is_enabled,
        "credit_limit": None if limit is None else format_usd(limit),
        "labels": dict(row.labels),
        "label_names": list(row.label_names or ()),
        "models": _list(row.models),
        "endpoints": _list(row.endpoints),
        "networks": _list(row.networks),
        "created_at": output.format_moment(row.created_ms),
        "expires_at": output.format_moment(row.expires_ms),
        "rotated_at": output.format_moment(row.rotated_ms),
        "previous_secret_until": output.format_moment(row.previous_until_ms),
        "leaked_at": output.format_moment(row.leaked_ms),
    }


def view_shape(view: "KeyView") -> dict[str, Any]:
    """A key as it is shown, with what it has used."""
    lifetime = f"key:{view.row.id}/cost/lifetime"
    used = sum(each.allowance.used for each in view.limits if each.allowance.ref.name == lifetime)
    return {
        **shape(view.row),
        "previous_secret_until": output.format_moment(view.previous_until_ms),
        "last_used_at": output.format_moment(view.last_used_ms),
        "spent_7_days": format_usd(view.spent_nanos),
        "used": format_usd(used),
    }


def _list(items: Sequence[str] | None) -> list[str] | None:
    return None if items is None else list(items)
