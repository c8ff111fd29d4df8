"""Explaining: what would become of a request, which limits apply to it and what they have left.

Owns the order in which a request would be refused, as the gateway has it, and the arithmetic of
what it needs, which is the gateway's own (`core.bounds`). Nothing is leased, held or charged. Must
not know which upstreams there are: whoever wires the parts hands that in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from bursar.core import allowances as steps
from bursar.core import bounds, permissions, text, windows
from bursar.core.allowances import Allowance, Resource
from bursar.core.bounds import Bound
from bursar.core.errors import Invalid, NotFound
from bursar.core.permissions import Environment
from bursar.core.pricebook import PriceBook
from bursar.core.prices import InvalidQuantity, Price
from bursar.core.refusals import Deny, Reason, deny
from bursar.core.secrets import KeyKind
from bursar.core.windows import Window
from bursar.service.limits import verdicts
from bursar.service.limits.verdicts import Standing, Verdict
from bursar.store import credentials, prices
from bursar.store.credentials import CredentialRow
from bursar.store.database import ReadTx

CHAT: Final = "chat.completions"
# Of a prompt's tokens or bytes: more than any context window holds.
MOST_PROMPT: Final = 10**9
# From the widest scope to the narrowest, and the slowest window to the quickest.
_SCOPES: Final = ("wallet", "account", "project", "user", "key")
_RESOURCES: Final = tuple(Resource)
_RESETS: Final = 3
_WINDOWS: Final = tuple(reversed(Window))

# Refusals that come before anybody asks where the request is from.
_FIRST: Final = frozenset((Reason.DISABLED, Reason.EXPIRED, Reason.ACCOUNT_SUSPENDED))

# Who would serve a model, in order: its name there, and whether that is the built-in sandbox.
Serving: TypeAlias = Callable[[str], Sequence[tuple[str, bool]]]


@dataclass(frozen=True, slots=True)
class Question:
    """A request that nobody has made: `body_bytes` of JSON, and what it asks for.

    `max_output` None leaves the limit of each of the `choices` to the gateway.
    """

    key_id: int
    model: str
    body_bytes: int
    endpoint: str = CHAT
    max_output: int | None = None
    choices: int = 1


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would become of it. `bound` is None for a model that is not served at a price.

    `affordable_output` is the longest answer, in tokens for each choice, that the limits of cost
    pay for; `affordable_requests` how many such requests all limits let through; None: any number.
    """

    question: Question
    verdict: Verdict
    bound: Bound | None
    standings: tuple[Standing, ...]
    affordable_output: int | None
    affordable_requests: int | None


async def explain(
    tx: ReadTx, *, account_id: int, question: Question, serving: Serving, now_ms: int
) -> Explanation:
    """Return what would become of a request with this key of the account, made now.

    Raises NotFound for the key, and Invalid for what no request can ask for.
    """
    check(question)
    row = await credentials.find_of_key(tx, account_id=account_id, key_id=question.key_id)
    if row is None or row.is_deleted or row.kind != KeyKind.INFERENCE:
        raise NotFound("not_found", "There is nothing here, or it is not yours.")
    served = serving(question.model) if text.is_model_name(question.model) else ()
    places = _reachable(row, question.model, served)
    price = await _find_price(tx, question, places, now_ms)
    standings = _stand(row, question.model, now_ms)
    bound = None if price is None else _bound(question, price, verdicts.left_nanos(standings))
    standings = tuple(replace(each, needs=_needs(each.allowance, bound)) for each in standings)
    refusal = _refusal(row, question, now_ms)
    if refusal is None:
        refusal = _refusal_of_model(bool(served), places, price)
    verdict = Verdict(refusal) if refusal else verdicts.judge(standings, now_ms=now_ms)
    if row.networks is not None and (refusal is None or refusal.reason not in _FIRST):
        # Nobody has said where the request would come from.
        verdict = replace(verdict, is_certain=False)
    return Explanation(
        question,
        verdict,
        bound,
        standings,
        _affordable_output(question, price, bound, standings),
        0 if refusal else verdicts.affordable_requests(standings),
    )


def check(question: Question) -> None:
    """Raise Invalid unless a request can be like this."""
    permissions.clean_endpoint(question.endpoint, param="endpoint")
    has_output = question.endpoint == CHAT
    for name, value, most in (
        ("max_tokens", question.max_output, bounds.MOST_TOKENS),
        ("choices", question.choices, bounds.MOST_CHOICES),
    ):
        if value is not None and not 1 <= value <= most:
            message = f"It must be a whole number from 1 to {most}."
            raise Invalid("invalid_value", message, param=name)
        if not has_output and value not in {None, 1}:
            message = f"{question.endpoint} has no output to choose."
            raise Invalid("invalid_value", message, param=name)


def _refusal(row: CredentialRow, question: Question, now_ms: int) -> Deny | None:
    """What refuses the key itself, in the gateway's order."""
    if not row.is_enabled:
        return deny(Reason.DISABLED)
    if row.expires_ms is not None and row.expires_ms <= now_ms:
        return deny(Reason.EXPIRED)
    if row.account_status != "active":
        return deny(Reason.ACCOUNT_SUSPENDED)
    if row.endpoints is not None and question.endpoint not in row.endpoints:
        return deny(Reason.ENDPOINT_NOT_ALLOWED)
    return None


def _refusal_of_model(is_served: bool, places: Sequence[str], price: Price | None) -> Deny | None:
    if not is_served:
        return deny(Reason.MODEL_NOT_FOUND, param="model")
    if not places:
        return deny(Reason.MODEL_NOT_ALLOWED, param="model")
    return deny(Reason.MODEL_NOT_PRICED, param="model") if price is None else None


def _reachable(row: CredentialRow, model: str, served: Sequence[tuple[str, bool]]) -> list[str]:
    """The model's names at the upstreams at which this key may call it."""
    if row.models is not None and not permissions.any_matches(row.models, model):
        return []
    is_live = row.environment == Environment.LIVE
    return [name for name, is_sandbox in served if is_live or is_sandbox]


async def _find_price(
    tx: ReadTx, question: Question, places: Sequence[str], now_ms: int
) -> Price | None:
    if not places:
        return None
    names = (question.model, places[0])
    book = PriceBook(await prices.list_all(tx, models=names))
    price = book.find(names[0], at_ms=now_ms) or book.find(names[1], at_ms=now_ms)
    if price is None:
        return None
    is_priced = price.is_chat_priced if question.endpoint == CHAT else price.is_embedding_priced
    return price if is_priced else None


def _stand(row: CredentialRow, model: str, now_ms: int) -> tuple[Standing, ...]:
    """The limits that count calls of this model, in their present windows."""
    found = []
    for allowance in row.allowances:
        ref = allowance.ref
        is_limit = allowance.limit is not None or allowance.soft is not None
        if is_limit and (not ref.model or permissions.matches(ref.model, model)):
            window, zone = Window(ref.window), row.time_zone
            present = windows.bounds(window, now_ms=now_ms, zone=zone)
            resets = windows.preview(window, now_ms=now_ms, zone=zone, count=_RESETS)
            rolled = steps.roll(allowance, present.start_ms)
            found.append(Standing(rolled, None, present.end_ms, tuple(resets)))
    return tuple(sorted(found, key=_rank))


def _rank(standing: Standing) -> tuple[int, int, int, str]:
    ref = standing.allowance.ref
    return (
        _SCOPES.index(ref.scope.partition(":")[0]),
        _RESOURCES.index(Resource(ref.resource)),
        _WINDOWS.index(Window(ref.window)),
        ref.model,
    )


def _bound(question: Question, price: Price, left_nanos: int) -> Bound:
    try:
        return bounds.bound_request(
            price,
            body_bytes=question.body_bytes,
            has_media=False,
            has_output=question.endpoint == CHAT,
            wanted_output=question.max_output,
            choices=question.choices,
            free_nanos=lambda: left_nanos,
        )
    except InvalidQuantity as error:
        message = "This could cost more than any amount of money."
        raise Invalid("invalid_value", message, param="max_tokens") from error


def _needs(allowance: Allowance, bound: Bound | None) -> int | None:
    if bound is None:
        return None
    if allowance.ref.resource == Resource.COST:
        return bound.cost_nanos
    return bound.tokens if allowance.ref.resource == Resource.TOKENS else 1


def _affordable_output(
    question: Question, price: Price | None, bound: Bound | None, standings: Sequence[Standing]
) -> int | None:
    if price is None or bound is None or bound.max_output is None:
        return None
    nanos = verdicts.left_nanos(standings)
    together = bounds.affordable_output(price, prompt_tokens=bound.prompt_tokens, nanos=nanos)
    each = together // question.choices
    return each if price.max_output_tokens is None else min(each, price.max_output_tokens)
