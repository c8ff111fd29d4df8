"""The client in the form of Venice's SDK: its documentation's examples, and what they leave out."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import typing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bursar import Bursar
from bursar.compat import venice_sdk
from bursar.compat.venice_sdk import VeniceClient, errors
from bursar.compat.venice_sdk.api_keys import UNLIMITED
from bursar.compat.venice_sdk.errors import (
    APIKeyError,
    BillingError,
    InsufficientBalanceError,
    RateLimitError,
    UnauthorizedError,
    VeniceAPIError,
    VeniceConnectionError,
)
from tests.compat.conftest import MODEL
from tests.live import Installation

EXAMPLES = Path(__file__).with_name("venice_sdk_examples.md")
HELLO = [{"role": "user", "content": "Hello!"}]


def blocks() -> list[str]:
    """The documentation's code, in its order."""
    return re.findall(r"^```python\n(.*?)^```", EXAMPLES.read_text("utf-8"), re.M | re.S)


def is_definition(block: str) -> bool:
    """Whether a block shows a data class instead of using the client."""
    return block.startswith("@dataclass")


# ── The documentation ───────────────────────────────────────────────────────────────────────────


def test_every_example_of_the_documentation_runs(served: Installation) -> None:
    found = [block for block in blocks() if not is_definition(block)]
    assert len(found) == 20
    # The examples take the errors for imported.
    names: dict[str, Any] = {**vars(errors), "__name__": "examples"}
    printed = io.StringIO()
    for block in found:
        text = block.replace("admin-key-here", served.secrets.provisioning_key)
        text = text.replace("inference-key-here", served.secrets.inference_key)
        with contextlib.redirect_stdout(printed):
            exec(compile(text, EXAMPLES, "exec"), names)  # noqa: S102
    said = printed.getvalue()
    for words in (
        "Key: First inference key (3)",
        "Type: INFERENCE",
        "Key not found",
        "API Key: bsk_",
        "Failed to delete",
        "Update not supported: ",
        "API Keys: ",
        "Status: ok",
        "Created new key: ",
        "Test key deleted",
        "Admin permissions required for API key management",
    ):
        assert words in said, said
    assert names["response"]["choices"][0]["message"]["content"]
    # The last example's key is gone; those before it stay.
    assert [key.name for key in names["admin_keys"]].count("My New Key") == 1
    served.verify()


def test_data_classes_have_the_documented_fields_first_and_in_order() -> None:
    shown = [block for block in blocks() if is_definition(block)]
    assert len(shown) == 4
    for block in shown:
        names: dict[str, Any] = {**vars(typing), "dataclass": dataclasses.dataclass}
        exec(block, {**names, "datetime": datetime}, names)  # noqa: S102
        [documented] = [each for each in names.values() if is_documented(each)]
        ours = getattr(venice_sdk, documented.__name__)
        expected = [field.name for field in dataclasses.fields(documented)]
        assert [field.name for field in dataclasses.fields(ours)][: len(expected)] == expected


def is_documented(value: object) -> bool:
    """Whether it is a class that a block has just made."""
    return dataclasses.is_dataclass(value) and isinstance(value, type)


# ── Keys ────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_key_has_its_secret_and_keeps_to_its_kind(
    client: VeniceClient, served: Installation
) -> None:
    made = client.api_keys.create("mine", permissions=["read"], expires_in_days=30)
    assert made.api_key is not None
    assert made.api_key.startswith("bsk_")
    assert made.api_key not in repr(made)
    assert made.permissions == {"type": "INFERENCE"}
    admin = client.api_keys.create("boss", permissions=["ADMIN"])
    assert admin.api_key is not None
    with VeniceClient(admin.api_key) as boss:
        assert {key.id for key in boss.api_keys.list()} >= {made.id, admin.id}
    seen = client.api_keys.get(made.id)
    assert seen is not None
    assert (seen.name, seen.api_key, seen.is_active) == ("mine", None, True)
    with Bursar(base_url=served.url) as own:
        ends = own.api_keys.get(int(made.id)).expires_at
    assert ends is not None
    assert timedelta(days=29) < ends - datetime.now(UTC) <= timedelta(days=30)
    assert client.api_keys.delete(made.id) is True
    assert client.api_keys.delete(made.id) is False
    assert client.api_keys.get(made.id) is None
    with pytest.raises(APIKeyError, match="not supported"):
        client.api_keys.update(admin.id, name="other")


def test_rate_limits_say_what_applies_and_what_is_used(
    client: VeniceClient, caller: VeniceClient, served: Installation
) -> None:
    assert client.api_keys.get_rate_limits().requests_per_minute == UNLIMITED
    assert client.account.check_rate_limit_status()["status"] == "ok"
    with Bursar(base_url=served.url) as own:
        own.limits.set(scope="key:3", resource="requests", window="day", limit=1)
        own.limits.set(scope="account", resource="tokens", window="day", limit=10**6)
    caller.chat.complete(HELLO)
    limits = caller.api_keys.get_rate_limits()
    assert (limits.requests_per_day, limits.tokens_per_day) == (1, 10**6)
    assert limits.current_usage == {"requests_per_day": 1}
    assert limits.reset_time is not None
    assert limits.reset_time > datetime.now(UTC)
    assert list(client.api_keys.get_rate_limits().current_usage) == ["tokens_per_day"]
    status = caller.account.check_rate_limit_status()
    assert (status["status"], status["current_usage"]) == ("exceeded", limits.current_usage)

    with pytest.raises(RateLimitError) as refused:
        caller.chat.complete(HELLO)
    assert refused.value.status_code == 429
    assert refused.value.retry_after is not None
    logged = wait_for_log(client)
    assert (logged.status_code, logged.error_type) == (429, "requests_per_day")
    assert (logged.endpoint, logged.tokens_used) == ("chat.completions", 0)
    assert client.api_keys.get_rate_limits_log(limit=0) == []


def wait_for_log(client: VeniceClient) -> venice_sdk.RateLimitLog:
    """The last refusal; the log follows within some seconds."""
    import time

    deadline = time.monotonic() + 20
    while not (found := client.api_keys.get_rate_limits_log(limit=5)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found[0]


# ── Money ───────────────────────────────────────────────────────────────────────────────────────


def test_every_figure_is_the_ledgers(
    client: VeniceClient, caller: VeniceClient, served: Installation
) -> None:
    answer = caller.chat.complete(HELLO, model=MODEL, max_tokens=50)
    text = "".join(caller.chat.complete(HELLO, model=MODEL, max_tokens=50, stream=True))
    assert text == answer["choices"][0]["message"]["content"] != ""
    with Bursar(base_url=served.url) as own:
        balance = own.billing.balance().balance
        events = own.usage.events().all()
    spent = sum((event.cost for event in events), Decimal(0))
    assert 100 - balance == spent > 0
    summary = client.billing.get_billing_summary()
    assert (summary["current_balance"], summary["total_spent"]) == (balance, spent)
    usage = client.billing.get_usage()
    assert usage.total_usage == client.billing.get_total_usage() == int(spent * 1000)
    assert usage.credits_remaining == client.billing.get_credits_remaining() == int(balance * 1000)
    used = client.billing.get_usage_by_model()[MODEL]
    assert (used.model_id, used.requests) == (MODEL, 2)
    assert used.tokens == sum(event.input_tokens + event.output_tokens for event in events)


def test_an_inference_key_sees_no_money_and_no_keys(caller: VeniceClient) -> None:
    for ask in (caller.api_keys.list, caller.billing.get_usage, caller.billing.get_billing_summary):
        with pytest.raises(UnauthorizedError) as refused:
            ask()
        assert refused.value.status_code == 401
    assert set(caller.get_account_summary()) == {"rate_limits"}


def test_what_cannot_be_paid_is_refused(client: VeniceClient, served: Installation) -> None:
    with Bursar(base_url=served.url) as own:
        poor = own.api_keys.create("poor", credit_limit="0.000001").key
    with VeniceClient(poor) as caller, pytest.raises(InsufficientBalanceError) as refused:
        caller.chat.complete(HELLO)
    assert refused.value.status_code == 402
    assert refused.value.__cause__ is not None


# ── The way there ───────────────────────────────────────────────────────────────────────────────


def test_a_server_that_is_not_there_is_said_to_be_so() -> None:
    with VeniceClient("bpk_x", "http://127.0.0.1:9/api/v1", max_retries=0) as client:
        with pytest.raises(APIKeyError, match="cannot be reached"):
            client.api_keys.list()
        with pytest.raises(BillingError, match="cannot be reached"):
            client.billing.get_usage()
        with pytest.raises(VeniceConnectionError):
            client.chat.complete(HELLO)
    with pytest.raises(VeniceAPIError, match="base URL"):
        VeniceClient("bpk_x", "nowhere")
