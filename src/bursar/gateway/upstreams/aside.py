"""Upstreams that refuse our API key, and until when each is left alone.

Owns when an upstream is set aside: after several answers of 401 and no good one in between, so that
a single slip stops nobody. Not after 403, which some providers say of what a request contains: one
caller could set an upstream aside for all. Must not know requests.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from bursar.gateway.routing import Route, Upstream

_log = structlog.get_logger("bursar.gateway")
# So many refusals in a row are no slip.
IN_A_ROW: Final = 3


class Aside:
    """One process's upstreams that refused it lately; none, mostly."""

    def __init__(self, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._refusals: dict[str, int] = {}
        self._until_s: dict[str, float] = {}

    @property
    def is_needed(self) -> bool:
        """False while no upstream has refused our key since its last good answer."""
        return bool(self._refusals)

    @property
    def count(self) -> int:
        """How many upstreams are left alone at this moment."""
        now_s = self._clock_s()
        return sum(now_s < until_s for until_s in self._until_s.values())

    def refused(self, upstream: Upstream) -> None:
        """Note that an upstream has answered 401."""
        if not upstream.aside_s:
            return
        count = self._refusals[upstream.name] = self._refusals.get(upstream.name, 0) + 1
        if count >= IN_A_ROW:
            if self._until_s.get(upstream.name, 0.0) <= self._clock_s():
                _log.error("upstream_set_aside", upstream=upstream.name, for_s=upstream.aside_s)
            self._until_s[upstream.name] = self._clock_s() + upstream.aside_s

    def answered(self, upstream: Upstream) -> None:
        """Note that an upstream has given a good answer: it takes our key."""
        self._refusals.pop(upstream.name, None)
        if self._until_s.pop(upstream.name, None) is not None:
            _log.info("upstream_taken_back", upstream=upstream.name)

    def choose(self, routes: Sequence[Route]) -> Sequence[Route]:
        """Those of these routes whose upstream is not left alone, in their order; may be none."""
        now_s = self._clock_s()
        return [route for route in routes if self._until_s.get(route.upstream.name, 0.0) <= now_s]
