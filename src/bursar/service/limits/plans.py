"""Plans: what accounts get where they have set nothing, and the most that they may set.

Owns the rules of plans and of giving one to an account. A change reaches every account at once, in
its own transaction: there is no moment at which the plan says one thing and an allowance another.
Must not know who is an operator.
"""

from dataclasses import dataclass, replace

from bursar.core import text
from bursar.core.allowances import Resource
from bursar.core.audit.events import OPERATOR_LOG, AuditAction, Values
from bursar.core.errors import Conflict, Invalid, NotFound
from bursar.core.windows import Window
from bursar.service.audit import notes
from bursar.service.limits import rules
from bursar.store import changes
from bursar.store.database import ReadTx, WriteTx
from bursar.store.limits import plans
from bursar.store.limits.plans import DEFAULT_PLAN_ID, PlanLimit, PlanRow

# An account's own limits and these are asked for at each of its calls.
MOST_LIMITS = 32


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan and its limits."""

    row: PlanRow
    limits: list[PlanLimit]


async def create(tx: WriteTx, *, name: str) -> Plan:
    """Make a plan without limits; raises Invalid and Conflict (`name_taken`) for the name."""
    clean_name = await _free_name(tx, name=name, but=0)
    row = await plans.insert_plan(tx, name=clean_name)
    _note(tx, AuditAction.PLAN_CREATE, f"plan:{row.id}", after={"name": row.name})
    return Plan(row, [])


async def get(tx: ReadTx, *, plan_id: int) -> Plan:
    """Return a plan; raises NotFound."""
    row = await plans.find_plan(tx, plan_id=plan_id)
    if row is None:
        raise _not_found()
    return Plan(row, (await plans.list_limits(tx, plan_ids=[plan_id]))[plan_id])


async def list_plans(tx: ReadTx, *, after_id: int, limit: int) -> list[Plan]:
    """Return plans with ids above `after_id`, oldest first."""
    rows = await plans.list_plans(tx, after_id=after_id, limit=limit)
    limits = await plans.list_limits(tx, plan_ids=[row.id for row in rows])
    return [Plan(row, limits[row.id]) for row in rows]


async def rename(tx: WriteTx, *, plan_id: int, name: str) -> Plan:
    """Give a plan another name; raises NotFound, and Invalid or Conflict for the name."""
    await _lock(tx, plan_id=plan_id)
    before = await get(tx, plan_id=plan_id)
    clean_name = await _free_name(tx, name=name, but=plan_id)
    await plans.rename_plan(tx, plan_id=plan_id, name=clean_name)
    was, becomes = {"name": before.row.name}, {"name": clean_name}
    _note(tx, AuditAction.PLAN_UPDATE, f"plan:{plan_id}", before=was, after=becomes)
    return await get(tx, plan_id=plan_id)


async def delete(tx: WriteTx, *, plan_id: int) -> None:
    """Delete a plan; raises NotFound, and Conflict (`plan_in_use`) while accounts have it.

    The one that accounts have who were given no other cannot be deleted.
    """
    await _lock(tx, plan_id=plan_id)
    before = await get(tx, plan_id=plan_id)
    if plan_id == DEFAULT_PLAN_ID:
        raise Conflict("plan_in_use", "New accounts get this plan.")
    if await plans.is_in_use(tx, plan_id=plan_id):
        raise Conflict("plan_in_use", "Accounts have this plan; give them another one first.")
    await plans.delete_plan(tx, plan_id=plan_id)
    _note(tx, AuditAction.PLAN_DELETE, f"plan:{plan_id}", before={"name": before.row.name})


async def set_limit(
    tx: WriteTx,
    *,
    plan_id: int,
    kind: str,
    resource: Resource,
    window: Window,
    model: str,
    default: int | None,
    most: int | None,
) -> Plan:
    """Set what every scope of a kind gets, and the most that it may set; None is no such figure.

    All accounts of the plan follow at once. Raises NotFound for the plan, Invalid for the amounts,
    and Conflict (`too_many_limits`).
    """
    if default is None and most is None:
        message = "Give a default, a bound or both. To lift them, delete the limit."
        raise Invalid("missing_field", message, param="default_limit")
    rules.check_amount(default, resource=resource, param="default_limit")
    rules.check_amount(most, resource=resource, param="most_limit")
    if default is not None and most is not None and default > most:
        message = "The default is above the bound."
        raise Invalid("limit_above_bound", message, param="default_limit")
    line = PlanLimit(kind, resource.value, window.value, model, default, most)
    await _lock(tx, plan_id=plan_id)
    found = (await plans.list_limits(tx, plan_ids=[plan_id]))[plan_id]
    others = [each for each in found if each.scope_kind == kind and not _is_same(each, line)]
    if len(others) >= MOST_LIMITS:
        message = f"A plan may have at most {MOST_LIMITS} limits for a kind of scope."
        raise Conflict("too_many_limits", message)
    await plans.lock_limits(tx, plan_ids=[plan_id])
    await plans.put_limit(tx, plan_id=plan_id, line=line)
    await plans.align_plan(tx, plan_id=plan_id, line=line, is_gone=False)
    tx.announce(changes.PLAN, account_id=0, subject=str(plan_id))
    former = next((each for each in found if _is_same(each, line)), None)
    was, becomes = notes.of_plan_limit(former), notes.of_plan_limit(line)
    target = notes.plan_limit_target(plan_id, line)
    _note(tx, AuditAction.PLAN_SET_LIMIT, target, before=was, after=becomes)
    return await get(tx, plan_id=plan_id)


async def remove_limit(
    tx: WriteTx, *, plan_id: int, kind: str, resource: Resource, window: Window, model: str
) -> None:
    """Lift a limit of a plan for all its accounts; what they have set of their own stays.

    Raises NotFound for the plan or the limit.
    """
    await _lock(tx, plan_id=plan_id)
    await plans.lock_limits(tx, plan_ids=[plan_id])
    line = await plans.find_limit(
        tx,
        plan_id=plan_id,
        scope_kind=kind,
        resource=resource.value,
        window=window.value,
        model=model,
    )
    if line is None:
        raise _not_found()
    await plans.delete_limit(tx, plan_id=plan_id, line=line)
    await plans.align_plan(tx, plan_id=plan_id, line=line, is_gone=True)
    tx.announce(changes.PLAN, account_id=0, subject=str(plan_id))
    target = notes.plan_limit_target(plan_id, line)
    _note(tx, AuditAction.PLAN_REMOVE_LIMIT, target, before=notes.of_plan_limit(line))


async def hold(tx: WriteTx, *, plan_id: int) -> None:
    """Keep a plan from being deleted until commit; raises NotFound when there is none."""
    # Nobody can delete the one that accounts get by themselves, so none of them waits for another.
    if plan_id != DEFAULT_PLAN_ID and await plans.lock_plan(tx, plan_id=plan_id) is None:
        raise _no_plan()


async def give(tx: WriteTx, *, account_id: int, plan_id: int) -> None:
    """Give an existing account another plan, and its allowances what that says.

    Raises NotFound for the plan.
    """
    former = await plans.lock_account(tx, account_id=account_id)
    if former is None or former == plan_id:
        return
    # Both, in the order of their ids: nobody may change or delete them meanwhile.
    for each in sorted((former, plan_id)):
        if await plans.lock_plan(tx, plan_id=each) is None:
            raise _no_plan()
    await plans.lock_limits(tx, plan_ids=[former, plan_id])
    limits = await plans.list_limits(tx, plan_ids=[former, plan_id])
    gone = [line for line in limits[former] if not _has(limits[plan_id], line)]
    await plans.set_account_plan(tx, account_id=account_id, plan_id=plan_id)
    for line in gone:
        await plans.align(tx, account_ids=[account_id], line=line, is_gone=True)
    for line in limits[plan_id]:
        await plans.align(tx, account_ids=[account_id], line=line, is_gone=False)
    tx.announce(changes.ACCOUNT, account_id=account_id)
    tx.announce(changes.ALLOWANCE, account_id=account_id)


def _note(
    tx: WriteTx,
    action: AuditAction,
    target: str,
    *,
    before: Values | None = None,
    after: Values | None = None,
) -> None:
    account_id = OPERATOR_LOG
    notes.note(tx, account_id=account_id, action=action, target=target, before=before, after=after)


def _has(lines: list[PlanLimit], line: PlanLimit) -> bool:
    return any(_is_same(each, line) for each in lines)


def _is_same(one: PlanLimit, other: PlanLimit) -> bool:
    """Whether both are about the same allowances."""
    return replace(one, default=None, most=None) == replace(other, default=None, most=None)


async def _lock(tx: WriteTx, *, plan_id: int) -> None:
    if await plans.lock_plan(tx, plan_id=plan_id) is None:
        raise _not_found()


async def _free_name(tx: ReadTx, *, name: str, but: int) -> str:
    clean_name = text.clean_name(name)
    taken = await plans.find_plan_id(tx, name=clean_name)
    if taken not in {None, but}:
        raise Conflict("name_taken", "Another plan has this name.", param="name")
    return clean_name


def _no_plan() -> NotFound:
    return NotFound("not_found", "There is no such plan.", param="plan_id")


def _not_found() -> NotFound:
    return NotFound("not_found", "There is nothing here, or it is not yours.")
