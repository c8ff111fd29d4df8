"""The most that a request can cost, and the longest answer that some money affords.

Owns the bounds on which holds rest: whatever usage an upstream reports within the bounds of
prompt and output, its cost is at most `request_bound_nanos`. Must not know balances or keys.
"""

from collections.abc import Iterator

from bursar.core import money
from bursar.core.prices import (
    INPUT,
    INPUT_PARTS,
    MAX_QUANTITY,
    OUTPUT,
    OUTPUT_PARTS,
    RATE_SCALE,
    REQUESTS,
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


def prompt_bound(body_bytes: int, *, has_media: bool, context_window: int | None) -> int:
    """Return the most tokens that the prompt in a request body of this many bytes can have.

    A token is at least one UTF-8 byte, and no prompt is longer than the context window.
    """
    if has_media:
        return UNKNOWN_CONTEXT_WINDOW if context_window is None else context_window
    return body_bytes if context_window is None else min(body_bytes, context_window)


def request_bound_nanos(price: Price, *, prompt_tokens: int, output_tokens: int) -> int:
    """Return the most, in nano-USD, that one request within these token counts can cost.

    Takes the dearest part of each direction in the dearest tier that the prompt can reach,
    and a flat rate for `requests`; other meters are the caller's to add. Raises Unpriced
    where tokens have no rate, InvalidQuantity for counts or a result out of range.
    """
    nanos = max(
        _round_up_to_one(fixed + per_output * output_tokens)
        for fixed, per_output in _lines(price, prompt_tokens, output_tokens)
    )
    if nanos > money.MAX_NANOS:
        raise InvalidQuantity("The request could cost more than any amount of money.")
    return nanos


def affordable_output(price: Price, *, prompt_tokens: int, nanos: int) -> int:
    """Return the most output tokens for which the request's bound is at most `nanos`.

    0 when not even the prompt fits; MAX_QUANTITY where output is free. Raises as
    request_bound_nanos.
    """
    # round_half_up(n) <= nanos exactly when n is below nanos and a half; nothing but a
    # bound of zero fits into no money, because any priced use costs at least one.
    most = nanos * RATE_SCALE + (RATE_SCALE - 1) // 2 if nanos > 0 else 0
    affordable = MAX_QUANTITY
    for fixed, per_output in _lines(price, prompt_tokens, 1):
        if fixed > most or nanos < 0:
            return 0
        if per_output:
            affordable = min(affordable, (most - fixed) // per_output)
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


def _model_maximum(price: Price) -> int:
    if price.max_output_tokens is not None:
        return price.max_output_tokens
    if price.context_window is not None:
        return min(UNKNOWN_MAX_OUTPUT, price.context_window)
    return UNKNOWN_MAX_OUTPUT


def _lines(price: Price, prompt_tokens: int, output_tokens: int) -> Iterator[tuple[int, int]]:
    """Yield, for each tier in reach, the scaled cost of the prompt and of one output token."""
    for count in (prompt_tokens, output_tokens):
        if not 0 <= count <= MAX_QUANTITY:
            raise InvalidQuantity(f"A token count must be from 0 to {MAX_QUANTITY}.")
    for index, table in enumerate(price.tables):
        if index and prompt_tokens <= table.above_input_tokens:
            return
        per_input = _dearest(table, INPUT, INPUT_PARTS) if prompt_tokens else 0
        per_output = _dearest(table, OUTPUT, OUTPUT_PARTS) if output_tokens else 0
        yield prompt_tokens * per_input + table.rates.get(REQUESTS, 0), per_output


def _dearest(table: RateTable, total: str, parts: tuple[str, ...]) -> int:
    rates = [table.rates[meter] for meter in (total, *parts) if meter in table.rates]
    if not rates:
        raise Unpriced(f"There is no rate for {total}.")
    return max(rates)


def _round_up_to_one(scaled: int) -> int:
    return max(money.round_half_up(scaled, RATE_SCALE), 1) if scaled else 0
