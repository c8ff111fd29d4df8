"""`bursar keys`: the API keys of an account.

Owns what the commands take and show. A secret is printed once, when it is made, and never taken
from the command line, where other users of the machine could read it. Must not know rules;
`service.keys` does.
"""

import secrets
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bursar.cli import output
from bursar.cli.session import MAX_ID, Session
from bursar.core.errors import Invalid
from bursar.core.money import format_usd, parse_usd
from bursar.core.secrets import KeyKind

if TYPE_CHECKING:
    from bursar.service.keys import NewKey
    from bursar.store.database import Database, WriteTx
    from bursar.store.keys import KeyRow

HELP: Final = "Make, list, change and delete API keys."
_COLUMNS: Final = ("id", "name", "secret", "is_enabled", "credit_limit", "expires_at")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

KeyId = Annotated[int, typer.Argument(metavar="ID", min=1, max=MAX_ID, help="The key's id.")]
AccountOption = Annotated[
    int,
    typer.Option(
        "--account", metavar="ID", min=1, max=MAX_ID, help="The account that it belongs to."
    ),
]
Expiry = Annotated[
    str | None,
    typer.Option("--expires", metavar="MOMENT", help="When it ends: 2027-01-31T12:00:00Z."),
]
Limit = Annotated[
    str | None,
    typer.Option("--limit", metavar="USD", help="The most that it may ever spend."),
]


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
) -> None:
    """Make a key. Its secret is printed now and never again.

    \b
    bursar keys create --name laptop --limit 5.00
    bursar keys create --name ci --account 7 --expires 2027-01-31T12:00:00Z --json
    bursar keys create --name rescue --kind operator
    """
    if kind is not KeyKind.INFERENCE and limit is not None:
        raise typer.BadParameter("Only an inference key spends, so only it has a --limit.")

    async def work(tx: "WriteTx") -> "NewKey":
        from bursar.service import accounts, keys
        from bursar.store.keys import OPERATOR_ACCOUNT_ID

        is_operator = kind is KeyKind.OPERATOR
        if not is_operator:
            await accounts.get(tx, account_id=account)
        return await keys.create(
            tx,
            account_id=OPERATOR_ACCOUNT_ID if is_operator else account,
            user_id=None,
            name=name,
            random_bytes=secrets.token_bytes,
            kind=kind,
            credit_limit_nanos=limit_nanos,
            expires_ms=expires_ms,
        )

    limit_nanos = None if limit is None else parse_usd(limit)
    expires_ms = None if expires is None else _parse_moment(expires)
    made = session.change(work)
    output.say("This is the only time that the secret is shown.")
    session.out.show({**_shape(made.key), "secret": made.secret})


def list_keys(session: Session, account: AccountOption = 1) -> None:
    """List an account's inference keys, oldest first.

    \b
    bursar keys list
    bursar keys list --account 7 --json
    """

    async def work(database: "Database") -> list["KeyRow"]:
        from bursar.service import accounts, keys

        async with database.read() as tx:
            await accounts.get(tx, account_id=account)
            return await keys.list_keys(tx, account_id=account)

    rows = [_shape(row) for row in session.run(work)]
    session.out.show_list("keys", rows, columns=_COLUMNS, empty="The account has no keys.")


def show(session: Session, key_id: KeyId, account: AccountOption = 1) -> None:
    """Show one key and what it has used.

    \b
    bursar keys show 3
    """

    async def work(database: "Database") -> tuple["KeyRow", int]:
        from bursar.service import keys
        from bursar.service.limits import allowances

        async with database.read() as tx:
            row = await keys.get(tx, account_id=account, key_id=key_id)
            limits = await allowances.list_key_limits(
                tx, account_id=account, key_id=key_id, now_ms=database.clock_ms()
            )
            own = f"key:{key_id}/cost/lifetime"
            used = sum(each.allowance.used for each in limits if each.allowance.ref.name == own)
            return row, used

    row, used_nanos = session.run(work)
    session.out.show({**_shape(row), "used": format_usd(used_nanos)})


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
) -> None:
    """Change a key. What is not named stays as it is; workers follow within a second.

    \b
    bursar keys update 3 --disable
    bursar keys update 3 --limit 20.00 --name "CI of the shop"
    """
    if (no_limit and limit is not None) or (no_expiry and expires is not None):
        raise typer.BadParameter("A limit (or an expiry) is either set or lifted.")
    if (name, enable, limit, expires) == (None,) * 4 and not (no_limit or no_expiry):
        raise typer.BadParameter("Say what to change.")

    async def work(tx: "WriteTx") -> "KeyRow":
        from bursar.service import keys
        from bursar.service.keys import UNCHANGED, KeyChange

        change = KeyChange(
            name=name,
            is_enabled=enable,
            credit_limit_nanos=limit_nanos if no_limit or limit is not None else UNCHANGED,
            expires_ms=expires_ms if no_expiry or expires is not None else UNCHANGED,
        )
        return await keys.update(tx, account_id=account, key_id=key_id, change=change)

    limit_nanos = None if limit is None else parse_usd(limit)
    expires_ms = None if expires is None else _parse_moment(expires)
    session.out.show(_shape(session.change(work)))


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


def _shape(row: "KeyRow") -> dict[str, Any]:
    limit = row.credit_limit_nanos
    return {
        "id": row.id,
        "account_id": row.account_id,
        "kind": str(row.kind),
        "name": row.name,
        "secret": f"{row.prefix}…{row.last6}",
        "is_enabled": row.is_enabled,
        "credit_limit": None if limit is None else format_usd(limit),
        "created_at": output.format_moment(row.created_ms),
        "expires_at": output.format_moment(row.expires_ms),
    }


def _parse_moment(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return (moment - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        pass
    message = "A moment looks like 2027-01-31T12:00:00Z."
    raise Invalid("invalid_timestamp", message, param="expires")


COMMANDS: Final[tuple[tuple[str, Callable[..., None], dict[str, Any]], ...]] = (
    ("create", create, {}),
    ("list", list_keys, {}),
    ("show", show, {}),
    ("update", update, {}),
    ("delete", delete, {}),
)
