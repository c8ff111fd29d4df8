"""Every part of the API through both faces, against a served installation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from bursar import (
    Bursar,
    Conflict,
    Forbidden,
    InsufficientCredit,
    InvalidRequest,
    NotFound,
    Unauthenticated,
)
from bursar.sdk.resources.api_keys import NewKey
from tests.sdk.faces import Face
from tests.serving import MODEL, House

HELLO = [{"role": "user", "content": "hello there"}]
SOON = datetime(2031, 1, 2, 3, 4, 5, tzinfo=UTC)


async def test_an_account_and_its_money_are_exact(
    face: Face, client: Bursar, caller: Bursar, house: House
) -> None:
    account = await face.do(client.account.get)
    assert (account.id, account.status, account.balance) == (1, "active", Decimal(10))
    assert account.created_at.tzinfo is not None
    answer = await face.do(caller.chat.complete, model=MODEL, messages=HELLO)
    assert answer.cost == Decimal(house.sold_nanos()) / 10**9 > 0
    balance = (await face.do(client.billing.balance)).balance
    assert balance == 10 - answer.cost
    usage, grant = await face.all(client.billing.transactions(page_size=1))
    assert (usage.kind, usage.amount, usage.model) == ("usage", -answer.cost, MODEL)
    assert (grant.kind, grant.amount) == ("grant", Decimal(10))


async def test_every_figure_of_one_call_is_the_same(
    face: Face, client: Bursar, caller: Bursar
) -> None:
    answer = await face.do(caller.chat.complete, model=MODEL, messages=HELLO, max_tokens=20)
    [event] = await face.all(client.usage.events(model=MODEL, end=SOON))
    assert (event.id, event.cost, event.outcome) == (answer.request_id, answer.cost, "ok")
    report = await face.do(client.usage.activity, days=1, fresh=True)
    assert report.total_stats.total_cost == report.daily_stats[0].total_cost == answer.cost
    assert report.top_models[0].model_name == MODEL
    assert report.api_key_usage[0].total_cost == answer.cost
    assert answer.usage is not None
    assert report.total_stats.total_output_tokens == answer.usage.completion_tokens
    assert report.as_of <= datetime.now(UTC) + timedelta(seconds=5)


async def test_events_are_filtered_and_paged(face: Face, client: Bursar, caller: Bursar) -> None:
    for _ in range(5):
        await face.do(caller.chat.complete, model=MODEL, messages=HELLO)
    whole = await face.all(client.usage.events())
    assert len({event.id for event in whole}) == 5
    paged = client.usage.events(page_size=2)
    assert await face.all(paged) == whole
    # Read once more, it is asked for once more.
    assert await face.items(paged) == whole
    assert await face.do(paged.first) == whole[0]
    assert await face.do(client.usage.events(key_id=10**6).first) is None
    assert await face.all(client.usage.events(end=whole[-1].at)) == []


async def test_a_key_lives_from_creation_to_deletion(
    face: Face, client: Bursar, house: House
) -> None:
    made = await face.do(
        client.api_keys.create,
        "laptop",
        credit_limit=Decimal("0.000000001"),
        expires_at=SOON,
        models=["gpt-*"],
        labels={"team": "search"},
    )
    assert (made.name, made.credit_limit, made.expires_at) == ("laptop", Decimal("1E-9"), SOON)
    assert (made.models, made.labels) == (("gpt-*",), {"team": "search"})
    own = face.client(made.key, base_url=house.url)
    seen = await face.do(own.api_keys.current)
    assert (seen.id, seen.limits[0].limit) == (made.id, Decimal("1E-9"))
    with pytest.raises(InsufficientCredit) as refused:
        await face.do(own.chat.complete, model=MODEL, messages=HELLO)
    assert refused.value.details["allowance"] == f"key:{made.id}/cost/lifetime"

    changed = await face.do(
        client.api_keys.update, made.id, name="desk", credit_limit=None, expires_at=None
    )
    assert (changed.name, changed.credit_limit, changed.expires_at) == ("desk", None, None)
    assert changed.models == ("gpt-*",)
    assert (await face.do(own.chat.complete, model=MODEL, messages=HELLO)).text
    stopped = await face.do(client.api_keys.update, made.id, is_enabled=False, models=None)
    assert (stopped.is_enabled, stopped.models) == (False, None)
    with pytest.raises(Unauthenticated):
        await face.do(own.api_keys.current)

    found = await face.all(client.api_keys.list())
    assert [key.id for key in found][-1] == made.id
    assert await face.do(client.api_keys.get, made.id) == found[-1]
    await face.do(client.api_keys.delete, made.id)
    with pytest.raises(NotFound):
        await face.do(client.api_keys.get, made.id)


async def test_keys_are_found_rotated_and_made_in_bulk(
    face: Face, client: Bursar, house: House
) -> None:
    wanted: list[NewKey] = [{"name": f"bulk {n}", "credit_limit": "1.50"} for n in range(3)]
    several = await face.do(client.api_keys.create_many, wanted)
    assert [key.name for key in several] == ["bulk 0", "bulk 1", "bulk 2"]
    assert len({key.key for key in several}) == 3
    found = await face.all(client.api_keys.list(q="bulk", is_enabled=True, page_size=2))
    assert [key.id for key in found] == [key.id for key in several]
    rotated = await face.do(client.api_keys.rotate, several[0].id, grace_s=0)
    assert rotated.key != several[0].key
    assert (await face.do(face.client(rotated.key, base_url=house.url).api_keys.current)).id
    with pytest.raises(Unauthenticated):
        await face.do(face.client(several[0].key, base_url=house.url).api_keys.current)


async def test_limits_are_set_seen_explained_and_lifted(
    face: Face, client: Bursar, caller: Bursar
) -> None:
    one = await face.do(
        client.limits.set, scope="account", resource="cost", window="month", limit="5.5"
    )
    assert (one.limit, one.soft_limit, one.unit) == (Decimal("5.5"), None, "usd")
    assert len(one.next_resets) == 3
    assert one.next_resets[0] == one.resets_at
    calls = await face.do(
        client.limits.set, scope="key:3", resource="requests", window="day", limit=1, soft_limit=1
    )
    assert (calls.limit, calls.soft_limit, calls.used, calls.left) == (1, 1, 0, 1)
    assert isinstance(calls.limit, int)

    await face.do(caller.chat.complete, model=MODEL, messages=HELLO)
    listed = await face.all(client.limits.list(scope="key:3", resource="requests"))
    assert [(limit.name, limit.used, limit.left) for limit in listed] == [(calls.name, 1, 0)]
    told = await face.do(client.limits.explain, key_id=3, model=MODEL, prompt_tokens=10)
    assert (told.verdict.is_allowed, told.verdict.status, told.verdict.limit) == (
        False,
        429,
        calls.name,
    )
    assert told.needs is not None
    assert told.needs.cost > 0

    lifted = {"scope": "key:3", "resource": "requests", "window": "day"}
    await face.do(client.limits.remove, **lifted)
    with pytest.raises(NotFound):
        await face.do(client.limits.remove, **lifted)
    assert await face.all(client.limits.log()) == []
    assert await face.all(client.alerts.list()) == []


async def test_the_operator_opens_credits_and_stops_accounts(
    face: Face, operator: Bursar, house: House
) -> None:
    opened = await face.do(operator.operator.accounts.create, "Other", credit="3")
    assert (opened.name, opened.balance) == ("Other", 3)
    posted = await face.do(operator.operator.accounts.grant, opened.id, amount=2, note="Invoice 7")
    assert (posted.balance, posted.transaction.amount, posted.transaction.note) == (
        5,
        2,
        "Invoice 7",
    )
    taken = await face.do(
        operator.operator.accounts.correct, opened.id, amount="-0.000000001", reason="a trifle"
    )
    assert taken.balance == Decimal("4.999999999")
    made = await face.do(
        operator.operator.accounts.create_key, opened.id, name="p", kind="provisioning"
    )
    theirs = face.client(made.key, base_url=house.url)
    assert (await face.do(theirs.account.get)).id == opened.id
    await face.do(operator.operator.accounts.suspend, opened.id)
    with pytest.raises(Forbidden) as refused:
        await face.do(theirs.account.get)
    assert refused.value.code == "account_suspended"
    assert (await face.do(operator.operator.accounts.resume, opened.id)).status == "active"
    renamed = await face.do(operator.operator.accounts.update, opened.id, name="Another")
    assert renamed == await face.do(operator.operator.accounts.get, opened.id)
    names = [
        account.name for account in await face.all(operator.operator.accounts.list(page_size=1))
    ]
    assert names[-1] == "Another"
    with pytest.raises(Unauthenticated) as wrong:
        await face.do(operator.account.get)
    assert wrong.value.code == "wrong_key_type"


async def test_plans_are_made_given_and_deleted(face: Face, operator: Bursar) -> None:
    plans = operator.operator.plans
    made = await face.do(plans.create, "Small")
    bounded = await face.do(
        plans.set_limit,
        made.id,
        scope="account",
        resource="cost",
        window="month",
        default_limit=Decimal("12.34"),
        most_limit=20,
    )
    [line] = bounded.limits
    assert (line.default_limit, line.most_limit) == (Decimal("12.34"), 20)
    account = await face.do(operator.operator.accounts.create, "X", plan_id=made.id)
    assert account.plan_id == made.id
    with pytest.raises(Conflict):
        await face.do(plans.delete, made.id)
    await face.do(operator.operator.accounts.update, account.id, plan_id=1)
    await face.do(plans.remove_limit, made.id, scope="account", resource="cost", window="month")
    assert (await face.do(plans.rename, made.id, name="Tiny")).limits == ()
    assert (await face.do(plans.get, made.id)).name == "Tiny"
    assert made.id in [plan.id for plan in await face.all(plans.list())]
    await face.do(plans.delete, made.id)


async def test_models_are_listed_without_a_key(face: Face, house: House) -> None:
    anybody = face.client(base_url=house.url)
    listed = await face.do(anybody.models.list)
    assert MODEL in [model.id for model in listed]
    assert (await face.do(anybody.models.get, MODEL)).id == MODEL
    with pytest.raises(NotFound):
        await face.do(anybody.models.get, "nobody's")


async def test_a_streamed_answer_is_the_whole_one(
    face: Face, caller: Bursar, client: Bursar
) -> None:
    whole = await face.do(caller.chat.complete, model=MODEL, messages=HELLO, max_tokens=12)
    stream = await face.do(
        caller.chat.complete,
        model=MODEL,
        messages=HELLO,
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = await face.items(stream)
    assert "".join(chunk.text for chunk in chunks) == whole.text != ""
    assert chunks[-1].usage == whole.usage
    streamed, _ = await face.all(client.usage.events())
    assert (streamed.id, streamed.cost) == (stream.request_id, whole.cost)


async def test_what_the_server_refuses_says_which_field_and_which_request(
    face: Face, client: Bursar
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await face.do(client.api_keys.create, "x", credit_limit="-1")
    error = refused.value
    assert (error.status, error.param) == (422, "credit_limit")
    assert error.request_id is not None
    assert error.request_id.startswith("req_")
    assert str(error).endswith(f"(422, {error.code}, {error.request_id})")


async def test_a_raw_response_has_headers_beside_the_value(
    face: Face, client: Bursar, caller: Bursar
) -> None:
    raw = await face.do(client.billing.balance.with_raw_response)
    assert (raw.status, raw.value.balance) == (200, 10)
    assert raw.text == '{"balance":"10.00"}'
    assert raw.request_id == raw.headers["x-request-id"]
    await face.do(client.api_keys.create, "second")
    page = await face.do(client.api_keys.list.with_raw_response, page_size=1)
    assert len(page.value.items) == 1
    assert page.value.next_cursor is not None
    answer = await face.do(caller.chat.complete.with_raw_response, model=MODEL, messages=HELLO)
    assert answer.headers["x-bursar-cost"] == format(answer.value.cost or 0, "f")


async def test_the_same_idempotency_key_does_it_once(face: Face, client: Bursar) -> None:
    first = await face.do(client.api_keys.create, "once", idempotency_key="k1")
    again = await face.do(client.api_keys.create, "once", idempotency_key="k1")
    other = await face.do(client.api_keys.create, "once")
    assert again == first
    assert again.key == first.key
    assert other.id != first.id


async def test_labels_of_a_call_reach_its_event(face: Face, client: Bursar, house: House) -> None:
    made = await face.do(client.api_keys.create, "labelled", label_names=["feature"])
    own = face.client(made.key, base_url=house.url)
    labels = {"feature": "ä, b=c %"}
    await face.do(own.chat.complete, model=MODEL, messages=HELLO, labels=labels)
    event = await face.do(client.usage.events().first)
    assert event is not None
    assert event.labels == labels


async def test_projects_group_keys_and_what_they_use(
    face: Face, client: Bursar, house: House
) -> None:
    made = await face.do(client.projects.create, "Search", labels={"team": "search"})
    key = await face.do(client.api_keys.create, "of the project", project_id=made.id)
    own = face.client(key.key, base_url=house.url)
    answer = await face.do(own.chat.complete, model=MODEL, messages=HELLO)
    for group_by, group in (("project", made.id), ("label:team", "search"), ("key", key.id)):
        summary = await face.do(client.usage.summary, group_by=group_by)
        assert [(each.group, each.total_cost) for each in summary.groups] == [(group, answer.cost)]
        assert summary.total.total_cost == answer.cost
    [event] = await face.all(client.usage.events(project_id=made.id, label="team=search"))
    assert (event.project_id, event.labels) == (made.id, {"team": "search"})
    report = await face.do(client.usage.activity, fresh=True)
    assert [each.project_name for each in report.project_usage] == ["Search"]

    await face.do(
        client.limits.set, scope=f"project:{made.id}", resource="tokens", window="day", limit=9
    )
    seen = await face.do(client.projects.get, made.id)
    assert [limit.limit for limit in seen.limits] == [9]
    renamed = await face.do(client.projects.update, made.id, name="Find", labels=None)
    assert (renamed.name, renamed.labels) == ("Find", {})
    members = await face.do(client.projects.add_member, made.id, user_id=1)
    assert members == await face.do(client.projects.list_members, made.id)
    assert [member.user_id for member in members] == [1]
    await face.do(client.projects.remove_member, made.id, user_id=1)
    with pytest.raises(Conflict):
        await face.do(client.projects.delete, made.id)
    await face.do(client.api_keys.delete, key.id)
    await face.do(client.projects.delete, made.id)
    assert await face.all(client.projects.list()) == []
