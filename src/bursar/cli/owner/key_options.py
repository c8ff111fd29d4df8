"""The options of the commands for keys, and how keys are shown.

Owns their forms. Must not know what a command does.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli.owner.shapes import shape, usd
from bursar.core.secrets import KeyKind

if TYPE_CHECKING:
    from bursar.sdk.resources.api_keys import ApiKey

Expiry = Annotated[
    str | None,
    typer.Option("--expires", metavar="MOMENT", help="When it ends: 2027-01-31T12:00:00Z."),
]
Limit = Annotated[
    str | None,
    typer.Option("--limit", metavar="USD", help="The most that it may ever spend."),
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

# The order in which a key is shown; a server may know more, which comes after.
_ORDER: Final = (
    *("id", "user_id", "project_id", "kind", "environment", "name", "description", "secret"),
    *("is_enabled", "credit_limit", "used", "labels", "label_names", "models", "endpoints"),
    *("networks", "created_at", "expires_at", "rotated_at", "previous_secret_until", "leaked_at"),
    *("last_used_at", "spent_7_days", "limits"),
)


class Liftable(StrEnum):
    """What can be taken away from a key, so that nothing restricts or marks it there."""

    PROJECT = "project"
    LABELS = "labels"
    LABEL_NAMES = "label-names"
    MODELS = "models"
    ENDPOINTS = "endpoints"
    NETWORKS = "networks"

    @property
    def field(self) -> str:
        """What the API calls it."""
        return "project_id" if self is Liftable.PROJECT else self.value.replace("-", "_")


def key_shape(key: "ApiKey", *, secret: str | None = None) -> dict[str, Any]:
    """A key as it is shown: with its secret if that was just made, else with the ends of it."""
    found: dict[str, Any] = shape(key)
    for name in ("key", "message"):
        found.pop(name, None)
    found["secret"] = secret or found.pop("hint", None)
    found.pop("hint", None)
    found["kind"] = KeyKind.INFERENCE.value
    lifetime = f"key:{key.id}/cost/lifetime"
    found["used"] = next((usd(each.used) for each in key.limits if each.name == lifetime), "0.00")
    return {name: found[name] for name in (*_ORDER, *(n for n in found if n not in _ORDER))}
