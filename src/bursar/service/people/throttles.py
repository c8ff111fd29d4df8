"""Throttles: how often somebody may try before they must wait.

Owns the figures and what is counted together. Guesses at one person from one address run out first;
guesses at many people from one address, and at one person from many addresses, later. Whoever has
signed in from an address before is not kept out of it by what others try from elsewhere. Counts are
the database's: all workers share them, and a restart keeps them. Must not know passwords.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_network
from typing import Final

from bursar.adapters.vault import Vault
from bursar.core.errors import RateRefused
from bursar.core.permissions import Address
from bursar.store.database import ReadTx, WriteTx
from bursar.store.people import sessions, tries

_FIVE_MINUTES_MS: Final = 5 * 60_000
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_KNOWN_MS: Final = 90 * _DAY_MS
# Whoever has an IPv6 network can try from each of its addresses.
_IPV6_PREFIX: Final = 64


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tries that are counted together, and how many there may be in a window."""

    id: bytes
    most: int
    window_ms: int


def place(address: Address | None) -> str:
    """Return what counts as one address: of IPv6, the network that one customer has."""
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _IPV6_PREFIX), strict=False))
    return "unknown" if address is None else str(address)


async def of_sign_in(
    tx: ReadTx, *, vault: Vault, email: str, user_id: int, address: Address | None, now_ms: int
) -> list[Bucket]:
    """Return what a try to sign in counts against; `user_id` is 0 for nobody."""
    where = place(address)
    found = [
        _bucket(vault, f"pair {email} {where}", 10, _FIVE_MINUTES_MS),
        _bucket(vault, f"address {where}", 30, _FIVE_MINUTES_MS),
    ]
    if not await known_place(tx, user_id=user_id, address=address, now_ms=now_ms):
        found.append(_bucket(vault, f"person {email}", 100, _FIVE_MINUTES_MS))
    return found


async def known_place(tx: ReadTx, *, user_id: int, address: Address | None, now_ms: int) -> str:
    """Return where somebody is, if they have signed in from there lately; else an empty text."""
    where, since_ms = place(address), now_ms - _KNOWN_MS
    is_known = await sessions.was_here(tx, user_id=user_id, address=where, since_ms=since_ms)
    return where if is_known else ""


def of_codes(vault: Vault, user_id: int, known_place: str) -> Bucket:
    """Return what a second factor's code counts against: all places that are not known together.

    Those who guess know the password; a code has a million values, of which three count.
    """
    return _bucket(vault, f"code {user_id} {known_place}", 20, _HOUR_MS)


def of_challenges(vault: Vault, address: Address | None) -> list[Bucket]:
    """Return what beginning to sign in without a password counts against: each begun is a row."""
    return [_bucket(vault, f"challenge {place(address)}", 60, _FIVE_MINUTES_MS)]


def of_proofs(vault: Vault, address: Address | None) -> list[Bucket]:
    """Return what signing in without a password counts against, passwords' tries among them."""
    return [_bucket(vault, f"address {place(address)}", 30, _FIVE_MINUTES_MS)]


def of_resets(vault: Vault, email: str, address: Address | None) -> list[Bucket]:
    """Return what asking for a password reset counts against."""
    return [
        _bucket(vault, f"reset {email}", 5, _DAY_MS),
        _bucket(vault, f"reset from {place(address)}", 30, _HOUR_MS),
    ]


def of_invitations(vault: Vault, email: str, account_id: int) -> list[Bucket]:
    """Return what inviting somebody counts against: no account can fill a letter box, or the post.

    Who waits for letters of several accounts gets those of one more, whoever sends the others.
    """
    return [
        _bucket(vault, f"invitation {email} to {account_id}", 5, _DAY_MS),
        _bucket(vault, f"invitations to {account_id}", 200, _HOUR_MS),
        _bucket(vault, f"invitation {email}", 20, _DAY_MS),
    ]


async def take(tx: WriteTx, buckets: Sequence[Bucket]) -> None:
    """Count a try against all of these; raises RateRefused (`too_many_attempts`).

    A refused try is to be rolled back: it counts against none.
    """
    for bucket in buckets:
        if not await tries.take(tx, bucket=bucket.id, most=bucket.most, window_ms=bucket.window_ms):
            raise await refusal(tx, bucket)


async def refusal(tx: WriteTx, bucket: Bucket) -> RateRefused:
    """Return the refusal of one try too many, with how long to wait."""
    start_ms = await tries.find_start(tx, bucket=bucket.id) or tx.now_ms
    wait_ms = max(1, start_ms + bucket.window_ms - tx.now_ms)
    message = "That was tried too often. Wait, then try again."
    return RateRefused("too_many_attempts", message, retry_after_s=-(-wait_ms // 1_000))


async def forgive(tx: WriteTx, buckets: Sequence[Bucket], *, wholly: bool) -> None:
    """Take a good try back; `wholly` begins anew with the first bucket, of person and address.

    An address's other tries stay counted, or guesses at many people would be made between one's
    own sign-ins.
    """
    first, *others = buckets
    if wholly:
        await tries.forget(tx, bucket=first.id)
    else:
        await tries.give_back(tx, bucket=first.id)
    for bucket in others:
        await tries.give_back(tx, bucket=bucket.id)


def _bucket(vault: Vault, name: str, most: int, window_ms: int) -> Bucket:
    return Bucket(vault.fingerprint(name), most, window_ms)
