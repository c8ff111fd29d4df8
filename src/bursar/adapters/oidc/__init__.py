"""A sign-in service (OpenID Connect): where it sends people, and what it says of those who return.

Owns the conversation: discovery, the authorization code with PKCE, the exchange for an ID token,
and the issuer's keys, which are remembered and asked for anew when a token names an unknown one.
Whatever the service answers is input. Must not know who somebody is here.
"""

import asyncio
import base64
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

import structlog

from bursar.adapters.oidc import id_tokens
from bursar.adapters.oidc.id_tokens import NotBelieved, PublicKey
from bursar.adapters.outbound import NotReached, Outbound, split
from bursar.core import strictjson
from bursar.core.errors import Unauthenticated, Unavailable, Unreadable

_FRESH_S: Final = 3_600.0
_STALE_S: Final = 86_400.0
# A token may name any key: how often that makes us ask for them.
_ASK_AGAIN_S: Final = 10.0
# How long a service that did not answer is left alone: others must not wait for it one by one.
_LEFT_ALONE_S: Final = 5.0
_MOST_GROUPS: Final = 1_000

_log = structlog.get_logger("bursar.sso")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a service speaks of. `email` counts for nothing unless the service has verified it."""

    subject: str
    email: str
    is_email_verified: bool
    name: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What we are to the service: its issuer, our id and secret there, and what we ask for."""

    issuer: str
    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    groups_claim: str = "groups"
    is_internal: bool = False


@dataclass(frozen=True, slots=True)
class Return:
    """What came back by way of the browser, and what it must fit to."""

    code: str = field(repr=False)
    verifier: str = field(repr=False)
    nonce: str = field(repr=False)
    redirect_uri: str
    issuer: str | None = None


class Service:
    """One sign-in service, as one process knows it."""

    def __init__(
        self,
        client: Client,
        *,
        outbound: Outbound | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._outbound = outbound or Outbound(is_internal=client.is_internal)
        self._monotonic_s = monotonic_s
        self._asking = asyncio.Lock()
        self._metadata: dict[str, Any] = {}
        self._metadata_s = -_STALE_S
        self._keys: dict[str, list[PublicKey]] = {}
        self._keys_s = -_STALE_S
        self._failed_s = -_STALE_S

    async def authorization_url(
        self, *, redirect_uri: str, state: str, nonce: str, verifier: str
    ) -> str:
        """Return where a browser is sent; raises Unavailable (`provider_unavailable`)."""
        try:
            metadata = await self._discover()
            endpoint = self._endpoint(metadata, "authorization_endpoint")
        except NotReached as error:
            raise self._unavailable(error) from error
        digest = hashlib.sha256(verifier.encode()).digest()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._client.client_id,
                "redirect_uri": redirect_uri,
                "scope": " ".join(self._client.scopes),
                "state": state,
                "nonce": nonce,
                "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
                "code_challenge_method": "S256",
            }
        )
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"

    async def redeem(self, back: Return, *, now_ms: int) -> Identity:
        """Return whom the service means by a code.

        Raises Unauthenticated (`sso_refused`) where it means nobody, or what it says does not hold;
        Unavailable (`provider_unavailable`).
        """
        try:
            metadata = await self._discover()
            self._check_issuer(metadata, back.issuer)
            tokens = await self._exchange(metadata, back)
            token = tokens.get("id_token")
            if not isinstance(token, str):
                raise NotBelieved("the service sent no ID token")
            claims = id_tokens.verify(
                token,
                keys=await self._find_keys(metadata, id_tokens.find_key_id(token)),
                issuer=self._client.issuer,
                client_id=self._client.client_id,
                nonce=back.nonce,
                now_s=now_ms / 1_000,
            )
            return _identity(await self._complete(metadata, claims, tokens), self._client)
        except NotReached as error:
            raise self._unavailable(error) from error
        except NotBelieved as error:
            _log.warning("sso_refused", issuer=self._client.issuer, why=str(error))
            message = "The sign-in service did not say who you are. Begin again."
            raise Unauthenticated("sso_refused", message, detail=str(error)) from error

    def _check_issuer(self, metadata: Mapping[str, Any], given: str | None) -> None:
        # RFC 9207: with several services, the answer of one must not pass for another's.
        is_told = metadata.get("authorization_response_iss_parameter_supported") is True
        if (given is None and is_told) or given not in {None, self._client.issuer}:
            raise NotBelieved("the answer is of another service")

    async def _exchange(self, metadata: Mapping[str, Any], back: Return) -> dict[str, Any]:
        client = self._client
        form = {
            "grant_type": "authorization_code",
            "code": back.code,
            "redirect_uri": back.redirect_uri,
            "code_verifier": back.verifier,
        }
        headers = {"content-type": "application/x-www-form-urlencoded"}
        methods = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if client.client_secret is None:
            form["client_id"] = client.client_id
        elif isinstance(methods, list) and "client_secret_basic" in methods:
            pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": client.client_id, "client_secret": client.client_secret}
        answer = await self._outbound.fetch(
            "POST",
            self._endpoint(metadata, "token_endpoint"),
            headers=headers,
            content=urlencode(form).encode(),
        )
        if answer.status in {400, 401, 403}:
            raise NotBelieved(f"the service refused the code with {answer.status}")
        if answer.status != 200:
            raise NotReached(f"the token endpoint answered {answer.status}")
        return _object(answer.body)

    async def _complete(
        self, metadata: Mapping[str, Any], claims: dict[str, Any], tokens: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The claims, and those that some services tell only when they are asked once more."""
        access = tokens.get("access_token")
        is_whole = "email" in claims and self._client.groups_claim in claims
        if is_whole or "userinfo_endpoint" not in metadata or not isinstance(access, str):
            return claims
        if not access.isascii() or not access.isprintable():
            raise NotBelieved("the access token is no token")
        answer = await self._outbound.fetch(
            "GET",
            self._endpoint(metadata, "userinfo_endpoint"),
            headers={"authorization": f"Bearer {access}"},
        )
        if answer.status != 200:
            raise NotReached(f"the userinfo endpoint answered {answer.status}")
        more = _object(answer.body)
        if more.get("sub") != claims["sub"]:
            raise NotBelieved("the userinfo is somebody else's")
        return {**more, **claims}

    async def _find_keys(self, metadata: Mapping[str, Any], key_id: str) -> list[PublicKey]:
        async with self._asking:
            age_s = self._monotonic_s() - self._keys_s
            is_missing = key_id not in self._keys and age_s >= _ASK_AGAIN_S
            if is_missing or age_s >= _FRESH_S:
                try:
                    document = await self._get(self._endpoint(metadata, "jwks_uri"))
                except NotReached:
                    if age_s >= _STALE_S:
                        raise
                else:
                    self._keys, self._keys_s = id_tokens.read_keys(document), self._monotonic_s()
            if key_id == "":
                return [key for keys in self._keys.values() for key in keys]
            return self._keys.get(key_id, [])

    async def _discover(self) -> dict[str, Any]:
        async with self._asking:
            age_s = self._monotonic_s() - self._metadata_s
            if age_s >= _FRESH_S:
                url = f"{self._client.issuer.rstrip('/')}/.well-known/openid-configuration"
                try:
                    found = await self._get(url)
                    if found.get("issuer") != self._client.issuer:
                        raise NotReached("the service says that it is another issuer")
                except NotReached:
                    if age_s >= _STALE_S:
                        raise
                else:
                    self._metadata, self._metadata_s = found, self._monotonic_s()
            return self._metadata

    async def _get(self, url: str) -> dict[str, Any]:
        if self._monotonic_s() - self._failed_s < _LEFT_ALONE_S:
            raise NotReached("the service did not answer a moment ago")
        try:
            answer = await self._outbound.fetch("GET", url)
            if answer.status != 200:
                raise NotReached(f"{url} answered {answer.status}")
            return _object(answer.body)
        except NotReached:
            self._failed_s = self._monotonic_s()
            raise

    def _endpoint(self, metadata: Mapping[str, Any], name: str) -> str:
        url = metadata.get(name)
        if not isinstance(url, str):
            raise NotReached(f"the service has no {name}")
        split(url, is_internal=self._client.is_internal)
        return url

    def _unavailable(self, error: NotReached) -> Unavailable:
        _log.warning("sso_unavailable", issuer=self._client.issuer, why=str(error))
        message = "The sign-in service does not answer as it should. Try again shortly."
        return Unavailable("provider_unavailable", message, detail=str(error), retry_after_s=5)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = strictjson.loads(body)
    except Unreadable as error:
        raise NotReached("the service does not answer with JSON") from error
    if not isinstance(found, dict):
        raise NotReached("the service does not answer with a JSON object")
    return found


def _identity(claims: Mapping[str, Any], client: Client) -> Identity:
    listed = claims.get(client.groups_claim, [])
    groups = [listed] if isinstance(listed, str) else listed
    email, name = claims.get("email"), claims.get("name")
    return Identity(
        subject=claims["sub"],
        email=email if isinstance(email, str) else "",
        # The text "true" is no true: some services let people write that themselves.
        is_email_verified=claims.get("email_verified") is True,
        name=name if isinstance(name, str) else "",
        groups=tuple(
            each for each in (groups if isinstance(groups, list) else ()) if isinstance(each, str)
        )[:_MOST_GROUPS],
    )
