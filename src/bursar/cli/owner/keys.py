"""`bursar keys`: the API keys of an account.

Owns what the commands take and show. A secret is printed once, when it is made, and never taken
from the command line, where other users of the machine could read it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import output
from bursar.cli.owner import options
from bursar.cli.owner.key_options import (
    Endpoints,
    Expiry,
    LabelNames,
    Liftable,
    Limit,
    Models,
    Networks,
    key_shape,
)
from bursar.cli.owner.options import Description, KeyId, Labels, Project, Yes
from bursar.cli.places.owner import Owner
from bursar.cli.session import MAX_ID
from bursar.core.permissions import Environment
from bursar.core.secrets import KeyKind

if TYPE_CHECKING:
    from bursar.sdk.resources.api_keys import ApiKey, NewApiKey

HELP: Final = "Make, list, change, rotate and delete API keys."
_COLUMNS: Final = (
    *("id", "name", "secret", "is_enabled", "environment", "project_id", "credit_limit"),
    *("spent_7_days", "last_used_at", "expires_at"),
)
_LIMIT_COLUMNS: Final = ("resource", "window", "model", "limit", "used", "left", "resets_at")


def create(
    owner: Owner,
    name: Annotated[str, typer.Option(help="What the key is called.")],
    kind: Annotated[
        KeyKind,
        typer.Option(help="inference calls models; the others are made on the host only."),
    ] = KeyKind.INFERENCE,
    limit: Limit = None,
    expires: Expiry = None,
    user: Annotated[
        int | None,
        typer.Option("--user", metavar="ID", min=1, max=MAX_ID, help="Whom it acts for."),
    ] = None,
    project: Project = None,
    environment: Annotated[
        Environment, typer.Option(help="A test key reaches only the sandbox.")
    ] = Environment.LIVE,
    description: Description = None,
    label: Labels = None,
    allow_label: LabelNames = None,
    model: Models = None,
    endpoint: Endpoints = None,
    network: Networks = None,
) -> None:
    """Make a key. Its secret is printed now and never again.

    What a provisioning key may reach bounds the keys that it makes.

    \b
    bursar keys create --name laptop --limit 5.00
    bursar keys create --name ci --expires 2027-01-31T12:00:00Z --json
    bursar keys create --name search --model 'gpt-4*' --network 203.0.113.0/24 --label team=search
    bursar keys create --name rescue --kind operator
    """
    if kind is not KeyKind.INFERENCE and limit is not None:
        raise typer.BadParameter("Only an inference key spends, so only it has a --limit.")
    given: dict[str, Any] = {
        "credit_limit": None if limit is None else options.parse_usd(limit),
        "expires_at": options.parse_moment(expires, param="expires"),
        "project_id": project,
        "environment": environment.value,
        "description": description,
        "labels": options.parse_labels(label) or None,
        "label_names": allow_label or None,
        "models": model or None,
        "endpoints": endpoint or None,
        "networks": network or None,
    }
    if user is not None:
        given["user_id"] = user
    if kind is not KeyKind.INFERENCE:
        from bursar.cli.tenants import rescue

        rescue.create(owner.host(), kind, account_id=owner.account_id, name=name, fields=given)
        return
    _show_new(owner, owner.client.api_keys.create(name, **given))


def list_keys(
    owner: Owner,
    search: Annotated[
        str | None, typer.Option(help="Part of a name or description, or a secret's last six.")
    ] = None,
    project: options.OfProject = None,
    environment: Annotated[
        Environment | None, typer.Option(help="Only of this environment.")
    ] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--disabled", help="Only those that are so.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="NAME[=VALUE]", help="Only those with this label.")
    ] = None,
) -> None:
    """List the inference keys, oldest first.

    \b
    bursar keys list
    bursar keys list --search laptop --enabled --label team=search
    bursar keys list --json | jq -r '.keys[].name'
    """
    found = owner.client.api_keys.list(
        q=search,
        project_id=project,
        environment=None if environment is None else environment.value,
        is_enabled=enabled,
        label=label,
    )
    rows = [key_shape(key) for key in found]
    owner.out.show_list("keys", rows, columns=_COLUMNS, empty="There are no such keys.")


def show(owner: Owner, key_id: KeyId) -> None:
    """Show one key, what it has used, and its limits.

    \b
    bursar keys show 3
    """
    _show(owner, owner.client.api_keys.get(key_id))


def update(
    owner: Owner,
    key_id: KeyId,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Let it work, or stop it.")
    ] = None,
    limit: Limit = None,
    no_limit: Annotated[bool, typer.Option("--no-limit", help="Lift its limit.")] = False,
    expires: Expiry = None,
    no_expiry: Annotated[bool, typer.Option("--no-expiry", help="Let it never end.")] = False,
    project: Project = None,
    description: Description = None,
    label: Labels = None,
    allow_label: LabelNames = None,
    model: Models = None,
    endpoint: Endpoints = None,
    network: Networks = None,
    lift: Annotated[
        list[Liftable] | None, typer.Option(help="What shall be gone; repeatable.")
    ] = None,
) -> None:
    """Change a key. What is not named stays; a list takes the place of the one before.

    \b
    bursar keys update 3 --disable
    bursar keys update 3 --limit 20.00 --name "CI of the shop"
    bursar keys update 3 --model 'gpt-4*' --model sandbox/echo --lift networks
    """
    changes = options.changes(
        {
            "name": name,
            "is_enabled": enable,
            "credit_limit": None if limit is None else options.parse_usd(limit),
            "expires_at": options.parse_moment(expires, param="expires"),
            "project_id": project,
            "description": description,
            "labels": options.parse_labels(label) or None,
            "label_names": allow_label or None,
            "models": model or None,
            "endpoints": endpoint or None,
            "networks": network or None,
        },
        lift={
            "credit_limit": no_limit,
            "expires_at": no_expiry,
            **{each.field: each in (lift or ()) for each in Liftable},
        },
    )
    if not changes:
        raise typer.BadParameter("Say what to change.")
    _show(owner, owner.client.api_keys.update(key_id, **changes))


def rotate(
    owner: Owner,
    key_id: KeyId,
    kind: Annotated[
        KeyKind,
        typer.Option(help="Which kind of key it is; all but inference on the host only."),
    ] = KeyKind.INFERENCE,
    grace: Annotated[
        int, typer.Option(metavar="SECONDS", help="How long the present secret works too.")
    ] = 86_400,
    yes: Yes = False,
) -> None:
    """Give a key another secret, which is printed now and never again. All else stays.

    Without grace the present secret stops at once, and whoever has it: that is asked first.

    \b
    bursar keys rotate 3
    bursar keys rotate 1 --kind operator --grace 0 --yes
    """
    if not grace:
        question = f"Stop the present secret of key {key_id} at once?"
        options.confirm(question, yes=yes, out=owner.out)
    if kind is not KeyKind.INFERENCE:
        from bursar.cli.tenants import rescue

        rescue.rotate(owner.host(), kind, account_id=owner.account_id, key_id=key_id, grace_s=grace)
        return
    _show_new(owner, owner.client.api_keys.rotate(key_id, grace_s=grace))


def delete(owner: Owner, key_id: KeyId, yes: Yes = False) -> None:
    """Delete a key for good; it stops within a second. What it used stays in the books.

    \b
    bursar keys delete 3
    bursar keys delete 3 --yes --json
    """
    options.confirm(f"Delete key {key_id} for good?", yes=yes, out=owner.out)
    owner.client.api_keys.delete(key_id)
    owner.out.show({"id": key_id, "is_deleted": True})


def _show(owner: Owner, key: "ApiKey") -> None:
    shown = key_shape(key)
    if owner.out.is_json:
        owner.out.show(shown)
        return
    limits = shown.pop("limits")
    owner.out.show(shown)
    owner.out.show_list("limits", limits, columns=_LIMIT_COLUMNS, empty="It has no limits.")


def _show_new(owner: Owner, made: "NewApiKey") -> None:
    output.say(output.SHOWN_ONCE)
    shown = key_shape(made, secret=str(made.key))
    if not owner.out.is_json:
        shown.pop("limits")
    owner.out.show(shown)


COMMANDS: Final[tuple[tuple[str, Callable[..., None], dict[str, Any]], ...]] = (
    ("create", create, {}),
    ("list", list_keys, {}),
    ("show", show, {}),
    ("update", update, {}),
    ("rotate", rotate, {}),
    ("delete", delete, {}),
)
