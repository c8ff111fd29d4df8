"""What Bursar's memory is: idle, after load, and when very many keys are in use.

Seeds keys straight into the store's tables, because making them one by one over HTTP would take
longer than everything else here. Each key has a credit limit, and each is called with once.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import insert

from bench import processes
from bench.bursar import Installation, install, serve
from bench.figures import MemoryReading
from bench.lab import Lab, Unavailable
from bench.loads import Shape, run_load, wait_until_quiet
from bench.targets import Target
from bursar.core.secrets import KeyKind, digest, display, mint
from bursar.store import counters, credentials, tables
from bursar.store.database import Database, WriteTx, sqlite_url
from bursar.store.limits import allowances
from tests.postgres import PostgresServer

SLICE = 5_000
CONNECTIONS = 64
LOAD_S = 120.0
LIMIT_NANOS = 10 * 10**9


def read(target: Target, moment: str, *, used_keys: int = 0) -> MemoryReading:
    """Read a target's memory now."""
    return MemoryReading(target.name, moment, used_keys, processes.memory(target.roots))


def measure_with_keys(
    lab: Lab,
    name: str,
    *,
    count: int,
    postgres: PostgresServer | None,
    tell: Callable[[str], None],
) -> MemoryReading:
    """Start a Bursar of its own, call it with `count` different keys, and read its memory."""
    with install(lab, name, suffix="-keys", postgres=postgres) as installation:
        tell(f"memory: seeding {count} keys")
        made = asyncio.run(_seed(installation, count))
        keys_file = lab.workdir / "keys"
        keys_file.write_text("".join(f"{secret}\n" for secret in made))
        with serve(lab, installation, key=made[0]) as target:
            tell(f"memory: calling with {count} keys")
            _call_with_each(lab, target, keys_file, count)
            wait_until_quiet(target)
            return read(target, f"with {count} active keys", used_keys=count)


def _call_with_each(lab: Lab, target: Target, keys_file: Path, count: int) -> None:
    options = ["-c", str(CONNECTIONS), "-k", str(keys_file), "-n", str(count)]
    figures = run_load(lab, target, Shape.JSON, seconds=LOAD_S, options=options)
    if figures["errors"] or figures["answered"] < count:
        raise Unavailable(f"only {figures['counted']:.0f} of {count} keys were answered: {figures}")


async def _seed(installation: Installation, count: int) -> list[str]:
    url = installation.database_url or sqlite_url(installation.data_dir / "bursar.db")
    database = Database(url, clock_ms=lambda: time.time_ns() // 1_000_000)
    made: list[str] = []
    try:
        async with database.read() as tx:
            owner = await credentials.find_credential(
                tx, secret_hash=digest(installation.inference_key)
            )
        if owner is None:
            raise Unavailable("the installation's inference key is not in its database")
        for start in range(0, count, SLICE):
            async with database.write() as tx:
                size = min(SLICE, count - start)
                made += await _insert_keys(tx, owner.account_id, owner.user_id, size)
    finally:
        await database.close()
    return made


async def _insert_keys(tx: WriteTx, account_id: int, user_id: int | None, count: int) -> list[str]:
    last = await counters.advance(tx, name="keys", by=count)
    ids = range(last - count + 1, last + 1)
    made = [mint(KeyKind.INFERENCE, random_bytes=secrets.token_bytes(32)) for _ in ids]
    limits = [allowances.credit_limit(account_id, key_id) for key_id in ids]
    rows = [
        {
            "account_id": account_id,
            "id": key_id,
            "user_id": user_id,
            "kind": KeyKind.INFERENCE.value,
            "name": f"bench {key_id}",
            "secret_hash": digest(secret),
            "prefix": display(secret).prefix,
            "last6": display(secret).last6,
            "created_ms": tx.now_ms,
        }
        for key_id, secret in zip(ids, made, strict=True)
    ]
    await tx.connection.execute(insert(tables.keys), rows)
    limit_rows = [
        {
            "account_id": account_id,
            "scope": limit.scope,
            "resource": limit.resource,
            "window_name": limit.window,
            "limit_amount": LIMIT_NANOS,
        }
        for limit in limits
    ]
    await tx.connection.execute(insert(tables.allowances), limit_rows)
    return made
