"""Disks that are full or read-only, and a database file that somebody takes away."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests import loads
from tests.copies import Template
from tests.faults.proxied import ANSWER_S, Proxied, eventually, proxied
from tests.faults.small_disks import filled, make_read_only, small_disk
from tests.live import Installation
from tests.upstream_double import ScriptedUpstream

pytestmark = [pytest.mark.faults, pytest.mark.timeout(90)]


def require_books(made: Installation, upstream: ScriptedUpstream, calls: list[loads.Call]) -> None:
    """Fail unless the server is well again, by itself and soon, and each call was charged once."""
    made.wait_until_ready()
    eventually(lambda: loads.call_at_once(*caller(made), 1, model=loads.WHOLE)[0].status == 200)
    sold = upstream.sold_nanos(loads.cost)
    eventually(lambda: made.balance_nanos() == 100_000_000_000 - sold)
    probes = [sale for sale in upstream.sales if sale.is_complete]
    rows = made.rows()
    assert sum(row.cost_nanos for row in rows) == sold
    assert len(rows) == len(probes)
    by_id = {row.event_id for row in rows}
    assert all(call.request_id in by_id for call in calls if call.is_complete)
    made.verify()


def caller(made: Installation) -> tuple[str, str]:
    return made.url, made.secrets.inference_key


# SQLite


@pytest.fixture
def disk() -> Iterator[Path]:
    """A disk of the data directory's own."""
    with small_disk(megabytes=48) as path:
        yield path


@pytest.fixture
def made(on_sqlite: Template, disk: Path, upstream: ScriptedUpstream) -> Iterator[Installation]:
    """An installation on it."""
    shutil.copytree(on_sqlite.folder, disk / "data")
    installation = Installation(disk / "data", on_sqlite.secrets)
    local = {"name": "local", "base_url": upstream.base_url, "models": loads.MODELS}
    installation.configure(local)
    loads.slow_streams(upstream, tokens=5, gap_s=0.005)
    try:
        yield installation
    finally:
        installation.close()


def ask(made: Installation) -> httpx2.Response:
    headers = {"authorization": f"Bearer {made.secrets.provisioning_key}"}
    return httpx2.get(f"{made.url}/v1/account/balance", headers=headers, timeout=30)


def grant(made: Installation) -> httpx2.Response:
    headers = {"authorization": f"Bearer {made.secrets.operator_key}"}
    path = f"{made.url}/v1/operator/accounts/{made.secrets.account_id}/credit"
    return httpx2.post(path, headers=headers, json={"amount": "1"}, timeout=30)


def test_a_full_disk_keeps_charges_waiting_and_loses_none(
    made: Installation, upstream: ScriptedUpstream, disk: Path
) -> None:
    made.start()
    with loads.calling(*caller(made), clients=4) as load:
        time.sleep(0.5)
        with filled(disk):
            # What has room in the file as it is may still be written for a while.
            eventually(lambda: any("is full" in line for line in made.said))
            refused = grant(made)
            assert (refused.status_code, refused.json()["error"]["code"]) == (
                503,
                "ledger_unavailable",
            )
            time.sleep(1)
        served = len(load.complete)
        eventually(lambda: len(load.complete) > served + 20)
    assert {call.status for call in load.calls} <= {200, 503}
    require_books(made, upstream, load.calls)


def test_a_server_that_has_no_room_says_so_and_does_not_start(
    made: Installation, upstream: ScriptedUpstream, disk: Path
) -> None:
    with filled(disk):
        require_refused(made, said="The database failed", doctor="Only 0 MB are free")
    # A segment of a journal takes eight.
    with small_disk(megabytes=4) as too_small:
        (made.data_dir / "journal").symlink_to(too_small)
        require_refused(made, said="no room for another segment: No space left on device")
    (made.data_dir / "journal").unlink()
    made.start()
    require_books(made, upstream, [])


def test_a_server_on_a_read_only_disk_does_not_start(
    made: Installation, upstream: ScriptedUpstream, disk: Path
) -> None:
    make_read_only(disk)
    require_refused(made, said="The database failed", doctor="cannot be written")
    make_read_only(disk, is_read_only=False)
    made.start()
    require_books(made, upstream, [])


def require_refused(made: Installation, *, said: str, doctor: str = "") -> None:
    """Fail unless the server does not start, says why, and `doctor` says what is wrong."""
    done = made.attempt("serve")
    assert done.returncode == 5, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert doctor in made.attempt("doctor").stdout


@pytest.mark.parametrize("takes_its_place", [False, True], ids=["deleted", "replaced"])
def test_a_file_that_is_taken_away_is_missed_never_made_anew_and_known_again(
    made: Installation, upstream: ScriptedUpstream, on_sqlite: Template, takes_its_place: bool
) -> None:
    made.environment["BURSAR_MAX_STALENESS_S"] = "1"
    made.start()
    file, away = made.data_dir / "bursar.db", made.data_dir / "away.db"
    with loads.calling(*caller(made), clients=4) as load:
        time.sleep(0.5)
        file.rename(away)
        if takes_its_place:
            shutil.copyfile(on_sqlite.folder / "bursar.db", file)
        refused = ask(made)
        assert (refused.status_code, refused.json()["error"]["code"]) == (
            503,
            "ledger_unavailable",
        )
        time.sleep(1.5)
        assert httpx2.get(f"{made.url}/readyz").status_code == 503
        assert file.exists() == takes_its_place
        assert any("deleted or replaced" in line for line in made.said)
        os.replace(away, file)
        served = len(load.complete)
        eventually(lambda: len(load.complete) > served + 20)
    require_books(made, upstream, load.calls)


def test_a_second_server_on_the_file_does_not_start_and_harms_nothing(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    made.start()
    calls = loads.call_at_once(*caller(made), 5, model=loads.WHOLE)
    made.environment["BURSAR_PORT"] = "0"
    done = made.attempt("serve")
    assert done.returncode == 4
    assert "Another bursar serve owns this SQLite file" in done.stderr
    calls += loads.call_at_once(*caller(made), 5, model=loads.WHOLE)
    assert {call.status for call in calls} == {200}
    require_books(made, upstream, calls)


def test_an_outsider_who_holds_the_write_lock_is_waited_for_no_longer_than_that(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    made.start()
    with loads.calling(*caller(made), clients=4) as load:
        time.sleep(0.5)
        outsider = sqlite3.connect(made.data_dir / "bursar.db", isolation_level=None)
        outsider.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        refused = grant(made)
        took = time.monotonic() - began
        # Readers are not in its way.
        assert httpx2.get(f"{made.url}/readyz").status_code == 200
        outsider.execute("ROLLBACK")
        outsider.close()
        served = len(load.complete)
        eventually(lambda: len(load.complete) > served + 20)
    print(f"refused after {took:.1f} s")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_unavailable")
    assert took < 2 * ANSWER_S
    assert {call.status for call in load.calls} <= {200, 503}
    require_books(made, upstream, load.calls)


# PostgreSQL


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Proxied]:
    """A PostgreSQL on a small disk."""
    with small_disk(megabytes=320) as disk, proxied(tmp_path, place=disk) as running:
        yield running


def test_a_postgresql_whose_disk_is_full_keeps_charges_waiting_and_loses_none(
    house: Proxied,
) -> None:
    disk = house.server.data_folder.parents[1]
    with house.load(clients=8) as load:
        time.sleep(0.5)
        with filled(disk):
            eventually(lambda: house.metric("bursar_settlement_backlog") > 0, within_s=20)
            eventually(
                lambda: any("settlement_failed" in line for line in house.made.said), within_s=20
            )
        if house.server.process is not None and house.server.process.poll() is not None:
            house.server.start()
        served = len(load.complete)
        eventually(lambda: len(load.complete) > served + 20)
    assert {call.status for call in load.calls} <= {200, 503}
    house.require_books()
