"""`bursar keys`: the API keys of an account.

Owns what the commands take and show. A secret is printed once, when it is made, and never taken
from the command line, where other users of the machine could read it. Must not know rules;
`service.keys` does.
"""

import secrets
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import output
from bursar.cli.session import MAX_ID, Session
from bursar.cli.tenants import key_options
from bursar.cli.tenants.key_options import (
    AccountOption,
    Description,
    Endpoints,
    Expiry,
    KeyId,
    LabelNames,
    Labels,
    Liftable,
    Limit,
    Models,
    Networks,
    Project,
)
from bursar.core.money import parse_usd
from bursar.core.permissions import Environment
from bursar.core.secrets import KeyKind

if TYPE_CHECKING:
    from bursar.service.keys import NewKey, Wanted
    from bursar.service.keys.views import KeyView
    from bursar.store.database import Database, WriteTx
    from bursar.store.keys import KeyRow

HELP: Final = "Make, list, change, rotate and delete API keys."
_COLUMNS: Final = (
    *("id", "name", "secret", "is_enabled", "environment", "project_id", "credit_limit"),
    *("spent_7_days", "last_used_at", "expires_at"),
)
_SHOWN_ONCE: Final = "This is the only time that the secret is shown."


def create(
    session: Session,
    name: Annotated[str, typer.Option(help="What the key is called.")],
    account: AccountOption = 1,
    kind: Annotated[
        KeyKind,
        typer.Option(
            help="inference calls models, provisioning manages the account, operator all."
        ),
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
    bursar keys create --name ci --account 7 --expires 2027-01-31T12:00:00Z --json
    bursar keys create --name search --model 'gpt-4*' --network 203.0.113.0/24 --label team=search
    bursar keys create --name rescue --kind operator
    """
    if kind is not KeyKind.INFERENCE and limit is not None:
        raise typer.BadParameter("Only an inference key spends, so only it has a --limit.")
    settings = key_options.settings(
        project=project,
        environment=environment,
        description=description,
        labels=label,
        lists=(allow_label, model, endpoint, network),
    )
    wanted = key_options.wanted(name, user=user, limit=limit, expires=expires, settings=settings)
    _show_new(session, session.change(partial(_create, account, kind, wanted)))


def list_keys(
    session: Session,
    account: AccountOption = 1,
    search: Annotated[
        str | None, typer.Option(help="Part of a name or description, or a secret's last six.")
    ] = None,
    project: Annotated[
        int | None, typer.Option(metavar="ID", min=1, max=MAX_ID, help="Only of this project.")
    ] = None,
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
    """List an account's inference keys, oldest first.

    \b
    bursar keys list
    bursar keys list --account 7 --json
    bursar keys list --search laptop --enabled --label team=search
    """

    async def work(database: "Database") -> list["KeyView"]:
        from bursar.service import accounts, keys
        from bursar.service.keys import views
        from bursar.store.keys import KeyFilter

        name, is_exact, value = (label or "").partition("=")
        where = KeyFilter(
            text=search,
            project_id=project,
            environment=environment,
            is_enabled=enabled,
            label=None if label is None else (name, value if is_exact else None),
        )
        async with database.read() as tx:
            await accounts.get(tx, account_id=account)
            rows = await keys.list_keys(tx, account_id=account, where=where)
            now_ms = database.clock_ms()
            return await views.view(tx, account_id=account, rows=rows, now_ms=now_ms)

    rows = [key_options.view_shape(view) for view in session.run(work)]
    session.out.show_list("keys", rows, columns=_COLUMNS, empty="There are no such keys.")


def show(session: Session, key_id: KeyId, account: AccountOption = 1) -> None:
    """Show one key and what it has used.

    \b
    bursar keys show 3
    """

    async def work(database: "Database") -> "KeyView":
        from bursar.service import keys
        from bursar.service.keys import views

        async with database.read() as tx:
            row = await keys.get(tx, account_id=account, key_id=key_id)
            return await views.view_one(tx, row=row, now_ms=database.clock_ms())

    session.out.show(key_options.view_shape(session.run(work)))


def update(
    session: Session,
    key_id: KeyId,
    account: AccountOption = 1,
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
    if (no_limit and limit is not None) or (no_expiry and expires is not None):
        raise typer.BadParameter("A limit (or an expiry) is either set or lifted.")
    changes = key_options.changes(
        {
            "project_id": project,
            "labels": key_options.parse_labels(label),
            "label_names": allow_label,
            "models": model,
            "endpoints": endpoint,
            "networks": network,
        },
        lift=lift or (),
    )
    if limit is not None or no_limit:
        changes["credit_limit_nanos"] = None if limit is None else parse_usd(limit)
    if expires is not None or no_expiry:
        changes["expires_ms"] = None if expires is None else key_options.parse_moment(expires)
    if not changes and (name, description, enable) == (None,) * 3:
        raise typer.BadParameter("Say what to change.")
    changes |= {"name": name, "description": description, "is_enabled": enable}

    async def work(tx: "WriteTx") -> "KeyRow":
        from bursar.service import keys
        from bursar.service.keys import KeyChange

        change = KeyChange(**changes)
        return await keys.update(tx, account_id=account, key_id=key_id, change=change)

    session.out.show(key_options.shape(session.change(work)))


def rotate(
    session: Session,
    key_id: KeyId,
    account: AccountOption = 1,
    kind: Annotated[KeyKind, typer.Option(help="Which kind of key it is.")] = KeyKind.INFERENCE,
    grace: Annotated[
        int, typer.Option(metavar="SECONDS", help="How long the present secret works too.")
    ] = 86_400,
) -> None:
    """Give a key another secret, which is printed now and never again. All else stays.

    \b
    bursar keys rotate 3
    bursar keys rotate 1 --kind operator --grace 0
    """

    async def work(tx: "WriteTx") -> "NewKey":
        from bursar.service import keys
        from bursar.store.keys import OPERATOR_ACCOUNT_ID

        return await keys.rotate(
            tx,
            account_id=OPERATOR_ACCOUNT_ID if kind is KeyKind.OPERATOR else account,
            key_id=key_id,
            random_bytes=secrets.token_bytes,
            grace_s=grace,
            kind=kind,
        )

    _show_new(session, session.change(work))


def delete(
    session: Session,
    key_id: KeyId,
    account: AccountOption = 1,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a key for good; it stops within a second. What it used stays in the books.

    \b
    bursar keys delete 3
    bursar keys delete 3 --yes --json
    """
    if not yes:
        if session.out.is_json or not sys.stdin.isatty():
            raise typer.BadParameter("Deleting cannot be undone: say --yes.")
        typer.confirm(f"Delete key {key_id} for good?", abort=True, err=True)

    async def work(tx: "WriteTx") -> None:
        from bursar.service import keys

        await keys.delete(tx, account_id=account, key_id=key_id)

    session.change(work)
    session.out.show({"id": key_id, "is_deleted": True})


async def _create(account: int, kind: KeyKind, wanted: "Wanted", tx: "WriteTx") -> "NewKey":
    from bursar.service import accounts, keys
    from bursar.store.keys import OPERATOR_ACCOUNT_ID

    is_operator = kind is KeyKind.OPERATOR
    if not is_operator:
        await accounts.get(tx, account_id=account)
    return await keys.create(
        tx,
        account_id=OPERATOR_ACCOUNT_ID if is_operator else account,
        user_id=wanted.user_id,
        name=wanted.name,
        random_bytes=secrets.token_bytes,
        kind=kind,
        credit_limit_nanos=wanted.credit_limit_nanos,
        expires_ms=wanted.expires_ms,
        settings=wanted.settings,
    )


def _show_new(session: Session, made: "NewKey") -> None:
    output.say(_SHOWN_ONCE)
    session.out.show({**key_options.shape(made.key), "secret": made.secret})


COMMANDS: Final[tuple[tuple[str, Callable[..., None], dict[str, Any]], ...]] = (
    ("create", create, {}),
    ("list", list_keys, {}),
    ("show", show, {}),
    ("update", update, {}),
    ("rotate", rotate, {}),
    ("delete", delete, {}),
)
