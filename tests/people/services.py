"""A sign-in service (OpenID Connect) on this machine, which checks PKCE and can be told to lie.

Owns its keys, its people and its endpoints, behind a real socket. Whatever a service could get
wrong, or somebody forge, is a field. Must not know anything of Bursar.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey, Key

Claims = dict[str, Any]
CLIENT_ID, SECRET = "bursar", "the secret there"


def new_key(key_id: str) -> Key:
    """A key to sign with."""
    return ECKey.generate_key("P-256", {"kid": key_id, "use": "sig"})


def sign(claims: Claims, key: Key, **header: Any) -> str:
    """A token as the service makes them."""
    named = {"alg": "ES256", "typ": "JWT", "kid": key.kid, **header}
    return jws.serialize_compact(named, json.dumps(claims).encode(), key, algorithms=["ES256"])


@dataclass
class SignInService:
    """The service; `claims` is what it says of whoever signs in, `forge` changes its answers."""

    now_s: Callable[[], float]
    issuer: str = ""
    keys: list[Key] = field(default_factory=lambda: [new_key("first")])
    claims: Claims = field(default_factory=dict)
    userinfo: Claims | None = None
    metadata: Claims = field(default_factory=dict)
    make_token: Callable[[Claims], str] | None = None
    is_down: bool = False
    secret: str = SECRET
    asked: list[str] = field(default_factory=list)
    verifiers: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def visit(self, authorization_url: str) -> dict[str, str]:
        """What the browser comes back with once its person has signed in there."""
        parts = urlsplit(authorization_url)
        assert f"{parts.scheme}://{parts.netloc}" == self.issuer
        asked = dict(parse_qsl(parts.query))
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = secrets.token_hex(8)
        self._codes[code] = asked
        return {"code": code, "state": asked["state"]}

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, Claims]:
        """What is answered to a request."""
        self.asked.append(path)
        if self.is_down:
            return 503, {}
        if path == "/.well-known/openid-configuration":
            return 200, self._describe()
        if path == "/jwks":
            return 200, {"keys": [key.as_dict(private=False) for key in self.keys]}
        if path == "/token" and method == "POST":
            return self._exchange(headers, dict(parse_qsl(body.decode())))
        if path == "/userinfo" and self.userinfo is not None:
            return (200, self.userinfo) if headers["authorization"] == "Bearer there" else (401, {})
        return 404, {}

    def _describe(self) -> Claims:
        found: Claims = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
        }
        if self.userinfo is not None:
            found["userinfo_endpoint"] = f"{self.issuer}/userinfo"
        return found | self.metadata

    def _exchange(self, headers: Any, form: dict[str, str]) -> tuple[int, Claims]:
        basic = base64.b64encode(f"{CLIENT_ID}:{self.secret.replace(' ', '+')}".encode()).decode()
        self.verifiers.append(form.get("code_verifier", ""))
        asked = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        is_good = (
            asked is not None
            and headers["authorization"] == f"Basic {basic}"
            and form["grant_type"] == "authorization_code"
            and form["redirect_uri"] == asked["redirect_uri"]
            and challenge == asked["code_challenge"]
        )
        if asked is None or not is_good:
            return 400, {"error": "invalid_grant"}
        now_s = int(self.now_s())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now_s,
            "exp": now_s + 300,
            "nonce": asked["nonce"],
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        token = self.make_token(claims) if self.make_token else sign(claims, self.keys[0])
        self.tokens.append(token)
        return 200, {"id_token": token, "access_token": "there", "token_type": "Bearer"}


@contextmanager
def serving(service: SignInService) -> Iterator[SignInService]:
    """Run the service on a port of this machine until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            status, found = service.answer(self.command, self.path, self.headers, body)
            sent = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            """Nothing: the tests look at `asked`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.issuer = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
