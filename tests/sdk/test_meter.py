"""Metering through both faces: what was used beside the gateway is charged once, or refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from bursar import Bursar, InvalidArgument, InvalidRequest, Unauthenticated
from bursar.sdk.resources.meter import MeterEvent
from bursar.store import prices
from bursar.store.prices import NewPrice
from tests.sdk.faces import Face
from tests.serving import House

PAGE = Decimal("0.001000001")


@pytest.fixture(autouse=True)
async def _price(house: House) -> None:
    """A price for pages."""
    async with house.server.database.write() as tx:
        await prices.insert_price(
            tx,
            price=NewPrice(
                model="",
                product="scans",
                per_million={},
                per_unit={"pages": PAGE},
                tiers=(),
                is_free=False,
                context_window=None,
                max_output_tokens=None,
                effective_ms=0,
                source="test",
            ),
        )


def event(name: str, **more: object) -> MeterEvent:
    """Three pages."""
    found: MeterEvent = {"id": name, "product": "scans", "quantities": {"pages": 3}}
    return {**found, **more}  # type: ignore[typeddict-item]


async def test_an_event_is_charged_once_to_the_nano_and_seen_everywhere(
    face: Face, client: Bursar
) -> None:
    at = datetime.now(UTC) - timedelta(minutes=5)
    [key] = [each for each in await face.all(client.api_keys.list()) if each.project_id is None][:1]
    events = [event("a", at=at, labels={"team": "post"}), event("b", key_id=key.id)]
    first = await face.do(client.meter.record, events)
    assert (first.accepted, first.duplicates, first.rejected) == (2, 0, ())
    again = await face.do(client.meter.record, [*events, event("c")])
    assert (again.accepted, again.duplicates) == (1, 2)
    assert (await face.do(client.billing.balance)).balance == 10 - 9 * PAGE
    used = {each.id: each for each in await face.all(client.usage.events())}
    assert [each.cost for each in used.values()] == [3 * PAGE] * 3
    [labelled] = [each for each in used.values() if each.labels]
    assert (labelled.product, labelled.quantities) == ("scans", {"pages": 3})
    assert abs(labelled.at - at) < timedelta(seconds=1)
    assert [each.key_id for each in used.values()].count(key.id) == 1


async def test_one_that_is_refused_keeps_no_other_from_being_charged(
    face: Face, client: Bursar
) -> None:
    unpriced: MeterEvent = {"id": "y", "product": "nothing", "quantities": {"pages": 1}}
    receipt = await face.do(client.meter.record, [event("x"), unpriced, event("z", key_id=10**6)])
    assert receipt.accepted == 1
    assert [each.index for each in receipt.rejected] == [1, 2]
    assert all(each.code and each.message for each in receipt.rejected)
    assert (await face.do(client.billing.balance)).balance == 10 - 3 * PAGE


async def test_a_list_that_makes_no_sense_is_refused_as_a_whole(
    face: Face, client: Bursar, caller: Bursar
) -> None:
    for events in ([], [event(str(number)) for number in range(1_001)]):
        with pytest.raises(InvalidRequest):
            await face.do(client.meter.record, events)
    with pytest.raises(InvalidArgument, match="time zone"):
        await face.do(client.meter.record, [event("a", at=datetime(2031, 1, 1))])  # noqa: DTZ001
    with pytest.raises(Unauthenticated):
        await face.do(caller.meter.record, [event("a")])
    assert (await face.do(client.billing.balance)).balance == 10
