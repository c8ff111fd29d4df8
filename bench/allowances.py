"""`python -m bench.allowances`: whether very many allowances make admission slower.

Two databases on one PostgreSQL, one with few allowances and one with very many, are asked in turn:
so that both see the same machine at the same time, and only the ratio of their medians counts. As
many keys are in use on both, scattered over all that there are; with --active 5000 the second has
many more of them, so that nearly every page that is asked for is a cold one.

Exit status: 0; 1 where a median is more than 5 % slower, or nothing can be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import secrets
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from bench.bursar import POSTGRES_SETTINGS
from bench.lab import find_cores, pinned
from bursar.core import secrets as formats
from bursar.core.secrets import KeyKind
from bursar.store import migrations
from bursar.store.database import Database, WriteTx
from bursar.store.plane import leases, workers
from bursar.store.plane.leases import Want
from bursar.worker import admission
from bursar.worker.keyring import Credential, Keyring
from bursar.worker.purse import Amounts, Hold, Purse
from tests.postgres import PostgresServer, PostgresUnavailable

MOST_SLOWER = 0.05
KEYS_PER_ACCOUNT = 100
# Each key's own; its account adds the wallet.
LIMITS = (
    *(("cost", "lifetime"), ("cost", "month"), ("cost", "day"), ("requests", "day")),
    *(("requests", "hour"), ("requests", "minute"), ("tokens", "day"), ("tokens", "hour")),
    *(("tokens", "minute"), ("concurrency", "lifetime")),
)
NEEDS = Amounts(1_000, 1, 100, 1)
LIMIT = 10**15
# Admissions that are timed together: one alone is shorter than what a clock tells apart.
AT_ONCE = 200

_ACCOUNTS = """
    INSERT INTO accounts (id, name, status, time_zone, created_ms)
    SELECT n, 'bench', 'active', 'UTC', 0 FROM generate_series(1, $1::bigint) n
"""
_WALLETS = """
    INSERT INTO allowances (account_id, scope, resource, window_name, limit_amount)
    SELECT n, 'wallet', 'cost', 'lifetime', $2::bigint FROM generate_series(1, $1::bigint) n
"""
_KEYS = """
    INSERT INTO keys (account_id, id, kind, name, secret_hash, prefix, last6, created_ms)
    SELECT (n - 1) / $2::bigint + 1, n, 'inference', 'bench', sha256(n::text::bytea), 'bsk_',
           '000000', 0
      FROM generate_series(1, $1::bigint) n
"""
_LIMITS = """
    INSERT INTO allowances (account_id, scope, resource, window_name, limit_amount)
    SELECT (n - 1) / $2::bigint + 1, 'key:' || n, limits.resource, limits.window_name, $3::bigint
      FROM generate_series(1, $1::bigint) n,
           unnest($4::text[], $5::text[]) AS limits (resource, window_name)
"""
_KNOW = "UPDATE keys SET secret_hash = $3 WHERE account_id = $1 AND id = $2"


@dataclass
class Side:
    """One of the two databases, and what was measured on it in seconds."""

    name: str
    count: int
    database: Database
    purse: Purse
    keyring: Keyring
    worker_id: int
    secrets: list[bytes]
    times: dict[str, list[float]] = field(default_factory=dict)

    async def note(self, what: str, work: Callable[[], Awaitable[object]]) -> None:
        """Time one question."""
        began = time.perf_counter()
        await work()
        self.times.setdefault(what, []).append(time.perf_counter() - began)


def main() -> int:
    """Measure, print, and return the exit status."""
    options = _parse()
    try:
        with (
            PostgresServer(fsync=True, settings=POSTGRES_SETTINGS) as server,
            server.database() as few_url,
            server.database() as many_url,
            pinned(find_cores().target),
        ):
            sides = asyncio.run(_measure(few_url, many_url, options))
    except PostgresUnavailable as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        return 1
    return _report(*sides)


async def _measure(few_url: str, many_url: str, options: argparse.Namespace) -> tuple[Side, Side]:
    few = await _open("few", few_url, options.few, options.active)
    many = await _open("many", many_url, options.many, options.active)
    gc.collect()
    gc.freeze()
    for number in range(options.rounds):
        # Whoever is asked second finds the other's traces in the caches: they take turns.
        for side in (few, many) if number % 2 else (many, few):
            await _ask(side)
    await few.database.close()
    await many.database.close()
    return few, many


async def _ask(side: Side) -> None:
    """A key's first call, a refill of all that it needs, and calls from memory."""
    secret = random.choice(side.secrets)
    side.keyring.clear()
    await side.note("look-up of a key and its limits", partial(side.keyring.load, secret))
    credential = side.keyring.find(secret)
    assert credential is not None
    # One moment for both: a window may end between them.
    now_ms = _now_ms()
    await side.note("refill of its leases", partial(_refill, side, credential, now_ms))
    began = time.perf_counter()
    for _ in range(AT_ONCE):
        answer = admission.admit(credential.slots, NEEDS, now_ms)
        assert isinstance(answer, Hold)
        answer.release()
    elapsed = time.perf_counter() - began
    side.times.setdefault("admission from memory", []).append(elapsed / AT_ONCE)


async def _refill(side: Side, credential: Credential, now_ms: int) -> None:
    wants = [
        Want(slot.ref, slot.current(now_ms).start_ms, NEEDS[slot.index], 0, 0)
        for slot in credential.slots
    ]
    take = partial(leases.take, worker_id=side.worker_id, wants=wants)
    grants = await side.database.transact(take)
    for slot in credential.slots:
        granted = grants[slot.ref].granted
        assert granted
        slot.lease.available += granted


async def _open(name: str, url: str, count: int, active: int) -> Side:
    """A database with so many allowances, so many keys in use at most, and a worker on it."""
    database = Database(url, clock_ms=_now_ms, command_timeout_s=None)
    await migrations.upgrade(database)
    per_account = KEYS_PER_ACCOUNT * len(LIMITS) + 1
    account_count = -(-count // per_account)
    key_count = account_count * KEYS_PER_ACCOUNT
    print(f"{name}: {account_count * per_account} allowances", file=sys.stderr, flush=True)
    resources, windows = ([limit[part] for limit in LIMITS] for part in (0, 1))
    async with database.write() as tx:
        await tx.driver(_ACCOUNTS, (account_count,))
        await tx.driver(_WALLETS, (account_count, LIMIT))
        await tx.driver(_KEYS, (key_count, KEYS_PER_ACCOUNT))
        await tx.driver(_LIMITS, (key_count, KEYS_PER_ACCOUNT, LIMIT, resources, windows))
        known = await _give_secrets(tx, key_count, min(active, key_count))
        worker_id = await workers.insert_worker(tx, host="bench")
    async with database.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.exec_driver_sql("VACUUM ANALYZE")
    purse = Purse()
    keyring = Keyring(database, purse, clock_ms=_now_ms, most=active)
    return Side(name, account_count * per_account, database, purse, keyring, worker_id, known)


async def _give_secrets(tx: WriteTx, key_count: int, active: int) -> list[bytes]:
    known = []
    for key_id in random.sample(range(1, key_count + 1), active):
        secret = formats.mint(KeyKind.INFERENCE, random_bytes=secrets.token_bytes(32))
        account_id = (key_id - 1) // KEYS_PER_ACCOUNT + 1
        await tx.driver(_KNOW, (account_id, key_id, formats.digest(secret)))
        known.append(secret.encode())
    return known


def _report(few: Side, many: Side) -> int:
    print(f"| median | {few.count:,} allowances | {many.count:,} allowances | ratio |")
    print("|---|---:|---:|---:|")
    slower = []
    for what in few.times:
        one, other = statistics.median(few.times[what]), statistics.median(many.times[what])
        print(f"| {what} | {one * 1e6:.1f} µs | {other * 1e6:.1f} µs | {other / one:.3f} |")
        if other > one * (1 + MOST_SLOWER):
            slower.append(what)
    if slower:
        print(f"FAILED: more than {MOST_SLOWER:.0%} slower: {', '.join(slower)}")
    return 1 if slower else 0


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.allowances", description="Admission with very many allowances."
    )
    parser.add_argument("--few", type=int, default=1_000, help="allowances of the one database")
    parser.add_argument("--many", type=int, default=1_000_000, help="of the other")
    parser.add_argument("--active", type=int, default=100, help="keys in use, at most")
    parser.add_argument("--rounds", type=int, default=2_000, help="questions of each kind")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
