"""A device that keeps passkeys, as a browser and its security key behave together (WebAuthn).

Owns the private halves. What a device or a browser could get wrong, or somebody forge, is an
argument.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

PRESENT, VERIFIED, BACKUP_ELIGIBLE, HAS_KEY = 0x01, 0x04, 0x08, 0x40


def encode(value: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """The bytes of base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Device:
    """Keeps one passkey; `counts` ones tell how often they were used."""

    origin: str
    is_verifying: bool = True
    counts: bool = True
    is_synced: bool = False
    credential_id: bytes = field(default_factory=lambda: os.urandom(32))
    private: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    domain: str = ""
    user_handle: bytes = b""
    uses: int = 0

    def make(self, options: dict[str, Any], **forged: Any) -> dict[str, Any]:
        """What the browser answers to the options of a new passkey."""
        self.domain = options["rp"]["id"]
        self.user_handle = decode(options["user"]["id"])
        numbers = self.private.public_key().public_numbers()
        x, y = (each.to_bytes(32, "big") for each in (numbers.x, numbers.y))
        public = cbor2.dumps({1: 2, 3: -7, -1: 1, -2: x, -3: y})
        key = bytes(16) + len(self.credential_id).to_bytes(2, "big") + self.credential_id + public
        data = self._data(HAS_KEY, forged) + key
        statement = {"fmt": forged.get("fmt", "none"), "attStmt": {}, "authData": data}
        return self._answer(
            {
                "clientDataJSON": encode(self._client("webauthn.create", options, forged)),
                "attestationObject": encode(cbor2.dumps(statement)),
                "transports": ["internal", "hybrid"],
            }
        )

    def use(self, options: dict[str, Any], **forged: Any) -> dict[str, Any]:
        """What the browser answers to the options of a sign-in."""
        self.uses += 1 if self.counts else 0
        data = self._data(0, forged)
        client = self._client("webauthn.get", options, forged)
        signed = data + hashlib.sha256(client).digest()
        signer: ec.EllipticCurvePrivateKey = forged.get("private", self.private)
        return self._answer(
            {
                "clientDataJSON": encode(client),
                "authenticatorData": encode(data),
                "signature": encode(signer.sign(signed, ec.ECDSA(hashes.SHA256()))),
                "userHandle": encode(forged.get("user_handle", self.user_handle)),
            }
        )

    def _answer(self, response: dict[str, Any]) -> dict[str, Any]:
        name = encode(self.credential_id)
        return {
            "id": name,
            "rawId": name,
            "type": "public-key",
            "response": response,
            "clientExtensionResults": {},
        }

    def _data(self, flags: int, forged: dict[str, Any]) -> bytes:
        flags |= forged.get("flags", PRESENT)
        flags |= VERIFIED if self.is_verifying else 0
        flags |= BACKUP_ELIGIBLE if self.is_synced else 0
        domain = hashlib.sha256(forged.get("domain", self.domain).encode()).digest()
        return domain + bytes([flags]) + forged.get("uses", self.uses).to_bytes(4, "big")

    def _client(self, kind: str, options: dict[str, Any], forged: dict[str, Any]) -> bytes:
        found = {
            "type": forged.get("type", kind),
            "challenge": forged.get("challenge", options["challenge"]),
            "origin": forged.get("origin", self.origin),
            "crossOrigin": forged.get("cross_origin", False),
        }
        return json.dumps(found).encode()
