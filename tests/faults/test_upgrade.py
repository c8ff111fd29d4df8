"""A server of this version on what one of the former version left behind when it was killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bursar.store.database import sqlite_url
from tests import former, loads
from tests.live import Installation
from tests.postgres import PostgresServer
from tests.upstream_double import Behaviour, ScriptedUpstream

pytestmark = pytest.mark.faults


@dataclass(frozen=True)
class Left:
    """What the former version left: its keys, and the calls that it had answered."""

    limited: str
    limited_id: int
    disabled: str
    calls: list[loads.Call]


@pytest.fixture
def target(kind: str, made: Installation, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the former version's database goes."""
    if kind == "sqlite":
        yield sqlite_url(made.data_dir / "former.db")
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with server.database() as url:
        yield url


@pytest.fixture
def left(made: Installation, target: str, upstream: ScriptedUpstream) -> Left:
    """Calls were made and charged, some of them only in the journal; then it was killed."""
    upstream.models[loads.EXACT] = Behaviour(
        prompt_tokens=loads.EXACT_INPUT, tokens=loads.EXACT_OUTPUT
    )
    made.start()
    limited_id, limited = made.make_key(limit_usd=10 * loads.EXACT_NANOS / 1e9)
    disabled_id, disabled = made.make_key()
    made.control("PATCH", f"/v1/account/keys/{disabled_id}", json={"is_enabled": False})
    calls = loads.call_at_once(made.url, limited, 6, model=loads.EXACT)
    calls += loads.call_at_once(made.url, made.secrets.inference_key, 12, model=loads.EXACT)
    made.kill()
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        rows = runner.run(former.make(made.database_url, target))
    assert rows["leases"], "it held nothing when it was killed"
    if made.database_url.startswith("sqlite"):
        (made.data_dir / "former.db").replace(made.data_dir / "bursar.db")
        for end in ("-wal", "-shm"):
            (made.data_dir / f"bursar.db{end}").unlink(missing_ok=True)
    else:
        made.database_url = made.environment["BURSAR_DATABASE_URL"] = target
    return Left(limited, limited_id, disabled, calls)


def ask(made: Installation, secret: str) -> loads.Call:
    """One call, to its end."""
    return loads.call_at_once(made.url, secret, 1, model=loads.EXACT)[0]


def test_a_server_upgrades_what_it_finds_and_goes_on_with_it(
    made: Installation, left: Left, upstream: ScriptedUpstream
) -> None:
    assert {call.status for call in left.calls} == {200}
    refused = made.attempt("verify")
    assert refused.returncode != 0
    assert "Start the server once" in refused.stderr
    made.start()
    calls = list(left.calls)
    # Four of the ten calls that the key's limit pays for are left, and all that it had leased.
    after = [ask(made, left.limited) for _ in range(6)]
    assert [call.status for call in after] == [200, 200, 200, 200, 402, 402]
    assert ask(made, left.disabled).status == 401
    calls += after
    made.control("PATCH", f"/v1/account/keys/{left.limited_id}", json={"credit_limit": None})
    calls.append(ask(made, left.limited))
    calls.append(ask(made, made.secrets.inference_key))
    assert [call.status for call in calls[-2:]] == [200, 200]
    assert made.stop() == 0
    loads.require_charged_once(calls, upstream.sales, made.rows(), of=loads.cost)
    assert (made.journals, made.leased()) == ([], 0)
    made.verify()
