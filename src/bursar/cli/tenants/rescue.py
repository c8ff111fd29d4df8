"""Keys that only the installation's host can make and rotate: operators', and provisioning keys.

Owns what is done with the installation's files where no key is left that works. Must not know
rules; `service.keys` does.
"""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from bursar.cli import output
from bursar.cli.session import Session
from bursar.core.secrets import KeyKind

if TYPE_CHECKING:
    from bursar.service.keys import NewKey
    from bursar.store.database import WriteTx
    from bursar.store.keys import KeyRow

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def create(
    session: Session, kind: KeyKind, *, account_id: int, name: str, fields: Mapping[str, Any]
) -> None:
    """Make a key of this kind, with the fields that the API has for it, and print its secret."""

    async def work(tx: "WriteTx") -> "NewKey":
        from bursar.service import accounts, keys
        from bursar.service.keys import KeySettings
        from bursar.store.keys import OPERATOR_ACCOUNT_ID

        is_operator = kind is KeyKind.OPERATOR
        if not is_operator:
            await accounts.get(tx, account_id=account_id)
        return await keys.create(
            tx,
            account_id=OPERATOR_ACCOUNT_ID if is_operator else account_id,
            user_id=fields.get("user_id"),
            name=name,
            random_bytes=secrets.token_bytes,
            kind=kind,
            expires_ms=expires_ms,
            settings=KeySettings(
                project_id=fields["project_id"],
                environment=fields["environment"],
                description=fields["description"] or "",
                labels=fields["labels"] or {},
                label_names=fields["label_names"],
                models=fields["models"],
                endpoints=fields["endpoints"],
                networks=fields["networks"],
            ),
        )

    expires = fields["expires_at"]
    expires_ms = None if expires is None else (expires - _EPOCH) // timedelta(milliseconds=1)
    _show(session, session.change(work))


def rotate(session: Session, kind: KeyKind, *, account_id: int, key_id: int, grace_s: int) -> None:
    """Give a key of this kind another secret, and print it."""

    async def work(tx: "WriteTx") -> "NewKey":
        from bursar.service import keys
        from bursar.store.keys import OPERATOR_ACCOUNT_ID

        return await keys.rotate(
            tx,
            account_id=OPERATOR_ACCOUNT_ID if kind is KeyKind.OPERATOR else account_id,
            key_id=key_id,
            random_bytes=secrets.token_bytes,
            grace_s=grace_s,
            kind=kind,
        )

    _show(session, session.change(work))


def _show(session: Session, made: "NewKey") -> None:
    output.say(output.SHOWN_ONCE)
    session.out.show(_shape(made.key, made.secret))


def _shape(row: "KeyRow", secret: str) -> dict[str, Any]:
    def listed(items: tuple[str, ...] | None) -> list[str] | None:
        return None if items is None else list(items)

    return {
        "id": row.id,
        "user_id": row.user_id,
        "project_id": row.project_id,
        "kind": str(row.kind),
        "environment": row.environment,
        "name": row.name,
        "description": row.description,
        "secret": secret,
        "is_enabled": row.is_enabled,
        "labels": dict(row.labels),
        "label_names": list(row.label_names or ()),
        "models": listed(row.models),
        "endpoints": listed(row.endpoints),
        "networks": listed(row.networks),
        "created_at": output.format_moment(row.created_ms),
        "expires_at": output.format_moment(row.expires_ms),
        "rotated_at": output.format_moment(row.rotated_ms),
        "previous_secret_until": output.format_moment(row.previous_until_ms),
    }
