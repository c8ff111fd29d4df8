"""What a key may reach: from which networks, at which endpoints, with which labels, which models.

Owns the order in which these are asked, and the sandbox as the only place for test keys. Must not
know how a caller proves who they are, nor money. A key without restrictions never comes here: that
is decided before, by one comparison.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from bursar.core import permissions
from bursar.core.permissions import Environment, Network
from bursar.core.refusals import Deny, Reason, as_error, deny
from bursar.gateway.access import labels
from bursar.gateway.caller import Caller
from bursar.gateway.routing import Route
from bursar.gateway.wire.calls import Endpoint
from bursar.store.credentials import CredentialRow
from bursar.worker.keyring import Credential

_FORWARDED: Final = b"x-forwarded-for"
_MOST_REMEMBERED: Final = 4_096


class Access:
    """The doors of the model endpoints; `trusted` are the proxies whose word is taken."""

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = tuple(trusted)
        self._networks = lru_cache(_MOST_REMEMBERED)(permissions.parse_networks)
        self._is_model = lru_cache(_MOST_REMEMBERED)(permissions.any_matches)

    def enter(
        self,
        credential: Credential,
        caller: Caller,
        endpoint: Endpoint,
        asked: Mapping[str, str] | None,
    ) -> str | None:
        """Let a caller in who may call this endpoint from where they are.

        `asked` are the labels that the caller puts on the call. Returns those that go with it, as
        they are stored; None: no labels. Raises Forbidden for address, endpoint and labels, in this
        order.
        """
        row = credential.restrictions
        if row is None:
            return _with_labels(asked, {}, ()) if asked else None
        if row.networks is not None and not self._is_near(caller, row.networks):
            raise as_error(deny(Reason.IP_NOT_ALLOWED))
        if row.endpoints is not None and endpoint.name not in row.endpoints:
            raise as_error(deny(Reason.ENDPOINT_NOT_ALLOWED))
        if asked:
            return _with_labels(asked, row.labels, row.label_names or ())
        return credential.labels

    def require_model(
        self, row: CredentialRow, routes: Sequence[Route], model: str
    ) -> Sequence[Route]:
        """Return the upstreams at which this key may call this model. Raises Forbidden."""
        if row.models is not None and not self._is_model(row.models, model):
            raise as_error(deny(Reason.MODEL_NOT_ALLOWED, param="model"))
        if row.environment != Environment.LIVE:
            routes = [route for route in routes if route.upstream.is_sandbox]
            if not routes:
                message = "A test key reaches only the models of the sandbox."
                raise as_error(Deny(Reason.MODEL_NOT_ALLOWED, message, param="model"))
        return routes

    def _is_near(self, caller: Caller, networks: tuple[str, ...]) -> bool:
        forwarded = [value for name, value in caller.scope["headers"] if name == _FORWARDED]
        address = permissions.client_address(caller.peer, forwarded, self._trusted)
        return permissions.contains(self._networks(networks), address)


def _with_labels(asked: Mapping[str, str], own: Mapping[str, str], allowed: Sequence[str]) -> str:
    """The call's labels beside its key's own, which nobody can put another in the place of."""
    for name in asked:
        if name in own or name not in allowed:
            message = f"The API key does not let its calls set the label {name}."
            raise as_error(Deny(Reason.LABEL_NOT_ALLOWED, message, param=labels.PARAM))
    return permissions.encode_labels({**own, **asked})
