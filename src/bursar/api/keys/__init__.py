"""Keys over HTTP: those of an account, a key's view of itself, and keys that an operator makes.

Owns who may ask for what, and how; the forms are `shapes`. Must not know rules; `service.keys`
does.
"""

import re
from functools import partial
from typing import Final

from starlette.responses import Response

from bursar.api.keys import shapes
from bursar.api.keys.shapes import (
    AnyNewKeyFields,
    KeyFields,
    KeyListShape,
    KeyShape,
    NewKeyFields,
    NewKeyListFields,
    NewKeyListShape,
    NewKeyShape,
    OwnKeyShape,
    RotationFields,
)
from bursar.api.limits import allowances
from bursar.core.errors import Invalid
from bursar.core.permissions import Environment
from bursar.core.secrets import KeyKind
from bursar.edge import pages
from bursar.edge.body import check
from bursar.edge.calls import Call, carry_out, reply
from bursar.edge.fields import format_moment, parse_path_id
from bursar.edge.query import Query
from bursar.service import accounts, keys
from bursar.service.access import InferencePrincipal, OperatorPrincipal, ProvisioningPrincipal
from bursar.service.keys import views
from bursar.service.keys.views import KeyView
from bursar.service.limits import allowances as limits
from bursar.store.database import ReadTx, WriteTx
from bursar.store.keys import KeyFilter

# What a list of keys can be asked for; without any of them it is all of them, on one page.
FILTERS: Final = (
    "q",
    "project_id",
    "user_id",
    "environment",
    "is_enabled",
    "label",
    "cursor",
    "limit",
)
_AT_ONCE: Final = 250
_POSITION: Final = re.compile(r"([1-9][0-9]{0,18})")


async def list_keys(call: Call[ProvisioningPrincipal]) -> Response:
    """Your account's keys: all of them or, asked for any field, those that fit, in pages.

    `q` is part of a name or a description, or the last six characters of a secret; `label` is
    `name=value`, or `name` for any value.
    """
    account_id, plane, query = call.caller.account_id, call.plane, call.query
    list_name = f"keys {account_id}"
    where, after_id, limit = None, 0, None
    if query.names:
        where = _filter(query)
        limit = query.number("limit", low=1, high=pages.MAX_ITEMS, default=pages.DEFAULT_ITEMS)
        cursor = query.find("cursor")
        if cursor is not None:
            after_id = int(pages.read(cursor, list_name, form=_POSITION)[0])
    await plane.database.catch_up()
    async with plane.database.read() as tx:
        most = None if limit is None else limit + 1
        found = await _read(
            tx, account_id, where=where, after_id=after_id, most=most, now_ms=plane.now_ms()
        )
    answer = KeyListShape(keys=found[:limit])
    if limit is not None:
        is_last = len(found) <= limit
        answer["next_cursor"] = None if is_last else pages.write(list_name, found[limit - 1]["id"])
    return reply(answer)


async def create(call: Call[ProvisioningPrincipal]) -> Response:
    """Make a key. Its secret is in this answer and nowhere else."""
    wanted = shapes.wanted(check(NewKeyFields, call.document), user_id=call.caller.user_id)

    async def effect(tx: WriteTx) -> NewKeyShape:
        made = await keys.create(
            tx,
            account_id=call.caller.account_id,
            user_id=wanted.user_id,
            name=wanted.name,
            random_bytes=call.plane.random_bytes,
            credit_limit_nanos=wanted.credit_limit_nanos,
            expires_ms=wanted.expires_ms,
            settings=wanted.settings,
            by=call.caller,
        )
        view = await views.view_one(tx, row=made.key, now_ms=tx.now_ms)
        return shapes.new_shape(view, made.secret)

    return await carry_out(call, effect, status=201)


async def create_many(call: Call[ProvisioningPrincipal]) -> Response:
    """Make up to 100 keys, all or none. Their secrets are in this answer and nowhere else."""
    account_id, user_id = call.caller.account_id, call.caller.user_id
    fields = check(NewKeyListFields, call.document)
    wanted = [shapes.wanted(each, user_id=user_id) for each in fields.keys]

    async def effect(tx: WriteTx) -> NewKeyListShape:
        made = await keys.create_many(
            tx,
            account_id=account_id,
            wanted=wanted,
            random_bytes=call.plane.random_bytes,
            by=call.caller,
        )
        rows = [each.key for each in made]
        found = await views.view(tx, account_id=account_id, rows=rows, now_ms=tx.now_ms)
        pairs = zip(found, made, strict=True)
        return NewKeyListShape(keys=[shapes.new_shape(view, each.secret) for view, each in pairs])

    return await carry_out(call, effect, status=201)


async def show(call: Call[ProvisioningPrincipal]) -> Response:
    """One of your account's keys."""
    key_id = parse_path_id(call.path["key_id"])
    await call.plane.database.catch_up()
    async with call.plane.database.read() as tx:
        row = await keys.get(tx, account_id=call.caller.account_id, key_id=key_id)
        view = await views.view_one(tx, row=row, now_ms=call.plane.now_ms())
    return reply(shapes.shape(view))


async def update(call: Call[ProvisioningPrincipal]) -> Response:
    """Change what a key may do, rename, limit, enable or disable it; it keeps what it has used."""
    key_id = parse_path_id(call.path["key_id"])
    account_id = call.caller.account_id

    async def effect(tx: WriteTx) -> KeyView:
        # Asked for before the fields are read: an unknown key is 404 whatever is to be changed.
        await keys.get(tx, account_id=account_id, key_id=key_id)
        change = shapes.change(check(KeyFields, call.document))
        row = await keys.update(
            tx, account_id=account_id, key_id=key_id, change=change, by=call.caller
        )
        return await views.view_one(tx, row=row, now_ms=tx.now_ms)

    await call.plane.database.catch_up()
    return reply(shapes.shape(await call.plane.database.transact(effect)))


async def rotate(call: Call[ProvisioningPrincipal]) -> Response:
    """Give a key another secret: same id, settings and limits. The old one works for `grace_s`.

    The new secret is in this answer and nowhere else; under an Idempotency-Key the same request
    gets it again.
    """
    key_id = parse_path_id(call.path["key_id"])
    account_id = call.caller.account_id

    async def effect(tx: WriteTx) -> NewKeyShape:
        await keys.get(tx, account_id=account_id, key_id=key_id)
        fields = check(RotationFields, call.document)
        made = await keys.rotate(
            tx,
            account_id=account_id,
            key_id=key_id,
            random_bytes=call.plane.random_bytes,
            grace_s=fields.grace_s,
            by=call.caller,
        )
        view = await views.view_one(tx, row=made.key, now_ms=tx.now_ms)
        return shapes.new_shape(view, made.secret)

    return await carry_out(call, effect, status=200)


async def delete(call: Call[ProvisioningPrincipal]) -> Response:
    """Delete a key for good."""
    key_id = parse_path_id(call.path["key_id"])
    account_id = call.caller.account_id
    effect = partial(keys.delete, account_id=account_id, key_id=key_id, by=call.caller)
    await call.plane.database.transact(effect)
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
    return reply(
        OwnKeyShape(
            id=row.id,
            name=row.name,
            created_at=format_moment(row.created_ms - row.created_ms % 1000),
            expires_at=None if row.expires_ms is None else format_moment(row.expires_ms),
            limits=[allowances.shape(limit) for limit in found],
        )
    )


async def create_any(call: Call[OperatorPrincipal]) -> Response:
    """Make an inference or provisioning key of an account. Its secret is in this answer only.

    A provisioning key gives the keys that it makes no more than it has itself.
    """
    account_id = parse_path_id(call.path["account_id"])
    async with call.plane.database.read() as tx:
        await accounts.get(tx, account_id=account_id)
    new = check(AnyNewKeyFields, call.document)
    kind = KeyKind(new.kind)
    if kind is not KeyKind.INFERENCE and new.credit_limit is not None:
        message = "A provisioning key spends nothing, so it has no limit."
        raise Invalid("invalid_value", message, param="credit_limit")
    wanted = shapes.wanted(new, user_id=None)

    async def effect(tx: WriteTx) -> NewKeyShape:
        made = await keys.create(
            tx,
            account_id=account_id,
            user_id=wanted.user_id,
            name=wanted.name,
            random_bytes=call.plane.random_bytes,
            kind=kind,
            credit_limit_nanos=wanted.credit_limit_nanos,
            expires_ms=wanted.expires_ms,
            settings=wanted.settings,
        )
        view = await views.view_one(tx, row=made.key, now_ms=tx.now_ms)
        return shapes.new_shape(view, made.secret)

    return await carry_out(call, effect, status=201)


async def _read(
    tx: ReadTx,
    account_id: int,
    *,
    where: KeyFilter | None,
    after_id: int,
    most: int | None,
    now_ms: int,
) -> list[KeyShape]:
    """Up to `most` keys (None: all), some at a time, so that no call waits for a long list."""
    found: list[KeyShape] = []
    while most is None or len(found) < most:
        size = _AT_ONCE if most is None else min(_AT_ONCE, most - len(found))
        rows = await keys.list_keys(
            tx, account_id=account_id, where=where, after_id=after_id, limit=size
        )
        seen = await views.view(tx, account_id=account_id, rows=rows, now_ms=now_ms)
        found += [shapes.shape(view) for view in seen]
        if len(rows) < size:
            break
        after_id = rows[-1].id
    return found


def _filter(query: Query) -> KeyFilter:
    environment = query.find("environment")
    if environment not in {None, *Environment}:
        message = f"An environment is one of: {', '.join(Environment)}."
        raise Invalid("invalid_value", message, param="environment")
    is_enabled = query.flag("is_enabled")
    return KeyFilter(
        text=query.name("q"),
        project_id=query.id("project_id"),
        user_id=query.id("user_id"),
        environment=environment,
        is_enabled=None if query.find("is_enabled") is None else is_enabled,
        label=query.label("label"),
    )
