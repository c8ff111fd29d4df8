"""The way to PostgreSQL fails as networks do: it is cut, swallows, slows down, works one way."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx2
import pytest

from tests import loads, soak
from tests.faults.proxied import ANSWER_S, Proxied, eventually, proxied
from tests.live import Installation

pytestmark = [pytest.mark.faults, soak.ended_after(120)]

STALE_S = 5.0
CUTS = soak.times(40, soaked=1000)
AWAY_S = soak.times(8, soaked=120)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """One server for all tests of this module: each leaves it well."""
    folder = tmp_path_factory.mktemp("network")
    with proxied(folder, BURSAR_MAX_STALENESS_S=str(STALE_S)) as running:
        yield running


@pytest.fixture
def house(started: Proxied) -> Iterator[Proxied]:
    """The server with a way to its database that is well, before the test and after it."""
    yield started
    started.proxy.heal()
    started.proxy.cut()


def test_charges_are_booked_once_however_often_the_reply_to_a_commit_is_lost(
    house: Proxied,
) -> None:
    before = house.proxy.cuts
    with house.load(clients=8) as load:
        # A settlement sends the ids of its charges.
        house.proxy.cut_commits(CUTS, every=2, having=b"req_")
        eventually(lambda: house.proxy.cuts - before == CUTS, within_s=soak.times(40, soaked=900))
    print(f"{CUTS} COMMITs without a reply in {len(load.calls)} calls")
    assert {call.status for call in load.calls} <= {200, 503}
    assert len(load.complete) > CUTS
    house.require_books()


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
def test_connections_that_are_all_cut_at_once_are_made_anew(house: Proxied, reset: bool) -> None:
    with house.load() as load:
        for _ in range(5):
            time.sleep(0.3)
            house.proxy.cut(reset=reset)
    assert len(load.complete) > 20
    house.require_books()


def test_connections_that_are_half_closed_are_made_anew(house: Proxied) -> None:
    with house.load() as load:
        time.sleep(0.3)
        house.proxy.half_close()
        time.sleep(0.5)
    assert len(load.complete) > 20
    house.require_books()


def test_a_database_that_falls_silent_blocks_nothing_and_is_found_again(house: Proxied) -> None:
    with house.load() as load:
        time.sleep(0.5)
        house.proxy.swallow()
        cut = time.monotonic()
        eventually(lambda: not is_ready(house), within_s=STALE_S + 2)
        print(f"health red after {time.monotonic() - cut:.1f} s")
        served = load.count(200)
        house.require_unavailable()
        house.require_alive(max(0.5, AWAY_S - (time.monotonic() - cut)))
        assert load.count(200) <= served + 10, "somebody was admitted"
        house.proxy.heal()
        healed = time.monotonic()
        eventually(lambda: load.count(200) > served + 20)
        print(f"serving again after {time.monotonic() - healed:.1f} s")
    assert {call.code for call in load.calls if call.status != 200} == {"ledger_unavailable"}
    house.require_books()


def test_nothing_is_done_twice_when_the_database_hears_and_is_not_heard(house: Proxied) -> None:
    headers = {"authorization": f"Bearer {house.made.secrets.operator_key}"}
    path = f"{house.made.url}/v1/operator/accounts/{house.made.secrets.account_id}/credit"

    def grant() -> httpx2.Response:
        return httpx2.post(
            path,
            headers={**headers, "idempotency-key": "one-way"},
            json={"amount": "1.00"},
            timeout=20,
        )

    before = house.made.balance_nanos()
    with house.load(clients=5):
        time.sleep(0.3)
        house.proxy.swallow(requests=False)
        began = time.monotonic()
        lost = grant()
        assert (lost.status_code, time.monotonic() - began < ANSWER_S) == (503, True)
        time.sleep(1)
        house.proxy.heal()
        house.made.wait_until_ready()
    again = [grant() for _ in range(3)]
    assert again[-1].status_code == 201, again[-1].text
    sold = house.upstream.sold_nanos(loads.cost)
    house.require_books()
    # One more call was made for the books.
    extra = house.upstream.sold_nanos(loads.cost) - sold
    rows_nanos = sum(row.cost_nanos for row in house.made.rows())
    assert house.made.balance_nanos() == 101_000_000_000 - rows_nanos
    assert before > 0
    assert extra > 0


def test_a_slow_way_slows_settlement_and_no_call_that_a_lease_can_pay(house: Proxied) -> None:
    with house.load(clients=4):
        time.sleep(1)
        house.proxy.slow(delay_s=0.1, slice_bytes=64)
        with house.load(clients=2) as load:
            took = []
            end = time.monotonic() + soak.times(6, soaked=60)
            while time.monotonic() < end:
                began = time.monotonic()
                (call,) = house.call()
                took.append(time.monotonic() - began)
                assert call.status == 200, call
        house.proxy.heal()
        house.proxy.cut()
    took.sort()
    print(f"{len(took)} calls, p50 {took[len(took) // 2]:.3f} s, longest {took[-1]:.3f} s")
    # One way there and back takes a fifth of a second; a call that asked would make several.
    assert took[len(took) // 2] < 0.2 + 2 * house.noise.longest_s()
    assert took[len(took) * 9 // 10] < 0.2 + 4 * house.noise.longest_s()
    assert load.complete
    house.require_books()


def test_a_worker_that_is_cut_off_stops_a_key_that_another_deleted(
    house: Proxied, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Installation(
        tmp_path_factory.mktemp("other") / "data",
        house.made.secrets,
        database_url=house.made.database_url,
    )
    key_id, secret = house.made.make_key()
    assert house.call(secret=secret)[0].status == 200
    other.start()
    try:
        house.proxy.swallow()
        other.control("DELETE", f"/v1/account/keys/{key_id}")
        deleted = time.monotonic()
        took = 0.0
        while house.call(secret=secret)[0].status == 200:
            assert took < STALE_S, "a deleted key still works"
            # A call counts from its beginning: those that had begun are served to their end.
            took = time.monotonic() - deleted
        print(f"stopped {took:.1f} s after the deletion")
        house.proxy.heal()
        house.made.wait_until_ready()
        # Another reason may have ended the loop first, a lease say that could not be refilled.
        while (status := house.call(secret=secret)[0].status) != 401:
            assert time.monotonic() - deleted < STALE_S + ANSWER_S, status
    finally:
        assert other.stop() == 0
    house.require_books()


def is_ready(house: Proxied) -> bool:
    return httpx2.get(f"{house.made.url}/readyz", timeout=5).status_code == 200
