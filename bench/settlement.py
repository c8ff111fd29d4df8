"""Settled charges a second, one connection, against pgbench's TPC-B on the same PostgreSQL.

Drives the store's own settlement in whole batches; no worker, journal or server is involved. Each
charge moves two allowances, its account's wallet and its key's credit limit.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from typing import NamedTuple

from sqlalchemy.engine import make_url

from bench.figures import Settlement
from bench.lab import Lab, Unavailable, pinned
from bursar.core.allowances import AllowanceRef
from bursar.core.secrets import KeyKind
from bursar.store import keys, migrations
from bursar.store.database import Database, WriteTx
from bursar.store.limits import allowances
from bursar.store.plane import leases, settlement, workers
from bursar.store.plane.charges import Charge, Move
from bursar.store.tenants import accounts
from tests.postgres import PostgresServer, find_binaries

BATCH = 256
ACCOUNTS = 8
KEYS_PER_ACCOUNT = 8
COST_NANOS = 19_200
LEASE_NANOS = 10**15
PGBENCH_CLIENTS = 8
PGBENCH_SCALE = 10
PGBENCH_SETUP_S = 120.0


class Payer(NamedTuple):
    """A key that is charged, and the moves that its charges make."""

    account_id: int
    key_id: int
    moves: list[Move]


def measure(lab: Lab, postgres: PostgresServer, *, seconds: float) -> Settlement:
    """Measure both in turn, clients on the target's core; raise `Unavailable` without pgbench."""
    with postgres.database() as url, pinned(lab.cores.target):
        settled_per_s = asyncio.run(_settle_for(url, seconds))
    with postgres.database() as url, pinned(lab.cores.target):
        tpcb_per_s = _run_pgbench(url, seconds)
    return Settlement(BATCH, settled_per_s, tpcb_per_s)


async def _settle_for(url: str, seconds: float) -> float:
    database = Database(url, clock_ms=_now_ms)
    try:
        await migrations.upgrade(database)
        async with database.write() as tx:
            worker_id = await workers.insert_worker(tx, host="bench")
            payers = await _make_payers(tx, worker_id)
        settled = 0
        start = time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            charges = [_charge(settled + n + 1, payers) for n in range(BATCH)]
            async with database.write() as tx:
                await settlement.settle(tx, worker_id=worker_id, charges=charges)
            settled += BATCH
        return settled / elapsed
    finally:
        await database.close()


async def _make_payers(tx: WriteTx, worker_id: int) -> list[Payer]:
    payers = []
    for number in range(ACCOUNTS):
        account = await accounts.insert_account(tx, name=f"bench {number}", time_zone="UTC")
        wallet = allowances.wallet(account.id)
        await _lease(tx, worker_id, wallet)
        for _ in range(KEYS_PER_ACCOUNT):
            key_id = await _insert_key(tx, account.id)
            limit = allowances.credit_limit(account.id, key_id)
            await _lease(tx, worker_id, limit)
            payers.append(Payer(account.id, key_id, [_move(wallet), _move(limit)]))
    return payers


async def _insert_key(tx: WriteTx, account_id: int) -> int:
    return await keys.insert_key(
        tx,
        account_id=account_id,
        kind=KeyKind.INFERENCE.value,
        secret=keys.SecretRow(os.urandom(32), "bsk_", "000000"),
        values={"name": "bench"},
    )


async def _lease(tx: WriteTx, worker_id: int, ref: AllowanceRef) -> None:
    await allowances.insert_allowance(tx, ref=ref, limit=LEASE_NANOS)
    want = leases.Want(ref, 0, need=LEASE_NANOS, demand=LEASE_NANOS, target=LEASE_NANOS)
    await leases.take(tx, worker_id=worker_id, wants=[want])


def _move(ref: AllowanceRef) -> Move:
    return Move(ref.scope, ref.resource, ref.window, ref.model, 0, COST_NANOS, COST_NANOS)


def _charge(seq: int, payers: list[Payer]) -> Charge:
    payer = payers[seq % len(payers)]
    return Charge(
        seq=seq,
        event_id=f"bench-{seq}",
        at_ms=_now_ms(),
        account_id=payer.account_id,
        key_id=payer.key_id,
        user_id=None,
        project_id=None,
        product="",
        endpoint="/v1/chat/completions",
        model="gpt-4o-mini",
        upstream="bench",
        outcome="ok",
        is_stream=0,
        is_estimated=0,
        input_tokens=24,
        cached_input_tokens=0,
        output_tokens=26,
        reasoning_tokens=0,
        quantities=None,
        price_id=1,
        cost_nanos=COST_NANOS,
        excess_nanos=0,
        duration_ms=1,
        first_byte_ms=1,
        labels=None,
        moves=payer.moves,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _run_pgbench(url: str, seconds: float) -> float:
    program = find_binaries() / "pgbench"
    if not program.exists():
        raise Unavailable("pgbench is not installed; on Debian: apt-get install postgresql-contrib")
    parts = make_url(url)
    where = ["-h", "127.0.0.1", "-p", str(parts.port), "-U", parts.username or ""]
    where.append(parts.database or "")
    options = ["-c", str(PGBENCH_CLIENTS), "-j", "1", "-T", str(max(1, round(seconds))), "-n"]
    env = {**os.environ, "PGPASSWORD": parts.password or ""}
    for words in (["-i", "-q", "-s", str(PGBENCH_SCALE)], options):
        done = subprocess.run(
            [str(program), *words, *where],
            capture_output=True,
            text=True,
            timeout=seconds + PGBENCH_SETUP_S,
            env=env,
            check=False,
        )
        if done.returncode:
            raise Unavailable(f"pgbench failed: {done.stderr[-400:]}")
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    if found is None:
        raise Unavailable(f"pgbench said nothing of tps: {done.stdout[-400:]}")
    return float(found[1])
