"""The gate before the database: so many at once, the rest in order, and nobody for ever."""

from __future__ import annotations

import asyncio

import pytest

from bursar.core.errors import Unavailable
from bursar.edge.gate import Gate


async def test_no_more_are_let_in_than_it_says_and_all_in_their_order() -> None:
    gate = Gate(2)
    inside: set[int] = set()
    most, order = 0, []

    async def call(number: int) -> None:
        nonlocal most
        async with gate.enter():
            order.append(number)
            inside.add(number)
            most = max(most, len(inside))
            await asyncio.sleep(0.001)
            inside.discard(number)

    await asyncio.gather(*(call(number) for number in range(20)))
    assert most == 2
    assert order == list(range(20))


async def test_who_waits_too_long_or_behind_too_many_is_told_to_come_again() -> None:
    gate = Gate(1, most_waiting=2, wait_s=0.05)
    async with gate.enter():
        waiting = [asyncio.create_task(enter(gate)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as refused:
            await enter(gate)
        assert (refused.value.code, refused.value.retry_after_s) == ("overloaded", 1)
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in ended] == [Unavailable, Unavailable]
    # Whoever was refused or has left holds no place.
    await enter(gate)


async def test_a_call_that_fails_or_is_cancelled_gives_its_place_back() -> None:
    gate = Gate(1)
    with pytest.raises(ValueError, match="inside"):
        async with gate.enter():
            raise ValueError("inside")
    async with gate.enter():
        task = asyncio.create_task(enter(gate))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(enter(gate), 1)


async def enter(gate: Gate) -> None:
    async with gate.enter():
        return
