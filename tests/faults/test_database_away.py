"""PostgreSQL goes away under load and comes back: nobody calls for free, nobody has to help."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from tests import loads
from tests.live import Installation
from tests.postgres import PostgresServer
from tests.upstream_double import ScriptedUpstream

pytestmark = pytest.mark.faults

STALE_S = 2.0
RECOVERY_S = 5.0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL of one's own, which keeps what it has acknowledged."""
    with PostgresServer(fsync=True) as running:
        yield running


@pytest.fixture
def made(
    server: PostgresServer, tmp_path: Path, upstream: ScriptedUpstream
) -> Iterator[Installation]:
    with server.database() as url:
        installation = Installation(tmp_path / "data", database_url=url)
        installation.load_prices(loads.PRICES)
        upstreams = {"name": "local", "base_url": upstream.base_url, "models": loads.MODELS}
        installation.configure(upstreams)
        installation.environment["BURSAR_MAX_STALENESS_S"] = str(STALE_S)
        try:
            yield installation
        finally:
            installation.close()


@pytest.mark.parametrize("end", [PostgresServer.stop, PostgresServer.kill], ids=["stop", "kill"])
def test_a_database_that_goes_away_under_load_gives_no_free_calls_and_is_found_again(
    server: PostgresServer,
    made: Installation,
    upstream: ScriptedUpstream,
    end: Callable[[PostgresServer], None],
) -> None:
    loads.slow_streams(upstream)
    made.start()
    with loads.calling(made.url, made.secrets.inference_key) as load:
        time.sleep(1)
        end(server)
        time.sleep(STALE_S + 0.5)
        refused = httpx2.get(f"{made.url}/readyz")
        assert (refused.status_code, refused.json()) == (503, {"status": "ledger_unavailable"})
        assert refused.headers["retry-after"] == "1"
        require_unavailable(made, "/v1/account/balance")
        served = load.count(200)
        time.sleep(2)
        # What had been admitted may still have ended; nobody was admitted since.
        assert load.count(200) == served
        server.start()
        made.wait_until_ready(within_s=RECOVERY_S)
        served = load.count(200)
        time.sleep(1)
        assert load.count(200) > served
    assert {call.status for call in load.calls} == {200, 503}
    assert {call.code for call in load.calls if call.status == 503} == {"ledger_unavailable"}
    assert made.balance_nanos() == 100_000_000_000 - upstream.sold_nanos(loads.cost)
    rows = made.rows()
    loads.require_charged_once(load.calls, upstream.sales, rows, of=loads.cost)
    assert len(rows) == len(upstream.sales)
    made.verify()
    assert made.stop() == 0
    assert (made.journals, made.leased()) == ([], 0)


def require_unavailable(made: Installation, path: str) -> None:
    """Fail unless the control API says that it cannot know, soon, and when to ask again."""
    headers = {"authorization": f"Bearer {made.secrets.provisioning_key}"}
    began = time.monotonic()
    answer = httpx2.get(f"{made.url}{path}", headers=headers, timeout=20)
    assert time.monotonic() - began < 6
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ledger_unavailable")
    assert int(answer.headers["retry-after"]) >= 1


def test_a_server_that_is_stopped_while_its_database_is_away_settles_at_its_next_start(
    server: PostgresServer, made: Installation, upstream: ScriptedUpstream
) -> None:
    made.environment["BURSAR_LEASE_TTL_S"] = "2"
    made.start()
    with loads.calling(made.url, made.secrets.inference_key, clients=5) as load:
        time.sleep(0.5)
        server.stop()
        time.sleep(0.5)
        assert made.stop() == 0
    assert load.complete
    assert any(path.suffix == ".journal" for path in made.journals)
    server.start()
    made.start()
    loads.require_charged_once(load.calls, upstream.sales, made.rows(), of=loads.cost)
    assert made.stop() == 0
    assert (made.journals, made.leased()) == ([], 0)
    made.verify()
