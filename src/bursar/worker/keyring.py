"""The keyring: verified keys in memory, by the full SHA-256 of their secrets.

Owns who is known and for how long. A key is loaded at its first use and dropped when the change
feed says that it, or its account, has changed; the next use loads it anew. Nothing is ever served
from a truncated digest, and an unknown secret is remembered only until any key changes. Must not
decide about money.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from bursar.core import permissions, secrets
from bursar.core.permissions import Environment
from bursar.core.refusals import Reason, as_error, deny
from bursar.core.secrets import KeyKind
from bursar.store import changes, credentials
from bursar.store.credentials import CredentialRow
from bursar.store.database import UNAVAILABLE, Change, Database, describe
from bursar.worker.purse import COST, Purse, Slot

_log = structlog.get_logger("bursar.keyring")
_MOST_UNKNOWN = 10_000
_MOST_AT_ONCE = 200
# Of one key; more models than a price book has mostly.
_MOST_MODELS = 128
_EVERY_ACCOUNT = -1
_NEVER_MS = 2**62


class Credential:
    """A key as admission needs it: whose it is, which slots apply, or why it is refused."""

    __slots__ = (
        "_by_model",
        "account_id",
        "digest",
        "expires_ms",
        "has_rates",
        "key_id",
        "labels",
        "name",
        "project_id",
        "refusal",
        "restrictions",
        "slots",
        "usable_until_ms",
        "user_id",
    )

    def __init__(self, row: CredentialRow, digest: bytes, slots: tuple[Slot, ...]) -> None:
        self.key_id = row.key_id
        self.account_id = row.account_id
        self.user_id = row.user_id
        self.project_id = row.project_id
        self.name = row.name
        self.expires_ms = row.expires_ms
        self.digest = digest
        self.slots = slots
        # By model, where some allowance is for certain models only.
        self._by_model: dict[str, tuple[Slot, ...]] | None = None
        if any(slot.ref.model for slot in slots):
            self._by_model = {}
        # Whether anything but cost is limited: most keys have nothing to say about that.
        self.has_rates = any(slot.index != COST for slot in slots)
        # What its calls carry, as it is stored, and what it may not reach; None: nothing.
        self.labels = permissions.encode_labels(row.labels) if row.labels else None
        self.restrictions = _restrictions(row)
        self.refusal = _refusal(row)
        # One comparison tells whether the key may call; `refused` says why not.
        self.usable_until_ms = 0 if self.refusal is not None else (row.expires_ms or _NEVER_MS)

    def slots_for(self, model: str) -> tuple[Slot, ...]:
        """The slots that apply to a call of this model; `slots` are those of every model."""
        known = self._by_model
        if known is None:
            return self.slots
        found = known.get(model)
        if found is None:
            if len(known) >= _MOST_MODELS:
                known.clear()
            found = known[model] = tuple(
                slot
                for slot in self.slots
                if not slot.ref.model or permissions.matches(slot.ref.model, model)
            )
        return found

    def refused(self, now_ms: int) -> Reason | None:
        """Why this key may not call the gateway, or None."""
        if self.expires_ms is None or now_ms < self.expires_ms:
            return self.refusal
        known_first = self.refusal in {Reason.DELETED, Reason.DISABLED}
        return self.refusal if known_first else Reason.EXPIRED


class Keyring:
    """Credentials by digest, bounded; the oldest go first."""

    def __init__(
        self, database: Database, purse: Purse, *, clock_ms: Callable[[], int], most: int
    ) -> None:
        self._database = database
        self._purse = purse
        self._clock_ms = clock_ms
        self._most = most
        self._known: dict[bytes, Credential] = {}
        # Of a key that was rotated two secrets may be known.
        self._by_account: dict[int, dict[int, list[bytes]]] = {}
        self._unknown: set[bytes] = set()
        self._wanted: dict[bytes, asyncio.Future[Credential | None]] = {}
        self._reader: asyncio.Task[None] | None = None
        # Accounts of which something changed since the present look-up began.
        self._changed: set[int] = set()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, secret: bytes) -> Credential | None:
        """The credential of a secret that has been used before; None: `load` it."""
        return self.find_digest(secrets.digest(secret))

    def find_digest(self, digest: bytes) -> Credential | None:
        """The same, by the digest of the secret."""
        return self._known.get(digest)

    async def load(self, secret: bytes) -> Credential | Reason:
        """Look a secret up in the store, once for all who ask at the same time.

        Raises Unavailable when the store does not answer.
        """
        if secrets.parse(secret) is None:
            return Reason.MALFORMED
        digest = secrets.digest(secret)
        if digest in self._unknown:
            return Reason.UNKNOWN
        future = self._wanted.get(digest)
        if future is None:
            future = self._wanted[digest] = asyncio.get_running_loop().create_future()
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read_wanted())
        # One caller's disconnect must not cancel the look-up that others wait for.
        return await asyncio.shield(future) or Reason.UNKNOWN

    def apply(self, news: Sequence[Change]) -> None:
        """Drop what has changed; plain, so that nobody is let in between."""
        for change in news:
            self._changed.add(change.account_id)
            if change.topic == changes.KEY:
                self._unknown.clear()
                self._drop(change.account_id, int(change.subject))
            elif change.topic in {changes.ACCOUNT, changes.ALLOWANCE}:
                for key_id in list(self._by_account.get(change.account_id, ())):
                    self._drop(change.account_id, key_id)
            elif change.topic == changes.PLAN:
                self._changed.add(_EVERY_ACCOUNT)
                self._drop_all()

    def clear(self) -> None:
        """Forget everything: the change feed may have been missed."""
        self._changed.add(_EVERY_ACCOUNT)
        self._unknown.clear()
        self._drop_all()

    async def _read_wanted(self) -> None:
        """Look up whatever is wanted, many at a time, until nothing is."""
        while self._wanted:
            part = list(self._wanted.items())[:_MOST_AT_ONCE]
            self._changed.clear()
            try:
                async with self._database.read() as tx:
                    rows = await credentials.find_all(tx, secret_hashes=[d for d, _ in part])
            except UNAVAILABLE as error:
                _log.warning("keys_unavailable", error=describe(error))
                for digest, future in part:
                    del self._wanted[digest]
                    future.set_exception(as_error(deny(Reason.STALE, retry_after_s=1)))
                    # Whoever asked may have gone; that is no reason to complain.
                    future.exception()
                continue
            for digest, future in part:
                row = rows.get(digest)
                if not self._may_be_old(row):
                    del self._wanted[digest]
                    future.set_result(self._remember(digest, row))

    def _may_be_old(self, row: CredentialRow | None) -> bool:
        """Whether a change that came while the row was on its way may be newer than the row."""
        if row is None:
            return bool(self._changed)
        return row.account_id in self._changed or _EVERY_ACCOUNT in self._changed

    def _remember(self, digest: bytes, row: CredentialRow | None) -> Credential | None:
        if row is None:
            if len(self._unknown) >= _MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown.add(digest)
            return None
        now_ms = self._clock_ms()
        slots = tuple(
            self._purse.slot_for(allowance, zone=row.time_zone, now_ms=now_ms)
            for allowance in row.allowances
        )
        for slot in slots:
            slot.users += 1
        if len(self._known) >= self._most:
            oldest = next(iter(self._known.values()))
            self._drop(oldest.account_id, oldest.key_id)
        credential = Credential(row, digest, slots)
        self._known[digest] = credential
        of_account = self._by_account.setdefault(row.account_id, {})
        of_account.setdefault(row.key_id, []).append(digest)
        return credential

    def _drop_all(self) -> None:
        for account_id, known in list(self._by_account.items()):
            for key_id in list(known):
                self._drop(account_id, key_id)

    def _drop(self, account_id: int, key_id: int) -> None:
        known = self._by_account.get(account_id)
        digests = known.pop(key_id, ()) if known else ()
        if known is not None and not known:
            del self._by_account[account_id]
        for digest in digests:
            for slot in self._known.pop(digest).slots:
                slot.users -= 1


def _restrictions(row: CredentialRow) -> CredentialRow | None:
    """The row, for a key that may not do everything or whose calls carry labels."""
    is_free = (
        row.environment == Environment.LIVE
        and row.models is row.endpoints is row.networks is None
        and not (row.labels or row.label_names)
    )
    # Its allowances are in the slots.
    return None if is_free else replace(row, allowances=())


def _refusal(row: CredentialRow) -> Reason | None:
    if row.is_deleted:
        return Reason.DELETED
    if not row.is_enabled:
        return Reason.DISABLED
    if row.kind != KeyKind.INFERENCE:
        return Reason.WRONG_KEY_TYPE
    if row.account_status != "active":
        return Reason.ACCOUNT_SUSPENDED
    return None
