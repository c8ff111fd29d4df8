"""What a call has used, what that costs, and the record that says so.

Owns the step from reported usage to a charge, and the estimate where nothing sensible was
reported. Must not know sockets, or who is told.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from bursar.core.bounds import BYTES_PER_TOKEN
from bursar.core.prices import InvalidQuantity, Price, cost_nanos
from bursar.gateway.meter.usage import Usage
from bursar.gateway.routing import Route
from bursar.gateway.wire.calls import Call
from bursar.store.plane.charges import Charge
from bursar.worker.keyring import Credential
from bursar.worker.purse import Amounts, Hold, Lease, Slot

_PRODUCT: Final = "gateway"
_OTHERS: Final = ("input_audio_tokens", "output_audio_tokens", "cache_write_tokens")


class Plan(msgspec.Struct, frozen=True, gc=False):
    """What one call may use at most, at which price, and where it can be served.

    `max_output` is the limit sent upstream for each choice; None sends none (embeddings). `slots`
    are the limits that apply, `labels` what the charge is to carry, as it is stored.
    """

    call: Call
    price: Price
    routes: Sequence[Route]
    max_output: int | None
    prompt_tokens: int
    needs: Amounts
    slots: Sequence[Slot] = ()
    labels: str | None = None


class Sale(msgspec.Struct, frozen=True, gc=False):
    """What was sold: the usage, its cost in nano-USD, and whether we had to estimate it."""

    usage: Usage
    cost_nanos: int
    is_estimated: bool


def sale(plan: Plan, usage: Usage | None, estimated_output: int) -> Sale:
    """Price what the upstream reported, or our estimate when the report makes no sense."""
    if usage is not None:
        try:
            return Sale(usage, _cost(plan, usage), is_estimated=False)
        except InvalidQuantity:
            usage = None
    return _estimate(plan, estimated_output)


def _cost(plan: Plan, usage: Usage) -> int:
    used = quantities(usage)
    if plan.price.tables[0].per_request:
        used["requests"] = 1
    return cost_nanos(plan.price, used)


def quantities(usage: Usage) -> dict[str, int]:
    """The usage by meter; parts only where there are any."""
    meters = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    if usage.cached_input_tokens:
        meters["cached_input_tokens"] = usage.cached_input_tokens
    if usage.reasoning_tokens:
        meters["reasoning_tokens"] = usage.reasoning_tokens
    if _has_others(usage):
        meters.update(_others(usage))
    return meters


def charge(
    plan: Plan,
    credential: Credential,
    hold: Hold,
    sold: Sale,
    route: Route,
    request_id: str,
    outcome: str,
    duration_ms: int,
    first_byte_ms: int,
) -> tuple[Charge, list[tuple[Lease, int]]]:
    """End the hold with what was sold; the record to settle and the leases that pay it."""
    usage, call = sold.usage, plan.call
    tokens = usage.input_tokens + usage.output_tokens
    ended = hold.settle(Amounts(sold.cost_nanos, 1, tokens, 0))
    # By position, in the record's own order: a quarter of what twenty-six names cost.
    record = Charge(
        0,  # numbered by settlement
        request_id,
        hold.at_ms,
        credential.account_id,
        credential.key_id,
        credential.user_id,
        credential.project_id,
        _PRODUCT,
        call.endpoint.name,
        call.model,
        route.upstream.name,
        outcome,
        int(call.is_stream),
        int(sold.is_estimated),
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        _json(_others(usage)) if _has_others(usage) else None,
        plan.price.id,
        ended.covered_nanos,
        ended.excess_nanos,
        duration_ms,
        first_byte_ms,
        plan.labels,
        ended.moves,
    )
    return record, ended.parts


def checkpoint(
    plan: Plan,
    credential: Credential,
    hold: Hold,
    sold: Sale,
    *,
    route: Route,
    request_id: str,
    outcome: str,
    duration_ms: int,
    first_byte_ms: int,
) -> Charge:
    """The record to settle if nothing more is heard of the call; the hold goes on."""
    usage = sold.usage
    tokens = usage.input_tokens + usage.output_tokens
    ended = hold.outlook(Amounts(sold.cost_nanos, 1, tokens, 0))
    return Charge(
        seq=0,  # numbered by recovery
        event_id=request_id,
        at_ms=hold.at_ms,
        account_id=credential.account_id,
        key_id=credential.key_id,
        user_id=credential.user_id,
        project_id=credential.project_id,
        product=_PRODUCT,
        endpoint=plan.call.endpoint.name,
        model=plan.call.model,
        upstream=route.upstream.name,
        outcome=outcome,
        is_stream=1,
        is_estimated=1,
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        quantities=_json(_others(usage)) if _has_others(usage) else None,
        price_id=plan.price.id,
        cost_nanos=ended.covered_nanos,
        excess_nanos=ended.excess_nanos,
        duration_ms=duration_ms,
        first_byte_ms=first_byte_ms,
        labels=plan.labels,
        moves=ended.moves,
    )


def _estimate(plan: Plan, estimated_output: int) -> Sale:
    """A token for every four bytes, never more than was held for."""
    prompt = min(plan.prompt_tokens, -(-plan.call.body_bytes // BYTES_PER_TOKEN))
    most = (plan.max_output or 0) * plan.call.choices
    output = min(estimated_output, most) if plan.max_output is not None else 0
    usage = Usage(prompt, 0, output, 0, 0, 0)
    return Sale(usage, _cost(plan, usage), is_estimated=True)


def _has_others(usage: Usage) -> int:
    return usage.input_audio_tokens or usage.output_audio_tokens or usage.cache_write_tokens


def _others(usage: Usage) -> dict[str, int]:
    return {name: getattr(usage, name) for name in _OTHERS if getattr(usage, name)}


def _json(others: dict[str, int]) -> str:
    return "{" + ",".join(f'"{name}":{count}' for name, count in others.items()) + "}"
