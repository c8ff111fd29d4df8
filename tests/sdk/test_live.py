"""The SDK as people use it: against a server in a process of its own."""

from __future__ import annotations

from decimal import Decimal

import pytest

from bursar import Bursar, Unauthenticated
from tests.live import Installation
from tests.loads import WHOLE

HELLO = [{"role": "user", "content": "hello"}]


# A server of its own starts, which takes seconds alone and more beside everything else.
@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_session_from_the_environment(
    made: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.start()
    monkeypatch.setenv("BURSAR_BASE_URL", f"{made.url}/v1")
    monkeypatch.setenv("BURSAR_API_KEY", made.secrets.provisioning_key)
    with Bursar() as client:
        key = client.api_keys.create("notebook", credit_limit=0.5)
        with Bursar(key.key) as own:
            answer = own.chat.complete(model=WHOLE, messages=HELLO)
            parts = own.chat.complete(model=WHOLE, messages=HELLO, stream=True)
            assert "".join(part.text for part in parts) == answer.text != ""
        spent = sum((event.cost for event in client.usage.events(key_id=key.id)), Decimal(0))
        assert answer.cost is not None
        assert spent == 2 * answer.cost
        assert client.billing.balance().balance == 100 - spent
        [limit] = client.limits.list(scope=f"key:{key.id}")
        assert (limit.limit, limit.used, limit.left) == (
            Decimal("0.5"),
            spent,
            Decimal("0.5") - spent,
        )
        assert client.usage.activity(fresh=True).total_stats.total_cost == spent
        client.api_keys.delete(key.id)
        with Bursar(key.key, max_retries=0) as own, pytest.raises(Unauthenticated):
            own.api_keys.current()
        # One connection, and other options: the operator's key.
        operator = client.with_options(api_key=made.secrets.operator_key)
        assert [account.id for account in operator.operator.accounts.list()] == [1]
    made.verify()
