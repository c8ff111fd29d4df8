"""Which upstream serves which model, and what to send there.

Owns patterns, renaming and the order of fail-over. Must not know prices or keys of callers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bursar.gateway.upstreams.port import Headers, UpstreamClient
from bursar.gateway.upstreams.sandbox import Sandbox

# Models that refuse `max_tokens` and want its successor.
_NEWER_LIMIT = ("o1", "o3", "o4", "gpt-5")
_MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Upstream:
    """A configured upstream: its client, its credentials, and the models that it serves.

    For `aside_s` seconds it is left alone once it refuses those credentials; 0: never.
    """

    name: str
    client: UpstreamClient
    headers: Headers
    models: tuple[str, ...]
    rename: Mapping[str, str]
    is_sandbox: bool = False
    aside_s: float = 0.0

    def serves(self, model: str) -> bool:
        """Whether a pattern or a renaming names this model; `*` and `?` are wild."""
        return model in self.rename or any(fnmatchcase(model, p) for p in self.models)


@dataclass(frozen=True, slots=True)
class Route:
    """One upstream that can serve a model, and the model's name there."""

    upstream: Upstream
    model: str

    @property
    def limit_field(self) -> str:
        """The field by which this model takes an output limit."""
        bare = self.model.rsplit("/", 1)[-1]
        return "max_completion_tokens" if bare.startswith(_NEWER_LIMIT) else "max_tokens"


def sandbox() -> Upstream:
    """The built-in upstream, which serves its own models."""
    return Upstream("sandbox", Sandbox(), (), ("sandbox/*",), {}, is_sandbox=True)


class Router:
    """The upstreams in their configured order."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self.upstreams = tuple(upstreams)
        self._known: dict[str, tuple[Route, ...]] = {}

    def routes(self, model: str) -> tuple[Route, ...]:
        """The upstreams to try for this model, in order; empty when none serves it."""
        found = self._known.get(model)
        if found is None:
            found = tuple(
                Route(upstream, upstream.rename.get(model, model))
                for upstream in self.upstreams
                if upstream.serves(model)
            )
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._known[model] = found
        return found

    def places(self, model: str) -> tuple[tuple[str, bool], ...]:
        """For each of these: the model's name there, and whether it is the built-in sandbox."""
        return tuple((each.model, each.upstream.is_sandbox) for each in self.routes(model))

    async def close(self) -> None:
        """Close every client."""
        for upstream in self.upstreams:
            await upstream.client.close()
