"""A program as people write it, for the type checker: never run, but checked strictly by a test."""

from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import assert_type

from bursar import AsyncBursar, Bursar, RawResponse
from bursar.sdk.calls import Page
from bursar.sdk.frames import Listing
from bursar.sdk.pages import AsyncPaged, Paged
from bursar.sdk.resources.api_keys import ApiKey, NewApiKey
from bursar.sdk.resources.billing import Balance
from bursar.sdk.resources.chat import ChatChunk, ChatCompletion
from bursar.sdk.resources.limits import Limit
from bursar.sdk.resources.meter import Receipt
from bursar.sdk.resources.operator.accounts import Posting
from bursar.sdk.resources.people.auth import OpenSession
from bursar.sdk.resources.people.users import Invitation, User
from bursar.sdk.streams import AsyncStream, Stream

HELLO = [{"role": "user", "content": "hello"}]


def blocking() -> None:
    """The blocking face."""
    with Bursar(timeout_s=5) as client:
        assert_type(client, Bursar)
        assert_type(client.with_options(max_retries=0), Bursar)
        made = client.api_keys.create("laptop", credit_limit=Decimal("0.5"))
        assert_type(made, NewApiKey)
        assert_type(made.key, str)
        assert_type(made.credit_limit, Decimal | None)
        assert_type(made.created_at, datetime)
        several = client.api_keys.create_many([{"name": "a", "labels": {"team": "b"}}])
        assert_type(several, Listing[NewApiKey])
        receipt = client.meter.record([{"id": "1", "product": "scans", "quantities": {"pages": 3}}])
        assert_type(receipt, Receipt)
        keys = client.api_keys.list(is_enabled=True)
        assert_type(keys, Paged[ApiKey])
        assert_type(keys.first(), ApiKey | None)
        assert_type(keys.all(), Listing[ApiKey])
        assert_type([key.name for key in keys], list[str])
        assert_type(client.billing.balance.with_raw_response(), RawResponse[Balance])
        assert_type(client.api_keys.list.with_raw_response(), RawResponse[Page[ApiKey]])
        assert_type(client.operator.accounts.grant(1, amount=1), Posting)
        assert_type(client.limits.list().first(), Limit | None)
        assert_type(client.chat.complete(model="m", messages=HELLO), ChatCompletion)
        stream = client.chat.complete(model="m", messages=HELLO, stream=True)
        assert_type(stream, Stream[ChatChunk])
        client.api_keys.delete(made.id)
    with Bursar.log_in("ann@example.test", "x", code="123456", keep="file") as person:
        assert_type(person, Bursar)
        assert_type(person.users.me(), User)
        assert_type(person.users.list(), Paged[User])
        assert_type(person.auth.list_sessions(), Listing[OpenSession])
        person.log_out()


async def awaited() -> None:
    """The awaited face."""
    async with AsyncBursar() as client:
        assert_type(await client.api_keys.create("laptop"), NewApiKey)
        keys = client.api_keys.list()
        assert_type(keys, AsyncPaged[ApiKey])
        assert_type(await keys.all(), Listing[ApiKey])
        assert_type(await client.billing.balance.with_raw_response(), RawResponse[Balance])
        stream = await client.chat.complete(model="m", messages=HELLO, stream=True)
        assert_type(stream, AsyncStream[ChatChunk])
        assert_type(aiter(stream), AsyncIterator[ChatChunk])
    person = await AsyncBursar.log_in("ann@example.test", "x", keep="keyring")
    assert_type(person, AsyncBursar)
    assert_type(await person.users.invite("bob@example.test", role="viewer"), Invitation)
    await person.log_out()


def mistaken(client: Bursar) -> None:
    """What must not pass; a check that finds nothing here fails as an unused ignore."""
    client.api_keys.create()  # type: ignore[call-arg]
    client.api_keys.create("x", colour="red")  # type: ignore[call-arg]
    client.api_keys.update(1, credit_limit=[])  # type: ignore[arg-type]
    client.api_keys.get("x")  # type: ignore[arg-type]
    client.api_keys.create_many([{"nme": "a"}])  # type: ignore[typeddict-item]
    client.meter.record([{"id": "1"}])  # type: ignore[typeddict-item]
    client.chat.complete(model="m", messages=[1])  # type: ignore[list-item]
    client.users.update(1, role="king")  # type: ignore[arg-type]
    Bursar.log_in("ann@example.test", "x", keep="cloud")  # type: ignore[arg-type]
    client.nothing  # type: ignore[attr-defined]  # noqa: B018
