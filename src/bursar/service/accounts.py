"""Accounts: opening, finding and stopping them, and the first ones of an installation.

Owns an account's states: active, suspended (its keys are refused, and may work again) and cancelled
(for good). Must not know keys' rules or money's: it calls `keys` and `ledger`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bursar.core import text, windows
from bursar.core.audit.events import AuditAction
from bursar.core.errors import Conflict, NotFound
from bursar.core.people import emails
from bursar.core.secrets import KeyKind
from bursar.core.tenants import terms
from bursar.service import keys, ledger
from bursar.service.audit import notes
from bursar.service.limits import plans
from bursar.store import changes
from bursar.store.database import ReadTx, WriteTx
from bursar.store.keys import OPERATOR_ACCOUNT_ID
from bursar.store.limits import allowances
from bursar.store.limits.plans import DEFAULT_PLAN_ID
from bursar.store.plane import zones
from bursar.store.tenants import accounts, users
from bursar.store.tenants.accounts import AccountRow, AccountValues

_PASSWORD_BYTES = 18


@dataclass(frozen=True, slots=True)
class Account:
    """A customer and what it has left, in nano-USD."""

    row: AccountRow
    balance_nanos: int


@dataclass(frozen=True, slots=True)
class AccountChange:
    """What to change of an account; None leaves alone.

    Of `features` those that are named are set, or taken away where the value is None.
    """

    name: str | None = None
    time_zone: str | None = None
    plan_id: int | None = None
    currency: str | None = None
    features: Mapping[str, object] | None = field(default=None, hash=False)


@dataclass(frozen=True, slots=True)
class Installation:
    """What `bootstrap_installation` made: its secrets are stored nowhere in the clear."""

    account_id: int
    email: str
    password: str = field(repr=False)
    operator_key: str = field(repr=False)
    provisioning_key: str = field(repr=False)
    inference_key: str = field(repr=False)


async def create(
    tx: WriteTx,
    *,
    name: str,
    time_zone: str,
    credit_nanos: int,
    actor: str,
    plan_id: int = DEFAULT_PLAN_ID,
    currency: str = terms.DEFAULT_CURRENCY,
    features: Mapping[str, object] | None = None,
) -> Account:
    """Open an account with a wallet and, unless `credit_nanos` is 0, a grant of starting credit.

    Raises Invalid for the name, the time zone, the credit, the currency or a feature, and NotFound
    for the plan.
    """
    clean_name = text.clean_name(name)
    agreed = terms.merge_features({}, features or {})
    windows.find_zone(time_zone)
    await plans.hold(tx, plan_id=plan_id)
    row = await accounts.insert_account(
        tx,
        name=clean_name,
        time_zone=time_zone,
        plan_id=plan_id,
        currency=terms.clean_currency(currency),
        features=agreed,
    )
    await allowances.insert_allowance(tx, ref=allowances.wallet(row.id), limit=0)
    tx.announce(changes.ACCOUNT, account_id=row.id)
    _note(tx, AuditAction.ACCOUNT_CREATE, None, row)
    if credit_nanos:
        await ledger.grant(
            tx, account_id=row.id, amount_nanos=credit_nanos, note="Starting credit", actor=actor
        )
    return Account(row, credit_nanos)


async def get(tx: ReadTx, *, account_id: int) -> Account:
    """Return an account; raises NotFound."""
    row = await accounts.find_account(tx, account_id=account_id)
    if row is None:
        raise NotFound("not_found", "There is nothing here, or it is not yours.")
    return Account(row, await ledger.get_balance(tx, account_id=account_id))


async def list_accounts(tx: ReadTx, *, after_id: int, limit: int) -> list[Account]:
    """Return accounts with ids above `after_id`, oldest first."""
    rows = await accounts.list_accounts(tx, after_id=after_id, limit=limit)
    wallets = await allowances.list_wallets(tx, account_ids=[row.id for row in rows])
    return [Account(row, ledger.balance_of(wallets[row.id])) for row in rows]


async def update(tx: WriteTx, *, account_id: int, change: AccountChange) -> Account:
    """Change an account and return it as it is then.

    Another plan is in force at once, for all its keys. Raises NotFound for the account or the plan,
    and Invalid for the name, the time zone, the currency or a feature.
    """
    before = await get(tx, account_id=account_id)
    if change.plan_id is not None:
        await plans.give(tx, account_id=account_id, plan_id=change.plan_id)
    values = AccountValues()
    if change.name is not None:
        values["name"] = text.clean_name(change.name)
    if change.time_zone is not None:
        windows.find_zone(change.time_zone)
        values["time_zone"] = change.time_zone
    if change.currency is not None:
        values["currency"] = terms.clean_currency(change.currency)
    if change.features is not None:
        agreed = await accounts.find_features_for_update(tx, account_id=account_id)
        values["features"] = terms.merge_features(agreed, change.features)
    if values:
        await accounts.update_account(tx, account_id=account_id, values=values)
        tx.announce(changes.ACCOUNT, account_id=account_id)
    if change.time_zone is not None:
        await zones.move_windows(
            tx, account_id=account_id, former=before.row.time_zone, zone=change.time_zone
        )
    after = await get(tx, account_id=account_id)
    _note(tx, AuditAction.ACCOUNT_UPDATE, before.row, after.row)
    return after


async def suspend(tx: WriteTx, *, account_id: int) -> Account:
    """Stop an account's keys until it is resumed; raises NotFound and Conflict (cancelled)."""
    action = AuditAction.ACCOUNT_SUSPEND
    return await _set_status(tx, account_id=account_id, status="suspended", action=action)


async def resume(tx: WriteTx, *, account_id: int) -> Account:
    """Let a suspended account's keys work again; raises NotFound and Conflict (cancelled)."""
    action = AuditAction.ACCOUNT_RESUME
    return await _set_status(tx, account_id=account_id, status="active", action=action)


async def cancel(tx: WriteTx, *, account_id: int) -> Account:
    """Stop an account for good; raises NotFound and Conflict (cancelled before)."""
    action = AuditAction.ACCOUNT_CANCEL
    return await _set_status(tx, account_id=account_id, status="cancelled", action=action)


async def bootstrap_installation(
    tx: WriteTx,
    *,
    email: str,
    password: str | None,
    credit_nanos: int,
    random_bytes: Callable[[int], bytes],
    hash_password: Callable[[str], str],
) -> Installation:
    """Make what an empty installation needs: an operator key, and a first account to call with.

    The account has an owner, a provisioning key that acts for them, an inference key and the
    starting credit. Without a password, one is made. Raises Conflict (`already_initialised`) when
    the database has an account already, whoever made it.
    """
    email = emails.clean_email(email)
    password = password or random_bytes(_PASSWORD_BYTES).hex()
    # First of all an id: its row is locked until commit, so of two that run at once one waits here
    # and then sees that it is not the first.
    account = await create(
        tx, name="Default", time_zone="UTC", credit_nanos=credit_nanos, actor="installation"
    )
    account_id = account.row.id
    if account_id != 1:
        raise Conflict("already_initialised", "This installation has been initialised before.")
    user_id = await users.insert_user(
        tx, email=email, name="Administrator", password_hash=hash_password(password)
    )
    await users.insert_member(tx, account_id=account_id, user_id=user_id, role="owner")
    notes.note(
        tx,
        account_id=account_id,
        action=AuditAction.USER_JOIN,
        target=f"user:{user_id}",
        after={"email": email, "role": "owner"},
    )

    async def make(kind: KeyKind, of_account: int, of_user: int | None) -> str:
        new = await keys.create(
            tx,
            account_id=of_account,
            user_id=of_user,
            name=f"First {kind} key",
            random_bytes=random_bytes,
            kind=kind,
        )
        return new.secret

    return Installation(
        account_id=account_id,
        email=email,
        password=password,
        operator_key=await make(KeyKind.OPERATOR, OPERATOR_ACCOUNT_ID, None),
        provisioning_key=await make(KeyKind.PROVISIONING, account_id, user_id),
        inference_key=await make(KeyKind.INFERENCE, account_id, user_id),
    )


async def _set_status(tx: WriteTx, *, account_id: int, status: str, action: AuditAction) -> Account:
    # Or what one has cancelled for good, another could resume who had read it before.
    await accounts.lock_account(tx, account_id=account_id)
    found = await get(tx, account_id=account_id)
    if found.row.status == "cancelled":
        raise Conflict("account_cancelled", "The account is cancelled.")
    await accounts.set_status(tx, account_id=account_id, status=status)
    tx.announce(changes.ACCOUNT, account_id=account_id)
    after = await get(tx, account_id=account_id)
    _note(tx, action, found.row, after.row)
    return after


def _note(tx: WriteTx, action: AuditAction, before: AccountRow | None, after: AccountRow) -> None:
    notes.note(
        tx,
        account_id=after.id,
        action=action,
        target=f"account:{after.id}",
        before=None if before is None else notes.of_account(before),
        after=notes.of_account(after),
    )
