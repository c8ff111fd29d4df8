"""Idempotency: a POST that is sent again is answered again, and carried out once.

Owns when a repeated request is the same one, and how its answer is kept. An answer may have a
secret in it, so it is sealed under a key that the server cannot make on its own: it takes the
caller's secret. Must not know HTTP, or what the request does.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bursar.core.errors import Conflict, Invalid, Unreadable
from bursar.store import idempotency
from bursar.store.database import WriteTx
from bursar.store.idempotency import RecordRow

KEPT_MS = 24 * 3_600_000
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered with."""

    status: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """A request under an idempotency key: whose, where, what it says, and the secret it came with.

    `route` is the method and the whole path; `key` has been through `check_key`.
    """

    account_id: int
    key_id: int
    route: str
    key: str
    body: bytes = field(repr=False)
    secret: bytes = field(repr=False)

    @property
    def scope_hash(self) -> bytes:
        """What makes two requests the same one: the caller, the route and the idempotency key."""
        return hashlib.sha256(f"{self.key_id}\n{self.route}\n{self.key}".encode()).digest()

    @property
    def request_hash(self) -> bytes:
        """What the same request must have in common."""
        return hashlib.sha256(self.body).digest()


class Running:
    """The requests under idempotency keys that this process is carrying out."""

    def __init__(self) -> None:
        self._scopes: set[bytes] = set()

    @contextmanager
    def hold(self, request: Request) -> Iterator[None]:
        """Carry a request out; raises Conflict (`idempotency_in_progress`) when that goes on."""
        scope = request.scope_hash
        if scope in self._scopes:
            raise _in_progress()
        self._scopes.add(scope)
        try:
            yield
        finally:
            self._scopes.discard(scope)


def check_key(key: str) -> str:
    """Return an idempotency key; raises Unreadable (`invalid_idempotency_key`)."""
    if _KEY.fullmatch(key) is None:
        message = "An Idempotency-Key has 1 to 255 printable ASCII characters."
        raise Unreadable("invalid_idempotency_key", message)
    return key


async def find_answer(tx: WriteTx, *, request: Request) -> Answer | None:
    """Return the answer that this request has had; None: carry it out, then `keep_answer`.

    Raises Conflict (`idempotency_in_progress`) while another process is at it, and Invalid
    (`idempotency_key_reused`) when the key was used for a request that said something else.
    """
    scope = request.scope_hash
    if not await idempotency.take_lock(tx, scope_hash=scope):
        raise _in_progress()
    record = await idempotency.find_record(tx, account_id=request.account_id, scope_hash=scope)
    if record is None or record.created_ms <= tx.now_ms - KEPT_MS:
        return None
    if record.request_hash != request.request_hash:
        message = "This Idempotency-Key was used for another request."
        raise Invalid("idempotency_key_reused", message)
    nonce, sealed = record.sealed_body[:_NONCE_BYTES], record.sealed_body[_NONCE_BYTES:]
    body = _cipher(request).decrypt(nonce, sealed, record.request_hash)
    return Answer(record.status, body)


async def keep_answer(
    tx: WriteTx, *, request: Request, answer: Answer, random_bytes: Callable[[int], bytes]
) -> None:
    """Keep the answer for a day, in the transaction of what the request did."""
    nonce = random_bytes(_NONCE_BYTES)
    sealed = _cipher(request).encrypt(nonce, answer.body, request.request_hash)
    record = RecordRow(
        request_hash=request.request_hash,
        status=answer.status,
        sealed_body=nonce + sealed,
        created_ms=tx.now_ms,
    )
    await idempotency.replace_record(
        tx, account_id=request.account_id, scope_hash=request.scope_hash, record=record
    )


def _cipher(request: Request) -> AESGCM:
    derive = HKDF(
        algorithm=SHA256(),
        length=32,
        salt=request.scope_hash,
        info=b"bursar idempotency 1",
    )
    return AESGCM(derive.derive(request.secret))


def _in_progress() -> Conflict:
    message = "The same request is being carried out. Try again shortly."
    return Conflict("idempotency_in_progress", message, retry_after_s=1)
