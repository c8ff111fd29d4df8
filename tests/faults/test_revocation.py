"""A key that is gone is refused: at once where it was deleted, and within a second elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests import loads
from tests.live import Installation
from tests.upstream_double import ScriptedUpstream


def by_api(made: Installation, key_id: int) -> None:
    made.control("DELETE", f"/v1/account/keys/{key_id}")


def by_disabling(made: Installation, key_id: int) -> None:
    made.control("PATCH", f"/v1/account/keys/{key_id}", json={"is_enabled": False})


@pytest.mark.parametrize("revoke", [by_api, by_disabling])
def test_a_key_revoked_by_the_api_under_load_is_refused_on_the_very_next_request(
    made: Installation,
    upstream: ScriptedUpstream,
    revoke: Callable[[Installation, int], None],
) -> None:
    loads.slow_streams(upstream)
    made.start()
    key_id, secret = made.make_key(limit_usd=5)
    with loads.calling(made.url, secret) as load:
        time.sleep(0.7)
        revoke(made, key_id)
        refused = loads.call_at_once(made.url, secret, 20, model=loads.WHOLE)
        assert {(call.status, call.code) for call in refused} == {(401, "invalid_api_key")}
        time.sleep(0.7)
    # Calls that were under way have ended well, and are paid for.
    assert {call.status for call in load.calls} == {200, 401}
    assert all(call.is_complete for call in load.calls if call.status == 200)
    assert made.balance_nanos() == 100_000_000_000 - upstream.sold_nanos(loads.cost)
    loads.require_charged_once(load.calls, upstream.sales, made.rows(), of=loads.cost)
    made.verify()


@pytest.mark.parametrize(
    ("command", "status", "code"),
    [
        (("keys", "delete", "KEY", "--yes"), 401, "invalid_api_key"),
        (("keys", "update", "KEY", "--disable"), 401, "invalid_api_key"),
        (("keys", "update", "KEY", "--limit", "0"), 402, "insufficient_quota"),
        (("accounts", "suspend", "1"), 403, "account_suspended"),
        (("accounts", "cancel", "1", "--yes"), 403, "account_suspended"),
    ],
    ids=["delete", "disable", "limit", "suspend", "cancel"],
)
def test_a_key_revoked_by_a_command_beside_the_server_is_refused_within_a_second(
    made: Installation,
    upstream: ScriptedUpstream,
    command: tuple[str, ...],
    status: int,
    code: str,
) -> None:
    made.start()
    key_id, secret = made.make_key(limit_usd=5)
    (first,) = loads.call_at_once(made.url, secret, 1, model=loads.WHOLE)
    assert first.status == 200
    made.run(*(str(key_id) if word == "KEY" else word for word in command))
    done = time.monotonic()
    calls = [first]
    while calls[-1].status == 200:
        assert time.monotonic() - done < 1
        calls += loads.call_at_once(made.url, secret, 1, model=loads.WHOLE)
    assert (calls[-1].status, calls[-1].code) == (status, code)
    calls += loads.call_at_once(made.url, secret, 20, model=loads.WHOLE)
    assert {call.status for call in calls[-21:]} == {status}
    loads.require_charged_once(calls, upstream.sales, made.rows(), of=loads.cost)
    made.verify()
