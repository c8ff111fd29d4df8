"""Passkeys: what a browser is asked for, and whether what it answers is good (WebAuthn, level 2).

Owns the parameters: keys that can be found without naming their owner, no attestation, and of
algorithms Ed25519, ECDSA and RSA with SHA-256. An answer counts for one challenge, one origin and
one relying party, and never from a frame in somebody else's page. Must not know whose a passkey is.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import webauthn
from cryptography.exceptions import InvalidSignature
from webauthn.helpers import (
    base64url_to_bytes,
    options_to_json_dict,
    parse_attestation_object,
    parse_client_data_json,
)
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AttestationConveyancePreference,
    AuthenticatorSelectionCriteria,
    CredentialDeviceType,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

CHALLENGE_BYTES: Final = 32
HANDLE_BYTES: Final = 32
LIFETIME_MS: Final = 5 * 60_000
_LONGEST_ID: Final = 1_023
_LONGEST_KEY: Final = 2_048
_LONGEST: Final = 40_000
# Other statements say who made a device, which nobody here asks, in formats made of certificates.
_FORMATS: Final = ("none", "packed")
# What the library lets out where an answer is not what it should be.
_MALFORMED: Final = (
    WebAuthnException,
    InvalidSignature,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    struct.error,
)

Credential = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """Whom passkeys are for: the domain they belong to, and the pages they may be used on."""

    id: str
    name: str
    origins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NewPasskey:
    """What a device has made; `is_synced` ones are on several devices and count nothing."""

    credential_id: bytes
    public_key: bytes
    sign_count: int
    transports: tuple[str, ...]
    is_synced: bool


@dataclass(frozen=True, slots=True)
class Use:
    """A good use; `is_verified` where the device has checked that it is its owner's hand."""

    sign_count: int
    is_verified: bool
    user_handle: bytes | None = field(repr=False)


def creation_options(
    party: RelyingParty,
    *,
    challenge: bytes,
    user_handle: bytes,
    email: str,
    name: str,
    known: Sequence[bytes],
) -> dict[str, Any]:
    """Return what `navigator.credentials.create` takes; devices with a `known` one refuse."""
    options = webauthn.generate_registration_options(
        rp_id=party.id,
        rp_name=party.name,
        user_id=user_handle,
        user_name=email,
        user_display_name=name,
        challenge=challenge,
        timeout=LIFETIME_MS,
        attestation=AttestationConveyancePreference.NONE,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED,
            user_verification=UserVerificationRequirement.PREFERRED,
        ),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=each) for each in known],
    )
    return dict(options_to_json_dict(options))


def request_options(party: RelyingParty, *, challenge: bytes) -> dict[str, Any]:
    """Return what `navigator.credentials.get` takes, the same for everybody."""
    options = webauthn.generate_authentication_options(
        rp_id=party.id,
        challenge=challenge,
        timeout=LIFETIME_MS,
        user_verification=UserVerificationRequirement.PREFERRED,
    )
    return dict(options_to_json_dict(options))


def find_challenge(credential: Credential) -> bytes | None:
    """Return the challenge that is answered; None for what is no answer."""
    try:
        client_data = parse_client_data_json(_client_data(credential))
    except _MALFORMED:
        return None
    return None if client_data.cross_origin else client_data.challenge


def find_credential_id(credential: Credential) -> bytes | None:
    """Return which passkey is used; None for what cannot be one's name."""
    try:
        found = base64url_to_bytes(credential["rawId"])
    except _MALFORMED:
        return None
    return found if 1 <= len(found) <= _LONGEST_ID else None


def verify_new(
    party: RelyingParty, credential: Credential, *, challenge: bytes
) -> NewPasskey | None:
    """Return the passkey that a device has made; None unless everything about it is right."""
    try:
        statement = parse_attestation_object(
            base64url_to_bytes(_short(credential["response"]["attestationObject"]))
        )
        if statement.fmt not in _FORMATS:
            return None
        found = webauthn.verify_registration_response(
            credential=dict(credential),
            expected_challenge=challenge,
            expected_rp_id=party.id,
            expected_origin=list(party.origins),
        )
        transports = credential["response"].get("transports") or []
        given = tuple(sorted({str(each) for each in transports if str(each).isalpha()}))
    except _MALFORMED:
        return None
    sizes = len(found.credential_id), len(found.credential_public_key)
    if not 1 <= sizes[0] <= _LONGEST_ID or sizes[1] > _LONGEST_KEY:
        return None
    return NewPasskey(
        credential_id=found.credential_id,
        public_key=found.credential_public_key,
        sign_count=found.sign_count,
        transports=given[:8],
        is_synced=found.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
    )


def verify_use(
    party: RelyingParty,
    credential: Credential,
    *,
    challenge: bytes,
    public_key: bytes,
    sign_count: int,
) -> Use | None:
    """Return what a passkey says; None unless signature, challenge, origin and counter are right.

    A counter that does not go up is somebody's copy of the passkey.
    """
    try:
        found = webauthn.verify_authentication_response(
            credential=dict(credential),
            expected_challenge=challenge,
            expected_rp_id=party.id,
            expected_origin=list(party.origins),
            credential_public_key=public_key,
            credential_current_sign_count=sign_count,
        )
        handle = credential["response"].get("userHandle")
        user_handle = None if handle is None else base64url_to_bytes(handle)
    except _MALFORMED:
        return None
    return Use(found.new_sign_count, found.user_verified, user_handle)


def _client_data(credential: Credential) -> bytes:
    return base64url_to_bytes(_short(credential["response"]["clientDataJSON"]))


def _short(text: str) -> str:
    if len(text) > _LONGEST:
        raise ValueError("it is too long")
    return text
