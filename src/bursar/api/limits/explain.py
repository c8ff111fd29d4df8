"""Explanations on the wire: what would become of a request.

Owns their shape. Must not know how a request is judged; `service.limits.explain` does.
"""

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.api import errors
from bursar.api.limits import allowances, amounts
from bursar.api.limits.allowances import LimitShape
from bursar.api.limits.amounts import Amount
from bursar.core import refusals
from bursar.core.bounds import BYTES_PER_TOKEN
from bursar.core.errors import Invalid, NotFound
from bursar.core.money import format_usd
from bursar.edge.body import Model, check
from bursar.edge.calls import Call, reply
from bursar.edge.fields import Moment, Usd, format_moment
from bursar.service.access import ProvisioningPrincipal
from bursar.service.limits import explain as explaining
from bursar.service.limits.allowances import Limit
from bursar.service.limits.explain import CHAT, Explanation, Question
from bursar.service.limits.verdicts import Standing, Verdict

_MAX_ID = 2**63 - 1


class VerdictShape(TypedDict):
    """What the gateway would answer: 200, or a refusal with its code.

    `limit` is the name of the limit that refuses. It is not certain where enough is left only with
    what other requests hold, or where the key may be used from certain networks alone.
    """

    is_allowed: bool
    is_certain: bool
    status: int
    code: str | None
    message: str | None
    limit: str | None
    resets_at: Moment | None
    retry_after_s: int | None


class NeedsShape(TypedDict):
    """What the request would hold: the most that it can cost, and an estimate of its tokens.

    `prompt_tokens` is what its prompt is bounded by; `max_tokens` the limit that would be sent
    upstream for each choice, null where none is.
    """

    cost: Usd
    tokens: int
    prompt_tokens: int
    max_tokens: int | None


class StandingShape(LimitShape):
    """A limit that counts the request, and what the request needs of it.

    `is_held`: enough is left, but only with what servers have leased; they return what is idle.
    """

    needs: Amount | None
    would_refuse: bool
    is_held: bool


class ExplanationShape(TypedDict):
    """What would become of a request. Nothing is held and nothing is charged.

    `limits` go from the widest scope to the narrowest. `affordable_max_tokens` is the longest
    answer, for each choice, that the limits of cost pay for; `affordable_requests` how many such
    requests, one after the other, all limits let through, null: no limit ends them. `needs` is null
    for a model that is not served at a price.
    """

    key_id: int
    model: str
    endpoint: str
    verdict: VerdictShape
    needs: NeedsShape | None
    affordable_max_tokens: int | None
    affordable_requests: int | None
    limits: list[StandingShape]


class ExplainFields(Model):
    """A request that is not made. Its size is either in tokens or in bytes of its body.

    A token is taken for four bytes. Without `max_tokens` the gateway chooses, as it would.
    """

    key_id: int
    model: str
    endpoint: str = CHAT
    prompt_tokens: int | None = None
    prompt_bytes: int | None = None
    max_tokens: int | None = None
    choices: int = 1


async def explain(call: Call[ProvisioningPrincipal]) -> Response:
    """What would become of a request: which limits apply, what they have left, what would refuse.

    The arithmetic and the order of refusals are the gateway's own.
    """
    fields = check(ExplainFields, call.document)
    if not 1 <= fields.key_id <= _MAX_ID:
        raise NotFound("not_found", "There is nothing here, or it is not yours.")
    question = Question(
        fields.key_id,
        fields.model,
        body_bytes(fields.prompt_tokens, fields.prompt_bytes),
        fields.endpoint,
        fields.max_tokens,
        fields.choices,
    )
    await call.plane.database.catch_up()
    async with call.plane.database.read() as tx:
        found = await explaining.explain(
            tx,
            account_id=call.caller.account_id,
            question=question,
            serving=call.plane.serving,
            now_ms=call.plane.now_ms(),
        )
    return reply(shape(found))


def body_bytes(prompt_tokens: int | None, prompt_bytes: int | None) -> int:
    """Return how large the body of such a request is; raises Invalid unless one size is given."""
    if (prompt_tokens is None) == (prompt_bytes is None):
        message = "Give either prompt_tokens or prompt_bytes."
        code = "missing_field" if prompt_tokens is None else "invalid_value"
        raise Invalid(code, message, param="prompt_tokens")
    name = "prompt_bytes" if prompt_tokens is None else "prompt_tokens"
    value = prompt_bytes if prompt_tokens is None else prompt_tokens
    if value is None or not 0 <= value <= explaining.MOST_PROMPT:
        message = f"It must be a whole number from 0 to {explaining.MOST_PROMPT}."
        raise Invalid("invalid_value", message, param=name)
    return value if prompt_tokens is None else value * BYTES_PER_TOKEN


def shape(found: Explanation) -> ExplanationShape:
    """An explanation as JSON has it."""
    needs = None
    if found.bound is not None:
        needs = NeedsShape(
            cost=format_usd(found.bound.cost_nanos),
            tokens=found.bound.tokens,
            prompt_tokens=found.bound.prompt_tokens,
            max_tokens=found.bound.max_output,
        )
    return ExplanationShape(
        key_id=found.question.key_id,
        model=found.question.model,
        endpoint=found.question.endpoint,
        verdict=_verdict(found.verdict),
        needs=needs,
        affordable_max_tokens=found.affordable_output,
        affordable_requests=found.affordable_requests,
        limits=[_standing(each) for each in found.standings],
    )


def _verdict(verdict: Verdict) -> VerdictShape:
    refusal = verdict.refusal
    if refusal is None:
        return VerdictShape(
            is_allowed=True,
            is_certain=verdict.is_certain,
            status=200,
            code=None,
            message=None,
            limit=None,
            resets_at=None,
            retry_after_s=None,
        )
    resets_at_ms = refusal.resets_at_ms
    return VerdictShape(
        is_allowed=False,
        is_certain=verdict.is_certain,
        status=errors.problem_of(refusals.as_error(refusal)).status,
        code=refusal.reason.code,
        message=refusal.message,
        limit=refusal.allowance,
        resets_at=None if resets_at_ms is None else format_moment(resets_at_ms),
        retry_after_s=refusal.retry_after_s,
    )


def _standing(standing: Standing) -> StandingShape:
    resource = standing.allowance.ref.resource
    limit = Limit(standing.allowance, standing.resets_at_ms, standing.next_resets_ms)
    return StandingShape(
        **allowances.shape(limit),
        needs=amounts.write_any(standing.needs, resource=resource),
        would_refuse=standing.would_refuse,
        is_held=standing.is_held,
    )
