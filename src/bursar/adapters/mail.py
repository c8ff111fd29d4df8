"""Mail: letters to people, over SMTP or, where there is none, printed in the log.

Owns how a letter leaves. Sending is nobody's wait: letters queue up in memory, up to a bound, and
one task sends them. One that cannot be sent is tried a few times and then told of in the log; those
that wait when the process ends are lost, and whoever misses one asks again. Must not know what they
say.
"""

import asyncio
import smtplib
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP
from typing import Final, Protocol

import structlog

_log: Final = structlog.get_logger("bursar.mail")
_MOST_WAITING: Final = 1_000
_SPARE: Final = 10
_TRIES: Final = 3
_PAUSE_S: Final = 5.0
_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Letter:
    """Plain text for one address."""

    to: str
    subject: str
    text: str = field(repr=False)


class Mailer(Protocol):
    """Sends one letter, in a thread."""

    def send(self, letter: Letter) -> None:
        """Send it; raises OSError or SMTPException."""


@dataclass(frozen=True, slots=True)
class SmtpMailer:
    """A mail server; `security` is how TLS begins: `tls`, `starttls`, or `none` on this machine."""

    host: str
    port: int
    sender: str
    security: str = "starttls"
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def send(self, letter: Letter) -> None:
        """Send one letter over a connection of its own; raises OSError or SMTPException."""
        message = EmailMessage(policy=SMTP)
        message["From"] = self.sender
        message["To"] = letter.to
        message["Subject"] = letter.subject
        message.set_content(letter.text)
        with self._connect() as server:
            if self.user is not None:
                server.login(self.user, self.password or "")
            server.send_message(message)

    def _connect(self) -> smtplib.SMTP:
        # How we introduce ourselves; by default a name server would be asked for it.
        own = self.sender.rpartition("@")[2]
        if self.security == "tls":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(self.host, self.port, own, timeout=_TIMEOUT_S, context=context)
        server = smtplib.SMTP(self.host, self.port, own, timeout=_TIMEOUT_S)
        if self.security == "starttls":
            try:
                server.starttls(context=ssl.create_default_context())
            except BaseException:
                server.close()
                raise
        return server


class NullMailer:
    """No mail server: letters are printed in the log, for whoever runs the installation."""

    def send(self, letter: Letter) -> None:
        """Print one letter."""
        _log.warning("mail_printed", to=letter.to, subject=letter.subject, text=letter.text)


def find_mailer(
    *,
    host: str | None,
    port: int,
    sender: str,
    security: str,
    user: str | None,
    password: str | None,
) -> Mailer:
    """Return the mailer of this mail server; without one (`host` None), the log."""
    if host is None:
        return NullMailer()
    return SmtpMailer(host, port, sender, security, user, password)


class Post:
    """The letters that wait for the mailer."""

    def __init__(
        self, mailer: Mailer, *, most: int = _MOST_WAITING, pause_s: float = _PAUSE_S
    ) -> None:
        self._mailer = mailer
        self._most = most
        # More than are let in: those who had asked for room before the last of it was gone.
        self._waiting: asyncio.Queue[Letter] = asyncio.Queue(most + most // _SPARE)
        self._pause_s = pause_s

    def has_room(self) -> bool:
        """Whether whoever asks now can have a letter sent."""
        return self._waiting.qsize() < self._most

    def put(self, letter: Letter) -> bool:
        """Take a letter; False, and a line in the log, when too many wait."""
        try:
            self._waiting.put_nowait(letter)
        except asyncio.QueueFull:
            _log.error("mail_refused", subject=letter.subject, reason="too many letters wait")
            return False
        return True

    async def run(self) -> None:
        """Send letters as they come, until cancelled."""
        while True:
            letter = await self._waiting.get()
            await self._send(letter)
            self._waiting.task_done()

    async def settle(self) -> None:
        """Wait until every letter so far is sent or given up."""
        await self._waiting.join()

    async def _send(self, letter: Letter) -> None:
        for attempt in range(1, _TRIES + 1):
            try:
                await asyncio.to_thread(self._mailer.send, letter)
            except (OSError, ValueError, smtplib.SMTPException) as error:
                failure = type(error).__name__
                _log.warning("mail_failed", subject=letter.subject, error=failure, attempt=attempt)
                if attempt < _TRIES:
                    await asyncio.sleep(self._pause_s)
            else:
                return
