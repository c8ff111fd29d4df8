"""What an installation's books say at one moment, to be compared with another.

Owns which figures a call could have moved. Two that are equal mean that nothing was sold, charged
or held in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from bursar.core.money import parse_usd
from bursar.store.limits import allowances
from bursar.store.tables import usage_events
from tests.serving import House, until


@dataclass(frozen=True)
class Books:
    """The balance as the customer reads it, what the rows add up to, and what was sold upstream."""

    balance_nanos: int
    wallet_used_nanos: int
    rows: int
    charged_nanos: int
    overrun_nanos: int
    calls_upstream: int
    holds_open: int


async def read(house: House) -> Books:
    """The books, once every charge made so far is settled."""
    answer = await house.control("GET", "/v1/account/balance")
    rows = await usage_rows(house)
    async with house.server.database.read() as tx:
        wallet = await allowances.get_wallet(tx, account_id=house.account_id)
    return Books(
        balance_nanos=parse_usd(answer.json()["balance"]),
        wallet_used_nanos=wallet.used,
        rows=len(rows),
        charged_nanos=sum(row.cost_nanos for row in rows),
        overrun_nanos=sum(row.overrun_nanos for row in rows),
        calls_upstream=len(house.upstream.sales),
        holds_open=house.server.metrics.holds_open,
    )


async def usage_rows(house: House) -> list[Any]:
    """Every usage row, oldest first, once every charge made so far is settled."""
    await house.server.database.catch_up()
    async with house.server.database.read() as tx:
        return list(await tx.execute(select(usage_events).order_by(usage_events.c.seq)))


async def at_rest(house: House, *, within_s: float = 20.0) -> Books:
    """The books once no request is in flight any more; fails if that takes longer."""
    await until(lambda: not house.server.metrics.holds_open, within_s=within_s)
    return await read(house)


def require_consistent(books: Books, *, credit: str) -> None:
    """Fail unless balance, wallet and rows tell the same story."""
    assert books.holds_open == 0
    assert books.charged_nanos == books.wallet_used_nanos
    assert books.balance_nanos == parse_usd(credit) - books.charged_nanos
