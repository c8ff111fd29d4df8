"""What the use cases of people work with, beside the database.

Owns their common ports. Must not know any use case.
"""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from bursar.adapters.mail import Letter
from bursar.adapters.passkeys import RelyingParty
from bursar.adapters.passwords import PasswordPool, list_common
from bursar.adapters.vault import SECRET_BYTES, Vault
from bursar.core.errors import Unavailable
from bursar.service.sso.ports import Provider

# Passkeys belong to a domain; where none is named, to this machine's own, on no page.
NOBODY: Final = RelyingParty(id="localhost", name="Bursar", origins=())


@dataclass(frozen=True, slots=True)
class People:
    """The vault, the slow hashes, the post, and how people reach this installation (`url`).

    `party` is whom passkeys are for, `providers` the sign-in services by their names. `has_room`
    says whether the post takes one more letter.
    """

    vault: Vault = field(repr=False)
    passwords: PasswordPool
    post: Callable[[Letter], bool]
    url: str
    common: Collection[str] = field(repr=False)
    party: RelyingParty = NOBODY
    providers: Mapping[str, Provider] = field(default_factory=dict)
    random_bytes: Callable[[int], bytes] = os.urandom
    has_room: Callable[[], bool] = lambda: True

    def require_room(self) -> None:
        """Raise Unavailable (`mail_overloaded`) unless a letter can be sent now.

        Asked before anything is written that a letter is about: none is lost without a word.
        """
        if not self.has_room():
            raise _overloaded()

    def send(self, letter: Letter) -> None:
        """Post a letter; raises Unavailable (`mail_overloaded`) where it is not taken."""
        if not self.post(letter):
            raise _overloaded()


def for_this_process() -> People:
    """People of a process that nobody gave a vault: what it seals ends with it, letters go nowhere.

    Whatever has to be read again after a restart needs the installation's own.
    """
    return People(
        vault=Vault(os.urandom(SECRET_BYTES)),
        passwords=PasswordPool(),
        post=lambda _: True,
        url="http://127.0.0.1",
        common=list_common(),
    )


def _overloaded() -> Unavailable:
    message = "Too many letters wait to be sent. Try again shortly."
    return Unavailable("mail_overloaded", message, retry_after_s=30)
