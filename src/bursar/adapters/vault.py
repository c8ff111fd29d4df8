"""The vault: what only this installation can read, and where its own secret is kept.

Owns the installation's secret, a file of 32 random bytes beside the database and never in it, and
the keys that come of it: one for each purpose. Whoever has the database alone can open nothing.
Must not know what is sealed.
"""

import hmac
import os
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bursar.core.errors import Unavailable

SECRET_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class Vault:
    """Seals, opens and fingerprints with keys that are made of one secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def seal(self, plain: bytes, *, purpose: str, about: str) -> bytes:
        """Return something that only this installation opens, for this purpose and this thing."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self._key(purpose)).encrypt(nonce, plain, about.encode())

    def open(self, sealed: bytes, *, purpose: str, about: str) -> bytes | None:
        """Return what was sealed; None where it was for another purpose, thing or installation."""
        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return AESGCM(self._key(purpose)).decrypt(nonce, rest, about.encode())
        except (InvalidTag, ValueError):
            return None

    def fingerprint(self, text: str) -> bytes:
        """Return a hash that nobody without the secret can try guesses against."""
        return hmac.digest(self._key("fingerprint"), text.encode(), sha256)

    def _key(self, purpose: str) -> bytes:
        info = f"bursar {purpose} 1".encode()
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(self._secret)


def load(path: Path) -> Vault:
    """Return the vault of an installation; its secret is made where there is none yet.

    Raises Unavailable (`secret_key_unreadable`) where the file cannot be read, or is none of ours.
    """
    try:
        secret = _read_or_make(path)
    except OSError as error:
        message = f"The secret key file {path} cannot be read: {error.strerror}."
        raise Unavailable("secret_key_unreadable", message) from error
    if len(secret) != SECRET_BYTES:
        message = f"The secret key file {path} does not have {SECRET_BYTES} bytes."
        raise Unavailable("secret_key_unreadable", message)
    return Vault(secret)


def _read_or_make(path: Path) -> bytes:
    if not path.exists():
        # Whole or not at all: of several that start at once, one makes it and all read that one.
        fd, made = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
        try:
            os.write(fd, os.urandom(SECRET_BYTES))
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            os.link(made, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(made)
    return path.read_bytes()
