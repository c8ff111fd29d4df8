"""The most that a request can cost, and the longest answer that some money affords.

Owns the bounds on which holds rest: whatever usage an upstream reports within the bounds of
prompt and output, its cost is at most `request_bound_nanos`. Must not know balances or keys.
"""

from collections.abc import Callable
from typing import NamedTuple

from bursar.core import money
from bursar.core.prices import (
    MAX_QUANTITY,
    RATE_SCALE,
    InvalidQuantity,
    Price,
    RateTable,
    Unpriced,
)

# Media can hide behind a short address, so its bytes bound nothing. Without a known context
# window the hold is as large as the longest windows in service; naming the window cures it.
UNKNOWN_CONTEXT_WINDOW = 2**21
# The output asked for when neither the caller nor the price book names a maximum.
UNKNOWN_MAX_OUTPUT = 4096
# Half of the free credit may be held by one request unless that leaves a useless answer.
USEFUL_OUTPUT = 1024
# What a request may ask for at most: output tokens, and answers to choose from.
MOST_TOKENS = 10**9
MOST_CHOICES = 128
# Holds of tokens are estimates: text has about as many bytes to a token.
BYTES_PER_TOKEN = 4


class Bound(NamedTuple):
    """What one request is admitted for: the most that it can cost, and an estimate of its tokens.

    `max_output` is the limit to send upstream for each choice; None sends none (embeddings).
    """

    prompt_tokens: int
    max_output: int | None
    output_tokens: int
    cost_nanos: int
    tokens: int


def bound_request(
    price: Price,
    *,
    body_bytes: int,
    has_media: bool,
    has_output: bool,
    wanted_output: int | None,
    choices: int,
    free_nanos: Callable[[], int],
) -> Bound:
    """Return what a request of this size needs; the gateway holds exactly that.

    `wanted_output` is the caller's own limit; without one it follows from what `free_nanos` says
    the tightest limit of cost has left. Raises Unpriced and InvalidQuantity.
    """
    # By position here and in what follows: this runs for every request, and names cost.
    prompt = prompt_bound(body_bytes, price.context_window, has_media=has_media)
    each = None
    if has_output:
        each = _output_limit(price, prompt, wanted_output, choices, free_nanos)
    output = (each or 0) * choices
    cost_nanos = request_bound_nanos(price, prompt, output)
    return Bound(prompt, each, output, cost_nanos, body_bytes // BYTES_PER_TOKEN + output)


def prompt_bound(body_bytes: int, context_window: int | None, *, has_media: bool) -> int:
    """Return the most tokens that the prompt in a request body of this many bytes can have.

    A token is at least one UTF-8 byte, and no prompt is longer than the context window.
    """
    if has_media:
        return UNKNOWN_CONTEXT_WINDOW if context_window is None else context_window
    return body_bytes if context_window is None else min(body_bytes, context_window)


def request_bound_nanos(price: Price, prompt_tokens: int, output_tokens: int) -> int:
    """Return the most, in nano-USD, that one request within these token counts can cost.

    Takes the dearest part of each direction in the dearest tier that the prompt can reach,
    and a flat rate for `requests`; other meters are the caller's to add. Raises Unpriced
    where tokens have no rate, InvalidQuantity for counts or a result out of range.
    """
    if not (0 <= prompt_tokens <= MAX_QUANTITY and 0 <= output_tokens <= MAX_QUANTITY):
        raise _out_of_range()
    most = 0
    for table in price.tables:
        if table.above_input_tokens and prompt_tokens <= table.above_input_tokens:
            break
        # Written out, because this runs for every request; `_fixed` and `_per_output` say the same.
        per_input, per_output = table.most_input, table.most_output
        if per_input is None or per_output is None:
            scaled = _fixed(table, prompt_tokens)
            scaled += output_tokens * _per_output(table) if output_tokens else 0
        else:
            scaled = table.per_request + prompt_tokens * per_input + output_tokens * per_output
        most = max(most, scaled)
    nanos = (2 * most + RATE_SCALE) // (2 * RATE_SCALE)
    if nanos > money.MAX_NANOS:
        raise InvalidQuantity("The request could cost more than any amount of money.")
    return 1 if most and not nanos else nanos


def affordable_output(price: Price, *, prompt_tokens: int, nanos: int) -> int:
    """Return the most output tokens for which the request's bound is at most `nanos`.

    0 when not even the prompt fits; MAX_QUANTITY where output is free. Raises as
    request_bound_nanos.
    """
    _require_counts(prompt_tokens, 0)
    if nanos < 0:
        return 0
    # Half up rounds to at most `nanos` exactly what is below `nanos` and a half; and into no
    # money fits only what costs nothing, because any priced use costs at least one.
    most = nanos * RATE_SCALE + (RATE_SCALE - 1) // 2 if nanos else 0
    affordable = MAX_QUANTITY
    for table in price.tables:
        if table.above_input_tokens and prompt_tokens <= table.above_input_tokens:
            break
        room = most - _fixed(table, prompt_tokens)
        if room < 0:
            return 0
        per_output = _per_output(table)
        if per_output:
            affordable = min(affordable, room // per_output)
    return affordable


def default_output(price: Price, *, prompt_tokens: int, free_nanos: int) -> int | None:
    """Return the output limit to send upstream when the caller named none.

    The model's maximum, lowered to what half of the free credit affords, or to what all of it
    affords where half means less than USEFUL_OUTPUT tokens. None: not even one token.
    """
    affordable = affordable_output(price, prompt_tokens=prompt_tokens, nanos=free_nanos // 2)
    if affordable < USEFUL_OUTPUT:
        affordable = affordable_output(price, prompt_tokens=prompt_tokens, nanos=free_nanos)
    return min(affordable, _model_maximum(price)) or None


def _output_limit(
    price: Price, prompt: int, wanted: int | None, choices: int, free_nanos: Callable[[], int]
) -> int:
    """The output limit to send upstream and to hold for, for each choice."""
    if wanted is not None:
        most = price.max_output_tokens
        return wanted if most is None or wanted <= most else most
    free = free_nanos()
    chosen = default_output(price, prompt_tokens=prompt, free_nanos=free)
    if chosen is None:
        # Not even one token is affordable: hold for one, and let admission say what is missing.
        return 1
    if choices > 1:
        all_of_it = affordable_output(price, prompt_tokens=prompt, nanos=free)
        return max(1, min(chosen, all_of_it // choices))
    return chosen


def _model_maximum(price: Price) -> int:
    if price.max_output_tokens is not None:
        return price.max_output_tokens
    if price.context_window is not None:
        return min(UNKNOWN_MAX_OUTPUT, price.context_window)
    return UNKNOWN_MAX_OUTPUT


def _fixed(table: RateTable, prompt_tokens: int) -> int:
    if not prompt_tokens:
        return table.per_request
    if table.most_input is None:
        raise Unpriced("There is no rate for input tokens.")
    return table.per_request + prompt_tokens * table.most_input


def _per_output(table: RateTable) -> int:
    if table.most_output is None:
        raise Unpriced("There is no rate for output tokens.")
    return table.most_output


def _require_counts(prompt_tokens: int, output_tokens: int) -> None:
    if not (0 <= prompt_tokens <= MAX_QUANTITY and 0 <= output_tokens <= MAX_QUANTITY):
        raise _out_of_range()


def _out_of_range() -> InvalidQuantity:
    return InvalidQuantity(f"A token count must be from 0 to {MAX_QUANTITY}.")
