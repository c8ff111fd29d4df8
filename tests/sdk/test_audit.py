"""The audit log through both faces."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bursar import Bursar, InvalidRequest, Unauthenticated
from tests.sdk.faces import Face
from tests.serving import House


async def test_what_was_changed_is_listed_filtered_and_paged(face: Face, client: Bursar) -> None:
    began = datetime.now(UTC) - timedelta(seconds=5)
    made = await face.do(client.api_keys.create, "laptop", credit_limit="1.50")
    await face.do(client.api_keys.update, made.id, name="desk")
    await face.do(client.api_keys.delete, made.id)
    where: dict[str, Any] = {"target": f"key:{made.id}"}
    found = await face.all(client.audit.list(**where, page_size=1))
    assert [each.action for each in found] == ["key.delete", "key.update", "key.create"]
    deletion, update, creation = found
    assert (creation.before, deletion.after) == (None, None)
    assert update.before is not None
    assert update.after is not None
    assert (update.before["name"], update.after["name"]) == ("laptop", "desk")
    assert began <= creation.at <= update.at <= deletion.at
    assert made.key not in "".join(map(repr, found))
    assert await face.all(client.audit.list(action="key", start=began, **where)) == found
    assert await face.all(
        client.audit.list(action="key.create", actor=creation.actor, **where)
    ) == [creation]
    assert await face.all(client.audit.list(end=began, **where)) == []
    head = await face.do(client.audit.head)
    assert head is not None
    assert (head.id, head.hash) == (deletion.id, deletion.hash)


async def test_an_operator_reads_every_log_and_their_own(
    face: Face, house: House, client: Bursar, operator: Bursar
) -> None:
    await face.do(client.api_keys.create, "laptop")
    own = await face.all(client.audit.list())
    assert await face.all(operator.operator.audit.list(account_id=house.account_id)) == own
    await face.do(operator.operator.plans.create, "Gold")
    [planned] = await face.all(operator.operator.audit.list(action="plan.create"))
    head = await face.do(operator.operator.audit.head)
    assert head is not None
    assert head.hash == planned.hash
    of_account = await face.do(operator.operator.audit.head, account_id=house.account_id)
    assert of_account == await face.do(client.audit.head)


async def test_a_log_is_not_for_everybody(face: Face, client: Bursar, caller: Bursar) -> None:
    with pytest.raises(Unauthenticated):
        await face.all(caller.audit.list())
    with pytest.raises(Unauthenticated):
        await face.do(client.operator.audit.head)
    with pytest.raises(InvalidRequest):
        await face.all(client.audit.list(action="nothing.at_all"))
