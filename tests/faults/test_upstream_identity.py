"""Upstreams that cannot be found, or cannot prove who they are, get no request and no key.

Against a server in a process of its own that trusts one authority more than the system does; both
clients. The good upstream of the same authority shows that the others fail for their own reasons.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import shop as shops
from tests.authority import DAY, NOW, Authority
from tests.copies import Template
from tests.loads import WHOLE, cost
from tests.shop import Deal, Shop
from tests.upstream_double import Behaviour, ScriptedUpstream

pytestmark = pytest.mark.faults

UNPROVEN = ("expired", "other", "unknown", "flipped")
CLIENTS = ("pool", "aiohttp")
KEY = "sk-upstream-0123456789"


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ScriptedUpstream]]:
    """Upstreams by what is wrong with them; `good` has nothing wrong."""
    folder = tmp_path_factory.mktemp("certificates")
    ours, theirs = Authority(), Authority()
    (folder / "trusted.pem").write_bytes(ours.pem)
    made = {
        "good": (ours, "127.0.0.1", NOW + DAY),
        "expired": (ours, "127.0.0.1", NOW - DAY),
        "other": (ours, "127.0.0.2", NOW + DAY),
        "unknown": (theirs, "127.0.0.1", NOW + DAY),
        # A name that should lead elsewhere and leads to this machine.
        "flipped": (ours, "api.test", NOW + DAY),
    }
    with contextlib.ExitStack() as stack:
        found = {}
        for name, (authority, host, until) in made.items():
            tls = authority.serve(folder, host=host, until=until)
            found[name] = stack.enter_context(ScriptedUpstream.in_thread(tls=tls))
        found["good"].default = Behaviour(headers=(("x-folder", str(folder)),))
        yield found


@pytest.fixture(scope="module")
def silent() -> Iterator[int]:
    """The port of somebody who takes connections and never says anything."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(listener.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for peer in kept:
        peer.close()


@pytest.fixture(scope="module")
def shop(
    on_sqlite: Template,
    tmp_path_factory: pytest.TempPathFactory,
    strangers: dict[str, ScriptedUpstream],
    silent: int,
) -> Iterator[Shop]:
    urls = {name: up.base_url for name, up in strangers.items()}
    urls["flipped"] = urls["flipped"].replace("127.0.0.1", "localhost")
    urls["silent"] = f"https://127.0.0.1:{silent}/v1"
    urls["nobody"] = "http://127.0.0.1:1/v1"
    urls["nameless"] = "http://bursar-tests.invalid/v1"
    urls["too-long"] = f"http://{'a' * 70}.invalid/v1"
    folder = Path(strangers["good"].default.headers[0][1])
    with ScriptedUpstream.in_thread() as plain:
        urls["plain"] = plain.base_url.replace("http:", "https:")
        upstreams = [
            _upstream(name, client, url) for name, url in urls.items() for client in CLIENTS
        ]
        environment = {"SSL_CERT_FILE": str(folder / "trusted.pem"), "UPSTREAM_KEY": KEY}
        opening = shops.opened(
            on_sqlite,
            tmp_path_factory.mktemp("identity"),
            upstreams=upstreams,
            environment=environment,
        )
        with opening as opened:
            yield opened
        assert plain.sales == []


@pytest.fixture
def deal(shop: Shop) -> Iterator[Deal]:
    with shops.dealing(shop) as begun:
        yield begun


@pytest.mark.parametrize("client", CLIENTS)
def test_f_48_an_upstream_that_proves_who_it_is_is_called(
    shop: Shop, deal: Deal, strangers: dict[str, ScriptedUpstream], client: str
) -> None:
    before = len(strangers["good"].sales)
    for stream in (False, True):
        assert shop.ask(model=f"good-{client}", stream=stream).status_code == 200
    sales = strangers["good"].sales[before:]
    assert [sale.authorization for sale in sales] == [f"Bearer {KEY}"] * 2
    assert deal.billed() == sum(map(cost, sales)) > 0
    deal.is_compared = True


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", UNPROVEN)
def test_f_48_who_cannot_prove_who_it_is_gets_no_request_and_no_key(
    shop: Shop, deal: Deal, strangers: dict[str, ScriptedUpstream], name: str, client: str
) -> None:
    for stream in (False, True):
        answer = shop.ask(model=f"{name}-{client}", stream=stream)
        assert answer.status_code == 502, answer.text
        error = answer.json()["error"]
        assert error["code"] == "upstream_unreachable"
        # What is wrong with whose certificate is for the operator alone.
        assert "certificate" not in answer.text
    assert strangers[name].sales == []
    assert shop.figure("bursar_upstream_failures_total") > 0
    deal.require_free()


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        pytest.param("silent", 504, "upstream_timeout", id="F-48 the handshake hangs"),
        pytest.param("plain", 504, "upstream_timeout", id="F-48 no TLS at all"),
        pytest.param("nobody", 502, "upstream_unreachable", id="nobody listens"),
        pytest.param("too-long", 502, "upstream_unreachable", id="F-49 a name that is none"),
        pytest.param("nameless", 502, "upstream_unreachable", id="F-49 a name that nobody has"),
    ],
)
def test_an_upstream_that_cannot_be_reached_costs_nothing(
    shop: Shop, deal: Deal, name: str, status: int, code: str, client: str
) -> None:
    answer = shop.ask(model=f"{name}-{client}")
    if name == "nameless" and answer.status_code == 504:
        # Without a name server, finding out that nobody has it takes longer than dialling may.
        status, code = 504, "upstream_timeout"
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    deal.require_free()


def _upstream(name: str, client: str, url: str) -> dict[str, Any]:
    return {
        "name": f"{name}-{client}",
        "base_url": url,
        "client": client,
        # Its one model here is one that has a price there.
        "rename": {f"{name}-{client}": WHOLE},
        "api_key_env": "UPSTREAM_KEY",
        "connect_timeout_s": 1.0,
        "headers_timeout_s": 3.0,
    }
