"""Callers that leave, half leave or do not read: what was sold to them is charged, nothing stays.

Against a server in a process of its own; `tests/http/test_gateway_faults.py` has the same callers
within the test's process, where clocks can be shortened and tasks counted.
"""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import shop as shops
from tests import soak
from tests.copies import Template
from tests.loads import STREAMED
from tests.shop import Deal, Shop, hang_up, until
from tests.upstream_double import Behaviour

pytestmark = pytest.mark.faults

DRAIN_S = 2
# Each event is wide: four hundred of them are more than the sockets on the way take.
WIDE = Behaviour(tokens=900, comment=b": " + b"x" * 50_000 + b"\n")
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def shop(on_sqlite: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    environment = {"BURSAR_DISCONNECT_DRAIN_S": str(DRAIN_S)}
    folder = tmp_path_factory.mktemp("callers")
    with shops.opened(on_sqlite, folder, environment=environment) as opened:
        yield opened


@pytest.fixture
def deal(shop: Shop) -> Iterator[Deal]:
    with shops.dealing(shop) as begun:
        yield begun


@pytest.fixture
def patient(on_sqlite: Template, tmp_path: Path) -> Iterator[Deal]:
    """In a shop that reads to its end whatever nobody listens to, as it does when not told else."""
    with shops.opened(on_sqlite, tmp_path) as opened, shops.dealing(opened) as begun:
        yield begun


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("abruptly", [False, True])
def test_f_36_who_leaves_before_the_headers_pays_for_what_was_sold(
    shop: Shop, deal: Deal, *, stream: bool, abruptly: bool
) -> None:
    shop.upstream.behave(Behaviour(tokens=30, delay_s=0.3))
    peer = shop.connect()
    peer.sendall(shop.wire(stream=stream))
    shop.wait_for_holds(1)
    hang_up(peer, abruptly=abruptly)
    deal.require_even("disconnected")


@pytest.mark.parametrize("abruptly", [False, True])
def test_f_35_who_leaves_after_the_first_chunk_pays_for_what_was_sold(
    shop: Shop, deal: Deal, *, abruptly: bool
) -> None:
    shop.upstream.behave(Behaviour(tokens=40, gap_s=0.01))
    peer = shop.connect()
    peer.sendall(shop.wire(stream=True))
    _read_until(peer, b"data: ")
    hang_up(peer, abruptly=abruptly)
    deal.require_even("disconnected")


def test_f_35_what_is_sold_to_nobody_is_read_for_a_bounded_time(shop: Shop, deal: Deal) -> None:
    shop.upstream.behave(Behaviour(tokens=900, gap_s=0.05))
    peer = shop.connect()
    peer.sendall(shop.wire(stream=True))
    _read_until(peer, b"data: ")
    hang_up(peer)
    until(lambda: shop.upstream.sales[-1].is_abandoned, within_s=DRAIN_S + 5)
    row = deal.require_estimated("disconnected", tolerance=3)
    assert row.output_tokens >= 10


def test_f_37_who_half_leaves_has_left_and_pays_for_what_was_sold(shop: Shop, deal: Deal) -> None:
    shop.upstream.behave(Behaviour(tokens=20, delay_s=0.2))
    peer = shop.connect()
    peer.sendall(shop.wire())
    shop.wait_for_holds(1)
    peer.shutdown(socket.SHUT_WR)
    assert peer.recv(1) == b""
    peer.close()
    deal.require_even("disconnected")


def test_f_37_who_does_not_read_stops_the_sale_and_fills_no_memory(shop: Shop, deal: Deal) -> None:
    """The upstream is slowed to what the caller reads: the rest is never produced, nor kept."""
    count = soak.times(25, soaked=500)
    shop.upstream.models[STREAMED] = WIDE
    before = shop.resident_bytes()
    peers = [shop.connect(window=4_096) for _ in range(count)]
    try:
        for peer in peers:
            peer.sendall(shop.wire(stream=True, model=STREAMED))
        shop.wait_for_holds(count)
        _wait_until_it_stands_still(shop, deal)
        held = shop.resident_bytes() - before
        made = [sale.completion_tokens for sale in shop.upstream.sales[deal.sales_before :]]
        # What the kernel's buffers on the way take, and no more.
        assert max(made) < 600, made
        assert held / count < 1.75 * MEBIBYTE, held
    finally:
        for peer in peers:
            hang_up(peer)
    rows = deal.rows()
    assert [row.outcome for row in rows] == ["disconnected"] * count
    # Each is charged for what was read for so long, give or take what the estimate rounds.
    for row in rows:
        assert 1 <= row.output_tokens <= 900
    sold = sum(sale.completion_tokens for sale in deal.sales())
    assert sum(row.output_tokens for row in rows) <= sold + count
    deal.is_compared = True


@pytest.mark.soak
@pytest.mark.skipif(not soak.IS_ON, reason="waits for a minute; make soak does")
def test_f_37_who_does_not_read_for_a_minute_is_cut_off_and_pays(shop: Shop, deal: Deal) -> None:
    shop.upstream.behave(WIDE)
    with shop.connect(window=4_096) as peer:
        peer.sendall(shop.wire(stream=True))
        shop.wait_for_holds(1)
        began = time.monotonic()
        shop.wait_for_holds(0, within_s=80)
        assert time.monotonic() - began > 55
    (row,) = deal.rows()
    assert (row.outcome, row.cost_nanos > 0) == ("disconnected", True)
    deal.is_compared = True


@pytest.mark.soak
@soak.ended_after(240)
def test_f_38_a_thousand_callers_that_leave_take_nothing_with_them(patient: Deal) -> None:
    deal, shop = patient, patient.shop
    shop.upstream.default = Behaviour(tokens=3, delay_s=0.005)
    try:
        # The first of them open what is kept for good.
        shops.at_once(lambda number: _come_and_go(shop, number, 5), 20)
        _wait_until_quiet(shop)
        files, memory = shop.open_files(), shop.resident_bytes()
        each = soak.times(50, soaked=5_000)
        shops.at_once(lambda number: _come_and_go(shop, number, each), 20)
        _wait_until_quiet(shop)
    finally:
        shop.upstream.default = Behaviour()
    until(lambda: shop.open_files() <= files)
    assert shop.figure("bursar_settlement_backlog") == 0
    assert shop.resident_bytes() - memory < 30 * MEBIBYTE
    rows, sales = deal.rows(), deal.sales()
    # Those who had asked are charged, whether they stayed for it or not; the others are not.
    assert len(rows) == len(sales) > 200
    deal.require_even(*(row.outcome for row in rows))
    assert {row.outcome for row in rows} == {"ok", "disconnected"}
    # Leases alone are left, for whoever comes next; they hold nothing.
    until(lambda: shop.made.leased() == 0)


def test_who_leaves_the_control_api_in_mid_request_is_counted_and_nothing_is_logged(
    shop: Shop, deal: Deal
) -> None:
    body = b'{"name": "never", "credit_limit": 1}'
    secret = shop.made.secrets.provisioning_key
    whole = shop.post("/v1/account/keys", body, secret=secret)
    before, said = shop.figure("bursar_callers_gone_total"), len(shop.made.said)
    for sent in (len(whole) - len(body), len(whole) - 1):
        for abruptly in (False, True):
            peer = shop.connect()
            peer.sendall(whole[:sent])
            # Its head has been read once another, later one is answered.
            shop.made.control("GET", "/v1/account")
            hang_up(peer, abruptly=abruptly)
    until(lambda: shop.figure("bursar_callers_gone_total") == before + 4)
    keys = shop.made.control("GET", "/v1/account/keys").json()
    assert "never" not in str(keys)
    assert shop.made.said[said:] == []
    deal.require_free()


def _come_and_go(shop: Shop, number: int, times: int) -> None:
    """Leave at every stage of a call, in order or not, with and without an answer under way."""
    for turn in range(times):
        kind = (number + turn) % 10
        whole = shop.wire(stream=kind % 2 == 0)
        sent = {0: 0, 1: 20, 2: len(whole) // 2, 3: len(whole) - 1}.get(kind, len(whole))
        peer = shop.connect()
        peer.sendall(whole[:sent])
        if kind >= 8:
            peer.recv(10)
        elif kind >= 6:
            time.sleep(0.003 * kind)
        hang_up(peer, abruptly=turn % 2 == 0)
    gc.collect()


def _wait_until_quiet(shop: Shop) -> None:
    """Return once nobody has been served for a while, and no connection's end is still to come."""
    shop.wait_for_holds(0)
    until(lambda: _is_still(lambda: shop.figure("bursar_requests_total"), for_s=0.5))


def _wait_until_it_stands_still(shop: Shop, deal: Deal) -> None:
    """Return once the upstream produces nothing any more, since nobody takes it."""

    def made() -> float:
        sales = shop.upstream.sales[deal.sales_before :]
        return sum(sale.completion_tokens for sale in sales)

    until(lambda: made() > 0 and _is_still(made, for_s=1.0))


def _is_still(figure: object, *, for_s: float) -> bool:
    assert callable(figure)
    before = figure()
    time.sleep(for_s)
    return bool(figure() == before)


def _read_until(peer: socket.socket, mark: bytes) -> None:
    received = b""
    while mark not in received:
        data = peer.recv(65_536)
        assert data, received
        received += data
