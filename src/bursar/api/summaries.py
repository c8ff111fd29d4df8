"""Summaries of usage over HTTP.

Owns their shape. Must not know how usage is summed.
"""

from typing import Final

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.core.errors import Invalid
from bursar.core.money import format_usd
from bursar.edge import pages
from bursar.edge.calls import Call, reply
from bursar.edge.fields import Moment, Usd, format_moment
from bursar.service import summaries
from bursar.service.access import ProvisioningPrincipal
from bursar.store.summaries import GroupSum, SummaryFilter

PARAMETERS: Final = (
    "group_by",
    "from",
    "to",
    "key_id",
    "project_id",
    "user_id",
    "model",
    "label",
    "limit",
)


class SumShape(TypedDict):
    """What was used; cost in USD, `input_tokens` includes cached ones."""

    request_count: int
    total_cost: Usd
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int


class GroupShape(SumShape):
    """What one group used: its id, name or label value, null for usage that has none."""

    group: str | int | None
    name: str | None


class SummaryShape(TypedDict):
    """Usage of a span by group, the dearest first; `other` is what further groups used together.

    `starts_at` is in the span and `ends_at` is not; null is now.
    """

    group_by: str
    starts_at: Moment
    ends_at: Moment | None
    total: SumShape
    groups: list[GroupShape]
    other: SumShape | None


async def show(call: Call[ProvisioningPrincipal]) -> Response:
    """What your account used from one moment to another, by whatever you group it.

    `group_by` is key, project, user, model, endpoint, or `label:` and a label's name. Without
    `from` it is the last 30 days. Spans begin and end with a full hour, unless labels are summed.
    """
    plane, query = call.plane, call.query
    asked = query.find("group_by")
    if asked is None:
        raise Invalid("missing_field", "Say what to group by.", param="group_by")
    group_by = summaries.parse_group(asked)
    now_ms = plane.now_ms()
    from_ms = query.moment("from")
    where = SummaryFilter(
        from_ms=summaries.default_start(now_ms) if from_ms is None else from_ms,
        to_ms=query.moment("to"),
        key_id=query.id("key_id"),
        project_id=query.id("project_id"),
        user_id=query.id("user_id"),
        model=query.name("model"),
        label=query.label("label"),
    )
    limit = query.number("limit", low=1, high=pages.MAX_ITEMS, default=pages.DEFAULT_ITEMS)
    await plane.database.catch_up()
    async with plane.database.read() as tx:
        found = await summaries.summarize(
            tx,
            account_id=call.caller.account_id,
            group_by=group_by,
            where=where,
            limit=limit,
            now_ms=now_ms,
        )
    return reply(
        SummaryShape(
            group_by=group_by,
            starts_at=format_moment(where.from_ms),
            ends_at=None if where.to_ms is None else format_moment(where.to_ms),
            total=_sums(found.total),
            groups=[
                GroupShape(**_sums(each.sums), group=each.sums.group, name=each.name)
                for each in found.groups
            ],
            other=None if found.other is None else _sums(found.other),
        )
    )


def _sums(sums: GroupSum) -> SumShape:
    return SumShape(
        request_count=sums.requests,
        total_cost=format_usd(sums.cost_nanos),
        input_tokens=sums.input_tokens,
        cached_input_tokens=sums.cached_input_tokens,
        output_tokens=sums.output_tokens,
        reasoning_tokens=sums.reasoning_tokens,
    )
