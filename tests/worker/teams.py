"""Several workers on one database, with real keys: each looks keys up and hears news by itself.

Owns calls as the gateway makes them, without HTTP. What must be true is the test's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bursar.core.allowances import Allowance, AllowanceRef
from bursar.core.refusals import Deny
from bursar.service import accounts, keys, verify
from bursar.store.database import Database
from bursar.store.plane import leases
from bursar.telemetry import Metrics
from bursar.worker.keyring import Credential
from bursar.worker.plane import Worker
from bursar.worker.purse import Amounts, Hold
from tests.databases import Clock
from tests.factories import charge
from tests.worker.conftest import limits

CREDIT_NANOS = 10**12
MODEL = "gpt-4o-mini"


@dataclass
class Call:
    """One admitted call: whose, of which model, and what it holds."""

    worker: Worker
    credential: Credential
    model: str
    hold: Hold

    def sell(self, *, cost: int = 1, tokens: int = 15) -> None:
        """Charge what was sold."""
        ended = self.hold.settle(Amounts(cost, 1, tokens, 0))
        made = charge(
            0,
            ended.covered_nanos,
            moves=ended.moves,
            excess_nanos=ended.excess_nanos,
            at_ms=self.hold.at_ms,
            event_id=os.urandom(8).hex(),
        )
        credential = self.credential
        made = msgspec.structs.replace(
            made,
            account_id=credential.account_id,
            key_id=credential.key_id,
            user_id=credential.user_id,
            project_id=credential.project_id,
            model=self.model,
            input_tokens=tokens,
            output_tokens=0,
            cached_input_tokens=0,
            reasoning_tokens=0,
        )
        self.worker.settlement.submit(made, ended.parts)


@dataclass
class Team:
    """The workers, one account and its key."""

    database: Database
    clock: Clock
    workers: list[Worker]
    account_id: int
    key_id: int
    secret: bytes

    def ref(self, scope: str, resource: str, window: str, model: str = "") -> AllowanceRef:
        """An allowance of the account; "key" is its key's."""
        name = f"key:{self.key_id}" if scope == "key" else scope
        return AllowanceRef(self.account_id, name, resource, window, model)

    async def call(
        self, number: int = 0, *, model: str = MODEL, cost: int = 1, tokens: int = 15
    ) -> Call | Deny:
        """One request at this worker, up to its hold."""
        worker = self.workers[number % len(self.workers)]
        found = worker.keyring.find(self.secret) or await worker.keyring.load(self.secret)
        assert isinstance(found, Credential), found
        answer = await worker.hold(found.slots_for(model), Amounts(cost, 1, tokens, 1))
        return answer if isinstance(answer, Deny) else Call(worker, found, model, answer)

    async def sell(self, number: int = 0, *, cost: int = 1, tokens: int = 15) -> Deny | None:
        """One request to its end; how it was refused."""
        call = await self.call(number, cost=cost, tokens=tokens)
        if isinstance(call, Deny):
            return call
        await asyncio.sleep(0)
        call.sell(cost=cost, tokens=tokens)
        return None

    async def stored(self, ref: AllowanceRef) -> Allowance | None:
        """The allowance's row, once all that was sold is settled."""
        for worker in self.workers:
            await worker.settlement.flush()
        async with self.database.write() as tx:
            rows = await leases.lock(tx, refs=[ref])
        return rows[0] if rows else None

    async def used(self, ref: AllowanceRef) -> int:
        """What its row says is used."""
        row = await self.stored(ref)
        assert row is not None
        return row.used

    async def differences(self) -> list[str]:
        """What `bursar verify` finds, once all that was sold is settled."""
        for worker in self.workers:
            await worker.settlement.flush()
        async with self.database.read() as tx:
            report = await verify.verify(tx, now_ms=self.clock())
        return [str(difference) for difference in report.differences]


@asynccontextmanager
async def gathered(
    database: Database, clock: Clock, directory: Path, *, count: int, time_zone: str = "UTC"
) -> AsyncIterator[Team]:
    """A team of so many workers; at its end the books are proved."""
    async with database.write() as tx:
        account = await accounts.create(
            tx, name="Acme", time_zone=time_zone, credit_nanos=CREDIT_NANOS, actor="test"
        )
    async with database.write() as tx:
        made = await keys.create(
            tx, account_id=account.row.id, user_id=None, name="key", random_bytes=os.urandom
        )
    url = database.url.render_as_string(hide_password=False)
    async with AsyncExitStack() as parts:
        workers = []
        for number in range(count):
            own = Database(url, clock_ms=clock)
            parts.push_async_callback(own.close)
            worker = Worker(own, limits(directory / str(number)), Metrics(), clock_ms=clock)
            await worker.start()
            parts.push_async_callback(worker.stop)
            workers.append(worker)
        for worker in workers[:-1]:
            # Each start on SQLite closes those before it, for only one server may own a file.
            await worker._replace_identity()
        team = Team(database, clock, workers, account.row.id, made.key.id, made.secret.encode())
        yield team
        assert await team.differences() == []
