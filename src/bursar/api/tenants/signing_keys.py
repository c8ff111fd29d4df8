"""Signing keys over HTTP, for operators: another one at once, and no trust in those before.

Owns their shapes. Must not know rules; `service.people.tokens` does.
"""

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.edge.body import Model, check
from bursar.edge.calls import Call, carry_out
from bursar.edge.fields import Moment, format_moment
from bursar.service.access import OperatorPrincipal
from bursar.service.people import tokens
from bursar.store.database import WriteTx


class RotationFields(Model):
    """Whether the keys before are `retire`d, so that what they signed is refused from now on."""

    retire: bool = False


class RotationShape(TypedDict):
    """The key that signs access tokens from now on, and how many others were retired."""

    id: str
    created_at: Moment
    retired: int


async def rotate(call: Call[OperatorPrincipal]) -> Response:
    """Sign access tokens with another key; with `retire`, those signed before end at once."""
    given = check(RotationFields, call.document)
    people = call.plane.people

    async def effect(tx: WriteTx) -> RotationShape:
        made = await tokens.rotate(
            tx, vault=people.vault, random_bytes=people.random_bytes, retire=given.retire
        )
        return RotationShape(
            id=made.key_id, created_at=format_moment(made.created_ms), retired=made.retired
        )

    return await carry_out(call, effect, status=200)
