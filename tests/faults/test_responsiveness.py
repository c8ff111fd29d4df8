"""Nobody keeps the others waiting: not by what they send, not by how much they ask, not by noise.

How long a request of each kind may compute is proved in `tests/http/test_large_bodies.py`, in
processor time. Here other callers look on, before a server of its own; the bounds leave room for a
machine that has other things to do.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from tests import shop as shops
from tests import soak
from tests.copies import Template
from tests.loads import WHOLE
from tests.shop import Deal, Shop

pytestmark = pytest.mark.faults

LONGEST_S = 0.4
MOST_BYTES = 9_900_000
_CHAT = f'{{"model":"{WHOLE}","messages":[{{"role":"user","content":'
_EMBED = f'{{"model":"{WHOLE}","input":['


@pytest.fixture(scope="module")
def shop(on_sqlite: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with shops.opened(on_sqlite, tmp_path_factory.mktemp("responsiveness")) as opened:
        yield opened


@pytest.fixture
def deal(shop: Shop) -> Iterator[Deal]:
    with shops.dealing(shop) as begun:
        yield begun


@contextmanager
def looking_on(shop: Shop) -> Iterator[list[float]]:
    """Ask for nothing much all the time; how long each answer took, in seconds."""
    took: list[float] = []
    is_over = threading.Event()

    def look() -> None:
        with httpx2.Client(base_url=shop.made.url, timeout=shops.PATIENCE_S) as http:
            while not is_over.wait(0.005):
                began = time.monotonic()
                assert http.get("/healthz").status_code == 200
                took.append(time.monotonic() - began)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield took
    finally:
        is_over.set()
        thread.join()


LARGE = {
    "a text": ("chat/completions", _CHAT + '"', "x", '"}],"max_tokens":5}', 200),
    "a temperature": (
        "chat/completions",
        _CHAT + '"hi"}],"temperature":[',
        "[],",
        "1]}",
        400,
    ),
    "parts with arrays": ("chat/completions", _CHAT + '[{"type":"x","y":[', "[],", "[]]}]}]}", 400),
    "a field twice": (
        "chat/completions",
        _CHAT + '"hi"}],"y":{"model":1},"x":[',
        "1,",
        "1]}",
        400,
    ),
    "lists of a token": ("embeddings", _EMBED, "[1],", "[1]]}", 400),
}


@pytest.mark.parametrize("name", LARGE)
def test_g_26_no_large_body_keeps_the_others_waiting(shop: Shop, deal: Deal, name: str) -> None:
    path, before, unit, after, status = LARGE[name]
    count = (MOST_BYTES - len(before) - len(after)) // len(unit)
    body = (before + unit * count + after).encode()
    headers = {
        "authorization": f"Bearer {shop.made.secrets.inference_key}",
        "content-type": "application/json",
    }
    with looking_on(shop) as took:
        for _ in range(3):
            answer = httpx2.post(
                f"{shop.made.url}/v1/{path}",
                content=body,
                headers=headers,
                timeout=shops.PATIENCE_S,
            )
            assert answer.status_code == status, answer.text[:300]
    assert len(took) > 3
    assert max(took) < LONGEST_S, sorted(took)[-5:]
    if status == 200:
        deal.require_even(*["ok"] * 3)
    else:
        deal.require_free()


def test_g_26_no_report_keeps_the_others_waiting(shop: Shop, deal: Deal) -> None:
    def call(_number: int) -> None:
        for _ in range(10):
            assert shop.ask().status_code == 200

    shops.at_once(call, 8)
    with looking_on(shop) as took:
        for _ in range(3):
            for path in (
                "/v1/account/activity?fresh=true",
                "/v1/account/usage/events?limit=200",
                "/v1/account/keys",
                "/v1/account/transactions?limit=200",
            ):
                answer = httpx2.get(
                    f"{shop.made.url}{path}",
                    headers={"authorization": f"Bearer {shop.made.secrets.provisioning_key}"},
                    timeout=shops.PATIENCE_S,
                )
                assert answer.status_code == 200, (path, answer.text[:300])
    assert max(took) < LONGEST_S, sorted(took)[-5:]
    deal.require_even(*["ok"] * 80)


@pytest.mark.soak
def test_f_65_calls_are_served_while_the_machine_is_full_and_strangers_knock(
    shop: Shop, deal: Deal
) -> None:
    """Two processes compute without end, and four callers knock without end."""
    count = soak.times(15, soaked=2_000)
    is_over = threading.Event()
    took: list[float] = []

    def knock(number: int) -> None:
        known = shop.made.secrets.inference_key
        with httpx2.Client(base_url=shop.made.url, timeout=shops.PATIENCE_S) as http:
            while not is_over.is_set():
                # A key that may not do this, which is looked up, or one that is not well made.
                key = known if number % 2 else known[:-6] + "000000"
                path = "/v1/account" if number % 2 else "/v1/chat/completions"
                answer = http.post(path, json={}, headers={"authorization": f"Bearer {key}"})
                assert answer.status_code in (401, 403, 405), answer.text

    def call(_number: int) -> None:
        for _ in range(count):
            began = time.monotonic()
            assert shop.ask().status_code == 200
            took.append(time.monotonic() - began)

    noise = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    strangers = [threading.Thread(target=knock, args=(number,)) for number in range(4)]
    try:
        for stranger in strangers:
            stranger.start()
        shops.at_once(call, 4)
    finally:
        is_over.set()
        for process in noise:
            process.kill()
            process.wait()
        for stranger in strangers:
            stranger.join()
    assert statistics.quantiles(took, n=100)[98] < 5.0
    deal.require_even(*["ok"] * 4 * count)
