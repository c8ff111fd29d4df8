"""Where a caller of the control API is: behind trusted proxies and nobody else's word."""

from __future__ import annotations

from ipaddress import ip_address

import httpx2
import pytest

from bursar.api import app
from bursar.core.errors import RateRefused
from bursar.edge.calls import make_plane
from bursar.edge.pace import Pace
from bursar.store.database import Database
from tests.installations import OPERATOR, Api

KEYS = "/v1/account/keys"


CALLERS = [
    ("10.0.0.1", ["203.0.113.7"], 200),
    ("10.0.0.1", ["1.2.3.4, 203.0.113.7"], 200),
    ("10.0.0.1", ["203.0.113.7, 10.0.0.2"], 200),
    ("10.0.0.1", ["203.0.113.7", "10.0.0.2"], 200),
    ("::ffff:10.0.0.1", ["::ffff:203.0.113.7"], 200),
    ("203.0.113.7", [], 200),
    ("10.0.0.1", ["203.0.113.7, 1.2.3.4"], 403),
    ("10.0.0.1", ["203.0.113.7, rubbish"], 403),
    ("10.0.0.1", ["203.0.113.7, "], 403),
    ("10.0.0.1", ["203.0.113.7:80"], 403),
    ("10.0.0.1", [], 403),
    ("192.0.2.1", ["203.0.113.7"], 403),
]


async def test_a_keys_networks_hold_behind_a_proxy(database: Database, api: Api) -> None:
    made = await api.post(
        "/v1/operator/accounts/1/keys",
        {"name": "CI", "kind": "provisioning", "networks": ["203.0.113.0/24"]},
        caller=OPERATOR,
    )
    plane = make_plane(
        database, why_not_ready=lambda: None, metrics=bytes, trusted_proxies=["10.0.0.0/8"]
    )
    control = app.create(plane, version="0")
    for peer, forwarded, status in CALLERS:
        transport = httpx2.ASGITransport(app=control, client=(peer, 5))
        headers = [("authorization", f"Bearer {made['key']}")]
        headers += [("x-forwarded-for", each) for each in forwarded]
        async with httpx2.AsyncClient(transport=transport, base_url="http://x.test") as client:
            response = await client.get(KEYS, headers=headers)
        assert response.status_code == status, (peer, forwarded)
        if status == 403:
            assert response.json()["error"]["code"] == "ip_not_allowed"


def test_whoever_has_a_network_of_version_6_counts_as_one() -> None:
    pace = Pace(2, most_together=100)
    for address in ("2001:db8::1", "2001:db8::2"):
        pace.take(ip_address(address), now_ms=0)
    with pytest.raises(RateRefused) as refused:
        pace.take(ip_address("2001:db8::ffff:1"), now_ms=59_000)
    assert refused.value.retry_after_s == 1
    pace.take(ip_address("2001:db8:0:1::1"), now_ms=59_000)
    pace.take(ip_address("192.0.2.1"), now_ms=59_000)
    pace.take(ip_address("2001:db8::1"), now_ms=60_000)


def test_all_together_have_a_bound_too() -> None:
    pace = Pace(10, most_together=3)
    for number in range(3):
        pace.take(ip_address(number), now_ms=0)
    with pytest.raises(RateRefused):
        pace.take(ip_address(9), now_ms=0)
    pace.take(None, now_ms=60_000)
