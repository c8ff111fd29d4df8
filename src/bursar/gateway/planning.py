"""Plans of calls: at which price a call is served and where, and what it may use at most.

Owns the step from what a request says to what has to be held for it. Must not know holds, or how
anything is sent.
"""

from collections.abc import Sequence
from functools import partial

from bursar.core import bounds
from bursar.core.errors import Invalid, NotFound
from bursar.core.prices import InvalidQuantity, Price
from bursar.core.refusals import Reason, as_error, deny
from bursar.gateway.access.rights import Access
from bursar.gateway.meter.charging import Plan
from bursar.gateway.routing import Route, Router
from bursar.gateway.wire import calls, fields
from bursar.gateway.wire.calls import CHAT, Call, Endpoint
from bursar.worker.keyring import Credential
from bursar.worker.plane import Worker
from bursar.worker.purse import COST, Amounts, Slot


class Planner:
    """Plans the calls of one worker's keys, at this moment's prices."""

    def __init__(self, worker: Worker, router: Router, access: Access) -> None:
        self._worker = worker
        self._router = router
        self._access = access

    def served(self) -> list[Price]:
        """The models that are priced and served, as they are at this moment."""
        return [
            price
            for price in self._worker.pricebook.list(self._worker.clock_ms())
            if price.model and self._router.routes(price.model)
        ]

    def read(
        self,
        endpoint: Endpoint,
        found: fields.Fields,
        body: bytes,
        credential: Credential,
        now_ms: int,
    ) -> Call:
        """The call of a request out of the ordinary. Raises Invalid, or NotFound."""
        try:
            return calls.read_call(endpoint, found, body)
        except Invalid:
            # That there is no such model goes before what is wrong with the request for it.
            self._find_price(fields.model_of(found), credential, now_ms)
            raise

    def plan(
        self,
        call: Call,
        credential: Credential,
        slots: Sequence[Slot],
        noted: str | None,
        now_ms: int,
    ) -> Plan:
        """Route and price the call, and bound what it can cost; `noted` are its labels."""
        routes, price = self._find_price(call.model, credential, now_ms)
        calls.require_rates(call, price)
        try:
            most = bounds.bound_request(
                price,
                body_bytes=call.body_bytes,
                has_media=call.has_media,
                has_output=call.endpoint is CHAT,
                wanted_output=call.max_output,
                choices=call.choices,
                free_nanos=partial(_free_nanos, slots, now_ms),
            )
        except InvalidQuantity as error:
            limit = call.limit_field or "model"
            message = "This could cost more than any amount of money."
            raise fields.invalid("invalid_value", limit, message) from error
        needs = Amounts(most.cost_nanos, 1, most.tokens, 1)
        return Plan(call, price, routes, most.max_output, most.prompt_tokens, needs, slots, noted)

    def _find_price(
        self, model: str, credential: Credential, now_ms: int
    ) -> tuple[Sequence[Route], Price]:
        routes: Sequence[Route] = self._router.routes(model)
        if not routes:
            raise NotFound("model_not_found", "The model does not exist.", param="model")
        if credential.restrictions is not None:
            routes = self._access.require_model(credential.restrictions, routes, model)
        book = self._worker.pricebook
        price = book.find(model, now_ms) or book.find(routes[0].model, now_ms)
        if price is None:
            raise as_error(deny(Reason.MODEL_NOT_PRICED, param="model"))
        return routes, price


def _free_nanos(slots: Sequence[Slot], now_ms: int) -> int:
    """What the tightest of these cost allowances has left that nobody holds."""
    free = [slot.free_at(now_ms) for slot in slots if slot.index == COST]
    return min((nanos for nanos in free if nanos is not None), default=0)
