"""Keys on the wire: those of an account, a key's view of itself, and keys that an operator makes.

Owns their shapes, of which an account's are NagaAI's, field for field. Must not know rules;
`service.keys` does.
"""

from functools import partial
from typing import Final, Literal

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.api.limits import allowances
from bursar.api.limits.allowances import LimitShape
from bursar.core.errors import Invalid
from bursar.core.secrets import KeyKind
from bursar.edge.body import Model, check
from bursar.edge.calls import Call, carry_out, reply
from bursar.edge.fields import (
    Moment,
    MomentIn,
    UsdNumber,
    UsdNumberIn,
    format_moment,
    parse_path_id,
    usd_number,
)
from bursar.service import accounts, keys
from bursar.service.access import InferencePrincipal, OperatorPrincipal, ProvisioningPrincipal
from bursar.service.keys import UNCHANGED, KeyChange, NewKey
from bursar.service.limits import allowances as limits
from bursar.store.database import WriteTx
from bursar.store.keys import KeyRow

_SHOWN_ONCE: Final = "Store this key securely. It will not be shown again."


class KeyShape(TypedDict):
    """A key; `credit_limit` is in USD over its lifetime, null is unlimited."""

    id: int
    name: str
    created_at: Moment
    expires_at: Moment | None
    is_enabled: bool
    credit_limit: UsdNumber


class NewKeyShape(KeyShape):
    """A key that was just made, with its secret."""

    key: str
    message: str


class KeyListShape(TypedDict):
    """Keys, oldest first."""

    keys: list[KeyShape]


class OwnKeyShape(TypedDict):
    """A key as it sees itself."""

    id: int
    name: str
    created_at: Moment
    expires_at: Moment | None
    limits: list[LimitShape]


class NewKeyFields(Model):
    """A key to make; null or absent is unlimited, or never expires."""

    name: str
    credit_limit: UsdNumberIn | None = None
    expires_at: MomentIn | None = None


class AnyNewKeyFields(NewKeyFields):
    """A key to make in any account, of either kind that an account can have."""

    kind: Literal["inference", "provisioning"] = "inference"


class KeyFields(Model):
    """What to change of a key: absent leaves alone, null lifts a limit or an expiry."""

    name: str | None = None
    is_enabled: bool | None = None
    credit_limit: UsdNumberIn | None = None
    expires_at: MomentIn | None = None


async def list_keys(call: Call[ProvisioningPrincipal]) -> Response:
    """Your account's keys."""
    async with call.plane.database.read() as tx:
        rows = await keys.list_keys(tx, account_id=call.caller.account_id)
    return reply(KeyListShape(keys=[shape(row) for row in rows]))


async def create(call: Call[ProvisioningPrincipal]) -> Response:
    """Make a key. Its secret is in this answer and nowhere else."""
    new = check(NewKeyFields, call.document)

    async def effect(tx: WriteTx) -> NewKeyShape:
        made = await keys.create(
            tx,
            account_id=call.caller.account_id,
            user_id=call.caller.user_id,
            name=new.name,
            random_bytes=call.plane.random_bytes,
            credit_limit_nanos=new.credit_limit,
            expires_ms=new.expires_at,
        )
        return _new_shape(made)

    return await carry_out(call, effect, status=201)


async def show(call: Call[ProvisioningPrincipal]) -> Response:
    """One of your account's keys."""
    key_id = parse_path_id(call.path["key_id"])
    async with call.plane.database.read() as tx:
        row = await keys.get(tx, account_id=call.caller.account_id, key_id=key_id)
    return reply(shape(row))


async def update(call: Call[ProvisioningPrincipal]) -> Response:
    """Rename, enable, disable or limit a key, or change when it expires."""
    key_id = parse_path_id(call.path["key_id"])
    account_id = call.caller.account_id

    async def effect(tx: WriteTx) -> KeyRow:
        # Asked for before the fields are read: an unknown key is 404 whatever is to be changed.
        await keys.get(tx, account_id=account_id, key_id=key_id)
        fields = check(KeyFields, call.document)
        given = fields.model_fields_set
        change = KeyChange(
            name=fields.name,
            is_enabled=fields.is_enabled,
            credit_limit_nanos=fields.credit_limit if "credit_limit" in given else UNCHANGED,
            expires_ms=fields.expires_at if "expires_at" in given else UNCHANGED,
        )
        return await keys.update(tx, account_id=account_id, key_id=key_id, change=change)

    return reply(shape(await call.plane.database.transact(effect)))


async def delete(call: Call[ProvisioningPrincipal]) -> Response:
    """Delete a key for good."""
    key_id = parse_path_id(call.path["key_id"])
    account_id = call.caller.account_id
    await call.plane.database.transact(partial(keys.delete, account_id=account_id, key_id=key_id))
    return Response(status_code=204)


async def show_own(call: Call[InferencePrincipal]) -> Response:
    """The key that you call with, and its limits.

    The account's balance is not shown: an inference key is built into applications and handed to
    people whom the account's money is no business of.
    """
    caller = call.caller
    await call.plane.database.catch_up()
    async with call.plane.database.read() as tx:
        row = await keys.get(tx, account_id=caller.account_id, key_id=caller.key_id)
        found = await limits.list_key_limits(
            tx, account_id=caller.account_id, key_id=caller.key_id, now_ms=call.plane.now_ms()
        )
    seen = shape(row)
    return reply(
        OwnKeyShape(
            id=seen["id"],
            name=seen["name"],
            created_at=seen["created_at"],
            expires_at=seen["expires_at"],
            limits=[allowances.shape(limit) for limit in found],
        )
    )


async def create_any(call: Call[OperatorPrincipal]) -> Response:
    """Make an inference or provisioning key of an account. Its secret is in this answer only."""
    account_id = parse_path_id(call.path["account_id"])
    async with call.plane.database.read() as tx:
        await accounts.get(tx, account_id=account_id)
    new = check(AnyNewKeyFields, call.document)
    kind = KeyKind(new.kind)
    if kind is not KeyKind.INFERENCE and new.credit_limit is not None:
        message = "A provisioning key spends nothing, so it has no limit."
        raise Invalid("invalid_value", message, param="credit_limit")

    async def effect(tx: WriteTx) -> NewKeyShape:
        made = await keys.create(
            tx,
            account_id=account_id,
            user_id=None,
            name=new.name,
            random_bytes=call.plane.random_bytes,
            kind=kind,
            credit_limit_nanos=new.credit_limit,
            expires_ms=new.expires_at,
        )
        return _new_shape(made)

    return await carry_out(call, effect, status=201)


def shape(row: KeyRow) -> KeyShape:
    """A key as JSON has it."""
    return KeyShape(
        id=row.id,
        name=row.name,
        created_at=format_moment(row.created_ms - row.created_ms % 1000),
        expires_at=None if row.expires_ms is None else format_moment(row.expires_ms),
        is_enabled=row.is_enabled,
        credit_limit=usd_number(row.credit_limit_nanos),
    )


def _new_shape(made: NewKey) -> NewKeyShape:
    return NewKeyShape(**shape(made.key), key=made.secret, message=_SHOWN_ONCE)
