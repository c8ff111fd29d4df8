"""A whole server in the test's own process, on real sockets, before a scripted upstream.

`house` is what most gateway tests ask for: an installation with one account, its keys and prices.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from bursar import bootstrap
from bursar.config import Settings
from bursar.core.money import parse_usd
from bursar.core.prices import Price, cost_nanos
from bursar.gateway.http.patience import Patience
from bursar.service import accounts, keys
from bursar.store import prices
from bursar.store.prices import NewPrice
from tests.upstream_double import Sale, ScriptedUpstream

MODEL = "gpt-test"
PER_MILLION = {"input_tokens": Decimal("1"), "output_tokens": Decimal("2")}


@dataclass
class House:
    """A served installation: secrets, clients and the parts underneath."""

    url: str
    server: bootstrap.Server
    upstream: ScriptedUpstream
    installation: accounts.Installation
    price: Price
    http: httpx2.AsyncClient = field(repr=False)

    @property
    def account_id(self) -> int:
        """The account that every key here belongs to."""
        return self.installation.account_id

    async def make_key(
        self, *, limit_usd: str | None = None, name: str = "test"
    ) -> tuple[int, str]:
        """A fresh inference key: its id and its secret."""
        async with self.server.database.write() as tx:
            made = await keys.create(
                tx,
                account_id=self.account_id,
                user_id=None,
                name=name,
                random_bytes=os.urandom,
                credit_limit_nanos=None if limit_usd is None else parse_usd(limit_usd),
            )
        return made.key.id, made.secret

    async def chat(
        self, secret: str | None = None, *, words: str = "hello there", **body: Any
    ) -> httpx2.Response:
        """One chat call; fields in `body` are added to the request."""
        request = {"model": MODEL, "messages": [{"role": "user", "content": words}], **body}
        return await self.http.post(
            "/v1/chat/completions",
            json=request,
            headers={"authorization": f"Bearer {secret or self.installation.inference_key}"},
        )

    async def control(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """One call of the control API with the provisioning key."""
        headers = {"authorization": f"Bearer {self.installation.provisioning_key}"}
        return await self.http.request(method, path, headers=headers, **options)

    def sold_nanos(self, secret: str | None = None) -> int:
        """What the upstream says that it has sold, at our price."""
        return self.upstream.sold_nanos(self.cost)

    def cost(self, sale: Sale) -> int:
        """The price of one sale in the upstream's own ledger."""
        return cost_nanos(
            self.price,
            {"input_tokens": sale.prompt_tokens, "output_tokens": sale.completion_tokens},
        )


async def until(holds: Callable[[], bool], *, within_s: float = 20.0) -> None:
    """Wait until something holds that happens on the loop; fail if it takes longer."""
    for _ in range(int(within_s / 0.01)):
        if holds():
            return
        await asyncio.sleep(0.01)
    assert holds()


@asynccontextmanager
async def serving(
    database_url: str,
    data_dir: Path,
    *,
    credit: str = "10",
    settings: Mapping[str, Any] | None = None,
    upstream_settings: Mapping[str, Any] | None = None,
    patience: Patience | None = None,
    max_output_tokens: int | None = 1_000,
) -> AsyncIterator[House]:
    """Serve a migrated, empty database in this process until the block ends."""
    async with ScriptedUpstream() as upstream:
        loaded = Settings.load(
            None,
            {
                "data_dir": data_dir,
                "database_url": database_url,
                "upstreams": [
                    {
                        "name": "local",
                        "base_url": upstream.base_url,
                        "models": ["gpt-*"],
                        **(upstream_settings or {}),
                    }
                ],
                "settle_linger_ms": 2,
                **(settings or {}),
            },
        )
        installation, price = await _furnish(loaded, credit, max_output_tokens)
        async with (
            bootstrap.running(loaded) as server,
            _listening(server, patience) as url,
            httpx2.AsyncClient(base_url=url, timeout=30) as http,
        ):
            yield House(url, server, upstream, installation, price, http)


async def _furnish(
    settings: Settings, credit: str, max_output_tokens: int | None
) -> tuple[accounts.Installation, Price]:
    database = bootstrap.open_database(settings)
    async with database.write() as tx:
        installation = await accounts.bootstrap_installation(
            tx,
            email="owner@example.com",
            password="correct horse battery",
            credit_nanos=parse_usd(credit),
            random_bytes=os.urandom,
            hash_password=lambda _: "not a hash",
        )
        price = await prices.insert_price(
            tx,
            price=NewPrice(
                model=MODEL,
                product="",
                per_million=PER_MILLION,
                per_unit={},
                tiers=(),
                is_free=False,
                context_window=None,
                max_output_tokens=max_output_tokens,
                effective_ms=0,
                source="test",
            ),
        )
    await database.close()
    return installation, price


@asynccontextmanager
async def _listening(server: bootstrap.Server, patience: Patience | None) -> AsyncIterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    options = server.options(patience=patience)
    http = bootstrap.HttpServer(uvicorn.Config(**options, timeout_graceful_shutdown=5))
    task = asyncio.create_task(http.serve(sockets=[listener]))
    # The listener is bound already: a connection waits until it is accepted.
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        http.should_exit = True
        await task
