"""Introspection over HTTP: is this secret good, and whose is it? In the words of RFC 7662.

Owns the shape. Must not know what makes a secret good; `service.introspection` does.
"""

from typing import Any, NotRequired

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.edge.body import Model, check
from bursar.edge.calls import Call, reply
from bursar.service import introspection
from bursar.service.access import OperatorPrincipal, ProvisioningPrincipal


class TokenFields(Model):
    """A key, an access token or a refresh token to ask about; or any other text."""

    token: str


class IntrospectionShape(TypedDict):
    """Whether a secret works at this moment; where it does not, there is nothing else.

    `token_type` is inference_key, provisioning_key, operator_key, access_token or refresh_token.
    `exp` is when it ends, in seconds since 1970, or null; `role` is what whoever acts with it is in
    the account, and null where it calls models alone.
    """

    active: bool
    token_type: NotRequired[str]
    account_id: NotRequired[int | None]
    user_id: NotRequired[int | None]
    role: NotRequired[str | None]
    key_id: NotRequired[int | None]
    session_id: NotRequired[int | None]
    exp: NotRequired[int | None]


async def ask(call: Call[ProvisioningPrincipal]) -> Response:
    """Whether a key or token of your account works, and whom it acts for.

    One of another account is answered as a text that is none. Asking is no use of it, and from
    which networks it may be used does not matter here.
    """
    return await _answer(call, account_id=call.caller.account_id)


async def ask_any(call: Call[OperatorPrincipal]) -> Response:
    """Whether a key or token of any account works, and whom it acts for."""
    return await _answer(call, account_id=None)


async def _answer(call: Call[Any], *, account_id: int | None) -> Response:
    token = check(TokenFields, call.document).token
    async with call.plane.database.read() as tx:
        found = await introspection.find(
            tx, token=token, account_id=account_id, now_ms=call.plane.now_ms()
        )
    if found is None:
        return reply(IntrospectionShape(active=False))
    return reply(
        IntrospectionShape(
            active=True,
            token_type=found.kind,
            # The operator's own keys belong to none.
            account_id=found.account_id or None,
            user_id=found.user_id,
            role=found.role,
            key_id=found.key_id,
            session_id=found.session_id,
            exp=None if found.expires_ms is None else found.expires_ms // 1_000,
        )
    )
