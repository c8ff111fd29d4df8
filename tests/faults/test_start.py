"""What a server finds at its start: journals that are damaged, foreign, torn, or gone."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests import loads
from tests.live import Installation, Process, start
from tests.upstream_double import ScriptedUpstream

pytestmark = pytest.mark.faults


def die(made: Installation, *, seconds: float = 0.5) -> list[loads.Call]:
    """Kill a server whose charges are in its journal only; the calls that it had finished."""
    made.environment |= {"BURSAR_SETTLE_LINGER_MS": "10000", "BURSAR_SETTLE_BATCH": "10000"}
    made.start()
    with loads.calling(made.url, made.secrets.inference_key, clients=5) as load:
        time.sleep(seconds)
        made.kill()
    assert load.complete
    assert made.rows() == []
    assert made.leased() > 0
    made.verify()
    return load.calls


def journal_of(made: Installation) -> Path:
    (path,) = (path for path in made.journals if path.suffix == ".journal")
    return path


def test_charges_that_only_the_journal_has_are_settled_before_anybody_is_served(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    calls = die(made)
    made.start()
    assert any("journal_replayed" in line for line in made.said)
    loads.require_charged_once(calls, upstream.sales, made.rows(), of=loads.cost)
    assert made.leased() == 0
    made.verify()


def test_a_damaged_journal_is_named_and_nothing_is_served_until_it_is_restored(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    calls = die(made)
    path = journal_of(made)
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    done = made.attempt("serve")
    assert done.returncode == 5
    assert f"{path.name} is damaged at byte" in done.stderr
    assert "restore the file from a backup" in done.stderr
    assert "Traceback" not in done.stderr
    assert made.rows() == []
    path.write_bytes(whole)
    made.start()
    loads.require_charged_once(calls, upstream.sales, made.rows(), of=loads.cost)
    made.verify()


def test_a_journal_of_another_database_is_named_and_not_settled_here(
    made: Installation, tmp_path: Path
) -> None:
    die(made)
    other = Installation(tmp_path / "other")
    # The same worker's number is taken here too, and by a server that is gone as well.
    other.start()
    other.stop()
    (other.data_dir / "journal").mkdir(exist_ok=True)
    path = journal_of(made)
    shutil.copy(path, other.data_dir / "journal")
    before = path.read_bytes()
    done = other.attempt("serve")
    assert done.returncode == 5
    assert f"{path.name} holds charges of another database" in done.stderr
    assert "data directory" in done.stderr
    assert (other.data_dir / "journal" / path.name).read_bytes() == before
    assert other.rows() == []
    other.verify()
    (other.data_dir / "journal" / path.name).unlink()
    other.start()
    assert other.stop() == 0


def test_a_dead_servers_leases_come_back_even_if_its_journal_is_gone(made: Installation) -> None:
    made.environment["BURSAR_LEASE_TTL_S"] = "3"
    die(made)
    shutil.rmtree(made.data_dir / "journal")
    made.start()
    deadline = time.monotonic() + 10
    while made.leased():
        assert time.monotonic() < deadline, "credit is lost"
        time.sleep(0.2)
    assert made.balance_nanos() == 100_000_000_000
    made.verify()
    assert made.stop() == 0


def test_a_replay_that_is_killed_again_and_again_still_charges_each_call_once(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    calls = die(made, seconds=3)
    assert len(calls) > 600
    for wait_s in (0.65, 0.75, 0.85, 0.95):
        process = Process(start("serve", **made.environment))
        time.sleep(wait_s)
        process.kill()
    made.start()
    loads.require_charged_once(calls, upstream.sales, made.rows(), of=loads.cost)
    assert made.leased() == 0
    made.verify()
