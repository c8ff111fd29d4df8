"""Limits: what is allowed, used and left in the present window, and setting it.

Owns the step from a stored row to the figures of now: a window that has ended is shown as a new one
with nothing used, as the next lease will find it. Owns whose limit counts: what is set, else what
the account's plan gives, and never more than the plan's bound. Must not know how a limit holds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bursar.core import allowances as steps
from bursar.core import permissions, windows
from bursar.core.allowances import OWN, PLAN, Allowance, AllowanceRef, Resource
from bursar.core.audit.events import AuditAction
from bursar.core.errors import Conflict, Invalid, InvariantViolated, NotFound
from bursar.core.secrets import KeyKind
from bursar.core.windows import Window
from bursar.service import grants
from bursar.service.access import Principal
from bursar.service.audit import notes
from bursar.service.limits import rules
from bursar.service.limits.rules import Scope
from bursar.store import changes
from bursar.store.database import ReadTx, WriteTx
from bursar.store.limits import allowances, plans, scopes
from bursar.store.limits.plans import PlanLimit
from bursar.store.tenants import accounts

# Each limit of a scope is asked for at each of its calls.
MOST_LIMITS = 32
_RESETS = 3
_CREDIT_LIMIT = (Resource.COST, Window.LIFETIME, "")


@dataclass(frozen=True, slots=True)
class Limit:
    """An allowance in its present window; `resets_at_ms` None is never.

    `next_resets_ms` are the coming resets, the next one included.
    """

    allowance: Allowance
    resets_at_ms: int | None
    next_resets_ms: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Filter:
    """Which limits: None is any; `model` those that count calls of this model."""

    scope: Scope | None = None
    resource: Resource | None = None
    model: str | None = None


async def list_limits(
    tx: ReadTx, *, account_id: int, now_ms: int, where: Filter | None = None
) -> list[Limit]:
    """Return limits of the account but those of deleted keys and projects, sorted by name.

    Those that follow from its plan and that nobody has used are among them for the account itself,
    and for the scope that is asked for. Raises NotFound for a scope that is not there.
    """
    where = where or Filter()
    kind = rules.ACCOUNT
    name = None
    if where.scope is not None:
        await require_scope(tx, account_id=account_id, scope=where.scope)
        kind, name = where.scope.kind, where.scope.name
    rows = await allowances.list_limits(tx, account_id=account_id, scope=name)
    rows = [row for row in rows if _is_shown(row)]
    lines = await plans.list_account_limits(tx, account_id=account_id)
    scope = name or rules.ACCOUNT
    rows += _defaults(lines, kind=kind, account_id=account_id, scope=scope, rows=rows)
    wanted = [row for row in rows if _fits(row.ref, where)]
    wanted.sort(key=lambda row: row.ref.name)
    return await _at(tx, wanted, account_id=account_id, now_ms=now_ms)


async def list_key_limits(tx: ReadTx, *, account_id: int, key_id: int, now_ms: int) -> list[Limit]:
    """Return the limits of one inference key, sorted by name; raises NotFound."""
    scope = Scope("key", key_id)
    return await list_limits(tx, account_id=account_id, now_ms=now_ms, where=Filter(scope=scope))


async def list_limits_of_keys(
    tx: ReadTx, *, account_id: int, key_ids: Sequence[int], now_ms: int
) -> dict[int, list[Limit]]:
    """Return the limits of inference keys of one account, by key, each key's sorted by name."""
    names = {f"key:{key_id}": key_id for key_id in key_ids}
    stored = await allowances.list_of_scopes(tx, account_id=account_id, scopes=list(names))
    lines = await plans.list_account_limits(tx, account_id=account_id)
    wanted = []
    for name, found in stored.items():
        rows = [row for row in found if _is_shown(row)]
        rows += _defaults(lines, kind="key", account_id=account_id, scope=name, rows=rows)
        wanted += sorted(rows, key=lambda row: row.ref.name)
    of_keys: dict[int, list[Limit]] = {key_id: [] for key_id in key_ids}
    for limit in await _at(tx, wanted, account_id=account_id, now_ms=now_ms):
        of_keys[names[limit.allowance.ref.scope]].append(limit)
    return of_keys


async def set_limit(
    tx: WriteTx,
    *,
    account_id: int,
    scope: Scope,
    resource: Resource,
    window: Window,
    model: str,
    limit: int | None,
    soft: int | None,
    by: Principal | None = None,
) -> Limit:
    """Set one limit of the account's own, hard (`limit`), soft or both, and return it.

    What is used and leased stays. Without a hard limit it is the plan's bound, if there is one.
    Raises Invalid for what no limit can be, and above the bound (`limit_above_bound`), NotFound for
    the scope, Forbidden (`confined_key`, `exceeds_own_rights`) where it is not for `by` to say, and
    Conflict (`too_many_limits`).
    """
    if limit is None and soft is None:
        message = "Give a limit, a soft limit or both. To lift one, delete it."
        raise Invalid("missing_field", message, param="limit")
    rules.check_amount(limit, resource=resource, param="limit")
    rules.check_soft(soft, limit=limit, resource=resource, window=window)
    ref = AllowanceRef(account_id, scope.name, resource.value, window.value, model)
    line = await _hold_line(tx, ref=ref, kind=scope.kind)
    await require_scope(tx, account_id=account_id, scope=scope)
    await grants.require_limits_of(tx, account_id=account_id, by=by, scope=scope.name)
    found = await allowances.find_limit(tx, ref=ref)
    if found is None or not allowances.is_set(found) or found.origin == PLAN:
        await _require_room(tx, ref=ref)
    await _put(tx, ref=ref, limit=_bounded(limit, line), soft=soft, origin=OWN)
    made = await _get(tx, ref=ref)
    notes.note(
        tx,
        account_id=account_id,
        action=AuditAction.LIMIT_SET,
        target=f"limit:{ref.name}",
        before=notes.of_limit(found),
        after=notes.of_limit(made.allowance),
    )
    return made


async def remove_limit(
    tx: WriteTx,
    *,
    account_id: int,
    scope: Scope,
    resource: Resource,
    window: Window,
    model: str,
    by: Principal | None = None,
) -> None:
    """Lift a limit of the account's own: what its plan gives counts again, if it gives any.

    Raises NotFound where nobody has set one, and Forbidden as of `set_limit`.
    """
    ref = AllowanceRef(account_id, scope.name, resource.value, window.value, model)
    line = await _hold_line(tx, ref=ref, kind=scope.kind)
    await require_scope(tx, account_id=account_id, scope=scope)
    await grants.require_limits_of(tx, account_id=account_id, by=by, scope=scope.name)
    found = await allowances.find_limit(tx, ref=ref)
    if found is None or not allowances.is_set(found) or found.origin == PLAN:
        raise NotFound("not_found", "There is no such limit of your own.")
    await _reset(tx, ref=ref, line=line)
    notes.note(
        tx,
        account_id=account_id,
        action=AuditAction.LIMIT_REMOVE,
        target=f"limit:{ref.name}",
        before=notes.of_limit(found),
    )


async def set_credit_limit(
    tx: WriteTx, *, account_id: int, key_id: int, limit_nanos: int | None
) -> None:
    """Set what a key may spend in its lifetime, or lift it (None); makes its allowance.

    What it warns at stays. Raises Invalid above the plan's bound (`limit_above_bound`).
    """
    ref = allowances.credit_limit(account_id, key_id)
    line = await _hold_line(tx, ref=ref, kind="key")
    if limit_nanos is None:
        await _reset(tx, ref=ref, line=line)
        return
    limit = _bounded(limit_nanos, line, param="credit_limit")
    found = await allowances.find_limit(tx, ref=ref)
    soft = None if found is None or found.soft is None else min(found.soft, limit_nanos)
    await _put(tx, ref=ref, limit=limit, soft=soft or None, origin=OWN)


async def require_scope(tx: ReadTx, *, account_id: int, scope: Scope) -> None:
    """Raise NotFound unless what the scope names is there, and the account's."""
    match scope.kind:
        case "key":
            kind = KeyKind.INFERENCE
            found = await scopes.is_key(tx, account_id=account_id, key_id=scope.id, kind=kind)
        case "project":
            found = await scopes.is_project(tx, account_id=account_id, project_id=scope.id)
        case "user":
            found = await scopes.is_member(tx, account_id=account_id, user_id=scope.id)
        case _:
            found = True
    if not found:
        message = "There is nothing here, or it is not yours."
        raise NotFound("not_found", message, param="scope")


def _defaults(
    lines: Sequence[PlanLimit],
    *,
    kind: str,
    account_id: int,
    scope: str,
    rows: Sequence[Allowance],
) -> list[Allowance]:
    """What the plan gives a scope of this kind where it has no row."""
    known = {row.ref for row in rows}
    refs = [(_ref(account_id, scope, line), line) for line in lines if line.scope_kind == kind]
    return [
        Allowance(ref, line.effective, 0, 0, 0, origin=PLAN, is_stored=False)
        for ref, line in refs
        if ref not in known
    ]


def _is_shown(row: Allowance) -> bool:
    return allowances.is_set(row) or _is_credit_limit(row.ref)


def _fits(ref: AllowanceRef, where: Filter) -> bool:
    if where.resource is not None and where.resource != ref.resource:
        return False
    return where.model is None or not ref.model or permissions.matches(ref.model, where.model)


def _is_credit_limit(ref: AllowanceRef) -> bool:
    is_key = ref.scope.startswith("key:")
    return is_key and (ref.resource, ref.window, ref.model) == _CREDIT_LIMIT


def _ref(account_id: int, scope: str, line: PlanLimit) -> AllowanceRef:
    return AllowanceRef(account_id, scope, line.resource, line.window, line.model)


def _bounded(limit: int | None, line: PlanLimit | None, *, param: str = "limit") -> int | None:
    """The limit as the plan allows it: no limit at all is as much as one may have."""
    if line is None or line.most is None:
        return limit
    if limit is not None and limit > line.most:
        message = "The operator of this service does not allow that much."
        raise Invalid("limit_above_bound", message, param=param)
    return line.most if limit is None else limit


async def _hold_line(tx: WriteTx, *, ref: AllowanceRef, kind: str) -> PlanLimit | None:
    """What the account's plan says of this allowance; it stays so until commit."""
    plan_id = await plans.hold_plan(tx, account_id=ref.account_id)
    if plan_id is None:
        return None
    return await plans.find_limit(
        tx,
        plan_id=plan_id,
        scope_kind=kind,
        resource=ref.resource,
        window=ref.window,
        model=ref.model,
    )


async def _require_room(tx: ReadTx, *, ref: AllowanceRef) -> None:
    count = await allowances.count_own_limits(tx, account_id=ref.account_id, scope=ref.scope)
    if count >= MOST_LIMITS:
        message = f"A scope may have at most {MOST_LIMITS} limits."
        raise Conflict("too_many_limits", message)


async def _reset(tx: WriteTx, *, ref: AllowanceRef, line: PlanLimit | None) -> None:
    # The row stays where the plan gives nothing either: what is in flight has its home there.
    limit = None if line is None else line.effective
    await _put(tx, ref=ref, limit=limit, soft=None, origin=OWN if line is None else PLAN)


async def _put(
    tx: WriteTx, *, ref: AllowanceRef, limit: int | None, soft: int | None, origin: str
) -> None:
    zone = await _time_zone(tx, account_id=ref.account_id)
    bounds = windows.bounds(Window(ref.window), now_ms=tx.now_ms, zone=zone)
    await allowances.put_limit(
        tx, ref=ref, limit=limit, soft=soft, origin=origin, window_start_ms=bounds.start_ms
    )
    tx.announce(changes.ALLOWANCE, account_id=ref.account_id, subject=ref.name)


async def _get(tx: WriteTx, *, ref: AllowanceRef) -> Limit:
    row = await allowances.find_limit(tx, ref=ref)
    if row is None:
        raise InvariantViolated("allowance_unknown", f"Allowance {ref.name} is not there.")
    return (await _at(tx, [row], account_id=ref.account_id, now_ms=tx.now_ms))[0]


async def _at(
    tx: ReadTx, rows: Iterable[Allowance], *, account_id: int, now_ms: int
) -> list[Limit]:
    zone = await _time_zone(tx, account_id=account_id)
    present: dict[str, tuple[int, tuple[int, ...]]] = {}
    limits = []
    for row in rows:
        window = row.ref.window
        if window not in present:
            present[window] = _window(Window(window), now_ms=now_ms, zone=zone)
        start_ms, resets_ms = present[window]
        limits.append(
            Limit(
                allowance=steps.roll(row, start_ms),
                resets_at_ms=resets_ms[0] if resets_ms else None,
                next_resets_ms=resets_ms,
            )
        )
    return limits


def _window(window: Window, *, now_ms: int, zone: str) -> tuple[int, tuple[int, ...]]:
    start_ms = windows.bounds(window, now_ms=now_ms, zone=zone).start_ms
    resets: Sequence[int] = windows.preview(window, now_ms=now_ms, zone=zone, count=_RESETS)
    return start_ms, tuple(resets)


async def _time_zone(tx: ReadTx, *, account_id: int) -> str:
    account = await accounts.find_account(tx, account_id=account_id)
    if account is None:
        raise InvariantViolated("account_missing", f"Account {account_id} has no row.")
    return account.time_zone
