"""Credentials: what a presented secret gives access to.

Owns the step from a secret's SHA-256 to its key, with all that those need who check secrets: the
data plane and the control API. Must not know secrets, nor who may do what; keys as people see them
are `keys`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Row, and_, case, func, or_, select

from bursar.core.allowances import PLAN, Allowance, AllowanceRef
from bursar.store.database import ReadTx
from bursar.store.keys import OPERATOR_ACCOUNT_ID, decode_labels, decode_list
from bursar.store.limits import allowances, plans
from bursar.store.limits.plans import PlanLimit
from bursar.store.tables import accounts, keys, projects

_CREDENTIALS: Final = select(
    keys.c.secret_hash,
    keys.c.previous_hash,
    keys.c.previous_until_ms,
    keys.c.id,
    keys.c.account_id,
    keys.c.user_id,
    keys.c.project_id,
    keys.c.kind,
    keys.c.name,
    keys.c.is_enabled,
    keys.c.expires_ms,
    keys.c.deleted_ms,
    keys.c.environment,
    keys.c.labels,
    projects.c.labels.label("project_labels"),
    keys.c.label_names,
    keys.c.models,
    keys.c.endpoints,
    keys.c.networks,
    # A key whose account is gone opens nothing; only the installation's own has no row.
    case(
        (keys.c.account_id == OPERATOR_ACCOUNT_ID, "active"),
        else_=func.coalesce(accounts.c.status, "cancelled"),
    ).label("account_status"),
    func.coalesce(accounts.c.time_zone, "UTC").label("time_zone"),
    func.coalesce(accounts.c.plan_id, 0).label("plan_id"),
).select_from(
    keys.outerjoin(accounts, accounts.c.id == keys.c.account_id).outerjoin(
        projects,
        and_(projects.c.account_id == keys.c.account_id, projects.c.id == keys.c.project_id),
    )
)


@dataclass(frozen=True, slots=True)
class CredentialRow:
    """A key as those who check secrets need it: its state, its account's, and its limits.

    `expires_ms` is when this secret stops: the key's expiry or, for the secret before the last
    rotation, the end of its grace where that is sooner. One key may so have two secrets.

    `models` are patterns, `networks` are texts for `permissions.parse_networks`; for these and
    `endpoints` None is no restriction. `labels` go with every call: the key's, and of its project's
    those that the key does not set; `label_names` are those that a caller may set (None: none).
    `allowances` are those of wallet, account, project, user and key, in the order of locking, with
    the defaults of the account's plan that have no row yet.
    """

    key_id: int
    account_id: int
    user_id: int | None
    project_id: int | None
    kind: str
    name: str
    is_enabled: bool
    expires_ms: int | None
    is_deleted: bool
    account_status: str
    time_zone: str
    environment: str
    labels: Mapping[str, str]
    label_names: tuple[str, ...] | None
    models: tuple[str, ...] | None
    endpoints: tuple[str, ...] | None
    networks: tuple[str, ...] | None
    allowances: tuple[Allowance, ...]


async def find_credential(tx: ReadTx, *, secret_hash: bytes) -> CredentialRow | None:
    """Return what the secret with this SHA-256 belongs to, deleted and disabled keys included."""
    return (await find_all(tx, secret_hashes=[secret_hash])).get(secret_hash)


async def find_of_key(tx: ReadTx, *, account_id: int, key_id: int) -> CredentialRow | None:
    """Return what the present secret of the account's key gives access to, as `find_credential`."""
    query = select(keys.c.secret_hash).where(keys.c.account_id == account_id, keys.c.id == key_id)
    found = (await tx.execute(query)).scalar_one_or_none()
    return None if found is None else await find_credential(tx, secret_hash=bytes(found))


async def find_all(tx: ReadTx, *, secret_hashes: Sequence[bytes]) -> dict[bytes, CredentialRow]:
    """Return what secrets belong to, by their SHA-256; unknown ones are absent."""
    query = _CREDENTIALS.where(
        or_(keys.c.secret_hash.in_(secret_hashes), keys.c.previous_hash.in_(secret_hashes))
    )
    rows = list(await tx.execute(query))
    scopes = {row.id: scopes_of(row) for row in rows}
    wanted = {(row.account_id, scope) for row in rows for scope in scopes[row.id]}
    limits = await allowances.list_by_scope(tx, wanted=wanted)
    of_plans = await plans.list_limits(tx, plan_ids=list({row.plan_id for row in rows}))
    asked = frozenset(secret_hashes)
    found: dict[bytes, CredentialRow] = {}
    for row in rows:
        lines = of_plans[row.plan_id]
        found_limits = limits_of(limits, row.account_id, scopes[row.id], lines=lines)
        credential = _credential(row, found_limits)
        if row.secret_hash in asked:
            found[bytes(row.secret_hash)] = credential
        if row.previous_hash in asked:
            until_ms = min(row.previous_until_ms, row.expires_ms or row.previous_until_ms)
            found[bytes(row.previous_hash)] = replace(credential, expires_ms=until_ms)
    return found


def _credential(row: Row[*tuple[object, ...]], limits: tuple[Allowance, ...]) -> CredentialRow:
    return CredentialRow(
        key_id=row.id,
        account_id=row.account_id,
        user_id=row.user_id,
        project_id=row.project_id,
        kind=row.kind,
        name=row.name,
        is_enabled=bool(row.is_enabled),
        expires_ms=row.expires_ms,
        is_deleted=row.deleted_ms is not None,
        account_status=row.account_status,
        time_zone=row.time_zone,
        environment=row.environment,
        labels={**decode_labels(row.project_labels), **decode_labels(row.labels)},
        label_names=decode_list(row.label_names),
        models=decode_list(row.models),
        endpoints=decode_list(row.endpoints),
        networks=decode_list(row.networks),
        allowances=limits,
    )


def scopes_of(row: Row[*tuple[object, ...]]) -> tuple[str, ...]:
    """Return the scopes whose limits apply to a key's row (its `id`, `project_id`, `user_id`)."""
    scopes = ["wallet", "account", f"key:{row.id}"]
    if row.project_id is not None:
        scopes.append(f"project:{row.project_id}")
    if row.user_id is not None:
        scopes.append(f"user:{row.user_id}")
    return tuple(scopes)


def limits_of(
    limits: dict[tuple[int, str], list[Allowance]],
    account_id: int,
    scopes: tuple[str, ...],
    *,
    lines: Sequence[PlanLimit],
) -> tuple[Allowance, ...]:
    """Return the allowances of these scopes, with a plan's defaults, in the order of locking."""
    found = {row.ref: row for scope in scopes for row in limits.get((account_id, scope), ())}
    for line in lines:
        for scope in scopes if line.effective is not None else ():
            if scope.partition(":")[0] == line.scope_kind:
                ref = AllowanceRef(account_id, scope, line.resource, line.window, line.model)
                default = Allowance(ref, line.effective, 0, 0, 0, origin=PLAN, is_stored=False)
                found.setdefault(ref, default)
    # Sorted here and not by the database, whose collation may order scopes otherwise than Python.
    return tuple(found[ref] for ref in sorted(found))
