"""Small true things for tests: charges, moves, allowances."""

from __future__ import annotations

from sqlalchemy import insert

from bursar.core.allowances import AllowanceRef
from bursar.store.database import WriteTx
from bursar.store.plane.charges import Charge, Move
from bursar.store.tables import accounts, allowances

AT_MS = 1_795_264_496_789
ACCOUNT_ID = 7
KEY_ID = 3
WALLET = AllowanceRef(ACCOUNT_ID, "wallet", "cost", "lifetime")
KEY_LIMIT = AllowanceRef(ACCOUNT_ID, f"key:{KEY_ID}", "cost", "lifetime")


async def open_account(
    tx: WriteTx, *, wallet_nanos: int = 1_000, key_limit_nanos: int | None = None
) -> None:
    """An account with a wallet and one key's allowance; no key row."""
    await tx.execute(
        insert(accounts).values(
            id=ACCOUNT_ID, name="Acme", status="active", time_zone="UTC", created_ms=AT_MS
        )
    )
    for ref, limit in ((WALLET, wallet_nanos), (KEY_LIMIT, key_limit_nanos)):
        await tx.execute(
            insert(allowances).values(
                account_id=ref.account_id,
                scope=ref.scope,
                resource=ref.resource,
                window_name=ref.window,
                model=ref.model,
                limit_amount=limit,
            )
        )


def move(ref: AllowanceRef, *, from_lease: int, used: int, start_ms: int = 0) -> Move:
    """What a charge does to one allowance."""
    return Move(ref.scope, ref.resource, ref.window, ref.model, start_ms, from_lease, used)


def charge(
    seq: int,
    cost_nanos: int,
    *,
    moves: list[Move] | None = None,
    excess_nanos: int = 0,
    at_ms: int = AT_MS,
    event_id: str | None = None,
) -> Charge:
    """A charge of one key; by default covered by a lease on the wallet, with an unlimited key."""
    if moves is None:
        moves = [
            move(WALLET, from_lease=cost_nanos, used=cost_nanos),
            move(KEY_LIMIT, from_lease=0, used=cost_nanos),
        ]
    return Charge(
        seq=seq,
        event_id=event_id or f"req_{seq}",
        at_ms=at_ms,
        account_id=ACCOUNT_ID,
        key_id=KEY_ID,
        user_id=None,
        project_id=None,
        product="gateway",
        endpoint="chat.completions",
        model="gpt-4o-mini",
        upstream="local",
        outcome="ok",
        is_stream=0,
        is_estimated=0,
        input_tokens=10,
        cached_input_tokens=2,
        output_tokens=5,
        reasoning_tokens=1,
        quantities=None,
        price_id=1,
        cost_nanos=cost_nanos,
        excess_nanos=excess_nanos,
        duration_ms=12,
        first_byte_ms=8,
        labels=None,
        moves=moves,
    )
