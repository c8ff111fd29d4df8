"""A standby takes the place of the primary, with less than that had; or is there by mistake."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests import loads
from tests.faults.proxied import Noise, Proxied, eventually
from tests.faults.tcp_proxy import TcpProxy
from tests.live import Installation
from tests.postgres import PostgresServer
from tests.upstream_double import ScriptedUpstream

pytestmark = [pytest.mark.faults, pytest.mark.timeout(90)]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Proxied, PostgresServer]]:
    """A server that knows a primary and its standby; the proxy is on the way between those two."""
    with contextlib.ExitStack() as parts:
        noise = Noise()
        parts.callback(noise.close)
        primary = parts.enter_context(PostgresServer(fsync=True))
        url = parts.enter_context(primary.database())
        proxy = parts.enter_context(TcpProxy.before(primary.port))
        standby = parts.enter_context(
            PostgresServer(fsync=True, standby_of=primary, through=proxy.port)
        )
        upstream = parts.enter_context(ScriptedUpstream.in_thread())
        server, name = url.rsplit("/", 1)
        both = (
            f"{server.rsplit('@', 1)[0]}@/{name}"
            f"?host=127.0.0.1:{primary.port}&host=127.0.0.1:{standby.port}"
        )
        made = Installation(tmp_path / "data", database_url=both)
        made.load_prices(loads.PRICES)
        local = {"name": "local", "base_url": upstream.base_url, "models": loads.MODELS}
        made.configure(local)
        parts.callback(made.close)
        loads.slow_streams(upstream, tokens=5, gap_s=0.005)
        made.start()
        yield Proxied(primary, proxy, upstream, made, noise), standby


def test_what_a_promoted_standby_has_not_heard_of_is_settled_again_and_once(
    pair: tuple[Proxied, PostgresServer],
) -> None:
    house, standby = pair
    primary = house.server
    with house.load(clients=8) as load:
        time.sleep(0.5)
        # From now on the standby hears of nothing that is committed.
        house.proxy.swallow()
        heard = len(load.complete)
        eventually(lambda: len(load.complete) > heard + 50)
        eventually(lambda: house.metric("bursar_settlement_backlog") < 10)
        primary.kill()
        house.server = standby
        standby.promote()
        promoted = time.monotonic()
        served = len(load.complete)
        eventually(lambda: len(load.complete) > served + 50)
        print(f"serving again after {time.monotonic() - promoted:.1f} s")
        eventually(lambda: any("ledger_went_back" in line for line in house.made.said))
    (line,) = (line for line in house.made.said if "ledger_went_back" in line)
    print(line.strip())
    assert house.metric("bursar_charges_lost_total") == 0
    # The worker goes on under another name; the old one's charges are settled beside that.
    eventually(lambda: charged(house) == house.upstream.sold_nanos(loads.cost))
    house.require_books()
    # The old primary is back, first in the list and as it was: whoever has seen its successor does
    # not ask it. A program that starts now cannot know.
    url = standby.url(database_of(house))
    house.made.database_url = house.made.environment["BURSAR_DATABASE_URL"] = url
    primary.start()
    for _ in range(3):
        house.proxy.cut()
        house.require_books()
    assert house.made.stop() == 0
    assert (house.made.journals, house.made.leased()) == ([], 0)


def test_a_standby_is_no_database_to_serve_from(
    pair: tuple[Proxied, PostgresServer], tmp_path: Path
) -> None:
    house, standby = pair
    url = standby.url(database_of(house))
    lost = Installation(tmp_path / "lost", house.made.secrets, database_url=url)
    done = lost.attempt("serve")
    assert done.returncode == 5
    assert "read-only" in done.stderr
    assert "Traceback" not in done.stderr
    # A server that runs, and whose database is made read-only under it.
    with house.load(clients=4) as load:
        time.sleep(0.3)
        for value in ("on", "off"):
            house.server.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            house.server.execute("SELECT pg_reload_conf()")
            if value == "on":
                eventually(lambda: grant(house).status_code == 503)
                refused = grant(house)
                assert refused.json()["error"]["code"] == "ledger_unavailable"
    assert {call.status for call in load.calls} <= {200, 503}
    house.require_books()


def database_of(house: Proxied) -> str:
    return house.made.database_url.partition("@/")[2].partition("?")[0]


def charged(house: Proxied) -> int:
    return sum(row.cost_nanos for row in house.made.rows())


def grant(house: Proxied) -> httpx2.Response:
    headers = {"authorization": f"Bearer {house.made.secrets.operator_key}"}
    path = f"{house.made.url}/v1/operator/accounts/{house.made.secrets.account_id}/credit"
    return httpx2.post(path, headers=headers, json={"amount": "1"}, timeout=30)
