"""A copy taken in the middle of work: its books are right, and it issues nothing twice."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bursar.store.database import sqlite_url
from tests import loads
from tests.live import Installation
from tests.upstream_double import Behaviour, ScriptedUpstream

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]
CREDIT_NANOS = 100_000_000_000
# From one kind of database into the other, either way: each kind is read and filled.
across = pytest.mark.parametrize(
    ("kind", "copy"), [("sqlite", "postgres"), ("postgres", "sqlite")], indirect=["copy"]
)


@pytest.fixture(params=["sqlite", "postgres"])
def copy(
    request: pytest.FixtureRequest, tmp_path: Path, made: Installation, upstream: ScriptedUpstream
) -> Iterator[Installation]:
    """An installation yet to be restored, with nothing but its settings."""
    folder = tmp_path / "copy"
    folder.mkdir()
    url = sqlite_url(folder / "bursar.db")
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_database")
    found = Installation(folder, made.secrets, database_url=url)
    found.configure({"name": "local", "base_url": upstream.base_url, "models": loads.MODELS})
    try:
        yield found
    finally:
        found.close()


def restore(target: Installation, file: Path, *options: str) -> dict[str, Any]:
    """Restore; servers that were killed on PostgreSQL stand in the way for their time to live."""
    deadline = time.monotonic() + 20
    while True:
        done = target.attempt("restore", str(file), "--json", *options)
        if done.returncode == 0:
            answer: dict[str, Any] = json.loads(done.stdout)
            return answer
        code = json.loads(done.stderr)["error"]["code"]
        assert (code, time.monotonic() < deadline) == ("servers_running", True), done.stderr
        time.sleep(0.5)


@across
def test_a_copy_taken_under_load_is_right_and_issues_nothing_that_the_original_leased(
    made: Installation, copy: Installation, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "backup"
    loads.slow_streams(upstream)
    made.start()
    with loads.calling(made.url, made.secrets.inference_key) as load:
        time.sleep(0.7)
        before = made.rows()
        made.run("backup", str(file))
        restored = restore(copy, file)
        # The original goes on, and both are served at the same time.
        copy.start()
        copied = copy.rows()
        time.sleep(0.3)
    assert restored["is_right"]
    assert restored["leases_voided"] > 0
    assert restored["workers_closed"] == 1
    assert made.stop() == 0
    original = {row.event_id: tuple(row) for row in made.rows()}
    assert {row.event_id for row in before} <= {row.event_id for row in copied}
    assert len(copied) < len(original)
    assert all(original[row.event_id] == tuple(row) for row in copied)
    loads.require_charged_once(load.calls, upstream.sales, made.rows(), of=loads.cost)
    made.verify()

    assert copy.balance_nanos() == CREDIT_NANOS - sum(row.cost_nanos for row in copied)
    sold = len(upstream.sales)
    calls = loads.call_at_once(copy.url, made.secrets.inference_key, 5, model=loads.WHOLE)
    assert all(call.is_complete for call in calls)
    assert copy.stop() == 0
    own = copy.rows()[len(copied) :]
    loads.require_charged_once(calls, upstream.sales[sold:], own, of=loads.cost)
    assert {row.worker_id for row in own}.isdisjoint(row.worker_id for row in made.rows())
    assert (copy.journals, copy.leased()) == ([], 0)
    copy.verify()


@across
def test_the_last_credit_is_spent_once_in_each_copy_and_never_by_a_lease_of_the_original(
    made: Installation, copy: Installation, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    paid_for = 4
    upstream.models[loads.EXACT] = Behaviour(
        prompt_tokens=loads.EXACT_INPUT, tokens=loads.EXACT_OUTPUT
    )
    # On a busy machine the copy may be made long after the call.
    made.environment["BURSAR_LEASE_IDLE_S"] = "60"
    made.start()
    key_id, secret = made.make_key(limit_usd=paid_for * loads.EXACT_NANOS / 1e9)
    # Whoever hears of a new limit gives back what is leased of it.
    made.wait_until_heard()
    # The key's first call leases more than it needs, and the copy is made with that lease in it.
    first = loads.call_at_once(made.url, secret, 1, model=loads.EXACT)
    assert [call.status for call in first] == [200]
    assert len(made.rows()) == 1
    assert made.leased() > 0
    made.run("backup", str(tmp_path / "backup"))
    restore(copy, tmp_path / "backup")
    copy.start()
    sold = len(upstream.sales)
    for installation in (copy, made):
        done = 0
        while calls := loads.call_at_once(installation.url, secret, 1, model=loads.EXACT):
            if calls[0].status != 200:
                break
            done += 1
        assert calls[0].status == 402
        assert done == paid_for - 1
        assert installation.stop() == 0
        spent = [row.cost_nanos for row in installation.rows() if row.key_id == key_id]
        assert sum(spent) == paid_for * loads.EXACT_NANOS
        installation.verify()
    assert len(upstream.sales) - sold == 2 * (paid_for - 1)


def test_a_journal_of_the_original_is_refused_until_the_copy_takes_its_place_and_then_booked_once(
    made: Installation, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "backup"
    made.environment |= {
        "BURSAR_SETTLE_LINGER_MS": "10000",
        "BURSAR_SETTLE_BATCH": "10000",
        "BURSAR_LEASE_TTL_S": "2",
    }
    made.start()
    with loads.calling(made.url, made.secrets.inference_key, clients=5) as load:
        time.sleep(0.4)
        made.run("backup", str(file))
        time.sleep(0.4)
        made.kill()
    assert load.complete
    # What was settled until then is in the copy, or lost with the original; the rest is here.
    kept = made.journals
    for options in (("--replace",), ("--replace", "--take-over")):
        assert restore(made, file, *options)["is_right"]
        if "--take-over" not in options:
            done = made.attempt("serve")
            assert done.returncode == 5
            assert "holds charges that the restored backup has not" in done.stderr
            assert "--take-over" in done.stderr
            assert made.journals == kept
            assert made.rows() == []
    made.start()
    loads.require_charged_once(load.calls, upstream.sales, made.rows(), of=loads.cost)
    assert made.balance_nanos() == CREDIT_NANOS - sum(row.cost_nanos for row in made.rows())
    assert made.stop() == 0
    assert (made.journals, made.leased()) == ([], 0)
    made.verify()
