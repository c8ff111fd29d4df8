"""Flows: from here to a sign-in service and back, and what comes of it.

Owns that whoever comes back is whoever was sent: a flow's token stays with the program that began
it, and what the browser carries (`state`) is made of that token, so that nobody can end a flow that
another began. Each counts once, within ten minutes. Must not know who somebody is here.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from bursar.adapters.oidc import Identity, Return
from bursar.adapters.passkeys import Credential
from bursar.core.errors import BursarError, Conflict, Invalid, Unauthenticated
from bursar.core.secrets import FLOW_PREFIX
from bursar.service.audit import refusals
from bursar.service.people import challenges, proofs, sessions, sign_in, throttles
from bursar.service.people.ports import People
from bursar.service.people.sessions import SignedIn
from bursar.service.people.sign_in import Gate, Whereabouts
from bursar.service.sso import persons, roles
from bursar.service.sso.persons import Found
from bursar.service.sso.ports import Provider
from bursar.store.database import Database, WriteTx
from bursar.store.people.identities import IdentityRow

LIFETIME_MS: Final = 10 * 60_000
_BYTES: Final = 32
_SENT: Final = "sign-in service"
_PROVEN: Final = "sign-in service, second factor"
_FORM: Final = re.compile(rf"{FLOW_PREFIX}([0-9a-f]{{64}})", re.ASCII)
_LOOPBACK: Final = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Started:
    """Where the browser is sent, and what to keep until it is back."""

    authorization_url: str
    flow_token: str = field(repr=False)
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Back:
    """What the browser came back with, and the token of the flow that it belongs to."""

    flow_token: str = field(repr=False)
    state: str = field(repr=False)
    code: str = field(repr=False)
    issuer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Where somebody signs in, and with which second factor, if they have one."""

    where: Whereabouts
    account_id: int | None = None
    code: str | None = field(default=None, repr=False)
    passkey: Credential | None = field(default=None, repr=False)


async def start(
    database: Database,
    *,
    provider: str,
    redirect_uri: str,
    where: Whereabouts,
    people: People,
    gate: Gate,
    user_id: int | None = None,
) -> Started:
    """Begin to sign in, or with a `user_id` to link whoever comes back to that person.

    Raises Invalid (`unknown_sso_provider`, `redirect_not_allowed`), RateRefused and Unavailable
    (`provider_unavailable`).
    """
    known = _get_provider(people, provider)
    check_redirect(known, redirect_uri)
    flow = people.random_bytes(_BYTES)
    nonce, verifier = (_text(people.random_bytes(_BYTES)) for _ in range(2))
    url = await known.service.authorization_url(
        redirect_uri=redirect_uri, state=_state(flow), nonce=nonce, verifier=verifier
    )

    async def work(tx: WriteTx) -> int:
        await throttles.take(tx, throttles.of_challenges(people.vault, where.address))
        remembered = {
            "provider": known.name,
            "redirect_uri": redirect_uri,
            "nonce": nonce,
            "verifier": verifier,
            "user_id": user_id,
        }
        return await challenges.ask(
            tx,
            people=people,
            challenge=flow,
            purpose=_SENT,
            remembered=remembered,
            lifetime_ms=LIFETIME_MS,
        )

    expires_ms = await sign_in.in_turn(database, gate, work)
    return Started(url, f"{FLOW_PREFIX}{flow.hex()}", expires_ms)


async def finish(
    database: Database, back: Back, wanted: Wanted, *, people: People, gate: Gate
) -> SignedIn:
    """Begin a session of whom the service means, in the account that is asked for or their first.

    Where a second factor is asked for (Unauthenticated `second_factor_required`), the same is sent
    once more with it. Raises Unauthenticated (`sso_refused`, and those of second factors),
    Forbidden (`sso_no_access`), RateRefused and Unavailable (`provider_unavailable`).
    """
    address = wanted.where.address
    noted = refusals.noted(database, gate.enter, vault=people.vault, email="", address=address)
    async with noted as about:
        flow = _check_state(back)
        provider, identity = await _hear(
            database, flow, back, where=wanted.where, people=people, gate=gate, user_id=None
        )

        async def work(tx: WriteTx) -> SignedIn | BursarError:
            found = await persons.find(tx, provider=provider, identity=identity)
            about.email = found.known_email
            return await _enter(
                tx,
                flow=flow,
                provider=provider,
                identity=identity,
                found=found,
                wanted=wanted,
                people=people,
            )

        try:
            return await sign_in.in_turn(database, gate, work)
        except Conflict:
            # Two of their windows came back at once, and the other one has made or linked them.
            return await sign_in.in_turn(database, gate, work)


async def link(
    database: Database,
    back: Back,
    *,
    user_id: int,
    where: Whereabouts,
    people: People,
    gate: Gate,
) -> IdentityRow:
    """Link whom the service means to the person who began the flow.

    Raises Unauthenticated (`sso_refused`), Conflict (`identity_taken`), RateRefused, Unavailable.
    """
    flow = _check_state(back)
    provider, identity = await _hear(
        database, flow, back, where=where, people=people, gate=gate, user_id=user_id
    )

    async def work(tx: WriteTx) -> IdentityRow:
        await throttles.forgive(tx, throttles.of_proofs(people.vault, where.address), wholly=False)
        return await persons.link(tx, provider=provider, identity=identity, user_id=user_id)

    return await sign_in.in_turn(database, gate, work)


def check_redirect(provider: Provider, redirect_uri: str) -> None:
    """Raise Invalid (`redirect_not_allowed`) unless a browser may be sent back to there.

    To exactly what the operator has listed, or to a program on the person's own machine (RFC 8252).
    """
    if redirect_uri in provider.redirect_urls or _is_loopback(redirect_uri):
        return
    message = "Browsers are sent back to the addresses that the operator lists, or to 127.0.0.1."
    raise Invalid("redirect_not_allowed", message, param="redirect_uri")


async def _enter(
    tx: WriteTx,
    *,
    flow: bytes,
    provider: Provider,
    identity: Identity,
    found: Found,
    wanted: Wanted,
    people: People,
) -> SignedIn | BursarError:
    """A session of whom the service means, once everything about them is settled."""
    address = wanted.where.address
    if found.user is not None and found.user.disabled_ms is not None:
        return persons.no_access()
    if found.user is not None and not provider.counts_as_two:
        refused = await proofs.check_second(
            tx,
            people=people,
            user_id=found.user.id,
            code=wanted.code,
            passkey=wanted.passkey,
            known_place=await throttles.known_place(
                tx, user_id=found.user.id, address=address, now_ms=tx.now_ms
            ),
        )
        if refused is not None:
            await _keep(tx, people, flow, provider, identity)
            return refused
    user_id = await persons.settle(tx, provider=provider, identity=identity, found=found)
    if user_id is None:
        return persons.no_access()
    await roles.apply(tx, provider=provider, user_id=user_id, groups=identity.groups)
    member = await sign_in.choose_member(tx, user_id=user_id, account_id=wanted.account_id)
    if member is None:
        # What the service says of their groups stands, although they are not let in.
        return persons.no_access()
    await throttles.forgive(tx, throttles.of_proofs(people.vault, address), wholly=False)
    return await sessions.open_session(
        tx,
        people=people,
        member=member,
        device=wanted.where.device,
        address=throttles.place(address),
    )


async def _hear(
    database: Database,
    flow: bytes,
    back: Back,
    *,
    where: Whereabouts,
    people: People,
    gate: Gate,
    user_id: int | None,
) -> tuple[Provider, Identity]:
    """Whom the service means by what came back for this person's flow; heard once."""

    async def take(tx: WriteTx) -> tuple[bool, dict[str, Any]] | BursarError:
        await throttles.take(tx, throttles.of_proofs(people.vault, where.address))
        for purpose in (_PROVEN, _SENT):
            found = await challenges.answered(tx, people=people, challenge=flow, purpose=purpose)
            if found is not None and found["user_id"] == user_id:
                return purpose == _PROVEN, found
        return _refused()

    is_proven, found = await sign_in.in_turn(database, gate, take)
    provider = people.providers.get(found["provider"])
    if provider is None:
        raise _refused()
    if is_proven:
        given = {**found["identity"], "groups": tuple(found["identity"]["groups"])}
        return provider, Identity(**given)
    what = Return(
        code=back.code,
        verifier=found["verifier"],
        nonce=found["nonce"],
        redirect_uri=found["redirect_uri"],
        issuer=back.issuer,
    )
    return provider, await provider.service.redeem(what, now_ms=database.clock_ms())


async def _keep(
    tx: WriteTx, people: People, flow: bytes, provider: Provider, identity: Identity
) -> None:
    """Keep what the service said: its code is used up, and a second factor may still come."""
    said = {name: getattr(identity, name) for name in Identity.__dataclass_fields__}
    await challenges.ask(
        tx,
        people=people,
        challenge=flow,
        purpose=_PROVEN,
        remembered={"provider": provider.name, "identity": said, "user_id": None},
        lifetime_ms=LIFETIME_MS,
    )


def _get_provider(people: People, name: str) -> Provider:
    found = people.providers.get(name)
    if found is None:
        message = "There is no such sign-in service here."
        raise Invalid("unknown_sso_provider", message, param="provider")
    return found


def _check_state(back: Back) -> bytes:
    found = _FORM.fullmatch(back.flow_token)
    if found is None:
        raise _refused()
    flow = bytes.fromhex(found[1])
    if not hmac.compare_digest(_state(flow).encode(), back.state.encode("utf-8", "replace")):
        raise _refused()
    return flow


def _state(flow: bytes) -> str:
    return hashlib.sha256(b"state" + flow).hexdigest()


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _is_loopback(redirect_uri: str) -> bool:
    if not redirect_uri.isascii() or not redirect_uri.isprintable() or len(redirect_uri) > 500:
        return False
    try:
        parts = urlsplit(redirect_uri)
        is_port = parts.port is not None and parts.port > 0
    except ValueError:
        return False
    host = parts.hostname or ""
    named = f"[{host}]" if ":" in host else host
    return (
        parts.scheme == "http"
        and host in _LOOPBACK
        and is_port
        and parts.netloc == f"{named}:{parts.port}"
        and not parts.fragment
        and "\\" not in redirect_uri
    )


def _refused() -> Unauthenticated:
    message = "The sign-in service did not say who you are. Begin again."
    return Unauthenticated("sso_refused", message)
